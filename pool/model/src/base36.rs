//! Fixed-width base36 (digits, then lower-case letters) of 128-bit numbers.

/// Digits of an id: the least `n` with `36^n >= 2^128`.
pub(crate) const DIGITS: usize = 25;

const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Writes `value` with leading zeroes.
pub(crate) fn encode(mut value: u128) -> [u8; DIGITS] {
    let mut out = [b'0'; DIGITS];
    for digit in out.iter_mut().rev() {
        *digit = ALPHABET[usize::try_from(value % 36).expect("a remainder of 36 fits")];
        value /= 36;
    }
    out
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
        for value in [0, 1, 35, 36, u128::from(u64::MAX), u128::MAX] {
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
