//! Machines that start from their kernel.

use std::{fs, time::Duration};

use agent_vmm::{AdoptError, Exit, Vmm, probe_accel, pvh_kernel};

use crate::{
    fixture::{Fixture, counts_beyond, exists},
    guest,
};

#[tokio::test]
async fn machine_stops_when_paused_and_goes_on_when_resumed() {
    let fixture = Fixture::new().await;
    let machine = fixture.counting().await;
    assert!(machine.console().starts_with(guest::GREETING), "{:?}", machine.console());
    machine.pause().await.unwrap();
    machine.pause().await.unwrap(); // does nothing
    let stopped = guest::count(&machine.record());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(guest::count(&machine.record()), stopped);
    machine.resume().await.unwrap();
    counts_beyond(&*machine, stopped).await;
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn saved_machine_can_go_on_and_be_saved_again() {
    let fixture = Fixture::new().await;
    let machine = fixture.counting().await;
    machine.pause().await.unwrap();
    let first = fixture.save(&*machine, None).await;
    machine.resume().await.unwrap();
    counts_beyond(&*machine, first.count).await;
    machine.pause().await.unwrap();
    let second = fixture.save(&*machine, None).await;
    assert!(second.count > first.count);
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn running_machine_is_not_saved() {
    let fixture = Fixture::new().await;
    let machine = fixture.counting().await;
    let state = fs::File::create_new(fixture.dir.path().join("state")).unwrap();
    let refused = machine.save_state(state).await.unwrap_err();
    assert!(refused.to_string().contains("it is running"), "{refused}");
    let count = guest::count(&machine.record());
    counts_beyond(&*machine, count).await;
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn vmm_has_no_rights_and_no_descriptors_it_does_not_need() {
    let fixture = Fixture::new().await;
    // What a careless part of the agent might leave open across `exec`.
    let leaked = fs::File::open("/etc/passwd").unwrap();
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let spec = fixture.spec();
    let uid = spec.uid;
    let machine = fixture.qemu.boot(spec).await.unwrap();
    let proc = format!("/proc/{}", machine.record().pid);

    let status = fs::read_to_string(format!("{proc}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>()
    };
    let uid = uid.to_string();
    assert_eq!(field("Uid"), [&uid; 4].map(String::as_str));
    assert_eq!(field("Gid"), [&uid; 4].map(String::as_str));
    assert!(field("Groups").is_empty());
    assert_eq!(field("CapEff"), ["0000000000000000"]);
    assert_eq!(field("CapPrm"), ["0000000000000000"]);
    assert_eq!(field("NoNewPrivs"), ["1"]);
    assert_eq!(field("Seccomp"), ["2"]);

    let own_network = fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(fs::read_link(format!("{proc}/ns/net")).unwrap(), own_network);
    let limits = fs::read_to_string(format!("{proc}/limits")).unwrap();
    assert!(limits.contains("Max core file size        0 "), "{limits}");
    for fd in fs::read_dir(format!("{proc}/fd")).unwrap() {
        let target = fs::read_link(fd.unwrap().path()).unwrap_or_default();
        assert_ne!(target.to_str(), Some("/etc/passwd"));
    }
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn vmm_joins_its_cgroups_before_it_runs() {
    let fixture = Fixture::new().await;
    let mut spec = fixture.spec();
    // Any file takes the write that a `cgroup.procs` would; what is written is what counts.
    let procs = fixture.dir.path().join("cgroup.procs");
    fs::write(&procs, "").unwrap();
    spec.cgroup_procs = vec![procs.clone()];
    let machine = fixture.qemu.boot(spec).await.unwrap();
    assert_eq!(fs::read_to_string(procs).unwrap(), "0");
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn killed_machine_leaves_no_process() {
    let fixture = Fixture::new().await;
    let machine = fixture.counting().await;
    let record = machine.record();
    machine.kill().await.unwrap();
    assert_eq!(machine.exited().await, Exit::Signal(libc::SIGKILL));
    assert!(!exists(record.pid));
    machine.kill().await.unwrap(); // does nothing
    assert!(machine.pause().await.is_err());
    assert!(!fixture.qemu.reap(&record).await.unwrap(), "it was gone");
}

#[tokio::test]
async fn machine_of_a_dead_agent_is_adopted() {
    let fixture = Fixture::new().await;
    let record = fixture.counting().await.record(); // and the machine is dropped
    let journal = serde_json::to_string(&record).unwrap();
    let machine = fixture.qemu.adopt(&serde_json::from_str(&journal).unwrap()).await.unwrap();
    assert!(machine.console().starts_with(guest::GREETING));
    machine.pause().await.unwrap();
    fixture.save(&*machine, None).await;
    machine.resume().await.unwrap();
    machine.kill().await.unwrap();
    assert!(!exists(record.pid));
    let gone = fixture.qemu.adopt(&record).await.unwrap_err();
    assert!(matches!(gone, AdoptError::Gone { .. }), "{gone}");
}

#[tokio::test]
async fn another_process_is_neither_adopted_nor_killed() {
    let fixture = Fixture::new().await;
    let machine = fixture.counting().await;
    let good = machine.record();

    let mut reused = good.clone();
    reused.start_ticks += 1;
    let gone = fixture.qemu.adopt(&reused).await.unwrap_err();
    assert!(matches!(gone, AdoptError::Gone { .. }), "{gone}");
    assert!(!fixture.qemu.reap(&reused).await.unwrap());

    let mut other = good.clone();
    other.pid = i32::try_from(std::process::id()).unwrap();
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    other.start_ticks = after_name.split(' ').nth(19).unwrap().parse().unwrap();
    let refused = fixture.qemu.adopt(&other).await.unwrap_err();
    assert!(matches!(refused, AdoptError::NotOurs { .. }), "{refused}");

    assert!(exists(good.pid));
    assert!(fixture.qemu.reap(&good).await.unwrap());
    machine.exited().await;
}

#[tokio::test]
async fn guest_that_floods_its_console_fills_nothing() {
    let fixture = Fixture::new().await;
    let mut spec = fixture.spec();
    spec.kernel = fixture.dir.path().join("flood");
    fs::write(&spec.kernel, pvh_kernel(guest::FLOOD)).unwrap();
    let machine = fixture.qemu.boot(spec).await.unwrap();
    counts_beyond(&*machine, 200_000).await;
    assert_eq!(machine.console(), "x".repeat(64 << 10));
    machine.pause().await.unwrap();
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn control_socket_in_a_deep_directory_is_reached() {
    let fixture = Fixture::new().await;
    let mut spec = fixture.spec();
    spec.dir = spec.dir.join("d".repeat(120));
    fs::create_dir(&spec.dir).unwrap();
    let machine = fixture.qemu.boot(spec).await.unwrap();
    machine.pause().await.unwrap();
    machine.kill().await.unwrap();
}

#[tokio::test]
async fn accelerator_is_chosen_within_its_time() {
    let begun = std::time::Instant::now();
    let accel = probe_accel().await;
    let took = begun.elapsed();
    println!("{accel} after {took:?}");
    assert!(took < Duration::from_secs(2), "{accel} after {took:?}");
}
