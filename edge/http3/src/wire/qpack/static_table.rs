//! Which fields have a number in QPACK's static table (RFC 9204 appendix A).

use http::{HeaderName, HeaderValue};

/// How many fields the table has.
pub const ENTRIES: usize = 99;

/// Slots of the table by name's hash; a power of two.
const SLOTS: usize = 256;

/// No entry: the end of a chain, or an empty slot.
const NONE: u8 = u8::MAX;

/// One field of the table.
#[derive(Debug)]
pub struct Entry {
    /// The name, in lower case.
    pub name: &'static str,
    /// The value, perhaps empty.
    pub value: &'static str,
    /// The name as a header field's; `None` for a pseudo-header field.
    pub header_name: Option<HeaderName>,
    /// The value as a header field's.
    pub header_value: HeaderValue,
}

/// What the table has for a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Name and value.
    Field(u8),
    /// The name, with another value.
    Name(u8),
    /// Nothing.
    Nothing,
}

/// The table as header fields, and as what the compiler can look into.
macro_rules! table {
    ($($name:literal = $value:literal,)+) => {
        /// The fields in the order of their numbers.
        pub static TABLE: [Entry; ENTRIES] = [$(entry($name, $value),)+];
        const NAMES: [&str; ENTRIES] = [$($name,)+];
    };
}

table! {
    ":authority" = "",
    ":path" = "/",
    "age" = "0",
    "content-disposition" = "",
    "content-length" = "0",
    "cookie" = "",
    "date" = "",
    "etag" = "",
    "if-modified-since" = "",
    "if-none-match" = "",
    "last-modified" = "",
    "link" = "",
    "location" = "",
    "referer" = "",
    "set-cookie" = "",
    ":method" = "CONNECT",
    ":method" = "DELETE",
    ":method" = "GET",
    ":method" = "HEAD",
    ":method" = "OPTIONS",
    ":method" = "POST",
    ":method" = "PUT",
    ":scheme" = "http",
    ":scheme" = "https",
    ":status" = "103",
    ":status" = "200",
    ":status" = "304",
    ":status" = "404",
    ":status" = "503",
    "accept" = "*/*",
    "accept" = "application/dns-message",
    "accept-encoding" = "gzip, deflate, br",
    "accept-ranges" = "bytes",
    "access-control-allow-headers" = "cache-control",
    "access-control-allow-headers" = "content-type",
    "access-control-allow-origin" = "*",
    "cache-control" = "max-age=0",
    "cache-control" = "max-age=2592000",
    "cache-control" = "max-age=604800",
    "cache-control" = "no-cache",
    "cache-control" = "no-store",
    "cache-control" = "public, max-age=31536000",
    "content-encoding" = "br",
    "content-encoding" = "gzip",
    "content-type" = "application/dns-message",
    "content-type" = "application/javascript",
    "content-type" = "application/json",
    "content-type" = "application/x-www-form-urlencoded",
    "content-type" = "image/gif",
    "content-type" = "image/jpeg",
    "content-type" = "image/png",
    "content-type" = "text/css",
    "content-type" = "text/html; charset=utf-8",
    "content-type" = "text/plain",
    "content-type" = "text/plain;charset=utf-8",
    "range" = "bytes=0-",
    "strict-transport-security" = "max-age=31536000",
    "strict-transport-security" = "max-age=31536000; includesubdomains",
    "strict-transport-security" = "max-age=31536000; includesubdomains; preload",
    "vary" = "accept-encoding",
    "vary" = "origin",
    "x-content-type-options" = "nosniff",
    "x-xss-protection" = "1; mode=block",
    ":status" = "100",
    ":status" = "204",
    ":status" = "206",
    ":status" = "302",
    ":status" = "400",
    ":status" = "403",
    ":status" = "421",
    ":status" = "425",
    ":status" = "500",
    "accept-language" = "",
    "access-control-allow-credentials" = "FALSE",
    "access-control-allow-credentials" = "TRUE",
    "access-control-allow-headers" = "*",
    "access-control-allow-methods" = "get",
    "access-control-allow-methods" = "get, post, options",
    "access-control-allow-methods" = "options",
    "access-control-expose-headers" = "content-length",
    "access-control-request-headers" = "content-type",
    "access-control-request-method" = "get",
    "access-control-request-method" = "post",
    "alt-svc" = "clear",
    "authorization" = "",
    "content-security-policy" = "script-src 'none'; object-src 'none'; base-uri 'none'",
    "early-data" = "1",
    "expect-ct" = "",
    "forwarded" = "",
    "if-range" = "",
    "origin" = "",
    "purpose" = "prefetch",
    "server" = "",
    "timing-allow-origin" = "*",
    "upgrade-insecure-requests" = "1",
    "user-agent" = "",
    "x-forwarded-for" = "",
    "x-frame-options" = "deny",
    "x-frame-options" = "sameorigin",
}

/// The first entry of the name in each slot.
static FIRST: [u8; SLOTS] = first_by_slot();

/// The next entry with the same name.
static NEXT: [u8; ENTRIES] = next_of_same_name();

/// A multiplier that gives each name of the table a slot of its own, found by trying.
const MULTIPLIER: u32 = 0x77f7_8931;

const _: () = assert!(fits(MULTIPLIER), "two names have the same slot");

const fn entry(name: &'static str, value: &'static str) -> Entry {
    let header_name =
        if name.as_bytes()[0] == b':' { None } else { Some(HeaderName::from_static(name)) };
    Entry { name, value, header_name, header_value: HeaderValue::from_static(value) }
}

/// The field with this number.
#[inline]
#[must_use]
pub fn get(index: u64) -> Option<&'static Entry> {
    TABLE.get(usize::try_from(index).ok()?)
}

/// Looks for a field.
#[inline]
#[must_use]
pub fn find(name: &[u8], value: &[u8]) -> Found {
    if name.is_empty() {
        return Found::Nothing;
    }
    let first = FIRST[slot(name, MULTIPLIER)];
    if first == NONE || TABLE[usize::from(first)].name.as_bytes() != name {
        return Found::Nothing;
    }
    let mut index = first;
    while index != NONE {
        if TABLE[usize::from(index)].value.as_bytes() == value {
            return Found::Field(index);
        }
        index = NEXT[usize::from(index)];
    }
    Found::Name(first)
}

/// The slot of a name that isn't empty: made of its length and of four bytes, in which all names of
/// the table differ.
#[inline]
const fn slot(name: &[u8], multiplier: u32) -> usize {
    let len = name.len();
    let bytes = [name[0], name[len / 2], name[len * 3 / 4], name[len - 1]];
    let low = len.to_le_bytes()[0];
    let key = u32::from_le_bytes(bytes) ^ u32::from_le_bytes([low, low, low, 0]);
    (key.wrapping_mul(multiplier) >> 24) as usize
}

const fn fits(multiplier: u32) -> bool {
    let mut taken = [false; SLOTS];
    let mut index = 0;
    while index < ENTRIES {
        if first_of_name(index) == index {
            let slot = slot(NAMES[index].as_bytes(), multiplier);
            if taken[slot] {
                return false;
            }
            taken[slot] = true;
        }
        index += 1;
    }
    true
}

const fn first_by_slot() -> [u8; SLOTS] {
    let mut slots = [NONE; SLOTS];
    let mut index = 0;
    while index < ENTRIES {
        if first_of_name(index) == index {
            slots[slot(NAMES[index].as_bytes(), MULTIPLIER)] = number(index);
        }
        index += 1;
    }
    slots
}

const fn next_of_same_name() -> [u8; ENTRIES] {
    let mut next = [NONE; ENTRIES];
    let mut index = 0;
    while index < ENTRIES {
        let mut other = index + 1;
        while other < ENTRIES && !same(NAMES[index].as_bytes(), NAMES[other].as_bytes()) {
            other += 1;
        }
        if other < ENTRIES {
            next[index] = number(other);
        }
        index += 1;
    }
    next
}

const fn first_of_name(index: usize) -> usize {
    let mut first = 0;
    while !same(NAMES[first].as_bytes(), NAMES[index].as_bytes()) {
        first += 1;
    }
    first
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

const fn number(index: usize) -> u8 {
    assert!(index < NONE as usize);
    index.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_lie_where_the_appendix_has_them() {
        for (index, name, value) in [
            (0, ":authority", ""),
            (17, ":method", "GET"),
            (25, ":status", "200"),
            (46, "content-type", "application/json"),
            (63, ":status", "100"),
            (72, "accept-language", ""),
            (
                85,
                "content-security-policy",
                "script-src 'none'; object-src 'none'; base-uri 'none'",
            ),
            (98, "x-frame-options", "sameorigin"),
        ] {
            let entry = get(index).unwrap();
            assert_eq!((entry.name, entry.value), (name, value));
        }
        assert!(get(99).is_none());
        assert!(get(u64::MAX).is_none());
    }

    #[test]
    fn every_entry_is_found_by_name_and_value() {
        for (index, entry) in TABLE.iter().enumerate() {
            let (name, value) = (entry.name.as_bytes(), entry.value.as_bytes());
            assert_eq!(find(name, value), Found::Field(number(index)));
            assert_eq!(find(name, b"another"), Found::Name(number(first_of_name(index))));
            assert_eq!(entry.header_name.is_none(), name[0] == b':');
            assert_eq!(entry.header_value.as_bytes(), value);
        }
    }

    #[test]
    fn other_names_are_not_found() {
        for name in ["", "x", "x-request-id", "datf", ":statut", "content-typo", "Date"] {
            assert_eq!(find(name.as_bytes(), b""), Found::Nothing, "{name}");
        }
        assert_eq!(find(&[b'a'; 70_000], b""), Found::Nothing);
    }
}
