//! Whether an answer is the right one: the nonce, the body, a sandbox of its own.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, PoisonError},
};

/// What every nonce begins with.
const NONCE_PREFIX: &str = "wln-";
/// Digits after it.
const NONCE_DIGITS: usize = 16;
/// Sandboxes that are remembered: enough for ten minutes at hundreds a second, and 12 MiB at most.
const REMEMBERED: usize = 1 << 18;

/// The header that carries a nonce to the function.
pub(crate) const NONCE_HEADER: &str = "x-loadtest-nonce";

/// A nonce of a number that nobody else has.
pub(crate) fn nonce(number: u64) -> String {
    format!("{NONCE_PREFIX}{number:016x}")
}

/// Looks for nonces in a body: ours has to be there, and no other.
///
/// Gives the name of the check that failed and what was wrong.
pub(crate) fn alone(body: &[u8], ours: &str) -> Result<(), (&'static str, String)> {
    let mut found = false;
    for nonce in nonces(body) {
        if nonce != ours.as_bytes() {
            let other = String::from_utf8_lossy(nonce);
            return Err((
                "cross_talk",
                format!("the answer to {ours} holds {other}, another request's nonce"),
            ));
        }
        found = true;
    }
    if found {
        return Ok(());
    }
    let begin = String::from_utf8_lossy(&body[..body.len().min(200)]);
    Err(("nonce", format!("the answer does not repeat {ours}; it begins with {begin:?}")))
}

fn nonces(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let length = NONCE_PREFIX.len() + NONCE_DIGITS;
    let is_nonce = |text: &&[u8]| {
        text.strip_prefix(NONCE_PREFIX.as_bytes())
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    body.windows(length).filter(is_nonce)
}

/// Remembers which sandboxes have answered.
#[derive(Debug, Default)]
pub(crate) struct Distinct {
    seen: Mutex<Seen>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Seen {
    hashes: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Distinct {
    /// Whether a sandbox has not answered before, as far as is remembered (the last 262,144).
    pub(crate) fn is_new(&self, sandbox: &str) -> bool {
        let hash = self.hasher.hash_one(sandbox);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.hashes.insert(hash) {
            return false;
        }
        seen.order.push_back(hash);
        if seen.order.len() > REMEMBERED
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.hashes.remove(&oldest);
        }
        true
    }
}

/// The pattern that test servers send: byte `i` is `i` modulo this.
const PATTERN: u64 = 251;

/// Checks a body of the pattern piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Pattern {
    bytes: u64,
    wrong_at: Option<u64>,
}

impl Pattern {
    /// Takes the next piece.
    pub(crate) fn take(&mut self, piece: &[u8]) {
        if self.wrong_at.is_none() {
            let right = pattern_from(self.bytes);
            let wrong = piece.iter().zip(right).position(|(byte, right)| *byte != right);
            self.wrong_at = wrong.map(|index| self.bytes + index as u64);
        }
        self.bytes += piece.len() as u64;
    }

    /// What was wrong with the whole, if `expected` bytes had to come.
    pub(crate) fn wrong(&self, expected: u64) -> Option<String> {
        match self.wrong_at {
            Some(at) => Some(format!("byte {at} of the body is not the pattern's")),
            None if self.bytes != expected => {
                Some(format!("{} bytes came; expected {expected}", self.bytes))
            }
            None => None,
        }
    }
}

/// The pattern from a place on.
fn pattern_from(place: u64) -> impl Iterator<Item = u8> {
    let first = u8::try_from(place % PATTERN).unwrap_or(0);
    (first..251).chain((0..251_u8).cycle())
}

/// So many bytes of the pattern.
pub(crate) fn pattern(bytes: usize) -> Vec<u8> {
    pattern_from(0).take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_has_to_come_back_alone() {
        let (ours, other) = (nonce(7), nonce(8));
        let body = format!(r#"{{"nonce": "{ours}", "again": "{ours}"}}"#);
        assert_eq!(alone(body.as_bytes(), &ours), Ok(()));
        let (check, why) = alone(b"<html>", &ours).unwrap_err();
        assert_eq!(check, "nonce");
        assert!(why.contains(&ours) && why.contains("<html>"), "{why}");
        let body = format!("{ours} {other}");
        let (check, why) = alone(body.as_bytes(), &ours).unwrap_err();
        assert_eq!(check, "cross_talk");
        assert!(why.contains(&other), "{why}");
    }

    #[test]
    fn a_sandbox_is_new_once_and_memory_is_bounded() {
        let distinct = Distinct::default();
        assert!(distinct.is_new("sb_1"));
        assert!(!distinct.is_new("sb_1"));
        for index in 0..REMEMBERED + 1000 {
            assert!(distinct.is_new(&format!("sb_x{index}")));
        }
        assert!(distinct.is_new("sb_1"), "it is forgotten by now");
        let seen = distinct.seen.lock().unwrap();
        assert_eq!((seen.hashes.len(), seen.order.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn a_pattern_is_checked_across_its_pieces() {
        let whole = pattern(2000);
        let mut right = Pattern::default();
        whole.chunks(77).for_each(|piece| right.take(piece));
        assert_eq!(right.wrong(2000), None);
        assert!(right.wrong(2001).unwrap().contains("2000 bytes came; expected 2001"));
        let mut broken = whole.clone();
        broken[1234] ^= 1;
        let mut wrong = Pattern::default();
        broken.chunks(77).for_each(|piece| wrong.take(piece));
        assert!(wrong.wrong(2000).unwrap().contains("byte 1234"));
    }
}
