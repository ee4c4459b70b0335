//! What do the configured sources hold at the moment?

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    acme::Store,
    config::{TlsConfig, TlsSource},
    entry::Entry,
    error::TlsError,
    files::{Stamp, loose_mode, read, stamp},
    local::{Authority, placeholder},
};

/// The source of a certificate that stands in for one that isn't there yet.
pub(crate) const PLACEHOLDER: &str = "placeholder";

/// Everything for the start: the first entry is the default. A bad file is an error, but not one
/// of the ACME store, which is ordered again.
pub(crate) fn all(config: &TlsConfig, store: Option<&Store>) -> Result<Vec<Arc<Entry>>, TlsError> {
    let mut entries = Vec::new();
    for (id, loaded) in each(config, store) {
        match loaded {
            Ok(entry) if entry.id == config.domain => entries.insert(0, Arc::new(entry)),
            Ok(entry) => entries.push(Arc::new(entry)),
            Err(error) if store.is_some() => {
                tracing::warn!(id, error = error.chain(), "a stored certificate is no good");
            }
            Err(error) => return Err(error),
        }
    }
    entries.truncate(config.certificates_max);
    if entries.is_empty() {
        let (cert, key) = placeholder(&config.domain)?;
        let entry = Entry::from_pem(PLACEHOLDER, PLACEHOLDER, (&cert, &key), PLACEHOLDER)?;
        entries.push(Arc::new(entry));
    }
    Ok(entries)
}

/// Each certificate of the source with its id, or why it can't be used.
pub(crate) fn each(
    config: &TlsConfig,
    store: Option<&Store>,
) -> Vec<(String, Result<Entry, TlsError>)> {
    let word = config.source.word();
    match &config.source {
        TlsSource::LocalCa { dir } => {
            let authority = Authority { dir, domain: &config.domain };
            let (cert, key) = (authority.path("cert.pem"), authority.path("key.pem"));
            let made = authority.ensure_leaf();
            let loaded = made.and_then(|()| pair(&config.domain, word, &cert, &key));
            vec![(config.domain.clone(), loaded)]
        }
        TlsSource::Files { pairs } => {
            let id = |cert: &Path| cert.display().to_string();
            let load =
                |(cert, key): &(PathBuf, PathBuf)| (id(cert), pair(&id(cert), word, cert, key));
            pairs.iter().map(load).collect()
        }
        TlsSource::Acme(_) => store.map(|store| store.load(word)).unwrap_or_default(),
    }
}

/// The stamps of all files that matter, to see whether one changed.
pub(crate) fn stamps(
    source: &TlsSource,
    store: Option<&Store>,
) -> BTreeMap<PathBuf, Option<Stamp>> {
    let paths: Vec<PathBuf> = match source {
        TlsSource::LocalCa { dir } => {
            ["ca.key", "cert.pem", "key.pem"].iter().map(|name| dir.join(name)).collect()
        }
        TlsSource::Files { pairs } => {
            pairs.iter().flat_map(|(cert, key)| [cert.clone(), key.clone()]).collect()
        }
        TlsSource::Acme(_) => store.map(Store::certs_dir).into_iter().collect(),
    };
    paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect()
}

fn pair(id: &str, word: &'static str, cert: &Path, key: &Path) -> Result<Entry, TlsError> {
    let (chain, key_text) = (read(cert)?, read(key)?);
    let place = format!("{} with {}", cert.display(), key.display());
    let entry = Entry::from_pem(id, word, (&chain, &key_text), &place)?;
    Ok(entry.warn(loose_mode(key)))
}
