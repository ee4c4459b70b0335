//! Which inputs does a parser have to stand?
//!
//! Every file of its corpus, every beginning of one, then what a generator of mutations makes of
//! them. `WRENN_FUZZ_SECONDS` is how long each parser is tried (1 without it), `WRENN_FUZZ_SEED`
//! where the generator begins. What fails is printed as a file for the corpus would have to be.

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

/// Longer inputs only cost time.
const INPUT_BYTES_MAX: usize = 4096;

/// The seeds of a crate's parsers: `fuzz/corpus/{target}/*`.
#[derive(Debug, Clone, Copy)]
pub struct Corpus {
    crate_dir: &'static str,
    edges: &'static [u8],
}

impl Corpus {
    /// Of the crate in this directory (`env!("CARGO_MANIFEST_DIR")`). `edges` are bytes that mean
    /// something to its parsers.
    #[must_use]
    pub const fn new(crate_dir: &'static str, edges: &'static [u8]) -> Self {
        Self { crate_dir, edges }
    }

    /// Where a target's seeds are.
    #[must_use]
    pub fn dir(&self, target: &str) -> PathBuf {
        Path::new(self.crate_dir).join("fuzz/corpus").join(target)
    }

    /// Has `body` stand the inputs of a target.
    ///
    /// # Panics
    ///
    /// If `body` does, and if there are fewer than three seeds.
    pub fn fuzz(&self, target: &str, body: fn(&[u8])) {
        let seeds = self.seeds(target);
        for input in &seeds {
            for cut in 0..=input.len() {
                run(target, body, &input[..cut]);
            }
        }
        let seconds = number("WRENN_FUZZ_SECONDS").unwrap_or(1);
        let end = Instant::now() + Duration::from_secs(seconds);
        let rng = StdRng::seed_from_u64(number("WRENN_FUZZ_SEED").unwrap_or(0x5752_454e));
        let mut generator = Generator { seeds: &seeds, edges: self.edges, rng };
        let mut inputs = 0_u64;
        while Instant::now() < end {
            for _ in 0..64 {
                run(target, body, &generator.input());
                inputs += 1;
            }
        }
        println!("{target}: {inputs} inputs");
    }

    /// The files of a target, in the order of their names.
    fn seeds(&self, target: &str) -> Vec<Vec<u8>> {
        let files = fs::read_dir(self.dir(target)).unwrap();
        let mut paths: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() >= 3, "{target} has only {} files", paths.len());
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

fn run(target: &str, body: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(input))) {
        eprintln!("{target} fails on b\"{}\"", input.escape_ascii());
        resume_unwind(panic);
    }
}

struct Generator<'a> {
    seeds: &'a [Vec<u8>],
    edges: &'a [u8],
    rng: StdRng,
}

impl Generator<'_> {
    /// Mostly a seed with a few changes, sometimes mere noise.
    fn input(&mut self) -> Vec<u8> {
        let mut input = if self.rng.random_ratio(1, 8) {
            (0..self.rng.random_range(0..64)).map(|_| self.byte()).collect()
        } else {
            self.seeds.choose(&mut self.rng).unwrap().clone()
        };
        for _ in 0..self.rng.random_range(0..6) {
            self.mutate(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn byte(&mut self) -> u8 {
        let any = self.rng.random();
        if any { self.rng.random() } else { *self.edges.choose(&mut self.rng).unwrap() }
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.rng.random_range(0..=input.len());
        let to = self.rng.random_range(at..=input.len().min(at + 40));
        match self.rng.random_range(0..8) {
            0 => input.insert(at, self.byte()),
            1 => drop(input.drain(at..to)),
            2 => input.truncate(at),
            3 => {
                let piece = input[at..to].to_vec();
                let again = self.rng.random_range(0..=input.len());
                input.splice(again..again, piece);
            }
            4 => {
                let other = self.seeds.choose(&mut self.rng).unwrap();
                let from = self.rng.random_range(0..=other.len());
                input.splice(at..to, other[from..].iter().copied());
            }
            5 if at < input.len() => input[at] ^= 1 << self.rng.random_range(0..8),
            6 if at < input.len() => {
                input[at] = input[at].wrapping_add(self.rng.random_range(0..3)) ^ 1;
            }
            _ if at < input.len() => input[at] = self.byte(),
            _ => input.push(self.byte()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_makes_the_same_inputs_and_another_one_others() {
        let seeds = [b"one".to_vec(), b"two".to_vec(), vec![7; 2 * INPUT_BYTES_MAX]];
        let inputs = |seed| {
            let rng = StdRng::seed_from_u64(seed);
            let mut generator = Generator { seeds: &seeds, edges: b"\r\n", rng };
            (0..200).map(|_| generator.input()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        assert!(inputs(1).iter().all(|input| input.len() <= INPUT_BYTES_MAX));
        assert!(inputs(1).iter().any(|input| !seeds.contains(input)));
    }

    #[test]
    #[should_panic(expected = "17 is wrong")]
    fn what_a_body_panics_with_fails_the_test() {
        run("numbers", |input| assert_ne!(input, [17], "17 is wrong"), &[17]);
    }
}
