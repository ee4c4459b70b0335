//! What does an idle connection hold?

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{fs, time::Duration};

use crate::support::{Raw, Server, full, ok};

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Files that this process may have open.
fn descriptors() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap_or(u64::MAX)
}

/// A process of its own: other tests' memory must not be counted.
#[test]
fn idle_connections_are_small() {
    if std::env::var_os("WRENN_MEASURE").is_none() {
        let me = std::env::current_exe().unwrap();
        let name = "memory::idle_connections_are_small";
        let alone = std::process::Command::new(me)
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env("WRENN_MEASURE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&alone.stdout).into_owned();
        println!("{said}{}", String::from_utf8_lossy(&alone.stderr));
        assert!(alone.status.success() && said.contains("1 passed"));
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let connections = 1000.min((descriptors() - 100) / 2);
    let server = Server::start(|_| Box::pin(async { ok(full(vec![b'x'; 8 * 1024])) })).await;
    let mut warm = connect(&server, 20).await;
    let before = resident();
    warm.extend(connect(&server, connections).await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let each = (resident() - before) / connections;
    println!("{each} bytes per idle connection, the client's side included");
    assert!(each < 6 * 1024, "{each}");
    assert_eq!(warm[0].get("/").await.status, 200, "they are alive");
}

/// Connections that have had an answer, and wait.
async fn connect(server: &Server, count: u64) -> Vec<Raw> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.body.len(), 8 * 1024);
        client.buf = Vec::new();
        clients.push(client);
    }
    clients
}
