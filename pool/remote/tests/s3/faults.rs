//! What becomes of requests to a server that is slow, rude or broken?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use pool_remote::{Cause, LayerSource, Remote, RemoteConfig, RemoteError, SourceError};
use pool_store::{Digest, LayerId, LayerStore};

use crate::support::{Host, credentials};

/// What the server does with a request.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// The bytes that were asked for: twos.
    Right,
    /// Nothing, while the client waits.
    Hang,
    /// Closes the connection without an answer.
    Close,
    /// Closes it in the middle of the body.
    Cut,
    /// An answer with this status.
    Status(u16),
    /// A range other than the one asked for.
    OtherRange,
}

const WANTED: std::ops::Range<u64> = 100..1100;

struct Faulty {
    endpoint: String,
    requests: Arc<AtomicUsize>,
}

impl Faulty {
    /// Does the acts one after the other, the last of them for ever.
    fn start(acts: &'static [Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                std::thread::spawn(move || serve(stream, acts, &counter));
            }
        });
        Self { endpoint, requests }
    }

    fn remote(&self, attempts: u32, attempt: Duration, deadline: Duration) -> Remote {
        let config =
            RemoteConfig::parse("s3://bucket/p", Some(&self.endpoint), "us-east-1", true).unwrap();
        let config = RemoteConfig { attempts, attempt_timeout: attempt, deadline, ..config };
        Remote::open(config, credentials()).unwrap()
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// One request per connection.
fn serve(mut stream: TcpStream, acts: &[Act], counter: &AtomicUsize) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let number = counter.fetch_add(1, Ordering::SeqCst);
    let (len, total) = (WANTED.end - WANTED.start, 5000);
    let range = |start: u64, end: u64| {
        format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nETag: \"e\"\r\n\
             Last-Modified: Tue, 01 Jan 2030 00:00:00 GMT\r\nConnection: close\r\n\
             Content-Range: bytes {start}-{}/{total}\r\n\r\n",
            end - start,
            end - 1
        )
    };
    let mut answer = |head: String, body: u64| {
        let body = vec![2; usize::try_from(body).unwrap()];
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).ok()
    };
    match acts[number.min(acts.len() - 1)] {
        Act::Right => answer(range(WANTED.start, WANTED.end), len),
        Act::Hang => {
            // Until the client gives up and closes.
            let _ = stream.read(&mut byte);
            None
        }
        Act::Close => None,
        Act::Cut => answer(range(WANTED.start, WANTED.end), len / 2),
        Act::OtherRange => answer(range(WANTED.start, WANTED.end - 300), len - 300),
        Act::Status(status) => answer(
            format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            0,
        ),
    }
}

const LAYER: LayerId = LayerId(Digest([1; 32]));
const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn passing_faults_are_survived_and_counted() {
    let server = Faulty::start(&[
        Act::Status(500),
        Act::Close,
        Act::Status(503),
        Act::Cut,
        Act::OtherRange,
        Act::Right,
    ]);
    let remote = server.remote(6, LONG, 2 * LONG);
    let bytes = remote.read(LAYER, WANTED).await.unwrap();
    assert_eq!(bytes, vec![2; 1000]);
    assert_eq!((remote.stats().retries(), remote.stats().failures()), (5, 0));
    assert_eq!(server.requests(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lasting_fault_is_an_error_that_says_all() {
    for act in [&[Act::Status(500)], &[Act::Status(503)], &[Act::Close], &[Act::Cut]] {
        let server = Faulty::start(act);
        let remote = server.remote(3, LONG, 2 * LONG);
        let error = remote.read(LAYER, WANTED).await.unwrap_err();
        let RemoteError::Request { key, attempts: 3, cause, .. } = &error else {
            panic!("{act:?}: {error:?}");
        };
        assert!(matches!(cause, Cause::Answer(_)), "{act:?}: {error:?}");
        assert_eq!(*key, format!("p/layers/{}.blocks", LAYER.0));
        assert!(error.to_string().contains(key) && error.to_string().contains("3 attempts"));
        assert_eq!((server.requests(), remote.stats().retries()), (3, 2), "{act:?}");
        assert_eq!(remote.stats().failures(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_another_length_is_an_error() {
    let server = Faulty::start(&[Act::OtherRange]);
    let remote = server.remote(2, LONG, 2 * LONG);
    let error = remote.read(LAYER, WANTED).await.unwrap_err();
    assert!(error.to_string().contains("2 attempts"), "{error}");
    assert_eq!(server.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_allowed_is_asked_once() {
    for (act, missing) in [(&[Act::Status(404)], true), (&[Act::Status(403)], false)] {
        let server = Faulty::start(act);
        let remote = server.remote(5, LONG, 2 * LONG);
        let error = remote.read(LAYER, WANTED).await.unwrap_err();
        assert_eq!(error.is_missing(), missing, "{error:?}");
        let denied = matches!(&error, RemoteError::Request { cause: Cause::Denied(_), .. });
        assert_eq!(denied, !missing, "{error:?}");
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_costs_no_more_than_the_deadline() {
    let server = Faulty::start(&[Act::Hang]);
    let deadline = Duration::from_secs(2);
    let remote = server.remote(100, Duration::from_millis(300), deadline);
    let start = Instant::now();
    let error = remote.read(LAYER, WANTED).await.unwrap_err();
    assert!(start.elapsed() < deadline.mul_f64(1.5), "{:?}", start.elapsed());
    assert!(matches!(&error, RemoteError::Request { cause: Cause::Timeout(_), .. }), "{error:?}");
    assert!(server.requests() >= 2, "it was not tried again");
    assert!(remote.stats().retries() >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_is_an_error_within_the_deadline() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody =
        Faulty { endpoint: format!("http://{address}"), requests: Arc::new(AtomicUsize::new(0)) };
    let remote = nobody.remote(3, LONG, 2 * LONG);
    let error = remote.probe().await.unwrap_err();
    assert!(error.to_string().contains("3 attempts"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_waits_until_its_own_deadline_and_no_longer() {
    let server = Faulty::start(&[Act::Hang]);
    let deadline = Duration::from_secs(1);
    let remote = server.remote(1, deadline, deadline);
    let host = Host::new();
    let source = host.source(&remote, &host.cache(1 << 20));
    let start = Instant::now();
    let opened = tokio::task::spawn_blocking(move || source.open(LAYER).map(drop));
    let error = opened.await.unwrap().unwrap_err();
    assert!(start.elapsed() < deadline.mul_f64(1.5), "{:?}", start.elapsed());
    let late = match &error {
        SourceError::Deadline { .. } => true,
        SourceError::Remote(error) => {
            matches!(**error, RemoteError::Request { cause: Cause::Timeout(_), .. })
        }
        _ => false,
    };
    assert!(late, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_object_store_a_layer_is_here_or_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let source = LayerSource::new(LayerStore::new(dir.path().to_owned()), None);
    let error = source.open(LAYER).unwrap_err();
    assert!(matches!(error, SourceError::NotHere { layer: LAYER }), "{error:?}");
}
