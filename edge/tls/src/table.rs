//! Which certificate answers a name?
//!
//! Built anew for each change and then only read, so that handshakes take no lock.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use crate::entry::Entry;

/// Certificates by name.
#[derive(Debug)]
pub(crate) struct Table {
    /// All of them, the default first. Never empty.
    entries: Vec<Arc<Entry>>,
    exact: HashMap<String, usize>,
    /// By what follows `*.`.
    wildcard: HashMap<String, usize>,
}

impl Table {
    /// A table whose default is the first entry; of two with one name, the first answers it.
    ///
    /// # Panics
    ///
    /// If there is no entry at all.
    pub(crate) fn new(entries: Vec<Arc<Entry>>) -> Self {
        assert!(!entries.is_empty(), "a table has a default");
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for (index, entry) in entries.iter().enumerate() {
            for name in &entry.facts.names {
                match name.strip_prefix("*.") {
                    Some(rest) => wildcard.entry(rest.to_owned()).or_insert(index),
                    None => exact.entry(name.clone()).or_insert(index),
                };
            }
        }
        Self { entries, exact, wildcard }
    }

    /// The certificate of a name: its own, or one for `*.` and what follows the first label.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Entry>> {
        let name = lower(name);
        let by_wildcard = || self.wildcard.get(name.split_once('.')?.1);
        let index = self.exact.get(name.as_ref()).or_else(by_wildcard)?;
        self.entries.get(*index)
    }

    /// The certificate for clients that name nobody, or somebody unknown.
    pub(crate) fn default(&self) -> &Arc<Entry> {
        &self.entries[0]
    }

    /// All of them, the default first.
    pub(crate) fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }
}

/// In lower case and without a final dot, copied only if it has to be.
pub(crate) fn lower(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn entry(id: &str, names: &[&str]) -> Arc<Entry> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Arc::new(Entry::from_pem(id, "test", (&cert.pem(), &key.serialize_pem()), id).unwrap())
    }

    #[test]
    fn exact_name_goes_before_wildcard_and_wildcard_before_nothing() {
        let table = Table::new(vec![
            entry("default", &["example.com", "*.example.com"]),
            entry("one", &["one.example.com"]),
            entry("late", &["example.com"]),
        ]);
        let find = |name: &str| table.find(name).map(|entry| entry.id.as_str());
        assert_eq!(find("one.example.com"), Some("one"));
        assert_eq!(find("ONE.Example.COM."), Some("one"), "case and final dot don't matter");
        assert_eq!(find("two.example.com"), Some("default"));
        assert_eq!(find("example.com"), Some("default"), "the first of two");
        for unknown in ["a.b.example.com", "com", "", ".example.com.", "example.com.evil"] {
            let expected = (unknown == ".example.com.").then_some("default");
            assert_eq!(find(unknown), expected, "{unknown}");
        }
        assert_eq!(table.default().id, "default");
    }

    #[test]
    fn wildcard_does_not_cover_the_bare_name() {
        let table = Table::new(vec![entry("wild", &["*.example.com"])]);
        assert!(table.find("example.com").is_none());
        assert!(table.find("a.example.com").is_some());
    }
}
