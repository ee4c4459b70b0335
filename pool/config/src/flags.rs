//! The top layer: the command line, as clap reads it.

use clap::{Arg, ArgAction, Command};

use crate::{
    DEFAULT_WRENN_DIR, Loader,
    report::{BadValue, Source},
    settings::{Key, Settings},
};

/// What the arguments said.
pub(crate) enum Flags {
    Print(String),
    Given(Given),
}

/// The arguments, before any value is checked.
#[derive(Default)]
pub(crate) struct Given {
    pub(crate) wrenn_dir: Option<String>,
    pub(crate) print_config: bool,
    pub(crate) command: Option<&'static str>,
    pub(crate) values: Vec<(&'static str, String, String)>,
}

pub(crate) fn parse<C: Settings>(
    loader: &Loader,
    args: &[String],
    bad: &mut Vec<BadValue>,
) -> Flags {
    let argv = std::iter::once(loader.binary).chain(args.iter().map(String::as_str));
    let matches = match clap::<C>(loader).try_get_matches_from(argv) {
        Ok(matches) => matches,
        Err(e) if e.exit_code() == 0 => return Flags::Print(e.to_string()),
        Err(e) => {
            bad.push(unusable_arguments(args, &e));
            return Flags::Given(Given::default());
        }
    };
    let mut given = Given {
        wrenn_dir: matches.get_one::<String>("wrenn_dir").cloned(),
        print_config: matches.get_flag("print_config"),
        ..Given::default()
    };
    for key in C::KEYS {
        if let Some(text) = matches.get_one::<String>(key.name) {
            given.values.push((key.name, text.clone(), format!("--{}", key.flag())));
        }
    }
    let name = matches.try_get_one::<String>("command").ok().flatten();
    given.command = name.and_then(|name| {
        loader.commands.iter().find(|(known, _)| known == name).map(|(known, _)| *known)
    });
    Flags::Given(given)
}

fn clap<C: Settings>(loader: &Loader) -> Command {
    let mut clap = Command::new(loader.binary)
        .version(env!("CARGO_PKG_VERSION"))
        .about(loader.about)
        .after_help(format!(
            "Settings come from {{WRENN_DIR}}/config.toml, section [{}], then the environment, \
             then flags; the last one wins.",
            C::SECTION
        ))
        .arg(Arg::new("wrenn_dir").long("wrenn-dir").value_name("DIR").help(format!(
            "Where the installation is [env: WRENN_DIR] [default: {DEFAULT_WRENN_DIR}]"
        )))
        .arg(
            Arg::new("print_config")
                .long("print-config")
                .action(ArgAction::SetTrue)
                .help("Print the effective settings as TOML and exit"),
        )
        .args(C::KEYS.iter().map(|key| flag_of(key, C::SECTION)));
    if !loader.commands.is_empty() {
        let names: Vec<&str> = loader.commands.iter().map(|(name, _)| *name).collect();
        let lines: Vec<String> =
            loader.commands.iter().map(|(name, doc)| format!("{name}: {doc}")).collect();
        clap = clap.arg(
            Arg::new("command").value_name("COMMAND").value_parser(names).help(lines.join("; ")),
        );
    }
    clap
}

fn flag_of(key: &'static Key, section: &str) -> Arg {
    let default = if key.default.is_empty() { "none" } else { key.default };
    Arg::new(key.name)
        .long(key.flag())
        .value_name(key.kind.to_uppercase().replace(' ', ""))
        .allow_hyphen_values(true)
        .help(format!(
            "{} [key: {}] [env: {}] [default: {default}]",
            key.doc.trim(),
            key.name,
            key.env(section)
        ))
}

fn unusable_arguments(args: &[String], error: &clap::Error) -> BadValue {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    BadValue {
        name: "arguments".to_owned(),
        given: args.join(" ").chars().take(200).collect(),
        from: Source::Flag("command line".to_owned()),
        expected: format!("what --help lists ({})", line.trim_start_matches("error: ")),
    }
}
