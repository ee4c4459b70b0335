//! What can be set about certificates?

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{acme::AcmeConfig, error::TlsError, tickets::TicketSecret};

/// Where certificates come from.
#[derive(Debug, Clone)]
pub enum TlsSource {
    /// Made by a local authority that lives in this directory.
    LocalCa {
        /// The directory; made if missing.
        dir: PathBuf,
    },
    /// Read from PEM files.
    Files {
        /// Chain (leaf first) and key; the first pair answers unknown names.
        pairs: Vec<(PathBuf, PathBuf)>,
    },
    /// Ordered from an authority that speaks ACME (RFC 8555).
    Acme(Box<AcmeConfig>),
}

impl TlsSource {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::LocalCa { .. } => "local-ca",
            Self::Files { .. } => "files",
            Self::Acme(_) => "acme",
        }
    }
}

/// Says which names outside of the configured ones may get a certificate.
#[async_trait]
pub trait OnDemand: Send + Sync + 'static {
    /// Whether `name` (lower case, no port) is ours: asked in the background before a certificate
    /// is made or ordered, and given up after a few seconds. The future may be dropped at any point.
    async fn allowed(&self, name: &str) -> bool;
}

/// How [`Certs`](crate::Certs) are made and kept.
#[derive(Clone)]
pub struct TlsConfig {
    /// The domain: it, `*.` and `*.fn.` in front of it need certificates.
    pub domain: String,
    /// Where certificates come from.
    pub source: TlsSource,
    /// How often files are looked at for changes.
    pub reload_interval: Duration,
    /// Makes session tickets good for all who share the secret; without, for this process.
    pub tickets: Option<TicketSecret>,
    /// Asked about unknown names; without, they only get the default certificate.
    pub on_demand: Option<Arc<dyn OnDemand>>,
    /// Most certificates held. Beyond, the local authority's oldest go and ACME orders none.
    pub certificates_max: usize,
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("domain", &self.domain)
            .field("source", &self.source)
            .field("reload_interval", &self.reload_interval)
            .field("on_demand", &self.on_demand.is_some())
            .field("certificates_max", &self.certificates_max)
            .finish_non_exhaustive()
    }
}

impl TlsConfig {
    /// A configuration with defaults: files looked at every 5 s, tickets of this process, nothing
    /// on demand, at most 4096 certificates.
    #[must_use]
    pub fn new(domain: &str, source: TlsSource) -> Self {
        Self {
            domain: domain.to_ascii_lowercase(),
            source,
            reload_interval: Duration::from_secs(5),
            tickets: None,
            on_demand: None,
            certificates_max: 4096,
        }
    }

    /// The names that the domain needs a certificate for.
    pub(crate) fn wanted(&self) -> Vec<String> {
        let domain = &self.domain;
        vec![domain.clone(), format!("*.{domain}"), format!("*.fn.{domain}")]
    }

    pub(crate) fn check(&self) -> Result<(), TlsError> {
        let wrong = |text: &str| Err(TlsError::Config(text.to_owned()));
        if self.reload_interval.is_zero() {
            return wrong("the reload interval is zero");
        }
        if self.certificates_max == 0 {
            return wrong("no certificate may be held");
        }
        match &self.source {
            TlsSource::Files { pairs } if pairs.is_empty() => wrong("no certificate is given"),
            TlsSource::Files { pairs } if pairs.len() > self.certificates_max => {
                wrong("more certificates are given than may be held")
            }
            TlsSource::Acme(_) if !is_host(&self.domain) => {
                wrong("the domain is not a host name that an acme authority certifies")
            }
            TlsSource::Acme(acme) => acme.check(),
            _ => Ok(()),
        }
    }
}

/// Whether a name can be certified at all: a host name of at least two labels, not a number.
pub(crate) fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // Shorter than a host name may be, so that a file can be called like it.
    name.len() <= 240
        && name.contains('.')
        && name.split('.').all(is_label)
        && name.rsplit('.').next().is_some_and(|last| !last.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_are_certified() {
        for good in ["example.com", "a-b.xn--mnchen-3ya.de", "1.example.com"] {
            assert!(is_host(good), "{good}");
        }
        let long = format!("{}com", "a.".repeat(130));
        for bad in
            ["localhost", "127.0.0.1", "..", "../x.com", "-a.com", "a_b.com", "*.a.com", &long]
        {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn empty_configurations_are_refused() {
        let files = TlsConfig::new("example.com", TlsSource::Files { pairs: vec![] });
        assert!(files.check().unwrap_err().to_string().contains("no certificate"));
        let source = TlsSource::LocalCa { dir: PathBuf::from("x") };
        let mut local = TlsConfig::new("Example.COM", source);
        assert!(local.check().is_ok());
        assert_eq!(local.wanted()[2], "*.fn.example.com");
        local.reload_interval = Duration::ZERO;
        assert!(local.check().is_err());
    }
}
