//! What can go wrong with certificates, and how is it said to an operator?

use std::{error::Error as _, fmt::Write as _, io, path::PathBuf};

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A text is not the PEM it should be.
    #[error("{place} is not usable PEM")]
    Pem {
        /// Where the text came from.
        place: String,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate for {domain}")]
    Make {
        /// For which domain.
        domain: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// Certificate and key don't fit together, or the key is of an unknown kind.
    #[error("{place}: certificate and key cannot be used for TLS")]
    Unusable {
        /// Where they came from.
        place: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The certificate is not X.509 as TLS needs it.
    #[error("{place}: the certificate cannot be parsed")]
    Malformed {
        /// Where it came from.
        place: String,
    },
    /// The configuration lacks something or contradicts itself.
    #[error("tls configuration: {0}")]
    Config(String),
    /// TLS itself refused the configuration.
    #[error("tls cannot be configured")]
    Setup(#[source] rustls::Error),
    /// The file of the ticket secret holds something else.
    #[error("{} does not hold 64 hexadecimal digits", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
    },
    /// The ACME server, or the way to it, failed.
    #[error("acme: cannot {step}")]
    Acme {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: Box<instant_acme::Error>,
    },
    /// The ACME server doesn't believe that a name is ours, or won't certify it.
    #[error("acme: {names} refused: {detail}")]
    Refused {
        /// The names.
        names: String,
        /// What the server says.
        detail: String,
    },
    /// The program that sets DNS records failed.
    #[error("dns hook {}: {detail}", program.display())]
    Hook {
        /// The program.
        program: PathBuf,
        /// Its exit status and what it said.
        detail: String,
    },
    /// It took too long.
    #[error("{0} took too long")]
    Timeout(&'static str),
    /// The edge shuts down.
    #[error("stopped before it was done")]
    Stopped,
}

impl TlsError {
    /// The error with its causes on one line, for the status and the log.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}"); // writing to a string does not fail
            cause = error.source();
        }
        text
    }

    /// Whether the ACME server asks for patience (RFC 8555 section 6.6).
    pub(crate) fn is_rate_limit(&self) -> bool {
        let Self::Acme { source, .. } = self else { return false };
        let instant_acme::Error::Api(problem) = source.as_ref() else { return false };
        problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:rateLimited")
    }
}
