//! How are certificates ordered from an authority that speaks ACME?
//!
//! ```text
//! client.rs   HTTPS to the authority, bounded       account.rs  our account there
//! order.rs    one order from names to a chain       hook.rs     DNS records by a program
//! answers.rs  what validation connections are told  store.rs    what is kept on disk
//! schedule.rs when to renew, retry and refrain
//! ```

mod account;
mod answers;
mod client;
mod hook;
mod order;
mod schedule;
mod store;

use std::{fmt, path::PathBuf, time::Duration};

pub use answers::Http01;

pub(crate) use self::{
    account::Acme,
    answers::AlpnAnswers,
    order::{Job, order},
    schedule::{backoff, renew_at},
    store::Store,
};
use crate::error::TlsError;

/// How names outside of the DNS hook's reach are proven to be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// By a file on the plain-HTTP listener (RFC 8555 section 8.3).
    Http01,
    /// By a handshake on the TLS listener (RFC 8737).
    TlsAlpn01,
}

/// A program that sets and removes DNS records. It is run with three arguments, without a shell
/// and with nothing but `PATH` in its environment: `present` or `cleanup`, the record's name
/// (`_acme-challenge.…`) and its TXT value. `present` must add to other values of the name, and
/// return when the record is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsHook {
    /// The program.
    pub program: PathBuf,
    /// It is killed, with all it started, after this time.
    pub time_limit: Duration,
    /// How long to wait afterwards, for programs that return too early.
    pub settle: Duration,
}

impl DnsHook {
    /// A hook with a minute's time and no further wait.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program, time_limit: Duration::from_secs(60), settle: Duration::ZERO }
    }
}

/// A key that binds the account to one at the authority (RFC 8555 section 7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The key's identifier.
    pub key_id: String,
    /// The key, base64url as authorities hand it out.
    pub hmac_key: String,
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// How to order certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeConfig {
    /// The URL of the authority's directory.
    pub directory: String,
    /// Where account and certificates are kept, in a directory per authority.
    pub dir: PathBuf,
    /// Whom the authority may write to, as `mailto:` URLs.
    pub contact: Vec<String>,
    /// Whether the operator agrees to the authority's terms of service; without, nothing is done.
    pub terms_agreed: bool,
    /// Binds the account to one at the authority.
    pub external_account: Option<ExternalAccount>,
    /// How names are proven that the hook isn't for.
    pub challenge: Challenge,
    /// Proves the domain's names, which makes wildcards possible. Without it, the domain, `api.`
    /// and `sandbox.` get a certificate, and functions and sandboxes one each, on demand.
    pub dns_hook: Option<DnsHook>,
    /// The authority's own TLS certificate is checked against this PEM file, not the system's roots.
    pub acme_ca_file: Option<PathBuf>,
    /// Most orders in an hour, over restarts; the rest wait.
    pub orders_per_hour: u32,
    /// The wait after a first failure; doubled with each further one.
    pub retry_min: Duration,
    /// The longest wait after failures.
    pub retry_max: Duration,
    /// An order that takes longer has failed.
    pub order_time: Duration,
}

impl AcmeConfig {
    /// HTTP-01, 20 orders per hour, waits of 1 min to 12 h after failures, 5 min per order.
    #[must_use]
    pub fn new(directory: &str, dir: PathBuf) -> Self {
        Self {
            directory: directory.to_owned(),
            dir,
            contact: Vec::new(),
            terms_agreed: false,
            external_account: None,
            challenge: Challenge::Http01,
            dns_hook: None,
            acme_ca_file: None,
            orders_per_hour: 20,
            retry_min: Duration::from_secs(60),
            retry_max: Duration::from_secs(12 * 60 * 60),
            order_time: Duration::from_secs(5 * 60),
        }
    }

    pub(crate) fn check(&self) -> Result<(), TlsError> {
        let wrong = |text: &str| Err(TlsError::Config(text.to_owned()));
        if !self.terms_agreed {
            return wrong("the terms of the acme authority are not agreed to");
        }
        if !self.directory.starts_with("https://") {
            return wrong("the acme directory is not an https url");
        }
        if self.orders_per_hour == 0 || self.retry_min.is_zero() || self.retry_max < self.retry_min
        {
            return wrong("acme: no orders are allowed, or the waits after failures make no sense");
        }
        Ok(())
    }

    /// The domain's names that are ordered.
    pub(crate) fn domain_names(&self, domain: &str) -> Vec<String> {
        let below: &[&str] =
            if self.dns_hook.is_some() { &["*.", "*.fn."] } else { &["api.", "sandbox."] };
        let names = below.iter().map(|below| format!("{below}{domain}"));
        std::iter::once(domain.to_owned()).chain(names).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_and_an_https_directory_are_needed() {
        let mut config = AcmeConfig::new("https://ca.example/dir", PathBuf::from("acme"));
        assert!(config.check().unwrap_err().to_string().contains("terms"));
        config.terms_agreed = true;
        assert!(config.check().is_ok());
        config.directory = "http://ca.example/dir".to_owned();
        assert!(config.check().unwrap_err().to_string().contains("https"));
    }

    #[test]
    fn wildcards_are_ordered_only_with_a_hook() {
        let mut config = AcmeConfig::new("https://ca.example/dir", PathBuf::from("acme"));
        assert_eq!(config.domain_names("d.io"), ["d.io", "api.d.io", "sandbox.d.io"]);
        config.dns_hook = Some(DnsHook::new(PathBuf::from("hook")));
        assert_eq!(config.domain_names("d.io"), ["d.io", "*.d.io", "*.fn.d.io"]);
    }

    #[test]
    fn secret_of_the_external_account_is_not_printed() {
        let account = ExternalAccount { key_id: "kid".to_owned(), hmac_key: "c2VjcmV0".to_owned() };
        assert!(!format!("{account:?}").contains("c2VjcmV0"));
    }
}
