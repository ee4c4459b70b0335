//! Which archives of Debian this host uses, from `/etc/apt`.
//!
//! Both formats are read (`sources.list(5)`: one line, deb822). Only entries of the release that templates are made of, with
//! component `main`, are taken, and every one is bound to the Debian archive's own key: a third party's packages never get in.

use crate::error::BuildError;
use std::fs;
use std::path::Path;

/// The release of templates and their kernel.
pub(crate) const SUITE: &str = "bookworm";
/// What must have signed every archive (package debian-archive-keyring).
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One archive and suite.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
}

/// The lines of a `sources.list` with the archives to use.
///
/// # Errors
///
/// If apt's directory can't be read, or has no archive of the release.
pub(crate) fn host_sources(etc_apt: &Path) -> Result<String, BuildError> {
    let mut sources = Vec::new();
    let list = etc_apt.join("sources.list");
    if list.exists() {
        let text = fs::read_to_string(&list).map_err(BuildError::file("read", &list))?;
        sources.extend(one_line(&text));
    }
    let parts = etc_apt.join("sources.list.d");
    let mut paths = Vec::new();
    if parts.exists() {
        for entry in fs::read_dir(&parts).map_err(BuildError::file("list", &parts))? {
            paths.push(entry.map_err(BuildError::file("list", &parts))?.path());
        }
    }
    paths.sort();
    for path in paths {
        let parse: fn(&str) -> Vec<Source> = match path.extension().and_then(|e| e.to_str()) {
            Some("list") => one_line,
            Some("sources") => deb822,
            _ => continue,
        };
        let text = fs::read_to_string(&path).map_err(BuildError::file("read", &path))?;
        sources.extend(parse(&text));
    }
    render(sources)
}

fn render(mut sources: Vec<Source>) -> Result<String, BuildError> {
    sources.dedup();
    // Updates alone don't make a system.
    if !sources.iter().any(|source| source.suite == SUITE) {
        return Err(BuildError::NoArchive { suite: SUITE });
    }
    let line = |source: &Source| {
        format!("deb [signed-by={KEYRING}] {} {} main\n", source.uri, source.suite)
    };
    Ok(sources.iter().map(line).collect())
}

/// `deb [options] uri suite component...`
fn one_line(text: &str) -> Vec<Source> {
    let parse = |line: &str| {
        let line = line.split('#').next()?.trim().strip_prefix("deb ")?.trim_start();
        let line = match line.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => line,
        };
        let mut words = line.split_ascii_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let main = words.any(|component| component == "main");
        (main && is_wanted(uri, suite)).then(|| source(uri, suite))
    };
    text.lines().filter_map(parse).collect()
}

/// Paragraphs of `Types`, `URIs`, `Suites`, `Components`, `Enabled`.
fn deb822(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let mut sources = Vec::new();
    for paragraph in lines.split(|line| line.trim().is_empty()) {
        let words = |name: &str| field(paragraph, name);
        let enabled = !words("enabled").iter().any(|word| word == "no");
        let has = |name: &str, value: &str| words(name).iter().any(|word| word == value);
        if !enabled || !has("types", "deb") || !has("components", "main") {
            continue;
        }
        for uri in &words("uris") {
            for suite in words("suites").iter().filter(|suite| is_wanted(uri, suite)) {
                sources.push(source(uri, suite));
            }
        }
    }
    sources
}

/// The words of a field, on its own and the indented lines that follow.
fn field(paragraph: &[&str], name: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut inside = false;
    for line in paragraph {
        let value = if line.starts_with([' ', '\t']) {
            *line
        } else {
            let Some((key, value)) = line.split_once(':') else { continue };
            inside = key.eq_ignore_ascii_case(name);
            value
        };
        if inside {
            words.extend(value.split_ascii_whitespace().map(str::to_owned));
        }
    }
    words
}

fn is_wanted(uri: &str, suite: &str) -> bool {
    let pocket = suite.strip_prefix(SUITE);
    let network = ["http://", "https://", "file:/"].iter().any(|scheme| uri.starts_with(scheme));
    network && matches!(pocket, Some("" | "-updates" | "-security"))
}

fn source(uri: &str, suite: &str) -> Source {
    Source { uri: uri.to_owned(), suite: suite.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read_and_strangers_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let parts = dir.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        fs::write(
            dir.path().join("sources.list"),
            "# deb http://old/debian bookworm main\n\
             deb [arch=amd64 signed-by=/x.gpg] http://mirror/debian bookworm main contrib # mine\n\
             deb-src http://mirror/debian bookworm main\n\
             deb https://packages.example/apt cloud-bookworm main\n",
        )
        .unwrap();
        fs::write(
            parts.join("debian.sources"),
            "Types: deb deb-src\n# a comment\nURIs: http://mirror/security\n\
             Suites: bookworm-security\n trixie-security\nComponents: main\n\n\
             Types: deb\nURIs: http://off/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n\n\
             Types: deb\nURIs: https://docker.example\nSuites: bookworm\nComponents: stable\n",
        )
        .unwrap();
        fs::write(parts.join("ignored.save"), "deb http://saved/debian bookworm main\n").unwrap();

        let sources = host_sources(dir.path()).unwrap();

        assert_eq!(
            sources,
            format!(
                "deb [signed-by={KEYRING}] http://mirror/debian bookworm main\n\
                 deb [signed-by={KEYRING}] http://mirror/security bookworm-security main\n"
            )
        );
    }

    #[test]
    fn a_host_without_the_release_is_told_what_to_add() {
        let dir = tempfile::tempdir().unwrap();
        let list = "deb http://mirror/debian trixie main\n";
        fs::write(dir.path().join("sources.list"), list).unwrap();
        let message = host_sources(dir.path()).unwrap_err().to_string();
        assert!(message.contains("bookworm with component main"), "{message}");
    }
}
