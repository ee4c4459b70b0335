//! How HPACK and QPACK write a number behind a few bits of an instruction (RFC 7541 5.1, RFC 9204 4.1.1).

use bytes::{BufMut, BytesMut};

/// Most bytes of a number: the one with the prefix, and 9 with 7 bits each for its 62 bits.
pub const MAX_BYTES: usize = 10;

/// The number doesn't fit into 62 bits, or it is padded beyond [`MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an integer is larger than 62 bits")]
pub struct Overflow;

/// Reads the number in the low `prefix` (1 to 8) bits of the first byte and in what follows: its
/// value and how many bytes it takes, or `None` if more bytes are needed.
///
/// # Errors
///
/// [`Overflow`], as soon as it is certain.
#[inline]
pub fn decode(bytes: &[u8], prefix: u32) -> Result<Option<(u64, usize)>, Overflow> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let mask = 0xff_u8 >> (8 - prefix);
    if first & mask != mask {
        return Ok(Some((u64::from(first & mask), 1)));
    }
    let mut value = u64::from(mask);
    for (index, &byte) in bytes.iter().enumerate().skip(1) {
        if index == MAX_BYTES {
            return Err(Overflow);
        }
        // At most 7 * 8 + 7 = 63 bits are added to at most 255: no overflow of 64 bits.
        value += u64::from(byte & 0x7f) << (7 * (index - 1));
        if value >> 62 != 0 {
            return Err(Overflow);
        }
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= MAX_BYTES { Err(Overflow) } else { Ok(None) }
}

/// Writes `value` into the low `prefix` (1 to 8) bits of a byte whose other bits are `first`, and
/// into as many bytes more as it takes.
#[inline]
pub fn encode(value: u64, prefix: u32, first: u8, out: &mut BytesMut) {
    let mask = 0xff_u8 >> (8 - prefix);
    match u8::try_from(value) {
        Ok(small) if small < mask => out.put_u8(first | small),
        _ => {
            out.put_u8(first | mask);
            let mut rest = value - u64::from(mask);
            while rest >= 0x80 {
                out.put_u8(low_bits(rest) | 0x80);
                rest >>= 7;
            }
            out.put_u8(low_bits(rest));
        }
    }
}

fn low_bits(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read_and_written() {
        // RFC 7541 C.1.
        for (value, prefix, bytes) in
            [(10, 5, &[0x0a][..]), (1337, 5, &[0x1f, 0x9a, 0x0a][..]), (42, 8, &[0x2a][..])]
        {
            let mut out = BytesMut::new();
            encode(value, prefix, 0, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(decode(bytes, prefix), Ok(Some((value, bytes.len()))));
        }
    }

    #[test]
    fn what_is_larger_than_62_bits_is_refused_and_62_bits_are_not() {
        let mut out = BytesMut::new();
        encode((1 << 62) - 1, 3, 0, &mut out);
        assert_eq!(decode(&out, 3), Ok(Some(((1 << 62) - 1, out.len()))));
        let mut out = BytesMut::new();
        encode(1 << 62, 3, 0, &mut out);
        assert_eq!(decode(&out, 3), Err(Overflow));
        assert_eq!(decode(&[0xff; 10], 7), Err(Overflow));
    }

    #[test]
    fn padding_with_zeros_has_an_end() {
        let mut padded = [0x80; 12];
        padded[0] = 0x7f;
        assert_eq!(decode(&padded[..9], 7), Ok(None));
        assert_eq!(decode(&padded, 7), Err(Overflow));
        assert_eq!(decode(&[0x7f, 0x80, 0x00], 7), Ok(Some((127, 3))));
    }

    proptest! {
        #[test]
        fn numbers_survive_the_round_trip(
            value in 0u64..1 << 62, shift in 0u32..62, prefix in 1u32..=8,
        ) {
            let value = value >> shift;
            let mut out = BytesMut::new();
            encode(value, prefix, 0, &mut out);
            prop_assert_eq!(decode(&out, prefix), Ok(Some((value, out.len()))));
            for cut in 0..out.len() {
                prop_assert_eq!(decode(&out[..cut], prefix), Ok(None));
            }
        }
    }
}
