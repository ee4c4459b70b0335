//! Machines that start from a snapshot.

use std::time::Duration;

use agent_vmm::{Vmm, clone_usage};

use crate::{
    fixture::{Fixture, counts_beyond, exists},
    guest,
};

#[tokio::test]
async fn clone_goes_on_where_its_snapshot_stopped() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let restored = fixture.restore(&snapshot).await.unwrap();
    println!("{:?}", restored.timings);
    let machine = restored.machine;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(guest::count(&machine.record()) <= snapshot.count, "it is stopped");
    machine.resume().await.unwrap();
    counts_beyond(&*machine, snapshot.count + 100).await;
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn snapshot_holds_no_more_than_the_guest_wrote() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let captured = snapshot.captured;
    assert!(captured.own_pages * 4096 < guest::MEMORY_BYTES / 2, "{captured:?}");
    let state = snapshot.state.metadata().unwrap().len();
    assert!(state < 1 << 20, "a state of {state} bytes holds memory");
}

#[tokio::test]
async fn twenty_rounds_of_pause_and_resume_lose_nothing() {
    let fixture = Fixture::new().await;
    let mut snapshot = fixture.snapshot().await;
    for round in 0..20 {
        let machine = fixture.running_clone(&snapshot).await;
        counts_beyond(&*machine, snapshot.count + 1100).await;
        machine.pause().await.unwrap();
        let next = fixture.save(&*machine, Some(&snapshot)).await;
        machine.kill().await.unwrap();
        assert!(next.count > snapshot.count, "round {round}");
        assert!(next.zero_pages > 0, "round {round} turned pages to zeroes");
        snapshot = next;
    }
}

#[tokio::test]
async fn clones_of_one_base_do_not_see_each_other() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let fast = fixture.running_clone(&snapshot).await;
    let slow = fixture.restore(&snapshot).await.unwrap().machine;
    counts_beyond(&*fast, snapshot.count + 2500).await;
    fast.pause().await.unwrap();
    assert_eq!(guest::count(&slow.record()), snapshot.count);
    slow.resume().await.unwrap();
    counts_beyond(&*slow, snapshot.count + 10).await;
    slow.pause().await.unwrap();

    let (of_fast, of_slow) =
        (fixture.save(&*fast, Some(&snapshot)).await, fixture.save(&*slow, Some(&snapshot)).await);
    assert_ne!(of_fast.count, of_slow.count);
    assert!(snapshot.base_is_untouched());
    let third = fixture.restore(&snapshot).await.unwrap().machine;
    assert_eq!(guest::count(&third.record()), snapshot.count);
    for machine in [fast, slow, third] {
        machine.kill().await.unwrap();
    }
}

#[tokio::test]
async fn clone_owns_only_what_it_wrote() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let machine = fixture.running_clone(&snapshot).await;
    machine.pause().await.unwrap();
    let written = guest::count(&machine.record()) - snapshot.count;
    let usage = clone_usage(&machine.record()).unwrap();
    // The trail, the counter, and a few pages of devices.
    let most = u64::from(written.min(1024) + 64) * 4096;
    assert!(usage.private_bytes <= most, "{usage:?} after {written} counts");
    let captured = fixture.save(&*machine, Some(&snapshot)).await.captured;
    assert!(captured.own_pages * 4096 <= most, "{captured:?}");
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn clone_of_a_dead_agent_is_adopted() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let record = fixture.running_clone(&snapshot).await.record(); // and the machine is dropped
    let machine = fixture.qemu.adopt(&record).await.unwrap();
    machine.pause().await.unwrap();
    let next = fixture.save(&*machine, Some(&snapshot)).await;
    machine.kill().await.unwrap();
    assert!(!exists(record.pid));
    let again = fixture.running_clone(&next).await;
    again.kill().await.unwrap();
}

#[tokio::test]
async fn vmm_cannot_write_base_memory() {
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let machine = fixture.running_clone(&snapshot).await;
    let record = machine.record();
    let agent_vmm::MemoryRecord::Clone { base_fd, addr, len, .. } = record.memory else {
        panic!("not a clone: {record:?}");
    };
    let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{base_fd}", record.pid)).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    assert_eq!(u32::from_str_radix(flags, 8).unwrap() & 3, 0, "not read-only: {flags}");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", record.pid)).unwrap();
    let inside = maps.lines().filter(|line| {
        let start = line.split('-').next().and_then(|hex| u64::from_str_radix(hex, 16).ok());
        start.is_some_and(|start| start >= addr && start < addr + len)
    });
    for line in inside {
        assert!(line.contains("rw-p"), "not private: {line}");
    }
    machine.kill().await.unwrap();
}
