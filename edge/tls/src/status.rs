//! What is an operator told of the certificates?

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    config::{TlsConfig, TlsSource},
    entry::{Entry, uncovered},
    table::Table,
};

/// What is known of one certificate, held or wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertStatus {
    /// What it is called here: a name or the path of its file.
    pub id: String,
    /// The names it is for.
    pub names: Vec<String>,
    /// `local-ca`, `files`, `acme` or `placeholder`.
    pub source: &'static str,
    /// Not valid before; `None` while there is no certificate.
    pub not_before: Option<Timestamp>,
    /// Not valid after; `None` while there is no certificate.
    pub not_after: Option<Timestamp>,
    /// What is odd about it.
    pub warnings: Vec<String>,
    /// Why the last attempt to load or renew it failed; gone with the next success.
    pub last_error: Option<String>,
    /// When it is renewed, or tried again.
    pub next_attempt: Option<Timestamp>,
}

/// What happened to a certificate apart from being used.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) names: Vec<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) next_attempt: Option<Timestamp>,
}

/// Each certificate, held or wanted; the one for unknown names first.
pub(crate) fn describe_all(
    config: &TlsConfig,
    table: &Table,
    mut progress: BTreeMap<String, Progress>,
) -> Vec<CertStatus> {
    let now = Timestamp::now();
    let mut all: Vec<_> = table
        .entries()
        .iter()
        .map(|entry| describe(entry, progress.remove(&entry.id).unwrap_or_default(), now))
        .collect();
    let wanted = config.wanted();
    let missing = uncovered(&wanted, table.entries());
    // With ACME, what is missing shows as a certificate that is wanted.
    if !missing.is_empty() && !matches!(config.source, TlsSource::Acme(_)) {
        all[0].warnings.push(format!("no certificate covers {}", missing.join(", ")));
    }
    all.extend(progress.into_iter().map(|(id, progress)| CertStatus {
        id,
        names: progress.names,
        source: config.source.word(),
        not_before: None,
        not_after: None,
        warnings: Vec::new(),
        last_error: progress.last_error,
        next_attempt: progress.next_attempt,
    }));
    all
}

fn describe(entry: &Entry, progress: Progress, now: Timestamp) -> CertStatus {
    let mut warnings = entry.warnings.clone();
    let dates = entry.date_warning(now).filter(|warning| !warnings.contains(warning));
    warnings.extend(dates);
    CertStatus {
        id: entry.id.clone(),
        names: entry.facts.names.clone(),
        source: entry.source,
        not_before: Some(entry.facts.not_before),
        not_after: Some(entry.facts.not_after),
        warnings,
        last_error: progress.last_error,
        next_attempt: progress.next_attempt,
    }
}
