//! Does the server stand its corpus, and what is made of it? `edge_testing::Corpus` says which inputs.

#[path = "../fuzz/bodies.rs"]
mod bodies;

use edge_testing::Corpus;

/// Bytes that mean something.
const EDGES: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x25, 0x40, 0x7f, 0x82, 0xbe, 0xff];

const CORPUS: Corpus = Corpus::new(env!("CARGO_MANIFEST_DIR"), &EDGES);

#[test]
fn any_bytes_of_a_client_are_served_or_refused() {
    CORPUS.fuzz("server", bodies::server);
}
