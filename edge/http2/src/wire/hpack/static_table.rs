//! Which fields have a number in HPACK's static table (RFC 7541 appendix A).

use edge_fields::{Entry, Found, NameIndex};

/// How many fields the table has. Their numbers begin with 1.
pub(crate) const ENTRIES: usize = 61;

/// The table as header fields, and as what the compiler can look into.
macro_rules! table {
    ($($name:literal = $value:literal,)+) => {
        static TABLE: [Entry; ENTRIES] = [$(Entry::new($name, $value),)+];
        const NAMES: [&str; ENTRIES] = [$($name,)+];
    };
}

table! {
    ":authority" = "",
    ":method" = "GET",
    ":method" = "POST",
    ":path" = "/",
    ":path" = "/index.html",
    ":scheme" = "http",
    ":scheme" = "https",
    ":status" = "200",
    ":status" = "204",
    ":status" = "206",
    ":status" = "304",
    ":status" = "400",
    ":status" = "404",
    ":status" = "500",
    "accept-charset" = "",
    "accept-encoding" = "gzip, deflate",
    "accept-language" = "",
    "accept-ranges" = "",
    "accept" = "",
    "access-control-allow-origin" = "",
    "age" = "",
    "allow" = "",
    "authorization" = "",
    "cache-control" = "",
    "content-disposition" = "",
    "content-encoding" = "",
    "content-language" = "",
    "content-length" = "",
    "content-location" = "",
    "content-range" = "",
    "content-type" = "",
    "cookie" = "",
    "date" = "",
    "etag" = "",
    "expect" = "",
    "expires" = "",
    "from" = "",
    "host" = "",
    "if-match" = "",
    "if-modified-since" = "",
    "if-none-match" = "",
    "if-range" = "",
    "if-unmodified-since" = "",
    "last-modified" = "",
    "link" = "",
    "location" = "",
    "max-forwards" = "",
    "proxy-authenticate" = "",
    "proxy-authorization" = "",
    "range" = "",
    "referer" = "",
    "refresh" = "",
    "retry-after" = "",
    "server" = "",
    "set-cookie" = "",
    "strict-transport-security" = "",
    "transfer-encoding" = "",
    "user-agent" = "",
    "vary" = "",
    "via" = "",
    "www-authenticate" = "",
}

/// The multiplier gives each name a slot of its own, found by trying.
static INDEX: NameIndex<ENTRIES> = NameIndex::new(&NAMES, 0x8712_b8bd);

/// The field with this number, from 1.
#[inline]
pub(crate) fn get(number: usize) -> Option<&'static Entry> {
    TABLE.get(number.checked_sub(1)?)
}

/// Looks for a field; what is found counts from 0.
#[inline]
pub(crate) fn find(name: &[u8], value: &[u8]) -> Found {
    INDEX.find(&TABLE, name, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_lie_where_the_appendix_has_them() {
        for (number, name, value) in [
            (1, ":authority", ""),
            (2, ":method", "GET"),
            (8, ":status", "200"),
            (14, ":status", "500"),
            (16, "accept-encoding", "gzip, deflate"),
            (28, "content-length", ""),
            (38, "host", ""),
            (61, "www-authenticate", ""),
        ] {
            let entry = get(number).unwrap();
            assert_eq!((entry.name, entry.value), (name, value));
        }
        assert!(get(0).is_none() && get(62).is_none());
    }

    #[test]
    fn every_entry_is_found_by_name_and_value() {
        for (index, entry) in (0_u8..).zip(&TABLE) {
            let (name, value) = (entry.name.as_bytes(), entry.value.as_bytes());
            assert_eq!(find(name, value), Found::Field(index));
        }
        assert_eq!(find(b":status", b"201"), Found::Name(7));
        for name in ["", "x", "x-request-id", "datf", "Date"] {
            assert_eq!(find(name.as_bytes(), b""), Found::Nothing, "{name}");
        }
    }
}
