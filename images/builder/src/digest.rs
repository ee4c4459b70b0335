//! Keys outputs by what they are made of.
//!
//! Every input goes in with its name and length, so that no two sets of inputs make one key by being joined differently.

use crate::error::BuildError;
use std::fs::File;
use std::path::Path;

/// Raised when the builder makes other bytes from the same inputs.
const BUILDER_VERSION: &str = "1";

/// Collects the inputs of one output.
#[derive(Debug)]
pub(crate) struct Inputs(blake3::Hasher);

impl Inputs {
    /// Starts with what is made and the builder's version.
    pub(crate) fn of(output: &str) -> Self {
        Self(blake3::Hasher::new()).with("output", output).with("builder", BUILDER_VERSION)
    }

    /// Adds one input.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        for part in [name.as_bytes(), value.as_ref()] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// The key: 64 hex digits.
    pub(crate) fn key(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

/// The digest of a file's contents, 64 hex digits.
///
/// # Errors
///
/// If the file can't be read.
pub(crate) fn file_digest(path: &Path) -> Result<String, BuildError> {
    let file = File::open(path).map_err(BuildError::file("open", path))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(BuildError::file("read", path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// A UUID that is the same for the same key, in the form that `mke2fs -U` takes.
pub(crate) fn uuid_of(key: &str) -> String {
    let hex = blake3::hash(key.as_bytes()).to_hex();
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_inputs_make_equal_keys() {
        let key = || Inputs::of("rootfs").with("packages", "git\ncurl").key();
        assert_eq!(key(), key());
        assert_eq!(key().len(), 64);
    }

    #[test]
    fn any_other_input_makes_another_key() {
        let keys = [
            Inputs::of("rootfs").with("packages", "git").key(),
            Inputs::of("rootfs").with("packages", "gi").with("t", "").key(),
            Inputs::of("rootfs").with("packagesg", "it").key(),
            Inputs::of("rootfsp").with("ackages", "git").key(),
            Inputs::of("kernel").with("packages", "git").key(),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn uuids_have_the_form_of_version_4() {
        let uuid = uuid_of("key");
        assert_eq!(uuid, uuid_of("key"));
        assert_ne!(uuid, uuid_of("other"));
        let lengths: Vec<_> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(&uuid[14..15], "4");
    }
}
