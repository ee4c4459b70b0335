//! Does each parser stand its corpus, and what is made of it? `edge_testing::Corpus` says which inputs.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::fs;

use bytes::{BufMut, BytesMut};
use edge_http3::fuzzing::{
    FrameReader, Limits, Priority, StreamKind, decode_request, decode_trailers, qpack,
    write_frame_header, write_settings,
};
use edge_testing::Corpus;

/// Bytes at which the layouts change.
const EDGES: [u8; 14] =
    [0x00, 0x01, 0x04, 0x07, 0x1f, 0x20, 0x3f, 0x40, 0x50, 0x7f, 0x80, 0xbf, 0xc0, 0xff];

const CORPUS: Corpus = Corpus::new(env!("CARGO_MANIFEST_DIR"), &EDGES);

macro_rules! targets {
    ($($target:ident $test:ident,)+) => {
        $(#[test]
        fn $test() {
            CORPUS.fuzz(stringify!($target), bodies::$target);
        })+
    };
}

targets! {
    request_frames any_bytes_of_a_request_stream_are_read_or_refused,
    control_frames any_bytes_of_a_control_stream_are_read_or_refused,
    field_section any_bytes_of_a_field_section_are_read_or_refused,
    huffman any_bytes_of_huffman_code_are_read_or_refused,
    encoder_stream any_bytes_of_an_encoder_stream_are_read_or_refused,
    decoder_stream any_bytes_of_a_decoder_stream_are_read_or_refused,
    priority any_bytes_of_a_priority_are_read_or_refused,
}

/// So that the generator begins with what gets far.
#[test]
fn whole_seeds_are_still_read() {
    let limits = Limits::default();
    for name in ["get", "post", "websocket", "connect"] {
        let payload = fs::read(CORPUS.dir("field_section").join(name)).unwrap();
        decode_request(payload.into(), &limits).unwrap();
    }
    let trailers = fs::read(CORPUS.dir("field_section").join("trailers")).unwrap();
    assert_eq!(decode_trailers(trailers.into(), &limits).unwrap().len(), 2);
    for (kind, name, expected) in [
        (StreamKind::Request, "request_frames/post", 6),
        (StreamKind::Control, "control_frames/all", 5),
    ] {
        let mut reader = FrameReader::new(kind, limits);
        reader.push(fs::read(CORPUS.dir(name)).unwrap().into());
        let events = std::iter::from_fn(|| reader.next_event().unwrap()).count();
        assert_eq!(events, expected, "{name}");
        reader.finish().unwrap();
    }
    assert!(Priority::parse(&fs::read(CORPUS.dir("priority/both")).unwrap()).incremental);
}

/// Writes the seeds anew. `cargo test -p edge-http3 --test wire_fuzz -- --ignored`
#[test]
#[ignore = "it changes the corpus"]
fn seeds_are_written() {
    let (get, post, trailers) = field_section_seeds();
    request_frames_seeds(&get, &post, &trailers);
    control_frames_seeds();
    small_seeds();
}

/// A GET, a POST and its trailers are of use for other seeds.
fn field_section_seeds() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let get = [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/")];
    let get = section(&[&get[..], &[("cookie", "a=1"), ("cookie", "b=2")]].concat());
    let post = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "a.test"),
        (":path", "/x?y=%20"),
        ("content-length", "12"),
        ("te", "trailers"),
        ("x-id", "Wrenn"),
    ];
    let websocket = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", "[::1]:443"),
        (":path", "/chat"),
        ("sec-websocket-version", "13"),
    ];
    let trailers = section(&[("grpc-status", "0"), ("server-timing", "db;dur=1.5")]);
    let post = section(&post);
    seed("field_section", "get", &get);
    seed("field_section", "post", &post);
    seed("field_section", "websocket", &section(&websocket));
    seed("field_section", "connect", &section(&[(":method", "CONNECT"), (":authority", "a:1")]));
    seed("field_section", "trailers", &trailers);
    seed("field_section", "literal", b"\0\0\x51\x0b/index.html\x33abc\0\x7f\x45\x01y");
    seed("field_section", "empty_crumb", b"\0\x01\x55\x03b=2\xc5");
    seed("field_section", "late_bracket", b"\0\0\xcf\x50\x09:1[::1]:4");
    seed("field_section", "bomb", &[&b"\0\0"[..], &[0xff, 22].repeat(40)].concat());
    (get, post, trailers)
}

fn request_frames_seeds(get: &[u8], post: &[u8], trailers: &[u8]) {
    let frames = [
        frame(1, post),
        frame(0, b"hello "),
        frame(0x21, b"grease"),
        frame(0, b"world!"),
        frame(1, trailers),
    ]
    .concat();
    seed("request_frames", "post", &frames);
    seed("request_frames", "get", &frame(1, get));
    seed("request_frames", "idle", &[frame(1, get), frame(0, b"").repeat(5)].concat());
    seed("request_frames", "huge", &[&frame(0x21, b"x")[..], b"\x01\xc0\0\0\0\x40\0\0\0"].concat());
}

fn control_frames_seeds() {
    let mut settings = BytesMut::new();
    write_settings(&Limits::default(), &mut settings);
    let control = [
        &settings[..],
        &frame(0xd, b"\x05"),
        &frame(0xf_0700, b"\x04u=1, i"),
        &frame(7, b"\x40\x08"),
        &frame(0x40, b"skipped"),
        &frame(7, b"\0"),
    ]
    .concat();
    seed("control_frames", "all", &control);
    seed("control_frames", "settings", &settings);
    seed("control_frames", "empty", &[frame(4, b""), frame(0xf_0700, b"\0")].concat());
    seed("control_frames", "ids", &[frame(4, b""), frame(3, b"\0"), frame(0xd, b"\x01")].concat());
}

/// Those of what is no more than a few bytes.
fn small_seeds() {
    seed(
        "huffman",
        "host",
        &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
    );
    seed("huffman", "long_codes", &[0xff, 0xff, 0xff, 0xf3, 0xff, 0xfd, 0x8f]);
    seed("huffman", "text", b"text, 0123456789 and \x00\x0a\x16\xff");
    seed("encoder_stream", "capacity_0", &[0x20, 0x3f, 0xe1, 0x00, 0x20]);
    seed("encoder_stream", "capacity_220", &[0x3f, 0xbd, 0x01, 0xc0, 0x0f, b'w']);
    seed("encoder_stream", "endless", &[0x3f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80]);
    seed("decoder_stream", "acknowledged", &[0x84, 0x48, 0xff, 0x80, 0x01]);
    seed("decoder_stream", "counted", &[0x84, 0x01]);
    seed("decoder_stream", "cancelled", &[0x7f, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x40]);
    seed("priority", "both", b"u=5, i");
    seed("priority", "twice", b"u=1;x=\"y\", i=?0, u=9, new=(a 1.5);b");
    seed("priority", "wrong", b"u=-1, i=1, :YQ==:");
}

fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = BytesMut::new();
    qpack::write_prefix(&mut out);
    for (name, value) in fields {
        qpack::write_field(name.as_bytes(), value.as_bytes(), false, &mut out);
    }
    out.to_vec()
}

fn frame(ty: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_frame_header(ty, payload.len() as u64, &mut out);
    out.put_slice(payload);
    out.to_vec()
}

fn seed(target: &str, name: &str, bytes: &[u8]) {
    fs::create_dir_all(CORPUS.dir(target)).unwrap();
    fs::write(CORPUS.dir(target).join(name), bytes).unwrap();
}
