//! Starts that fail: an error that says why, in time, and nothing left behind.

use std::{fs::File, time::Duration};

use agent_vmm::{MemoryReport, Vmm, VmmError};
use tokio::sync::oneshot;

use crate::fixture::{Fixture, Snapshot, attached, exists, until};

/// Restores and expects an error; also makes sure that the process is gone.
async fn fails(fixture: &Fixture, snapshot: &Snapshot, state: File) -> VmmError {
    let (pid_tx, pid_rx) = oneshot::channel();
    let on_memory = Box::new(move |report: MemoryReport| {
        pid_tx.send(report.pid).unwrap();
        attached()(report)
    });
    let restoring = fixture.blank().await.restore(snapshot.base(), state, on_memory);
    let failed = restoring.await.unwrap_err();
    assert!(!exists(pid_rx.await.unwrap()), "its process is left: {failed}");
    failed
}

#[tokio::test]
async fn kernel_that_is_missing_is_named() {
    let fixture = Fixture::new().await;
    let mut spec = fixture.spec();
    spec.kernel = "/nowhere/vmlinux".into();
    let failed = fixture.qemu.boot(spec).await.unwrap_err();
    assert!(matches!(failed, VmmError::Start { .. }), "{failed}");
    assert!(failed.to_string().contains("open /nowhere/vmlinux"), "{failed}");
}

#[tokio::test]
async fn kernel_that_is_none_fails_with_the_vmms_own_words() {
    let fixture = Fixture::new().await;
    let mut spec = fixture.spec();
    spec.kernel = fixture.dir.path().join("base.img");
    let failed = fixture.qemu.boot(spec).await.unwrap_err();
    let VmmError::Died { log, .. } = &failed else { panic!("{failed}") };
    assert!(log.0.contains("kernel"), "{failed}");
}

#[tokio::test]
async fn truncated_state_is_an_error_and_no_hang() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let whole = std::fs::read(&snapshot.state).unwrap();
    for len in [0, 5, 1000, whole.len() / 2, whole.len() - 1] {
        let path = fixture.dir.path().join("truncated");
        std::fs::write(&path, &whole[..len]).unwrap();
        let waiting = fails(&fixture, &snapshot, File::open(path).unwrap());
        let failed = tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
        assert!(matches!(failed, VmmError::Died { .. }), "{len} bytes: {failed}");
        assert!(failed.to_string().contains("load its device state"), "{len} bytes: {failed}");
    }
}

#[tokio::test]
async fn page_server_that_refuses_ends_the_vmm() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let (pid_tx, pid_rx) = oneshot::channel();
    let on_memory = Box::new(move |report: MemoryReport| {
        pid_tx.send(report.pid).unwrap();
        let refused: Result<(), agent_vmm::BoxError> = Err("no room".into());
        Box::pin(std::future::ready(refused)) as _
    });
    let (base, state) = (snapshot.base(), snapshot.state());
    let failed = fixture.blank().await.restore(base, state, on_memory).await.unwrap_err();
    assert!(matches!(failed, VmmError::Attach { .. }), "{failed}");
    assert!(!exists(pid_rx.await.unwrap()));
}

#[tokio::test]
async fn cancelled_restore_leaves_no_process() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let (pid_tx, pid_rx) = oneshot::channel();
    let on_memory = Box::new(move |report: MemoryReport| {
        pid_tx.send(report.pid).unwrap();
        Box::pin(std::future::pending()) as _ // a page server that never answers
    });
    let restoring = fixture.blank().await.restore(snapshot.base(), snapshot.state(), on_memory);
    let pid = tokio::select! {
        _ = restoring => panic!("nobody answered it"),
        pid = pid_rx => pid.unwrap(),
    };
    until("its process is left", || !exists(pid)).await;
}

#[tokio::test]
async fn full_file_system_is_told_apart() {
    let fixture = Fixture::new().await;
    let machine = fixture.counting().await;
    machine.pause().await.unwrap();
    // One right after the other: what remains of one must not be in the way of the next.
    for _ in 0..20 {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let failed = machine.save_state(full).await.unwrap_err();
        assert!(matches!(failed, VmmError::NoSpace { .. }), "{failed}");
    }
    machine.resume().await.unwrap(); // it is still good
    machine.pause().await.unwrap();
    fixture.save(&*machine, None).await;
    machine.kill().await.unwrap();
}
