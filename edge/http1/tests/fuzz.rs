//! Does each parser stand its corpus, and what is made of it? `edge_testing::Corpus` says which inputs.

#[path = "../fuzz/bodies.rs"]
mod bodies;

use edge_testing::Corpus;

/// Bytes that mean something.
const EDGES: [u8; 16] = *b"\r\n :;,0159afHG\0\t";

const CORPUS: Corpus = Corpus::new(env!("CARGO_MANIFEST_DIR"), &EDGES);

#[test]
fn heads_of_requests() {
    CORPUS.fuzz("requests", bodies::requests);
}

#[test]
fn chunked_bodies() {
    CORPUS.fuzz("chunked", bodies::chunked);
}

#[test]
fn answers_to_the_client() {
    CORPUS.fuzz("answers", bodies::answers);
}

#[test]
fn requests_to_the_server() {
    CORPUS.fuzz("server", bodies::server);
}
