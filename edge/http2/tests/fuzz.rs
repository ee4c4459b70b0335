//! The corpus through its body, then what a generator of mutations makes of it.
//!
//! `WRENN_FUZZ_SECONDS` is how long each parser is tried (1 without it), `WRENN_FUZZ_SEED` where the
//! generator begins. What fails is printed as a file for the corpus would have to be.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

type Body = fn(&[u8]);

/// Longer inputs only cost time.
const INPUT_BYTES_MAX: usize = 4096;

/// Bytes that mean something.
const EDGES: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x25, 0x40, 0x7f, 0x82, 0xbe, 0xff];

fn dir(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The files of a target, in the order of their names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        fs::read_dir(dir(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 3, "{target} has only {} files", paths.len());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

fn fuzz(target: &str, body: Body) {
    let corpus = corpus(target);
    for input in &corpus {
        for cut in 0..=input.len() {
            run(target, body, &input[..cut]);
        }
    }
    let end = Instant::now() + Duration::from_secs(number("WRENN_FUZZ_SECONDS").unwrap_or(1));
    let mut rng = StdRng::seed_from_u64(number("WRENN_FUZZ_SEED").unwrap_or(0x5752_454e));
    let mut inputs = 0_u64;
    while Instant::now() < end {
        for _ in 0..64 {
            run(target, body, &input(&corpus, &mut rng));
            inputs += 1;
        }
    }
    println!("{target}: {inputs} inputs");
}

fn run(target: &str, body: Body, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(input))) {
        eprintln!("{target} fails on b\"{}\"", input.escape_ascii());
        resume_unwind(panic);
    }
}

/// Mostly something out of the corpus with a few changes, sometimes mere noise.
fn input(corpus: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let mut input = if rng.random_ratio(1, 8) {
        (0..rng.random_range(0..64)).map(|_| byte(rng)).collect()
    } else {
        corpus.choose(rng).unwrap().clone()
    };
    for _ in 0..rng.random_range(0..6) {
        mutate(&mut input, corpus, rng);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn byte(rng: &mut StdRng) -> u8 {
    if rng.random() { rng.random() } else { *EDGES.choose(rng).unwrap() }
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut StdRng) {
    let at = rng.random_range(0..=input.len());
    let to = rng.random_range(at..=input.len().min(at + 40));
    match rng.random_range(0..8) {
        0 => input.insert(at, byte(rng)),
        1 => drop(input.drain(at..to)),
        2 => input.truncate(at),
        3 => {
            let piece = input[at..to].to_vec();
            let again = rng.random_range(0..=input.len());
            input.splice(again..again, piece);
        }
        4 => {
            let other = corpus.choose(rng).unwrap();
            let from = rng.random_range(0..=other.len());
            input.splice(at..to, other[from..].iter().copied());
        }
        5 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        6 if at < input.len() => input[at] = input[at].wrapping_add(rng.random_range(0..3)) ^ 1,
        _ if at < input.len() => input[at] = byte(rng),
        _ => input.push(byte(rng)),
    }
}

#[test]
fn any_bytes_of_a_client_are_served_or_refused() {
    fuzz("server", bodies::server);
}
