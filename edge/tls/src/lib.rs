//! Certificates and session tickets: what a TLS or QUIC listener needs before it sees a request.
//!
//! ```text
//! local authority --+
//! PEM files --------+--> Entry --> Table (by name) --> handshakes
//! ACME authority ---+                ^                     | unknown name
//!                                    +---- worker <--------+ (asks whether it is ours)
//! ```
//!
//! [`Certs::open`] reads or makes what there is, [`Certs::tcp_config`] and [`Certs::quic_config`]
//! are for the listeners, [`Certs::run`] keeps it all fresh.
//!
//! # Invariants
//!
//! - A handshake takes no lock and waits for nothing: it gets what the table holds at that moment.
//! - A certificate is replaced by one that was checked against its key, or not at all; connections
//!   stay, new handshakes see the new one.
//! - Keys are created with mode 0600, never widened, and never logged. Files are replaced by rename.
//! - Nothing is ordered or made for a name that [`OnDemand`] did not allow.
//! - Challenge answers and DNS records go away with their order, however it ends.
//!
//! # Limits
//!
//! Certificates held, unknown names waiting, orders at once and per hour, the time of an order, a
//! hook and a question, and what is read from files, hooks and the authority: each has one.
//! HTTP-01 and TLS-ALPN-01 are answered by the process that orders, so the names must lead to it.

mod acme;
mod certs;
mod config;
mod entry;
mod error;
mod files;
mod load;
mod local;
mod status;
mod subject;
mod table;
mod tickets;
mod worker;
mod x509;

pub use acme::{AcmeConfig, Challenge, DnsHook, ExternalAccount, Http01};
pub use certs::{ACME_TLS_ALPN, Certs};
pub use config::{OnDemand, TlsConfig, TlsSource};
pub use error::TlsError;
pub use status::CertStatus;
pub use tickets::{EPOCH_SECONDS, TicketSecret, Tickets};
