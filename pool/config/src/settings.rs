//! The `settings!` macro: one declaration per binary.

use std::{collections::BTreeMap, fmt::Display, marker::PhantomData, str::FromStr};

use crate::report::{BadValue, Source};

/// One key of a binary's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The name in TOML, unit last: `idle_ttl_ms`.
    pub name: &'static str,
    /// What it is, as shown by `--help`.
    pub doc: &'static str,
    /// The text that is parsed when nothing else is given.
    pub default: &'static str,
    /// The Rust type, for "expected".
    pub kind: &'static str,
}

impl Key {
    /// The environment variable: `WRENN_AGENT_IDLE_TTL_MS`.
    #[must_use]
    pub fn env(&self, section: &str) -> String {
        format!("WRENN_{}_{}", section.to_uppercase(), self.name.to_uppercase())
    }

    /// The flag without its dashes: `idle-ttl-ms`.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }
}

/// The winning text of each key and where it came from.
#[derive(Debug, Default)]
pub struct Values {
    pub(crate) texts: BTreeMap<&'static str, (String, Source)>,
    pub(crate) bad: Vec<BadValue>,
}

impl Values {
    /// Parses the text of `key`; a text that does not parse is remembered for the report.
    pub fn take<T>(
        &mut self,
        key: &Key,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let default = (key.default.to_owned(), Source::Default);
        let (text, source) = self.texts.get(key.name).unwrap_or(&default);
        match parse(text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.bad.push(BadValue {
                    name: key.name.to_owned(),
                    given: text.chars().take(200).collect(),
                    from: source.clone(),
                    expected: expected(key, &reason),
                });
                None
            }
        }
    }
}

fn expected(key: &Key, reason: &str) -> String {
    if key.default.is_empty() {
        format!("{} ({reason})", key.kind)
    } else {
        format!("{} such as `{}` ({reason})", key.kind, key.default)
    }
}

/// What [`settings!`](crate::settings) implements.
pub trait Settings: Sized {
    /// The TOML section, and the middle of the environment variables.
    const SECTION: &'static str;
    /// Every key, in the order of declaration.
    const KEYS: &'static [Key];

    /// Makes the settings; `None` if a value is bad (then [`Values`] has the reasons).
    fn from_values(values: &mut Values) -> Option<Self>;
}

/// Chooses how a field's type is read: `Option<T>` takes "" as none, anything else is `FromStr`.
#[doc(hidden)]
#[derive(Debug)]
pub struct Probe<T>(PhantomData<T>);

impl<T> Probe<T> {
    #[doc(hidden)]
    #[must_use]
    #[allow(clippy::new_without_default, reason = "only the macro calls it")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: FromStr<Err: Display>> Probe<Option<T>> {
    #[doc(hidden)]
    pub fn parse(&self, text: &str) -> Result<Option<T>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|e: T::Err| e.to_string())
    }
}

/// The fallback of [`Probe`]: an inherent method wins over a trait's where both apply.
#[doc(hidden)]
pub trait PlainText<T> {
    #[doc(hidden)]
    fn parse(&self, text: &str) -> Result<T, String>;
}

impl<T: FromStr<Err: Display>> PlainText<T> for Probe<T> {
    fn parse(&self, text: &str) -> Result<T, String> {
        text.parse().map_err(|e: T::Err| e.to_string())
    }
}

/// Declares a binary's settings.
///
/// A field's type is anything that is `FromStr` with a `Display` error, or an `Option` of it
/// (then "" means none). The default is a text and is parsed like any other.
///
/// ```
/// pool_config::settings! {
///     /// What the agent needs to start.
///     pub struct AgentConfig in "agent" {
///         /// Where the RPC server listens.
///         rpc_listen: std::net::SocketAddr = "127.0.0.1:7401",
///         /// Idle warm sandboxes older than this are reaped, milliseconds.
///         idle_ttl_ms: u64 = "600000",
///     }
/// }
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        $vis:vis struct $name:ident in $section:literal {
            $(
                $(#[doc = $doc:literal])+
                $field:ident : $ty:ty = $default:literal
            ),+ $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone)]
        $vis struct $name {
            $(
                $(#[doc = $doc])+
                pub $field: $ty,
            )+
        }

        impl $crate::Settings for $name {
            const SECTION: &'static str = $section;
            const KEYS: &'static [$crate::Key] = &[
                $($crate::Key {
                    name: stringify!($field),
                    doc: concat!($($doc),+),
                    default: $default,
                    kind: stringify!($ty),
                }),+
            ];

            fn from_values(values: &mut $crate::Values) -> Option<Self> {
                #[allow(unused_imports, reason = "unused where every field is an Option")]
                use $crate::PlainText as _;
                let mut keys = Self::KEYS.iter();
                // All fields are read before any is required: all bad values are reported.
                $(let $field = {
                    let key = keys.next().expect("one key per field");
                    values.take(key, |text| $crate::Probe::<$ty>::new().parse(text))
                };)+
                Some(Self { $($field: $field?),+ })
            }
        }
    };
}
