//! What a path in a call means. Pure.

use std::path::{Component, Path, PathBuf};

/// A path that means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPath {
    /// Other users' homes are not looked up.
    #[error("path '{path}' starts with another user's home: expected '~' or '~/...'")]
    OtherHome { path: String },
    /// No file has such a name.
    #[error("path holds a zero byte")]
    ZeroByte,
}

/// Resolves as E2B does: empty is the default directory, `~` the home, and what is relative
/// starts at the home.
pub(crate) fn resolve(path: &str, home: &Path, workdir: Option<&str>) -> Result<PathBuf, BadPath> {
    if path.contains('\0') {
        return Err(BadPath::ZeroByte);
    }
    let joined = match path.strip_prefix('~') {
        _ if path.is_empty() => workdir.map_or_else(|| home.to_owned(), |dir| home.join(dir)),
        Some("") => home.to_owned(),
        Some(rest) => match rest.strip_prefix('/') {
            Some(rest) => home.join(rest.trim_start_matches('/')),
            None => return Err(BadPath::OtherHome { path: path.to_owned() }),
        },
        None => home.join(path),
    };
    Ok(cleaned(&joined))
}

/// Without `.`, `..` and doubled slashes, by text alone.
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Decodes one value of a query: `+` is a space, `%XX` a byte.
pub(crate) fn form_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(path: &str, workdir: Option<&str>) -> PathBuf {
        resolve(path, Path::new("/home/user"), workdir).unwrap()
    }

    #[test]
    fn paths_mean_what_they_mean_to_e2b() {
        assert_eq!(at("", None), Path::new("/home/user"));
        assert_eq!(at("", Some("/code")), Path::new("/code"));
        assert_eq!(at("~", Some("/code")), Path::new("/home/user"));
        assert_eq!(at("~/a", None), Path::new("/home/user/a"));
        assert_eq!(at("~//etc", None), Path::new("/home/user/etc"));
        assert_eq!(at("a/./b//c/../d", Some("/code")), Path::new("/home/user/a/b/d"));
        assert_eq!(at("../../../etc", None), Path::new("/etc"));
        assert_eq!(at("/a b", None), Path::new("/a b"));
        assert!(resolve("~root/x", Path::new("/"), None).is_err());
        assert_eq!(resolve("a\0b", Path::new("/"), None), Err(BadPath::ZeroByte));
    }

    #[test]
    fn query_values_are_decoded_like_a_form() {
        assert_eq!(form_decoded("a+b%20c%2Bd").as_deref(), Some("a b c+d"));
        assert_eq!(form_decoded("%C3%BC").as_deref(), Some("ü"));
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(form_decoded(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn resolved_path_is_absolute_and_clean(path in "[a~./]{0,24}") {
            if let Ok(path) = resolve(&path, Path::new("/home/user"), None) {
                prop_assert!(path.is_absolute());
                prop_assert!(!path.components().any(|c| c == Component::ParentDir));
            }
        }
    }
}
