//! The command as a stranger uses it.

use std::process::{Command, Output};

use tokio::io::AsyncBufReadExt as _;

use crate::peer::Peer;

async fn loadtest(arguments: &[&str]) -> Output {
    let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
    let run = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command.args(arguments).env_remove("WRENN_DIR").output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_by_flags_is_saved_drawn_judged_and_compared() {
    let peer = Peer::start().await;
    let (url, ca) = (peer.url(), peer.ca_file().display().to_string());
    let at = |name: &str| peer.dir().join(name).display().to_string();
    let (json, html, budgets) = (at("a.json"), at("a.html"), at("budgets.toml"));
    let base = ["http", "--url", &url, "--ca-file", &ca, "--protocol", "all", "--requests", "60"];
    let output = loadtest(&[&base[..], &["--json", &json, "--html", &html]].concat()).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("HTTP/3"), "{}", said(&output));
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("<svg"));
    for outside in ["src=", "<link", "url(", "@import", "href=\"http"] {
        assert!(!page.contains(outside), "the page needs {outside}");
    }

    for (bound, code) in [("60000.0", 0), ("0.0001", 3)] {
        let text = format!(
            "[[budget]]\npart = \"http/*\"\nfigure = \"latency.p99_ms\"\nat_most = {bound}\n"
        );
        std::fs::write(&budgets, text).unwrap();
        let output = loadtest(&[&base[..], &["--quiet", "--budgets", &budgets]].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    }

    let output = loadtest(&["compare", &json, &json, "--force"]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("no difference"), "{}", said(&output));
    let other = at("b.json");
    let more = [&base[..8], &["80", "--quiet", "--json", &other]].concat();
    assert!(loadtest(&more).await.status.success());
    let output = loadtest(&["compare", &json, &other]).await;
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("load"), "{}", said(&output));
}

#[tokio::test]
async fn what_can_not_be_done_is_named() {
    for (arguments, expected) in [
        (&["http", "--url", "http://8.8.8.8/", "--requests", "1"][..], "--i-own-this-target"),
        (&["http", "--url", "ftp://127.0.0.1/", "--requests", "1"], "expected http:// or https://"),
        (&["invoke", "--wrenn-dir", "/nonexistent"], "run `make dev`"),
        (&["invoke", "--url", "http://127.0.0.1:1/"], "wrenn_dir"),
        (&["preset", "nothing"], "expected one of"),
        (&["run", "/nonexistent.toml"], "can't read the plan"),
        (&["compare", "/nonexistent", "/nonexistent"], "can't read"),
    ] {
        let output = loadtest(arguments).await;
        assert!(!output.status.success(), "{arguments:?}");
        assert!(said(&output).contains(expected), "{arguments:?}: {}", said(&output));
        assert!(!said(&output).contains("panicked"), "{}", said(&output));
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_result() {
    let output =
        loadtest(&["http", "--url", "http://127.0.0.1:9/", "--requests", "3", "--quiet"]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("connect"), "{}", said(&output));
}

#[tokio::test]
async fn a_run_that_is_ended_by_a_signal_says_so_and_keeps_what_it_measured() {
    let peer = Peer::start().await;
    let (url, json) = (format!("http://{}/", peer.clear()), peer.dir().join("a.json"));
    let mut run = tokio::process::Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["http", "--url", &url, "--rate", "50", "--duration", "600s", "--json"])
        .arg(&json)
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(run.stderr.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().unwrap().contains("measuring") {}
    let pid = nix::unistd::Pid::from_raw(run.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    // Its end is read, or it would wait for us to.
    while lines.next_line().await.unwrap().is_some() {}
    assert_eq!(run.wait().await.unwrap().code(), Some(130));
    let saved = std::fs::read_to_string(json).unwrap();
    assert!(saved.contains("interrupted"), "the saved run does not say so");
}

#[test]
fn the_plan_of_the_readme_is_one() {
    let readme = include_str!("../../README.md");
    let plan = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let plan = loadtest_model::Plan::from_toml(plan).unwrap();
    assert_eq!((plan.scenarios.len(), plan.chaos.len()), (1, 1));
}
