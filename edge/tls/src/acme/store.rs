//! What of ACME is kept on disk, so that a restart orders nothing again?
//!
//! ```text
//! <dir>/<host of the authority>-<digest>/
//!   account.json      0600, our account with its key
//!   orders.json       when we ordered lately, for the cap
//!   lock              held by the one process that orders
//!   certs/<name>.pem  0600, key and chain in one file, so that they are never mixed
//! ```
//!
//! One directory per authority: a certificate of a test authority must not be taken for a real one.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::digest;
use jiff::{Timestamp, ToSpan as _};
use nix::fcntl::{Flock, FlockArg};

use super::AcmeConfig;
use crate::{
    entry::Entry,
    error::TlsError,
    files::{loose_mode, make_dir, read, write},
};

/// Most stored certificates that are looked at.
const STORED_MAX: usize = 100_000;

/// The directory of one authority.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    orders_per_hour: u32,
    lock: Mutex<Option<Flock<File>>>,
}

impl Store {
    /// Makes the directories that are missing.
    pub(crate) fn open(config: &AcmeConfig) -> Result<Self, TlsError> {
        let url = &config.directory;
        let host = url.split('/').nth(2).unwrap_or_default();
        let host: String = host
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
            .take(100)
            .collect();
        let digest = digest::digest(&digest::SHA256, url.as_bytes());
        let tail: String = digest.as_ref().iter().take(4).map(|b| format!("{b:02x}")).collect();
        let root = config.dir.join(format!("{host}-{tail}"));
        make_dir(&root.join("certs"))?;
        let orders_per_hour = config.orders_per_hour;
        Ok(Self { root, orders_per_hour, lock: Mutex::new(None) })
    }

    /// Where the account is kept.
    pub(crate) fn account(&self) -> PathBuf {
        self.root.join("account.json")
    }

    /// Where certificates are kept; it changes when one of them does.
    pub(crate) fn certs_dir(&self) -> PathBuf {
        self.root.join("certs")
    }

    fn cert(&self, id: &str) -> PathBuf {
        self.certs_dir().join(format!("{id}.pem"))
    }

    /// Every certificate with its id, or why it can't be used.
    pub(crate) fn load(&self, word: &'static str) -> Vec<(String, Result<Entry, TlsError>)> {
        let Ok(files) = fs::read_dir(self.certs_dir()) else { return Vec::new() };
        let mut paths: Vec<_> = files.filter_map(|file| Some(file.ok()?.path())).collect();
        paths.sort();
        let mut all = Vec::new();
        for path in paths.into_iter().take(STORED_MAX) {
            let is_pem = path.extension().is_some_and(|extension| extension == "pem");
            let Some(id) = path.file_stem().and_then(|id| id.to_str()).filter(|_| is_pem) else {
                continue; // half-written, by somebody who died
            };
            all.push((id.to_owned(), load(id, word, &path)));
        }
        all
    }

    /// Keeps a key and a chain under `id`, a checked host name.
    pub(crate) fn save(&self, id: &str, key: &str, chain: &str) -> Result<(), TlsError> {
        write(&self.cert(id), &format!("{}\n{chain}", key.trim_end()), 0o600)
    }

    /// Forgets a certificate.
    pub(crate) fn remove(&self, id: &str) {
        let _ = fs::remove_file(self.cert(id)); // it may never have been there
    }

    /// Whether this process may order: only one does, the others take over what it stores.
    pub(crate) fn may_order(&self) -> bool {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(self.root.join("lock"));
            *lock =
                file.ok().and_then(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).ok());
        }
        lock.is_some()
    }

    /// Lets another process order.
    pub(crate) fn release(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes an order before it is made; if the hour's are used up, says when the next may be.
    pub(crate) fn take_order(&self, now: Timestamp) -> Result<(), Timestamp> {
        let path = self.root.join("orders.json");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut times: Vec<Timestamp> = serde_json::from_str(&text).unwrap_or_default();
        let hour_ago = now - 1.hour();
        times.retain(|time| (hour_ago..=now).contains(time));
        let cap = usize::try_from(self.orders_per_hour).unwrap_or(usize::MAX);
        if let Some(oldest) = times.len().checked_sub(cap).and_then(|index| times.get(index)) {
            return Err(*oldest + 1.hour());
        }
        times.push(now);
        let written = write(&path, &serde_json::json!(times).to_string(), 0o600);
        written.map_err(|error| {
            // Without a note a crash loop would be unbounded.
            tracing::warn!(error = error.chain(), "no certificate is ordered");
            now + 1.minute()
        })
    }
}

fn load(id: &str, word: &'static str, path: &Path) -> Result<Entry, TlsError> {
    let text = read(path)?;
    let entry = Entry::from_pem(id, word, (&text, &text), &path.display().to_string())?;
    Ok(entry.warn(loose_mode(path)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

    use super::*;

    fn store(dir: &Path, directory: &str) -> Store {
        let mut config = AcmeConfig::new(directory, dir.to_owned());
        config.orders_per_hour = 2;
        Store::open(&config).unwrap()
    }

    #[test]
    fn orders_of_an_hour_are_counted_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let start: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        assert_eq!(store(dir.path(), "https://a/d").take_order(start), Ok(()));
        assert_eq!(store(dir.path(), "https://a/d").take_order(start + 10.minutes()), Ok(()));
        let again = store(dir.path(), "https://a/d");
        assert_eq!(again.take_order(start + 20.minutes()), Err(start + 60.minutes()));
        assert_eq!(store(dir.path(), "https://b/d").take_order(start), Ok(()), "another authority");
        assert_eq!(again.take_order(start + 61.minutes()), Ok(()));
        assert_eq!(again.take_order(start + 62.minutes()), Err(start + 70.minutes()));
    }

    #[test]
    fn only_one_orders_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = [(); 2].map(|()| store(dir.path(), "https://a/d"));
        assert!(first.may_order() && first.may_order());
        assert!(!second.may_order());
        first.release();
        assert!(second.may_order());
        assert!(!first.may_order());
    }

    #[test]
    fn bad_file_in_the_store_is_told_and_the_others_are_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), "https://a:1/d");
        let (cert, key) = crate::local::placeholder("x").unwrap();
        store.save("good.example.com", &key, &cert).unwrap();
        fs::write(store.certs_dir().join("bad.example.com.pem"), "nonsense").unwrap();
        fs::write(store.certs_dir().join("half.example.com.pem.1-0.new"), &cert).unwrap();
        let loaded = store.load("acme");
        assert_eq!(loaded.len(), 2);
        assert_eq!((loaded[0].0.as_str(), loaded[0].1.is_err()), ("bad.example.com", true));
        assert_eq!((loaded[1].0.as_str(), loaded[1].1.is_ok()), ("good.example.com", true));
        store.remove("good.example.com");
        assert_eq!(store.load("acme").len(), 1);
    }
}
