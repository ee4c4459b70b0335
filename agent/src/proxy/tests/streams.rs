//! HTTP/1.1 streams: 1xx, tunnels, breaks on either side, what the end of a sandbox is called.

use super::*;

#[tokio::test]
async fn interim_answers_come_first_and_whole_between_large_ones() {
    let (listener, guest) = by_hand().await;
    let edge = Edge::before(guest, true).await;
    let large = "x".repeat(3 << 20);
    let serve = async {
        let mut stream = accept(&listener).await;
        for _ in 0..3 {
            read_to(&mut stream, "\r\n\r\n").await;
            let hint = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\
                        x-wrenn-token: forged\r\n\r\n";
            stream.write_all(hint.as_bytes()).await.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", large.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(large.as_bytes()).await.unwrap();
        }
        stream
    };
    let ask = async {
        // Three at once: the later ones are answered while the earlier answer is still written.
        let mut stream = edge.raw(&(head("GET", "") + &head("GET", "") + &once("GET", ""))).await;
        let mut all = Vec::new();
        timeout(LONG, stream.read_to_end(&mut all)).await.unwrap().unwrap();
        String::from_utf8(all).unwrap()
    };
    let (_stream, all) = tokio::join!(serve, ask);
    let mut rest = all.as_str();
    let mut hints = 0;
    for _ in 0..3 {
        if rest.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n") {
            (hints, rest) = (hints + 1, rest.split_once("\r\n\r\n").unwrap().1);
        }
        assert!(rest.starts_with("HTTP/1.1 200 OK\r\n"), "{}", &rest[..80]);
        rest = rest.split_once("\r\n\r\n").unwrap().1;
        assert!(rest.starts_with(&large), "torn");
        rest = &rest[large.len()..];
    }
    assert_eq!(rest, "");
    assert!(hints >= 1 && !all.contains("forged"), "{hints} hints");
}

#[tokio::test]
async fn interim_answer_is_there_before_the_answer_is() {
    let (listener, guest) = by_hand().await;
    let edge = Edge::before(guest, true).await;
    let mut asking = edge.raw(&head("GET", "")).await;
    let mut stream = accept(&listener).await;
    read_to(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await.unwrap();
    let hint = read_to(&mut asking, "\r\n\r\n").await;
    assert_eq!(hint, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    assert!(read_to(&mut asking, "\r\n\r\n").await.starts_with("HTTP/1.1 204 "));
}

/// A tunnel through the proxy: the edge's end and the guest's.
async fn tunnel() -> (Edge, TcpStream, TcpStream) {
    let (listener, guest) = by_hand().await;
    let edge = Edge::before(guest, true).await;
    let asked = head("GET", "connection: upgrade\r\nupgrade: websocket\r\n");
    let mut outer = edge.raw(&asked).await;
    let mut inner = accept(&listener).await;
    assert!(read_to(&mut inner, "\r\n\r\n").await.contains("upgrade: websocket"));
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    inner.write_all(switch.as_bytes()).await.unwrap();
    assert!(read_to(&mut outer, "\r\n\r\n").await.starts_with("HTTP/1.1 101 "));
    (edge, outer, inner)
}

#[tokio::test]
async fn half_closed_tunnel_still_carries_the_other_direction() {
    for from_edge in [true, false] {
        let (_edge, outer, inner) = tunnel().await;
        let (mut closing, mut open) = if from_edge { (outer, inner) } else { (inner, outer) };
        closing.write_all(b"last words").await.unwrap();
        closing.shutdown().await.unwrap();
        let mut read = String::new();
        timeout(LONG, open.read_to_string(&mut read)).await.unwrap().unwrap();
        assert_eq!(read, "last words");
        open.write_all(b"answer").await.unwrap();
        drop(open);
        read.clear();
        timeout(LONG, closing.read_to_string(&mut read)).await.unwrap().unwrap();
        assert_eq!(read, "answer");
    }
}

#[tokio::test]
async fn tunnel_ends_with_its_guest() {
    let (edge, mut outer, _inner) = tunnel().await;
    edge.guest().end(Ending::Crashed);
    let mut rest = Vec::new();
    let _ = timeout(LONG, outer.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn edge_that_goes_away_ends_the_guests_connection() {
    let (listener, guest) = by_hand().await;
    let edge = Edge::before(guest, true).await;
    let other = edge.raw(&head("GET", "")).await;
    let mut untouched = accept(&listener).await;
    read_to(&mut untouched, "\r\n\r\n").await;
    let asking = edge.raw(&(head("POST", "content-length: 9\r\n") + "half")).await;
    let mut stream = accept(&listener).await;
    read_to(&mut stream, "half").await;
    drop(asking);
    let ended = timeout(LONG, stream.read(&mut [0])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert_eq!(edge.guest().links.kept(), 0);
    untouched.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let mut other = other;
    read_to(&mut other, "ok").await;
}

#[tokio::test]
async fn guest_that_dies_in_a_body_never_seems_to_have_ended_it() {
    for machine_dies in [true, false] {
        for framing in
            ["transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", "content-length: 9\r\n\r\nhalf"]
        {
            let (listener, guest) = by_hand().await;
            let edge = Edge::before(guest, true).await;
            let mut asking = edge.raw(&head("GET", "")).await;
            let mut stream = accept(&listener).await;
            read_to(&mut stream, "\r\n\r\n").await;
            let answer = format!("HTTP/1.1 200 OK\r\n{framing}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            read_to(&mut asking, "half").await;
            if machine_dies {
                edge.guest().end(Ending::Crashed); // no FIN comes from it
            } else {
                drop(stream);
            }
            let mut rest = Vec::new();
            let _ = timeout(LONG, asking.read_to_end(&mut rest)).await.unwrap();
            let rest = String::from_utf8_lossy(&rest);
            assert!(!rest.contains("0\r\n\r\n"), "{rest:?}");
        }
    }
}

#[tokio::test]
async fn machine_that_dies_in_an_endless_body_breaks_it_for_http2_edges() {
    use http_body_util::BodyExt as _;
    let (listener, guest) = by_hand().await;
    let edge = Edge::before(guest, true).await;
    let mut h2 = edge.h2::<Full<Bytes>>().await;
    let asked = tokio::spawn(h2.send_request(request(false, Full::default())));
    let mut stream = accept(&listener).await;
    let head = read_to(&mut stream, "\r\n\r\n").await;
    assert!(head.contains("host: guest.test\r\n"), "{head}");
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil it closes").await.unwrap();
    let mut body = timeout(LONG, asked).await.unwrap().unwrap().unwrap().into_body();
    assert!(timeout(LONG, body.frame()).await.unwrap().unwrap().is_ok());
    edge.guest().end(Ending::Stopped);
    let end = timeout(LONG, body.frame()).await.unwrap();
    assert!(end.is_some_and(|end| end.is_err()), "a clean end");
}

#[tokio::test]
async fn ends_of_a_sandbox_are_told_apart() {
    for (ending, code) in [
        (Ending::Crashed, "sandbox_crashed"),
        (Ending::Stopped, "sandbox_gone"),
        (Ending::Paused, "upstream_reset"),
    ] {
        let (listener, guest) = by_hand().await;
        let edge = Edge::before(guest, true).await;
        let asked = once("GET", "");
        let serve = async {
            let mut stream = accept(&listener).await;
            read_to(&mut stream, "\r\n\r\n").await;
            edge.guest().end(ending);
            stream
        };
        let (_stream, answer) = tokio::join!(serve, edge.ask(&asked));
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert!(answer.contains(&format!("x-wrenn-error: {code}\r\n")), "{answer}");
    }
    let (listener, guest) = by_hand().await;
    drop(listener);
    let edge = Edge::before(guest, true).await;
    let answer = edge.ask(&once("GET", "")).await;
    assert!(answer.contains("x-wrenn-error: port_closed\r\n"), "{answer}");
}

#[tokio::test]
async fn sandbox_that_is_not_there_yet_asks_for_patience() {
    use super::super::error::Failure;
    use crate::lifecycle::Asleep;
    for (asleep, code) in
        [(Asleep::Starting, "sandbox_starting"), (Asleep::Resuming, "sandbox_resuming")]
    {
        let response = Failure::from(asleep).response(None);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[proxy::ERROR], code);
        let seconds = response.headers()["retry-after"].to_str().unwrap();
        assert!(seconds.parse::<u32>().unwrap() >= 1);
    }
}
