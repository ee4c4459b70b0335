//! Feeds `bodies::working_set` arbitrary bytes.

#![no_main]

#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::working_set(data));
