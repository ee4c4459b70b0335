//! Which fields have a number in QPACK's static table (RFC 9204 appendix A).

use edge_fields::{Entry, Found, NameIndex};

/// How many fields the table has.
pub const ENTRIES: usize = 99;

/// The table as header fields, and as what the compiler can look into.
macro_rules! table {
    ($($name:literal = $value:literal,)+) => {
        /// The fields in the order of their numbers.
        pub static TABLE: [Entry; ENTRIES] = [$(Entry::new($name, $value),)+];
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

/// The multiplier gives each name a slot of its own, found by trying.
static INDEX: NameIndex<ENTRIES> = NameIndex::new(&NAMES, 0x77f7_8931);

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
    INDEX.find(&TABLE, name, value)
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
        for (index, entry) in (0_u8..).zip(&TABLE) {
            let (name, value) = (entry.name.as_bytes(), entry.value.as_bytes());
            assert_eq!(find(name, value), Found::Field(index));
            let first = (0_u8..).zip(&NAMES).find(|(_, other)| **other == entry.name).unwrap().0;
            assert_eq!(find(name, b"another"), Found::Name(first));
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
