//! What a client announces is not what the server holds. (One test: memory is the process's.)

mod support;

use edge_http3::Config;
use support::*;

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

#[tokio::test]
async fn frames_that_announce_a_gigabyte_take_no_memory() {
    let server = Server::start(Config::default(), length);
    let raw = server.raw().await;
    let warm = [headers(&POST), frame(0, &vec![7; 4 << 20])].concat();
    assert_eq!(raw.request(&warm).await.status(), b"200");
    drop(warm);
    let block = vec![7; 64 * 1024];
    for (row, start) in [
        ("head", announce(1, 1 << 30)),
        ("reserved frame", announce(0x21, 1 << 30)),
        ("trailers", [headers(&POST), announce(1, 1 << 30)].concat()),
        ("reserved frame after the head", [headers(&POST), announce(0x21, 1 << 30)].concat()),
    ] {
        let before = resident();
        assert!(before > 0);
        let raw = server.raw().await;
        let (mut send, recv) = raw.quic.open_bi().await.unwrap();
        send.write_all(&start).await.unwrap();
        let mut refused = false;
        for _ in 0..512 {
            refused = send.write_all(&block).await.is_err();
            if refused {
                break;
            }
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 8 << 20, "{row}: {grown} bytes");
        if refused {
            continue;
        }
        let _ = send.finish(); // inside of the frame
        assert_eq!(outcome(recv).await, Outcome::Closed(0x106), "{row}");
    }
}
