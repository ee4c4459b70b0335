//! File, environment and flags: who wins, and what is said about bad input.

use std::net::SocketAddr;

use pool_config::{Inputs, LoadError, Loader, Outcome, Source, load_from};

pool_config::settings! {
    /// Settings of a binary that only these tests know.
    struct AgentConfig in "agent" {
        /// Where it listens.
        /// (Second line.)
        rpc_listen: SocketAddr = "127.0.0.1:7401",
        /// Idle time, milliseconds.
        idle_ttl_ms: u64 = "600000",
        /// Whether to look.
        look: bool = "true",
        /// A name, or none.
        nick: Option<String> = "",
        /// A number, or none.
        limit: Option<u8> = "",
    }
}

const NO_ENV: [(&str, &str); 0] = [];
const NO_ARGS: [&str; 0] = [];

fn refused(args: &[&str], env: &[(&str, &str)], toml: &str) -> LoadError {
    load_from::<AgentConfig>(args.iter().copied(), env.iter().copied(), Some(toml))
        .expect_err("these inputs are bad")
}

#[test]
fn defaults_hold_when_nothing_is_given() {
    let loaded = load_from::<AgentConfig>(NO_ARGS, NO_ENV, None).unwrap();
    assert_eq!(loaded.config.rpc_listen.port(), 7401);
    assert_eq!(loaded.config.idle_ttl_ms, 600_000);
    assert!(loaded.config.look);
    assert_eq!(loaded.config.nick, None);
    assert_eq!(loaded.config.limit, None);
    assert_eq!(loaded.layout.root(), std::path::Path::new("/var/lib/wrenn"));
}

#[test]
fn file_gives_way_to_environment_and_environment_to_flags() {
    let toml = "[agent]\nidle_ttl_ms = 1\nlook = false\nnick = \"file\"\nlimit = 7";
    let env = [("WRENN_AGENT_IDLE_TTL_MS", "2"), ("WRENN_AGENT_NICK", "env")];
    let args = ["--idle-ttl-ms", "3", "--wrenn-dir=/srv/none"];
    let loaded = load_from::<AgentConfig>(args, env, Some(toml)).unwrap();
    assert_eq!(loaded.config.idle_ttl_ms, 3);
    assert_eq!(loaded.config.nick.as_deref(), Some("env"));
    assert_eq!(loaded.config.limit, Some(7));
    assert!(!loaded.config.look);
    assert_eq!(loaded.layout.root(), std::path::Path::new("/srv/none"));
}

#[test]
fn directory_flag_wins_over_its_variable() {
    let env = [("WRENN_DIR", "/srv/env")];
    let from_env = load_from::<AgentConfig>(NO_ARGS, env, None).unwrap();
    assert_eq!(from_env.layout.root(), std::path::Path::new("/srv/env"));
    let both = load_from::<AgentConfig>(["--wrenn-dir", "/srv/flag"], env, None).unwrap();
    assert_eq!(both.layout.root(), std::path::Path::new("/srv/flag"));
}

#[test]
fn every_bad_value_is_reported_at_once_with_its_origin() {
    let error = refused(
        &["--idle-ttl-ms", "-5"],
        &[("WRENN_AGENT_LIMIT", "300"), ("WRENN_AGENT_IDLE_TTL", "1")],
        "[agent]\nrpc_listen = \"localhost\"\nlook = \"maybe\"\nrpc_port = 1",
    );
    let names: Vec<&str> = error.bad.iter().map(|bad| bad.name.as_str()).collect();
    assert_eq!(names, ["rpc_port", "rpc_listen", "look", "idle_ttl", "limit", "idle_ttl_ms"]);
    assert_eq!(error.bad[5].from, Source::Flag("--idle-ttl-ms".to_owned()));
    assert_eq!(error.bad[5].given, "-5");
    assert_eq!(error.bad[4].from, Source::Env("WRENN_AGENT_LIMIT".to_owned()));
    assert!(matches!(error.bad[1].from, Source::File(_)));
    let text = error.to_string();
    assert!(text.starts_with("test: 6 bad settings\n"), "{text}");
    assert!(text.contains("rpc_listen: `localhost` from /var/lib/wrenn/config.toml"), "{text}");
    assert!(text.contains("expected SocketAddr such as `127.0.0.1:7401`"), "{text}");
    assert!(text.contains("a key of [agent] such as idle_ttl_ms"), "{text}");
}

#[test]
fn bad_lower_layer_is_forgiven_when_a_higher_one_overrides_it() {
    let toml = "[agent]\nidle_ttl_ms = \"soon\"";
    let loaded = load_from::<AgentConfig>(["--idle-ttl-ms=9"], NO_ENV, Some(toml)).unwrap();
    assert_eq!(loaded.config.idle_ttl_ms, 9);
}

#[test]
fn sections_of_other_binaries_pass_and_unknown_ones_do_not() {
    let fine = "[edge]\nanything = 1\n[pager]\n";
    assert!(load_from::<AgentConfig>(NO_ARGS, NO_ENV, Some(fine)).is_ok());
    let error = refused(&[], &[], "top = 1\n[agnet]\n");
    assert_eq!(error.bad.len(), 2);
    assert!(error.to_string().contains("agnet"), "{error}");
}

#[test]
fn variables_of_other_sections_are_not_ours_to_refuse() {
    let env = [("WRENN_EDGE_NONSENSE", "1"), ("WRENN_API_KEY", "k"), ("PATH", "/bin")];
    assert!(load_from::<AgentConfig>(NO_ARGS, env, None).is_ok());
}

#[test]
fn broken_toml_arrays_and_a_section_that_is_none_are_refused_with_their_place() {
    let broken = refused(&[], &[], "[agent]\nlook = \n");
    assert!(broken.to_string().contains("TOML (line 2"), "{broken}");
    let array = refused(&[], &[], "[agent]\nlook = [true]");
    assert!(array.to_string().contains("a string, a number or true/false"), "{array}");
    let scalar = refused(&[], &[], "agent = 3");
    assert!(scalar.to_string().contains("expected a section"), "{scalar}");
}

#[test]
fn unknown_flags_are_reported_together_with_bad_values() {
    let error = refused(&["--idel-ttl-ms", "1"], &[("WRENN_AGENT_LOOK", "si")], "");
    assert_eq!(error.bad.len(), 2);
    assert!(error.to_string().contains("--idel-ttl-ms"), "{error}");
}

#[test]
fn empty_text_is_none_for_an_option_and_bad_for_a_number() {
    let env = [("WRENN_AGENT_LIMIT", "")];
    let loaded = load_from::<AgentConfig>(NO_ARGS, env, Some("[agent]\nlimit = 3")).unwrap();
    assert_eq!(loaded.config.limit, None);
    let error = refused(&[], &[("WRENN_AGENT_IDLE_TTL_MS", "")], "");
    assert_eq!(error.bad[0].name, "idle_ttl_ms");
}

#[test]
fn help_shows_key_variable_default_and_doc() {
    let inputs = Inputs { args: vec!["--help".to_owned()], ..Inputs::default() };
    let Outcome::Print(text) = Loader::new("agent", "Runs things.")
        .command("reap", "Destroys everything of this installation")
        .load_from::<AgentConfig>(&inputs)
        .unwrap()
    else {
        panic!("help should print")
    };
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "--idle-ttl-ms",
        "Idle time, milliseconds.",
        "[key: idle_ttl_ms]",
        "[env: WRENN_AGENT_IDLE_TTL_MS]",
        "[default: 600000]",
        "WRENN_DIR",
        "Where it listens. (Second line.)",
        "reap: Destroys everything",
    ] {
        assert!(flat.contains(part), "{part} in {text}");
    }
}

#[test]
fn printed_config_is_toml_that_loads_to_the_same_values() {
    let inputs = Inputs {
        args: vec!["--print-config".to_owned(), "--nick=a \"b\"".to_owned()],
        ..Inputs::default()
    };
    let Outcome::Print(text) = Loader::new("agent", "").load_from::<AgentConfig>(&inputs).unwrap()
    else {
        panic!("should print")
    };
    assert!(text.contains("idle_ttl_ms = 600000 # the default"), "{text}");
    let again = load_from::<AgentConfig>(NO_ARGS, NO_ENV, Some(&text)).unwrap();
    assert_eq!(again.config.nick.as_deref(), Some("a \"b\""));
    assert_eq!(again.config.limit, None);
}

#[test]
fn declared_command_is_passed_on_and_an_undeclared_one_refused() {
    let inputs = |word: &str| Inputs { args: vec![word.to_owned()], ..Inputs::default() };
    let loader = Loader::new("agent", "").command("reap", "x");
    let Ok(Outcome::Run(loaded)) = loader.load_from::<AgentConfig>(&inputs("reap")) else {
        panic!("reap should run")
    };
    assert_eq!(loaded.command, Some("reap"));
    assert!(loader.load_from::<AgentConfig>(&inputs("sow")).is_err());
    assert!(Loader::new("agent", "").load_from::<AgentConfig>(&inputs("reap")).is_err());
}

#[test]
fn config_file_of_the_directory_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let args = vec![format!("--wrenn-dir={}", dir.path().display())];
    let inputs = Inputs { args, ..Inputs::default() };
    let load = || match Loader::new("agent", "").load_from::<AgentConfig>(&inputs) {
        Ok(Outcome::Run(loaded)) => Ok(loaded.config.idle_ttl_ms),
        other => Err(format!("{other:?}")),
    };
    assert_eq!(load(), Ok(600_000));
    std::fs::write(dir.path().join("config.toml"), "[agent]\nidle_ttl_ms = 5\n").unwrap();
    assert_eq!(load(), Ok(5));
    std::fs::write(dir.path().join("config.toml"), "#".repeat((1 << 20) + 1)).unwrap();
    assert!(load().is_err_and(|e| e.contains("at most")));
}
