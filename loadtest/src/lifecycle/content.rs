//! What a life leaves in its sandbox and looks for later: bytes that no other life has.

use bytes::Bytes;

/// A stream of numbers that follows from a nonce (splitmix64 from an FNV-1a hash).
#[derive(Debug, Clone)]
struct Numbers(u64);

impl Numbers {
    fn of(nonce: &str) -> Self {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        Self(nonce.bytes().fold(OFFSET, hash))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The content of a life's file: any bytes, not only text.
pub(super) fn file(nonce: &str, bytes: usize) -> Bytes {
    let mut numbers = Numbers::of(nonce);
    let mut content = Vec::with_capacity(bytes + 8);
    while content.len() < bytes {
        content.extend_from_slice(&numbers.next().to_le_bytes());
    }
    content.truncate(bytes);
    content.into()
}

/// A word for a process to remember; needs no quotes in a shell.
pub(super) fn word(nonce: &str) -> String {
    let mut numbers = Numbers::of(nonce);
    format!("{:016x}{:016x}", numbers.next(), numbers.next())
}

/// Where a life's file is; needs no quotes in a shell.
pub(super) fn path(nonce: &str) -> String {
    format!("/tmp/loadtest-{}", word(nonce))
}

/// What is wrong with what came back, if something is.
pub(super) fn difference(wanted: &[u8], came: &[u8]) -> Option<String> {
    if wanted == came {
        return None;
    }
    let at = wanted.iter().zip(came).position(|(wanted, came)| wanted != came);
    let at = at.unwrap_or_else(|| wanted.len().min(came.len()));
    let (wanted, came) = (wanted.len(), came.len());
    Some(format!("{came} bytes instead of {wanted}, the first difference at byte {at}"))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn content_follows_from_the_nonce_and_has_the_length() {
        for bytes in [0, 1, 7, 8, 9, 1000] {
            assert_eq!(file("a", bytes).len(), bytes);
            assert_eq!(file("a", bytes), file("a", bytes));
        }
        assert_ne!(file("a", 64), file("b", 64));
        assert_ne!(word("a"), word("b"));
        assert!(
            path("it's; $(odd)").chars().all(|c| c.is_ascii_alphanumeric() || "/-".contains(c))
        );
    }

    #[test]
    fn difference_names_the_first_byte() {
        assert_eq!(difference(b"same", b"same"), None);
        assert!(difference(b"same", b"some").unwrap().ends_with("at byte 1"));
        let cut = difference(b"same", b"sa").unwrap();
        assert_eq!(cut, "2 bytes instead of 4, the first difference at byte 2");
    }
}
