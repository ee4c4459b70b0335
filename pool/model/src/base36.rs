//! Fixed-width base36 (digits, then lower-case letters) of 128-bit numbers.

/// Digits of an id: the least `n` with `36^n >= 2^128`.
pub(crate) const DIGITS: usize = 25;

const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Digits of a part whose numbers fit into 64 bits.
const PART: usize = 2 * HALF as usize;
/// Digits of half a part, whose numbers fit into 32 bits.
const HALF: u32 = 6;

/// All numbers of two digits: half as many divisions as digit by digit.
const PAIRS: [[u8; 2]; 36 * 36] = {
    let mut pairs = [[0; 2]; 36 * 36];
    let mut at = 0;
    while at < pairs.len() {
        pairs[at] = [ALPHABET[at / 36], ALPHABET[at % 36]];
        at += 1;
    }
    pairs
};

/// Writes `value` with leading zeroes.
pub(crate) fn encode(value: u128) -> [u8; DIGITS] {
    // Every request has an id to write, and dividing 128 bits is slow: twice is enough.
    let parts = 36_u128.pow(2 * HALF);
    let high = value / parts;
    let top = high / parts;
    let mut out = [b'0'; DIGITS];
    // 25 digits are one and two parts.
    let (first, rest) = out.split_at_mut(1);
    let (middle, last) = rest.split_at_mut(PART);
    first[0] = ALPHABET[usize::try_from(top).expect("one digit is left")];
    encode_part(high - top * parts, middle);
    encode_part(value - high * parts, last);
    out
}

fn encode_part(value: u128, out: &mut [u8]) {
    let value = u64::try_from(value).expect("twelve digits of 36 fit");
    let halves = 36_u64.pow(HALF);
    let (high, low) = out.split_at_mut(PART / 2);
    encode_half(value / halves, high);
    encode_half(value % halves, low);
}

fn encode_half(value: u64, out: &mut [u8]) {
    let mut value = u32::try_from(value).expect("six digits of 36 fit");
    for pair in out.rchunks_exact_mut(2) {
        pair.copy_from_slice(&PAIRS[value as usize % PAIRS.len()]);
        value /= 36 * 36;
    }
}

/// Reads exactly [`DIGITS`] lower-case digits; `None` for anything else, overflow included.
pub(crate) fn decode(text: &str) -> Option<u128> {
    if text.len() != DIGITS {
        return None;
    }
    text.bytes().try_fold(0u128, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            _ => return None,
        };
        value.checked_mul(36)?.checked_add(u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_survives_a_round_trip() {
        let powers = (0..25).map(|digits| 36_u128.pow(digits));
        let near = powers.flat_map(|power| [power - 1, power, power + 35 * (power / 36)]);
        for value in near.chain([u128::from(u64::MAX), u128::MAX - 1, u128::MAX]) {
            let text = encode(value);
            assert_eq!(decode(std::str::from_utf8(&text).unwrap()), Some(value));
        }
    }

    #[test]
    fn overflow_case_and_length_are_refused() {
        assert_eq!(decode("zzzzzzzzzzzzzzzzzzzzzzzzz"), None, "over 2^128");
        assert_eq!(decode("A000000000000000000000000"), None, "upper case");
        assert_eq!(decode("0"), None, "short");
        assert_eq!(decode("00000000000000000000000000"), None, "long");
    }
}
