//! Parses an authority, once, into what it names.
//!
//! ```text
//! api.<domain>                the API
//! <name>.fn.<domain>          a function
//! <name>--<tag>.fn.<domain>   one of its tagged versions
//! <port>-<25 digits>.<domain> a port in a sandbox
//! sandbox.<domain>            whatever a header field names (`shared`)
//! <domain>                    whatever the path begins with (`shared`)
//! anything else               a custom domain, perhaps
//! ```
//!
//! Upper case is lower case, one final dot and the authority's own port are ignored.

use std::{borrow::Cow, fmt};

use pool_model::{Port, SandboxId};

/// Longest label of a host name in bytes (RFC 1035).
const LABEL_MAX_BYTES: usize = 63;
/// Longest host name in bytes (RFC 1035).
const HOST_MAX_BYTES: usize = 253;

/// What a host name names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The API.
    Api,
    /// A function.
    Function {
        /// Its name, lower case.
        name: String,
        /// The tag of a version, lower case.
        tag: Option<String>,
    },
    /// A port in a sandbox.
    SandboxPort {
        /// The sandbox.
        sandbox: SandboxId,
        /// The port its server listens on.
        port: Port,
    },
    /// The host that is shared: a header field names the target.
    ByHeader,
    /// The domain itself: the path names the target.
    ByPath,
    /// A host name that is not below the domain: perhaps a custom domain. Lower case, without port.
    Foreign {
        /// The host.
        host: String,
    },
}

/// Why an authority names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It isn't a host name at all.
    #[error("the host is not a valid host name")]
    BadHost,
    /// It names a sandbox, but the port is 0, above 65535 or not a number.
    #[error("the port before the sandbox id is not a number from 1 to 65535")]
    BadPort,
    /// One label is too long.
    #[error("a label of the host is longer than 63 bytes")]
    LabelTooLong,
    /// It is a host name, but nothing here is called that.
    #[error("nothing is served under this host")]
    UnknownHost,
}

/// The domain everything lives under, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain(String);

impl Domain {
    /// Checks and lower-cases the domain.
    ///
    /// # Errors
    ///
    /// [`HostError`] if it isn't a host name.
    pub fn new(domain: &str) -> Result<Self, HostError> {
        let domain = domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase();
        check_host(&domain)?;
        Ok(Self(domain))
    }

    /// The domain as text, lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses an authority (`host` or `host:port`).
    ///
    /// # Errors
    ///
    /// [`HostError`] says which rule it breaks.
    pub fn parse(&self, authority: &str) -> Result<Target, HostError> {
        let host = host_of(authority)?;
        let ends_like_ipv4 = host.as_bytes().last().is_some_and(u8::is_ascii_digit);
        if host.starts_with('[') || (ends_like_ipv4 && host.parse::<std::net::Ipv4Addr>().is_ok()) {
            return Ok(Target::ByHeader); // no name at all
        }
        let host = lower_case(host);
        check_host(&host)?;
        if *host == self.0 {
            return Ok(Target::ByPath);
        }
        if &*host == "localhost" {
            return Ok(Target::ByHeader);
        }
        let below = host.strip_suffix(&self.0).and_then(|rest| rest.strip_suffix('.'));
        let Some(inner) = below else {
            return Ok(Target::Foreign { host: host.into_owned() });
        };
        match split_at_dot(inner) {
            None if inner == "api" => Ok(Target::Api),
            None if inner == "sandbox" => Ok(Target::ByHeader),
            None => sandbox_port(inner),
            Some((label, "fn")) => function(label),
            Some(_) => Err(HostError::UnknownHost),
        }
    }

    /// The host name of a target: the inverse of [`Domain::parse`].
    #[must_use]
    pub fn host(&self, target: &Target) -> String {
        match target {
            Target::Api => format!("api.{self}"),
            Target::Function { name, tag: None } => format!("{name}.fn.{self}"),
            Target::Function { name, tag: Some(tag) } => format!("{name}--{tag}.fn.{self}"),
            Target::SandboxPort { sandbox, port } => format!("{port}-{}.{self}", sandbox.label()),
            Target::ByHeader => format!("sandbox.{self}"),
            Target::ByPath => self.to_string(),
            Target::Foreign { host } => host.clone(),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Cuts the port and one final dot off an authority.
fn host_of(authority: &str) -> Result<&str, HostError> {
    let is_mark = |byte: &u8| matches!(byte, b':' | b']');
    let bracket = if authority.starts_with('[') { authority.rfind(']') } else { None };
    let port_at = match bracket {
        Some(end) => match &authority[end + 1..] {
            "" => None,
            rest if rest.starts_with(':') => Some(end + 1),
            _ => return Err(HostError::BadHost),
        },
        None => match authority.as_bytes().iter().position(is_mark) {
            Some(at) if authority.as_bytes()[at] == b']' => return Err(HostError::BadHost),
            port_at => port_at, // another bracket behind it is no digit
        },
    };
    let Some(port_at) = port_at else {
        return Ok(authority.strip_suffix('.').unwrap_or(authority));
    };
    let (host, port) = (&authority[..port_at], &authority[port_at + 1..]);
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (!port.is_empty() && port.parse::<u16>().is_err()) {
        return Err(HostError::BadHost);
    }
    Ok(host.strip_suffix('.').unwrap_or(host))
}

/// Letters, digits, `-` and `_` in labels of 1 to 63 bytes.
fn check_host(host: &str) -> Result<(), HostError> {
    let (mut long, mut label) = (false, 0);
    for byte in host.bytes() {
        match byte {
            b'.' if label > 0 => label = 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            _ => return Err(HostError::BadHost),
        }
        long |= label > LABEL_MAX_BYTES;
    }
    if label == 0 {
        return Err(HostError::BadHost);
    }
    if long {
        return Err(HostError::LabelTooLong);
    }
    if host.len() > HOST_MAX_BYTES { Err(HostError::BadHost) } else { Ok(()) }
}

/// In lower case; most are, and cost no copy.
fn lower_case(host: &str) -> Cow<'_, str> {
    // Without a way out: many bytes at a time, that is.
    if host.bytes().fold(false, |any, byte| any | byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

fn split_at_dot(text: &str) -> Option<(&str, &str)> {
    let at = text.bytes().position(|byte| byte == b'.')?;
    Some((&text[..at], &text[at + 1..]))
}

/// A function's label: `<name>` or `<name>--<tag>`. Names have no two hyphens in a row.
pub(crate) fn function(label: &str) -> Result<Target, HostError> {
    let (name, tag) = match label.as_bytes().windows(2).rposition(|two| two == b"--") {
        Some(at) => (&label[..at], Some(&label[at + 2..])),
        None => (label, None),
    };
    if !is_name(name) || !tag.is_none_or(is_name) {
        return Err(HostError::BadHost);
    }
    Ok(Target::Function { name: name.to_owned(), tag: tag.map(str::to_owned) })
}

pub(crate) fn sandbox_port(label: &str) -> Result<Target, HostError> {
    let (port, id) = label.rsplit_once('-').ok_or(HostError::UnknownHost)?;
    let sandbox = SandboxId::from_label(id).map_err(|_| HostError::UnknownHost)?;
    let port = port.parse().map_err(|_| HostError::BadPort)?;
    Ok(Target::SandboxPort { sandbox, port })
}

/// A function's name: lower-case letters, digits and inner hyphens.
fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0000000000000000000000abc";

    fn domain() -> Domain {
        Domain::new("Wrenn.localhost").unwrap()
    }

    #[test]
    fn every_bad_host_has_its_own_reason() {
        let long = "a".repeat(64);
        let table = [
            ("", HostError::BadHost),
            (".", HostError::BadHost),
            ("api..wrenn.localhost", HostError::BadHost),
            ("a b.wrenn.localhost", HostError::BadHost),
            ("user@api.wrenn.localhost", HostError::BadHost),
            ("api.wrenn.localhost:x", HostError::BadHost),
            ("api.wrenn.localhost:65536", HostError::BadHost),
            ("-x.fn.wrenn.localhost", HostError::BadHost),
            ("x_y.fn.wrenn.localhost", HostError::BadHost),
            (&format!("0-{ID}.wrenn.localhost"), HostError::BadPort),
            (&format!("65536-{ID}.wrenn.localhost"), HostError::BadPort),
            (&format!("http-{ID}.wrenn.localhost"), HostError::BadPort),
            (&format!("-{ID}.wrenn.localhost"), HostError::BadPort),
            (&format!("{long}.fn.wrenn.localhost"), HostError::LabelTooLong),
            (&format!("{long}.wrenn.localhost"), HostError::LabelTooLong),
            ("xapi.wrenn.localhost", HostError::UnknownHost),
            ("a--.fn.wrenn.localhost", HostError::BadHost),
            ("--a.fn.wrenn.localhost", HostError::BadHost),
            ("a.b.fn.wrenn.localhost", HostError::UnknownHost),
            ("fn.wrenn.localhost", HostError::UnknownHost),
            ("8000-short.wrenn.localhost", HostError::UnknownHost),
            ("[::1", HostError::BadHost),
            ("[::1]x", HostError::BadHost),
        ];
        for (host, expected) in table {
            assert_eq!(domain().parse(host), Err(expected), "{host:?}");
        }
    }

    #[test]
    fn case_final_dot_and_own_port_do_not_matter() {
        for host in ["api.wrenn.localhost", "API.Wrenn.LOCALHOST:8443", "api.wrenn.localhost.:1"] {
            assert_eq!(domain().parse(host), Ok(Target::Api), "{host:?}");
        }
        let upper = format!("8000-{}.WRENN.localhost", ID.to_uppercase());
        let Ok(Target::SandboxPort { sandbox, port }) = domain().parse(&upper) else {
            panic!("{upper} was refused");
        };
        assert_eq!((sandbox.label().as_str(), port.get()), (ID, 8000));
    }

    #[test]
    fn what_is_not_below_the_domain_has_a_kind_of_its_own() {
        let foreign = |host: &str| Target::Foreign { host: host.to_owned() };
        for (host, expected) in [
            ("Shop.Example.org:443", foreign("shop.example.org")),
            ("xwrenn.localhost", foreign("xwrenn.localhost")),
            ("wrenn.localhost", Target::ByPath),
            ("sandbox.wrenn.localhost:8443", Target::ByHeader),
            ("[::1]:8443", Target::ByHeader),
            ("127.0.0.1", Target::ByHeader),
            ("localhost:8443", Target::ByHeader),
        ] {
            assert_eq!(domain().parse(host), Ok(expected), "{host:?}");
        }
    }

    fn target() -> impl Strategy<Value = Target> {
        prop_oneof![
            Just(Target::Api),
            ("[a-z0-9](-?[a-z0-9]){0,15}", proptest::option::of("[a-z0-9](-?[a-z0-9]){0,12}"))
                .prop_map(|(name, tag)| Target::Function { name, tag }),
            Just(Target::ByHeader),
            Just(Target::ByPath),
            (any::<u128>(), 1..=u16::MAX).prop_map(|(id, port)| Target::SandboxPort {
                sandbox: SandboxId::from_u128(id),
                port: Port::try_from(port).unwrap(),
            }),
        ]
    }

    proptest! {
        #[test]
        fn a_target_survives_its_host_name(target in target(), port in proptest::option::of(any::<u16>())) {
            let mut host = domain().host(&target);
            if let Some(port) = port {
                host = format!("{}:{port}", host.to_uppercase());
            }
            prop_assert_eq!(domain().parse(&host), Ok(target));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}(\\.wrenn\\.localhost)?(:[0-9]{0,6})?") {
            let _ = domain().parse(&text);
        }
    }
}
