//! Large bodies pass through whole, and none of them is ever held.

use std::{env, fs, process::Command, time::Instant};

use crate::{
    client::{Client, ENCRYPTED, get, post, text},
    pattern::{check, large},
    stack::{Stack, function},
};

const LARGE_BYTES: usize = 100 << 20;
/// What a transfer may add to this process, which is client, edge and agent at once.
const GROWTH_MAX_KIB: usize = 64 << 10;
/// If set, this process runs one test alone.
const ALONE: &str = "WRENN_TEST_ALONE";

/// A line of this process's status, KiB.
fn status_kib(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse().unwrap()
}

/// What `transfer` added to this process's memory at most, KiB.
async fn growth_kib(transfer: impl Future<Output = ()>) -> usize {
    fs::write("/proc/self/clear_refs", "5").unwrap(); // the peak is now what is held
    let before = status_kib("VmRSS");
    transfer.await;
    status_kib("VmHWM").saturating_sub(before)
}

async fn download(client: &mut Client) {
    let answer = client.send(get(&function("hello"), &format!("/pattern?{LARGE_BYTES}"))).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(check(answer.into_body()).await, Ok(LARGE_BYTES));
}

async fn upload(client: &mut Client) {
    let answer = client.send(post(&function("hello"), "/check", large(LARGE_BYTES))).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(text(answer).await, format!("Ok({LARGE_BYTES})"));
}

async fn transfers() {
    let stack = Stack::start().await;
    for proto in ENCRYPTED {
        let mut client = Client::new(&stack, proto).await;
        text(client.send(get(&function("hello"), "/seen")).await).await;
        let begin = Instant::now();
        let down = growth_kib(download(&mut client)).await;
        let between = Instant::now();
        let up = growth_kib(upload(&mut client)).await;
        let (took_down, took_up) = (between - begin, between.elapsed());
        println!("{proto:?}: down +{down} KiB, {took_down:?}; up +{up} KiB, {took_up:?}");
        assert!(down < GROWTH_MAX_KIB && up < GROWTH_MAX_KIB, "{proto:?}: {down}, {up} KiB");
    }
}

#[test]
fn a_hundred_mebibytes_each_way_are_whole_and_are_not_held() {
    if env::var_os(ALONE).is_some() {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).enable_all();
        return runtime.build().unwrap().block_on(transfers());
    }
    // Other tests' memory would count too.
    let name = "bulk::a_hundred_mebibytes_each_way_are_whole_and_are_not_held";
    let mut alone = Command::new(env::current_exe().unwrap());
    let said = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let (out, errors) =
        (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    println!("{out}");
    assert!(said.status.success() && out.contains("1 passed"), "{out}{errors}");
}
