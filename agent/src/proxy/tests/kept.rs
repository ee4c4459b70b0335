//! Kept connections: used again, and never across a pause or a sandbox.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use http_body_util::BodyExt as _;
use hyper::service::service_fn;

use super::*;

/// A guest that answers with the number of the connection and the generation it was made in.
struct Marked {
    at: SocketAddr,
    connections: Arc<AtomicU32>,
    generation: Arc<AtomicU64>,
    _serving: AbortOnDropHandle<()>,
}

async fn marked() -> Marked {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (connections, generation) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU64::new(0)));
    let (counted, now) = (connections.clone(), generation.clone());
    let serving = tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let number = counted.fetch_add(1, Ordering::SeqCst);
            let mine = now.load(Ordering::SeqCst);
            let service = service_fn(move |request: Request<hyper::body::Incoming>| async move {
                let _ = request.into_body().collect().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                let answer = format!("connection {number}. generation {mine}.");
                Ok::<_, hyper::Error>(text(&answer))
            });
            let io = TokioIo::new(stream);
            tasks.spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    let serving = AbortOnDropHandle::new(serving);
    Marked { at, connections, generation, _serving: serving }
}

#[tokio::test]
async fn sandbox_has_its_connection_kept_and_a_lease_has_not() {
    let guest = marked().await;
    let edge = Edge::before(Fake::new(guest.at), true).await;
    for _ in 0..5 {
        assert!(edge.ask(&once("GET", "")).await.contains("connection 0."));
    }
    assert_eq!(edge.guest().links.kept(), 1);
    let leases = Edge::before(Fake::new(guest.at), false).await;
    for number in 1..4 {
        let answer = leases.ask(&once("GET", "")).await;
        assert!(answer.contains(&format!("connection {number}.")), "{answer}");
    }
    assert_eq!(leases.guest().links.kept(), 0);
}

#[tokio::test]
async fn no_more_are_kept_than_fit_a_port() {
    let guest = marked().await;
    let edge = Edge::before(Fake::new(guest.at), true).await;
    let asked = once("GET", "");
    let asking = (0..20).map(|_| edge.ask(&asked));
    for answer in futures::future::join_all(asking).await {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert!(edge.guest().links.kept() <= 8, "{}", edge.guest().links.kept());
    edge.guest().links.drain();
    assert_eq!(edge.guest().links.kept(), 0);
}

#[tokio::test]
async fn connection_that_was_closed_while_idle_is_replaced_for_any_method() {
    let (listener, guest) = by_hand().await;
    let edge = Edge::before(guest, true).await;
    let serve = async {
        for answer in ["one", "two"] {
            let mut stream = accept(&listener).await;
            read_to(&mut stream, "body").await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{answer}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        } // each is closed once it has answered
    };
    let ask = async {
        let post = once("POST", "content-length: 4\r\n") + "body";
        assert!(edge.ask(&post).await.ends_with("one"));
        assert!(edge.ask(&post).await.ends_with("two"));
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn request_that_was_sent_is_repeated_only_where_that_does_no_harm() {
    for (method, more, body) in [("GET", "", ""), ("POST", "content-length: 4\r\n", "body")] {
        let (listener, guest) = by_hand().await;
        let edge = Edge::before(guest, true).await;
        let serve = async {
            let mut kept = accept(&listener).await;
            read_to(&mut kept, "\r\n\r\n").await;
            kept.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none").await.unwrap();
            read_to(&mut kept, "\r\n\r\n").await;
            drop(kept); // read, and not answered
            if method == "GET" {
                let mut fresh = accept(&listener).await;
                read_to(&mut fresh, "\r\n\r\n").await;
                fresh.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo").await.unwrap();
            }
        };
        let ask = async {
            assert!(edge.ask(&once("GET", "")).await.ends_with("one"));
            edge.ask(&(once(method, more) + body)).await
        };
        let ((), answer) = tokio::join!(serve, ask);
        if method == "GET" {
            assert!(answer.ends_with("two"), "{answer}");
        } else {
            assert!(answer.contains("x-wrenn-error: upstream_reset"), "{answer}");
        }
    }
}

/// Pauses and resumes a guest whose address stays the same, under a steady load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_open_before_a_pause_is_used_after_it() {
    let guest = marked().await;
    let edge = Arc::new(Edge::before(Fake::new(guest.at), true).await);
    let over = CancellationToken::new();
    let good = Arc::new(AtomicU32::new(0));
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (edge, over, good) = (edge.clone(), over.clone(), good.clone());
        load.spawn(async move {
            let asked = once("GET", "");
            while !over.is_cancelled() {
                let answer = edge.ask(&asked).await;
                if answer.starts_with("HTTP/1.1 200") {
                    // By whom the proxy meant to be answered, and who answered.
                    let asked = (0..=30)
                        .find(|&number| answer.contains(&SandboxId::from_u128(number).to_string()));
                    let by = format!("generation {}.", asked.unwrap());
                    assert!(answer.ends_with(&by), "not {by}: {answer}");
                    good.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
    }
    for round in 1..=30 {
        let enough = good.load(Ordering::SeqCst) + 10;
        soon("requests are answered", || good.load(Ordering::SeqCst) >= enough).await;
        let old = edge.guest();
        old.links.drain();
        assert!(old.links.take(Port::ENVD).is_none(), "kept by a guest that is being saved");
        if round % 3 == 0 {
            old.links.admit(); // the pause failed, or it was a snapshot: the guest goes on
            continue;
        }
        old.end(Ending::Paused);
        let next = guest.generation.fetch_add(1, Ordering::SeqCst) + 1;
        *edge.guest.lock().unwrap() = Fake::numbered(guest.at, next.into());
        assert_eq!(old.links.kept(), 0);
    }
    over.cancel();
    while let Some(loader) = load.join_next().await {
        loader.unwrap();
    }
    let connections = guest.connections.load(Ordering::SeqCst);
    assert!(connections < good.load(Ordering::SeqCst), "kept ones were used: {connections}");
}

#[tokio::test]
async fn connection_of_an_earlier_epoch_is_not_kept() {
    let (listener, guest) = by_hand().await;
    let edge = Edge::before(guest, true).await;
    let serve = async {
        let mut first = accept(&listener).await;
        read_to(&mut first, "\r\n\r\n").await;
        edge.guest().links.drain();
        edge.guest().links.admit();
        first.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none").await.unwrap();
        let mut second = accept(&listener).await;
        read_to(&mut second, "\r\n\r\n").await;
        second.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo").await.unwrap();
    };
    let ask = async {
        assert!(edge.ask(&once("GET", "")).await.ends_with("one"));
        assert_eq!(edge.guest().links.kept(), 0);
        assert!(edge.ask(&once("GET", "")).await.ends_with("two"));
    };
    tokio::join!(serve, ask);
}
