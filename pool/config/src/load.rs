//! Reads file, environment and flags into one checked set of settings.

use std::{collections::BTreeMap, fmt::Write, process};

use crate::{
    Layout,
    flags::{self, Flags},
    report::{BadValue, LoadError, Source},
    settings::{Settings, Values},
    sources,
};

/// Where an installation is when nothing else is said.
pub const DEFAULT_WRENN_DIR: &str = "/var/lib/wrenn";

/// Checked settings and the directory they are for.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    /// The settings.
    pub config: C,
    /// Where the installation is.
    pub layout: Layout,
    /// The sub-command given, one of those declared with [`Loader::command`].
    pub command: Option<&'static str>,
}

/// What the command line asked for.
#[derive(Debug)]
pub enum Outcome<C> {
    /// To run with these settings.
    Run(Loaded<C>),
    /// To print this text and end well: `--help`, `--version`, `--print-config`.
    Print(String),
}

/// Where settings are read from; tests pass their own.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The arguments, without the program's name.
    pub args: Vec<String>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// The text of `config.toml` in place of the file's.
    pub toml: Option<String>,
}

impl Inputs {
    /// This process's arguments and environment. Text that is not UTF-8 is kept readable.
    #[must_use]
    pub fn of_process() -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self {
            args: std::env::args_os().skip(1).map(lossy).collect(),
            env: std::env::vars_os().map(|(k, v)| (lossy(k), lossy(v))).collect(),
            toml: None,
        }
    }
}

/// Loads the settings of one binary; see [`load`] for the usual case.
#[derive(Debug, Clone)]
pub struct Loader {
    pub(crate) binary: &'static str,
    pub(crate) about: &'static str,
    pub(crate) commands: Vec<(&'static str, &'static str)>,
}

/// Loads this process's settings. Answers `--help`, `--version` and `--print-config` itself.
///
/// # Errors
///
/// [`LoadError`] with every bad value; [`LoadError::exit`] prints it and exits 64.
pub fn load<C: Settings>(
    binary: &'static str,
    about: &'static str,
) -> Result<Loaded<C>, LoadError> {
    Loader::new(binary, about).load()
}

/// Loads from the given arguments, environment and TOML text: for tests.
///
/// # Errors
///
/// [`LoadError`] with every bad value.
///
/// # Panics
///
/// If the arguments ask for help instead of a run.
pub fn load_from<C: Settings>(
    args: impl IntoIterator<Item = impl Into<String>>,
    env: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    toml: Option<&str>,
) -> Result<Loaded<C>, LoadError> {
    let inputs = Inputs {
        args: args.into_iter().map(Into::into).collect(),
        env: env.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
        toml: Some(toml.unwrap_or_default().to_owned()),
    };
    match Loader::new("test", "").load_from(&inputs)? {
        Outcome::Run(loaded) => Ok(loaded),
        Outcome::Print(text) => panic!("expected a run, was asked to print:\n{text}"),
    }
}

impl Loader {
    /// A loader for this binary; `about` is the first line of its help.
    #[must_use]
    pub const fn new(binary: &'static str, about: &'static str) -> Self {
        Self { binary, about, commands: Vec::new() }
    }

    /// Declares a sub-command without arguments of its own: `agent reap`.
    #[must_use]
    pub fn command(mut self, name: &'static str, doc: &'static str) -> Self {
        self.commands.push((name, doc));
        self
    }

    /// Loads this process's settings.
    ///
    /// # Errors
    ///
    /// [`LoadError`] with every bad value.
    pub fn load<C: Settings>(&self) -> Result<Loaded<C>, LoadError> {
        match self.load_from(&Inputs::of_process())? {
            Outcome::Run(loaded) => Ok(loaded),
            Outcome::Print(text) => {
                println!("{}", text.trim_end());
                process::exit(0)
            }
        }
    }

    /// Loads from these inputs.
    ///
    /// # Errors
    ///
    /// [`LoadError`] with every bad value.
    pub fn load_from<C: Settings>(&self, inputs: &Inputs) -> Result<Outcome<C>, LoadError> {
        let mut values = Values::default();
        let flags = match flags::parse::<C>(self, &inputs.args, &mut values.bad) {
            Flags::Print(text) => return Ok(Outcome::Print(text)),
            Flags::Given(flags) => flags,
        };
        let root = flags.wrenn_dir.or_else(|| inputs.env.get("WRENN_DIR").cloned());
        let layout = Layout::new(root.unwrap_or_else(|| DEFAULT_WRENN_DIR.to_owned()));
        let path = layout.config_file();
        if let Some(text) = sources::read_toml(inputs, &path, &mut values.bad) {
            sources::from_file::<C>(&text, &path, &mut values);
        }
        sources::from_env::<C>(&inputs.env, &mut values);
        for (name, text, flag) in flags.values {
            values.texts.insert(name, (text, Source::Flag(flag)));
        }
        let config = C::from_values(&mut values);
        match config {
            Some(config) if values.bad.is_empty() => Ok(if flags.print_config {
                Outcome::Print(as_toml::<C>(&values))
            } else {
                Outcome::Run(Loaded { config, layout, command: flags.command })
            }),
            _ => {
                let order = |bad: &BadValue| match bad.from {
                    Source::Default => 0,
                    Source::File(_) => 1,
                    Source::Env(_) => 2,
                    Source::Flag(_) => 3,
                };
                values.bad.sort_by_key(order);
                Err(LoadError { binary: self.binary.to_owned(), bad: values.bad })
            }
        }
    }
}

fn as_toml<C: Settings>(values: &Values) -> String {
    let mut text = format!("[{}]\n", C::SECTION);
    for key in C::KEYS {
        let default = (key.default.to_owned(), Source::Default);
        let (value, from) = values.texts.get(key.name).unwrap_or(&default);
        let bare = value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok();
        let value =
            if bare { value.clone() } else { toml::Value::from(value.as_str()).to_string() };
        writeln!(text, "{} = {value} # {from}", key.name).expect("writing to a string cannot fail");
    }
    text
}
