//! Which of the fields that matter here does a head have?
//!
//! To ask the map for a name costs as much as a glance at all names of a usual head. So each name is
//! looked at once, and the map is asked for what is there.

use std::ops::BitOr;

use http::{HeaderMap, HeaderName, header};

/// Every field of ours begins with this; none from outside is passed on.
pub(super) const OURS: &str = "x-wrenn-";

/// A set of fields, or of kinds of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen(u16);

impl Seen {
    pub(crate) const HOST: Self = Self(1);
    pub(crate) const CONTENT_LENGTH: Self = Self(1 << 1);
    pub(crate) const TRANSFER_ENCODING: Self = Self(1 << 2);
    pub(crate) const CONNECTION: Self = Self(1 << 3);
    pub(crate) const UPGRADE: Self = Self(1 << 4);
    /// `keep-alive` and `proxy-connection`.
    pub(crate) const PERSISTENCE: Self = Self(1 << 5);
    /// `proxy-authenticate` and `proxy-authorization`.
    pub(crate) const PROXY: Self = Self(1 << 6);
    pub(crate) const TE: Self = Self(1 << 7);
    pub(crate) const EXPECT: Self = Self(1 << 8);
    pub(crate) const VIA: Self = Self(1 << 9);
    pub(crate) const COOKIE: Self = Self(1 << 10);
    /// What a proxy tells of who is behind it, but `x-forwarded-prefix`.
    pub(crate) const FORWARDED: Self = Self(1 << 11);
    /// `x-wrenn-…`.
    pub(crate) const OURS: Self = Self(1 << 12);
    /// What only the edge says: a request's id, the beginning of its path.
    pub(crate) const EDGES: Self = Self(1 << 13);
    /// What an invocation by the clock or out of the queue says about itself.
    pub(crate) const OF_JOBS: Self = Self(1 << 14);

    /// What speaks of one connection only (RFC 9110 7.6.1), `te` apart; `trailer` is none of it.
    pub(crate) const HOP_BY_HOP: Self = Self(
        Self::CONNECTION.0
            | Self::PERSISTENCE.0
            | Self::PROXY.0
            | Self::TRANSFER_ENCODING.0
            | Self::UPGRADE.0,
    );
    /// What HTTP/2 and HTTP/3 forbid (RFC 9113 8.2.2, RFC 9114 4.2).
    pub(crate) const CONNECTION_SPECIFIC: Self = Self(
        Self::CONNECTION.0 | Self::PERSISTENCE.0 | Self::TRANSFER_ENCODING.0 | Self::UPGRADE.0,
    );

    /// All that a head has.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |seen, name| seen | Self::kind(name))
    }

    /// What this name is; nothing, if nobody here asks for it.
    pub(crate) fn kind(name: &HeaderName) -> Self {
        match *name {
            header::HOST => Self::HOST,
            header::CONTENT_LENGTH => Self::CONTENT_LENGTH,
            header::TRANSFER_ENCODING => Self::TRANSFER_ENCODING,
            header::CONNECTION => Self::CONNECTION,
            header::UPGRADE => Self::UPGRADE,
            header::PROXY_AUTHENTICATE | header::PROXY_AUTHORIZATION => Self::PROXY,
            header::TE => Self::TE,
            header::EXPECT => Self::EXPECT,
            header::VIA => Self::VIA,
            header::COOKIE => Self::COOKIE,
            header::FORWARDED => Self::FORWARDED,
            _ => match name.as_str() {
                "keep-alive" | "proxy-connection" => Self::PERSISTENCE,
                "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto"
                | "x-forwarded-port" | "x-real-ip" => Self::FORWARDED,
                "x-request-id" | "x-forwarded-prefix" => Self::EDGES,
                "wrenn-trigger" | "wrenn-invocation" | "wrenn-attempt" => Self::OF_JOBS,
                text if text.starts_with(OURS) => Self::OURS,
                _ => Self::default(),
            },
        }
    }

    /// Whether one of these is here.
    pub(crate) const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
}

impl BitOr for Seen {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn each_name_is_told_from_its_neighbours() {
        let of = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
            Seen::of(&headers)
        };
        for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"]
        {
            assert!(of(name).has(Seen::CONNECTION_SPECIFIC) && of(name).has(Seen::HOP_BY_HOP));
        }
        for name in ["proxy-authenticate", "proxy-authorization"] {
            assert!(of(name).has(Seen::HOP_BY_HOP) && !of(name).has(Seen::CONNECTION_SPECIFIC));
        }
        for name in ["te", "trailer", "accept", "x-forwarded-user", "x-wrenn", "wrenn-target"] {
            assert!(!of(name).has(Seen::HOP_BY_HOP | Seen::OURS | Seen::OF_JOBS), "{name}");
            assert!(!of(name).has(Seen::FORWARDED | Seen::EDGES), "{name}");
        }
        assert_eq!(of("x-wrenn-anything"), Seen::OURS);
        assert_eq!(of("x-forwarded-prefix"), of("x-request-id"));
        assert_eq!(of("forwarded") | of("x-real-ip"), Seen::FORWARDED);
        assert_eq!(of("wrenn-attempt"), Seen::OF_JOBS);
    }
}
