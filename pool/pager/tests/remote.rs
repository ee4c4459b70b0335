//! An object store that never answers costs a guest its life, in time and with the cause.

mod common;

use std::{
    net::TcpListener,
    os::unix::process::ExitStatusExt as _,
    time::{Duration, Instant},
};

use common::Rig;

#[tokio::test]
async fn fault_on_a_store_that_hangs_is_given_up_at_its_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap(); // accepts, says nothing
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let mut rig = Rig::stopped(1, &["--fault-deadline-ms", "500"], &[]);
    rig.add_args(&["--object-store-url", "s3://bucket/p", "--object-store-allow-http", "true"]);
    rig.add_args(&["--object-store-endpoint", &endpoint]);
    rig.env = vec![("AWS_ACCESS_KEY_ID", "none"), ("AWS_SECRET_ACCESS_KEY", "none")];
    // Its index is here, its blocks are not.
    std::fs::remove_file(&rig.layer_files("blocks")[0]).unwrap();
    rig.start();
    let mut clone = rig.clone_with(&["hold=yes"]);
    let start = Instant::now();
    clone.go();
    // The pattern's first pages are no holes.
    assert_eq!(clone.outcome().unwrap_err().signal(), Some(9));
    let took = start.elapsed();
    assert!((Duration::from_millis(400)..Duration::from_secs(10)).contains(&took), "{took:?}");
    rig.until_clones(0).await;
    let stats = rig.stats().await;
    let error = stats.bases[0].last_error.clone().unwrap();
    assert!(error.contains("cannot read block"), "{error}");
    let log = rig.log();
    assert!(log.contains("deadline") || log.contains("no answer within"), "{log}");
    assert_eq!((stats.totals.killed, stats.totals.bytes_remote), (1, 0));
}

#[tokio::test]
async fn layer_that_is_nowhere_is_refused_by_name() {
    let mut rig = Rig::stopped(1, &[], &[]);
    std::fs::remove_file(&rig.layer_files("blocks")[0]).unwrap();
    rig.start();
    let status = rig.clone_or_status(&[]).err().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(rig.log().contains("no object store is configured"), "{}", rig.log());
}
