//! Huffman coding of strings (RFC 7541 5.2, appendix B).
//!
//! The code of the appendix is canonical: symbols sorted by length and then by value have codes that
//! count up. So the lengths say everything, and all tables are made of them by the compiler.

use bytes::{BufMut, BytesMut};

/// All bytes, and 256 for the end of a string, which is never written (RFC 7541 5.2).
const SYMBOLS: usize = 257;

/// The longest code.
const LEN_MAX: u32 = 30;

/// Codes of at most this length are found by one look into a table.
const FAST_BITS: u32 = 10;

/// The length of each symbol's code in bits (RFC 7541 appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5,
    6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11,
    14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21,
    22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22,
    23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27,
    27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

static TABLES: Tables = Tables::new();

/// Why a string isn't Huffman code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HuffmanError {
    /// The end of string is spelled out.
    #[error("a string spells out its end")]
    EndOfString,
    /// The last bits are neither a symbol nor at most seven ones.
    #[error("a string is padded wrongly")]
    Padding,
}

/// All that is derived from [`LENGTHS`].
struct Tables {
    /// Each symbol's code, in the low bits.
    codes: [u32; SYMBOLS],
    /// The symbols in the order of their codes.
    sorted: [u16; SYMBOLS],
    /// The first code that is larger than all codes of this length.
    limit: [u32; LEN_MAX as usize + 1],
    /// What to subtract from a code of this length to get its place in `sorted`. May wrap.
    skew: [u32; LEN_MAX as usize + 1],
    /// By the next [`FAST_BITS`] bits: the symbol and the length of its code; 0 if it is longer.
    fast: [(u16, u8); 1 << FAST_BITS],
}

impl Tables {
    const fn new() -> Self {
        let mut tables = Self {
            codes: [0; SYMBOLS],
            sorted: [0; SYMBOLS],
            limit: [0; LEN_MAX as usize + 1],
            skew: [0; LEN_MAX as usize + 1],
            fast: [(0, 0); 1 << FAST_BITS],
        };
        let (mut code, mut place) = (0_u32, 0_u32);
        let mut len = 1;
        while len <= LEN_MAX as usize {
            code <<= 1;
            tables.skew[len] = code.wrapping_sub(place);
            let mut symbol = 0_u16;
            while (symbol as usize) < SYMBOLS {
                if LENGTHS[symbol as usize] as usize == len {
                    tables.codes[symbol as usize] = code;
                    tables.sorted[place as usize] = symbol;
                    tables.fill_fast(code, symbol);
                    code += 1;
                    place += 1;
                }
                symbol += 1;
            }
            tables.limit[len] = code;
            len += 1;
        }
        tables
    }

    const fn fill_fast(&mut self, code: u32, symbol: u16) {
        let len = LENGTHS[symbol as usize];
        if len as u32 > FAST_BITS {
            return;
        }
        let free = FAST_BITS - len as u32;
        let mut at = code << free;
        while at < (code + 1) << free {
            self.fast[at as usize] = (symbol, len);
            at += 1;
        }
    }

    /// The symbol that the highest bits of `bits` are the code of, and the code's length.
    #[inline]
    fn symbol(&self, bits: u64) -> (u16, u32) {
        let (symbol, len) = self.fast[(bits >> (64 - FAST_BITS)) as usize];
        if len == 0 { self.long_symbol(bits) } else { (symbol, u32::from(len)) }
    }

    fn long_symbol(&self, bits: u64) -> (u16, u32) {
        let top = (bits >> 32) as u32;
        for len in FAST_BITS + 1..LEN_MAX {
            let code = top >> (32 - len);
            if code < self.limit[len as usize] {
                let place = code.wrapping_sub(self.skew[len as usize]);
                return (self.sorted[place as usize], len);
            }
        }
        let place = (top >> 2).wrapping_sub(self.skew[LEN_MAX as usize]);
        (self.sorted[place as usize], LEN_MAX)
    }
}

/// The bits of a string that come next.
struct Bits<'a> {
    /// The next `count` bits are the highest; below them is nothing, or what `rest` begins with.
    bits: u64,
    count: u32,
    rest: &'a [u8],
}

impl Bits<'_> {
    /// Sees to it that a code of any length is at hand, unless the string ends.
    #[inline]
    fn refill(&mut self) {
        if self.count >= LEN_MAX {
            return;
        }
        if let Some(next) = self.rest.first_chunk() {
            // As many whole bytes as there is room for. What of the next one fits, too, is there
            // already when its turn comes.
            self.bits |= u64::from_be_bytes(*next) >> self.count;
            self.rest = &self.rest[((63 - self.count) / 8) as usize..];
            self.count |= 56;
        } else {
            while let (Some((byte, rest)), true) = (self.rest.split_first(), self.count <= 56) {
                self.bits |= u64::from(*byte) << (56 - self.count);
                self.count += 8;
                self.rest = rest;
            }
        }
    }

    /// Whether nothing is left but at most seven ones.
    fn is_padding(&self) -> bool {
        self.count <= 7 && self.bits.leading_ones() >= self.count
    }
}

/// Appends what `bytes` are the code of.
///
/// # Errors
///
/// [`HuffmanError`]; `out` is then as it was.
pub fn decode(bytes: &[u8], out: &mut BytesMut) -> Result<(), HuffmanError> {
    let before = out.len();
    // No code is shorter than 5 bits.
    out.resize(before + bytes.len() * 8 / 5, 0);
    let result = decode_into(bytes, &mut out[before..]);
    out.truncate(before + result.unwrap_or(0));
    result.map(|_| ())
}

/// Decodes into `text`, which is long enough. Gives the number of symbols.
fn decode_into(bytes: &[u8], text: &mut [u8]) -> Result<usize, HuffmanError> {
    let mut input = Bits { bits: 0, count: 0, rest: bytes };
    let mut symbols = 0;
    loop {
        input.refill();
        let (symbol, len) = TABLES.symbol(input.bits);
        if len > input.count {
            break;
        }
        let Ok(symbol) = u8::try_from(symbol) else { return Err(HuffmanError::EndOfString) };
        text[symbols] = symbol;
        symbols += 1;
        input.bits <<= len;
        input.count -= len;
    }
    if input.is_padding() { Ok(symbols) } else { Err(HuffmanError::Padding) }
}

/// How many bytes the code of `bytes` takes.
#[inline]
#[must_use]
pub fn encoded_len(bytes: &[u8]) -> usize {
    let bits: usize = bytes.iter().map(|&byte| usize::from(LENGTHS[usize::from(byte)])).sum();
    bits.div_ceil(8)
}

/// Appends the code of `bytes`, padded with ones: [`encoded_len`] bytes.
pub fn encode(bytes: &[u8], out: &mut BytesMut) {
    let (mut bits, mut count) = (0_u64, 0_u32);
    for &byte in bytes {
        let len = u32::from(LENGTHS[usize::from(byte)]);
        bits = (bits << len) | u64::from(TABLES.codes[usize::from(byte)]);
        count += len;
        if count >= 32 {
            count -= 32;
            out.put_slice(&(bits >> count).to_be_bytes()[4..]);
        }
    }
    let padding = (8 - count % 8) % 8;
    let last = (bits << padding) | ((1 << padding) - 1);
    let bytes = ((count + padding) / 8) as usize;
    out.put_slice(&last.to_be_bytes()[8 - bytes..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(bytes: &[u8]) -> Result<BytesMut, HuffmanError> {
        let mut out = BytesMut::new();
        decode(bytes, &mut out).map(|()| out)
    }

    fn encoded(bytes: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        encode(bytes, &mut out);
        assert_eq!(out.len(), encoded_len(bytes));
        out
    }

    #[test]
    fn the_strings_of_the_rfc_are_read_and_written() {
        // RFC 7541 C.4 and C.6.
        for (text, code) in [
            (
                "www.example.com",
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
            ),
            ("no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf][..]),
            ("custom-key", &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f][..]),
            ("custom-value", &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf][..]),
            ("302", &[0x64, 0x02][..]),
            ("private", &[0xae, 0xc3, 0x77, 0x1a, 0x4b][..]),
            ("307", &[0x64, 0x0e, 0xff][..]),
            ("", &[][..]),
        ] {
            assert_eq!(decoded(code).unwrap(), text);
            assert_eq!(encoded(text.as_bytes()), code);
        }
    }

    #[test]
    fn every_byte_has_the_code_of_the_appendix() {
        // The first and last codes of some lengths, and those that no text has.
        for (symbol, code, len) in [
            (b'0', 0, 5),
            (b't', 0x9, 5),
            (b' ', 0x14, 6),
            (b'z', 0x7b, 7),
            (b'&', 0xf8, 8),
            (b'!', 0x3f8, 10),
            (b'|', 0x7fc, 11),
            (0, 0x1ff8, 13),
            (b'\\', 0x7_fff0, 19),
            (0xf9, 0xfff_fffe, 28),
            (10, 0x3fff_fffc, 30),
            (22, 0x3fff_fffe, 30),
        ] {
            let at = usize::from(symbol);
            assert_eq!((TABLES.codes[at], LENGTHS[at]), (code, len), "{symbol}");
        }
        assert_eq!(TABLES.codes[256], 0x3fff_ffff);
        for byte in 0..=u8::MAX {
            assert_eq!(decoded(&encoded(&[byte])).unwrap(), [byte].as_slice());
        }
    }

    #[test]
    fn an_end_of_string_that_is_spelled_out_is_refused() {
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(HuffmanError::EndOfString));
        assert_eq!(decoded(&[0x07, 0xff, 0xff, 0xff, 0xff]), Err(HuffmanError::EndOfString));
    }

    #[test]
    fn padding_is_at_most_seven_ones() {
        assert_eq!(decoded(&[0x07]).unwrap(), "0");
        assert_eq!(decoded(&[0x00]), Err(HuffmanError::Padding), "zeros");
        assert_eq!(decoded(&[0x06]), Err(HuffmanError::Padding), "not all ones");
        assert_eq!(decoded(&[0xff]), Err(HuffmanError::Padding), "eight ones");
        assert_eq!(decoded(&[0x07, 0xff]), Err(HuffmanError::Padding), "a byte of ones more");
    }

    proptest! {
        #[test]
        fn strings_survive_the_round_trip(bytes: Vec<u8>) {
            prop_assert_eq!(decoded(&encoded(&bytes)).unwrap(), bytes);
        }

        #[test]
        fn what_is_read_is_written_the_same(bytes: Vec<u8>) {
            if let Ok(text) = decoded(&bytes) {
                prop_assert_eq!(encoded(&text), bytes);
            }
        }
    }
}
