//! How QUIC writes a number of up to 62 bits (RFC 9000 16).

use bytes::{BufMut, BytesMut};

/// The largest number there is: 2^62 - 1.
pub const MAX: u64 = (1 << 62) - 1;

/// Most bytes of one number.
pub const MAX_BYTES: usize = 8;

/// Reads the number at the start of `bytes`: its value and how many bytes it takes, or `None` if
/// more bytes are needed. Numbers longer than necessary are read too: HTTP/3 allows them.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let len = 1 << (first >> 6);
    let rest = bytes.get(1..len)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, &b| (value << 8) | u64::from(b));
    Some((value, len))
}

/// Reads bytes that are one number and nothing else.
#[must_use]
pub fn decode_whole(bytes: &[u8]) -> Option<u64> {
    decode(bytes).and_then(|(value, len)| (len == bytes.len()).then_some(value))
}

/// How many bytes `value` takes: 1, 2, 4 or 8.
#[must_use]
pub const fn len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Writes `value` in as few bytes as it takes. A value above [`MAX`] does not exist on the wire: it
/// is written as [`MAX`].
pub fn encode(value: u64, out: &mut BytesMut) {
    let value = value.min(MAX);
    let len = len(value);
    let marked = value | (u64::from(len.trailing_zeros()) << (len * 8 - 2));
    out.put_uint(marked, len);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(value: u64) -> BytesMut {
        let mut out = BytesMut::new();
        encode(value, &mut out);
        out
    }

    #[test]
    fn the_examples_of_the_rfc_are_read_and_written() {
        // RFC 9000 A.1.
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d][..], 494_878_333),
            (&[0x7b, 0xbd][..], 15_293),
            (&[0x25][..], 37),
        ] {
            assert_eq!(decode(bytes), Some((value, bytes.len())));
            assert_eq!(encoded(value), bytes);
        }
        assert_eq!(decode(&[0x40, 0x25]), Some((37, 2)), "longer than necessary");
    }

    #[test]
    fn what_is_cut_short_or_followed_by_more_is_no_number() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8]), None);
        assert_eq!(decode_whole(&[0x25, 0]), None);
        assert_eq!(decode_whole(&[0x25]), Some(37));
    }

    proptest! {
        #[test]
        fn numbers_survive_the_round_trip(value in 0..=MAX, shift in 0u32..62) {
            let value = value >> shift;
            let bytes = encoded(value);
            prop_assert_eq!(bytes.len(), len(value));
            prop_assert_eq!(decode_whole(&bytes), Some(value));
        }
    }
}
