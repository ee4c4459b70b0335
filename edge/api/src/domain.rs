//! Custom domains: names of their owners' own that lead to a function.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::FunctionName;

/// A custom domain of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// The domain, lower case.
    pub domain: String,
    /// The function it leads to once it is verified.
    pub function: FunctionName,
    /// When the TXT record was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Timestamp>,
    /// The TXT record that proves whose the domain is. It may go once the domain is verified.
    pub record: TxtRecord,
    /// When it was claimed.
    pub created_at: Timestamp,
}

/// A TXT record of the domain name system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxtRecord {
    /// Its name: `_wrenn-challenge.<domain>`.
    pub name: String,
    /// Its text: `wrenn-verify=<token>`.
    pub value: String,
}

/// The body of `POST /v1/functions/{name}/domains`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddDomain {
    /// A domain of at least two labels, other alphabets in their ASCII form (`xn--…`).
    pub domain: String,
}
