//! Which codec suits blocks of guest memory: ratio and speed of LZ4 and zstd, one thread, block by block.
//!
//! `cargo run --release -p pool-store --example codec_bench -- FILE…` prints a Markdown table over
//! all non-zero 64 KiB blocks of the files.

use std::{
    error::Error,
    fs::File,
    hint::black_box,
    os::unix::fs::FileExt as _,
    time::{Duration, Instant},
};

use pool_store::{BLOCK_BYTES, data_extents};

/// How often everything is done; the fastest counts, as the others were disturbed.
const ROUNDS: usize = 3;

/// Compresses `from` into `to`, or decompresses; says how long the result is.
type Step<'a> = Box<dyn FnMut(&[u8], &mut [u8]) -> Result<usize, Box<dyn Error>> + 'a>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut blocks = Vec::new();
    for path in std::env::args_os().skip(1) {
        read_blocks(&File::open(path)?, &mut blocks)?;
    }
    if blocks.is_empty() {
        return Err("name at least one file with content".into());
    }
    let bytes = blocks.iter().map(Vec::len).sum::<usize>();
    println!("{} blocks, {} MiB\n", blocks.len(), bytes >> 20);
    println!("| codec | ratio | kept raw | compress MB/s | decompress MB/s | µs per block |");
    println!("|---|---|---|---|---|---|");
    measure("lz4", &blocks, Box::new(lz4_in), Box::new(lz4_out))?;
    for (name, level) in [("zstd -1", -1), ("zstd 3", 3)] {
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        let mut decompressor = zstd::bulk::Decompressor::new()?;
        let pack: Step<'_> = Box::new(|from, to| Ok(compressor.compress_to_buffer(from, to)?));
        let unpack: Step<'_> =
            Box::new(|from, to| Ok(decompressor.decompress_to_buffer(from, to)?));
        measure(name, &blocks, pack, unpack)?;
    }
    let took = fastest(|| {
        for block in &blocks {
            black_box(blake3::hash(block));
        }
        Ok(())
    })?;
    println!("\nverifying (BLAKE3): {:.0} MB/s", rate(bytes, took));
    Ok(())
}

fn lz4_in(from: &[u8], to: &mut [u8]) -> Result<usize, Box<dyn Error>> {
    Ok(lz4_flex::block::compress_into(from, to)?)
}

fn lz4_out(from: &[u8], to: &mut [u8]) -> Result<usize, Box<dyn Error>> {
    Ok(lz4_flex::block::decompress_into(from, to)?)
}

/// Prints one line of the table.
fn measure(
    name: &str,
    blocks: &[Vec<u8>],
    mut pack: Step<'_>,
    mut unpack: Step<'_>,
) -> Result<(), Box<dyn Error>> {
    let mut buffer = vec![0; 2 * BLOCK_BYTES];
    let mut packed = Vec::new();
    let packing = fastest(|| {
        packed.clear();
        for block in blocks {
            let len = pack(block, &mut buffer)?;
            packed.push(buffer[..len].to_vec());
        }
        Ok(())
    })?;
    let unpacking = fastest(|| {
        for (block, packed) in blocks.iter().zip(&packed) {
            let len = unpack(packed, &mut buffer[..BLOCK_BYTES])?;
            if buffer[..len] != **block {
                return Err("a block did not come back as it was".into());
            }
        }
        Ok(())
    })?;
    let bytes = blocks.iter().map(Vec::len).sum::<usize>();
    // As the store does it: what saves less than an eighth is kept raw.
    let pays = |block: &Vec<u8>, packed: &Vec<u8>| packed.len() <= block.len() - block.len() / 8;
    let pairs = || blocks.iter().zip(&packed);
    let stored: usize = pairs().map(|(b, p)| if pays(b, p) { p.len() } else { b.len() }).sum();
    let raw = pairs().filter(|(b, p)| !pays(b, p)).count();
    println!(
        "| {name} | {:.2} | {:.0} % | {:.0} | {:.0} | {:.1} |",
        bytes as f64 / stored as f64,
        raw as f64 * 100.0 / blocks.len() as f64,
        rate(bytes, packing),
        rate(bytes, unpacking),
        unpacking.as_secs_f64() * 1e6 / blocks.len() as f64,
    );
    Ok(())
}

fn fastest(
    mut work: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

/// Millions of bytes per second.
fn rate(bytes: usize, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64() / 1e6
}

/// Adds the blocks of `file` that are not zero.
fn read_blocks(file: &File, blocks: &mut Vec<Vec<u8>>) -> Result<(), Box<dyn Error>> {
    let (len, step) = (file.metadata()?.len(), BLOCK_BYTES as u64);
    let mut next = 0;
    for extent in data_extents(file)? {
        let mut at = next.max(extent.start / step * step);
        while at < extent.start + extent.len && at + step <= len {
            let mut block = vec![0; BLOCK_BYTES];
            file.read_exact_at(&mut block, at)?;
            if block.iter().any(|byte| *byte != 0) {
                blocks.push(block);
            }
            at += step;
        }
        next = next.max(at);
    }
    Ok(())
}
