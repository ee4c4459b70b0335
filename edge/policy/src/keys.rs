//! How are keys hashed that no client chooses?
//!
//! Ids that the platform drew at random and addresses of its own agents cannot be made to collide, so
//! they need none of SipHash's strength, and a request has ten of them to look up. The seed is random
//! nevertheless.

use std::hash::{BuildHasher, Hasher, RandomState};

/// 2^64 divided by the golden ratio: odd, its bits without a pattern.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hasher for maps whose keys are ours. Not for what a client chooses.
#[derive(Debug, Clone, Copy)]
pub struct OurKeys(u64);

impl Default for OurKeys {
    fn default() -> Self {
        Self(RandomState::new().hash_one(FACTOR))
    }
}

impl BuildHasher for OurKeys {
    type Hasher = OurHasher;

    fn build_hasher(&self) -> OurHasher {
        OurHasher(self.0)
    }
}

/// What [`OurKeys`] hashes with.
#[derive(Debug, Clone, Copy)]
pub struct OurHasher(u64);

impl OurHasher {
    /// One multiplication, whose halves are both used: each bit reaches all of the result.
    #[inline]
    const fn fold(&mut self, word: u64) {
        let wide = (self.0 ^ word) as u128 * FACTOR as u128;
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let low = wide as u64;
        self.0 = low ^ (wide >> 64) as u64;
    }
}

impl Hasher for OurHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u16(&mut self, value: u16) {
        self.fold(value.into());
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.fold(value.into());
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.fold(value);
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.fold(value as u64);
    }

    #[inline]
    fn write_u128(&mut self, value: u128) {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        self.fold(value as u64);
        self.fold((value >> 64) as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_that_differ_in_one_bit_or_byte_spread_over_all_places() {
        let keys = OurKeys::default();
        let ids = (0..128).map(|bit| keys.hash_one(1_u128 << bit));
        let bytes = (0..=255_u8).map(|byte| keys.hash_one([byte, 1, 2, 3]));
        let counts = (0..1000_u128).map(|count| keys.hash_one(count));
        let hashes: HashSet<u64> = ids.chain(bytes).chain(counts).collect();
        assert_eq!(hashes.len(), 128 + 256 + 1000 - 10, "ten of the ids are among the counts");
        for shift in [0, 32, 40, 57] {
            let mut places = [0_u32; 64];
            for hash in &hashes {
                places[usize::try_from(hash >> shift & 63).unwrap()] += 1;
            }
            let fullest = places.iter().max().unwrap();
            assert!(*fullest < 60, "{fullest} of {} in one of 64 places", hashes.len());
        }
    }

    #[test]
    fn another_map_has_another_seed() {
        assert_ne!(OurKeys::default().hash_one(7_u64), OurKeys::default().hash_one(7_u64));
    }
}
