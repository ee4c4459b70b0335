//! Feeds `bodies::page_map` arbitrary bytes.

#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::page_map(data));
