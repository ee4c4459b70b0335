//! Feeds `bodies::layer_index` arbitrary bytes.

#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::layer_index(data));
