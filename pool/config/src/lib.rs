//! One config model and one directory layout for every binary.
//!
//! ```text
//! config.toml [section] key  <  WRENN_SECTION_KEY  <  --key
//! ```
//!
//! A binary declares its keys once with [`settings!`]; from that one declaration come the TOML
//! key, the environment variable, the flag, the default and the help text.
//!
//! # Invariants
//!
//! - Nothing is bound or written before every value was checked; all bad values are reported in
//!   one go, each with its name, where it came from and what was expected.
//! - Unknown keys, unknown sections and unknown `WRENN_<SECTION>_` variables are refused.
//! - Values are never secrets: those live in files below [`Layout::secrets_dir`].
//!
//! # Limits
//!
//! `config.toml` may be up to 1 MiB.

mod flags;
mod kernel;
mod layout;
mod load;
mod pid_lock;
mod report;
mod settings;
mod sources;

pub use kernel::{Kernel, NoKernel};
pub use layout::Layout;
pub use load::{DEFAULT_WRENN_DIR, Inputs, Loaded, Loader, Outcome, load, load_from};
pub use pid_lock::PidLockError;
pub use report::{BadValue, EX_USAGE, LoadError, Source};
pub use settings::{Key, Settings, Values};
#[doc(hidden)]
pub use settings::{PlainText, Probe};
