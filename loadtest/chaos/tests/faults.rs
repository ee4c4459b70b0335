//! Faults on real processes and a real disk, and that they never outlive the run.

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use std::{
    fs,
    panic::AssertUnwindSafe,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use loadtest_chaos::{Board, Chaos};
use loadtest_model::{ChaosPlan, Fault};
use support::{DEADLINE, Mounted, Sleeper, until};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// For faults that hold until the test ends.
const LONG_MS: u64 = 600_000;
/// Says to this program that it is to be killed: the pid file and the directory.
const VICTIM: &str = "CHAOS_TEST_VICTIM";

fn at_once(fault: Fault) -> ChaosPlan {
    ChaosPlan { at_ms: 0, every_ms: None, fault }
}

fn pause(pid_file: &Path, for_ms: u64) -> Fault {
    Fault::Pause { pid_file: pid_file.to_owned(), for_ms }
}

fn disk_full(dir: &Path, for_ms: u64) -> Fault {
    Fault::DiskFull { dir: dir.to_owned(), leave_kib: 16, for_ms }
}

/// Notes failures and good answers as a worker would.
fn answer(board: &Board, begin: Instant, good: bool) {
    let now = begin.elapsed();
    board.note(now, now, good);
}

#[tokio::test]
async fn kill_finds_the_process_anew_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dev.json");
    let write = |pid: Option<i32>| {
        fs::write(&file, serde_json::json!({"pids": {"agent": pid}}).to_string()).unwrap();
    };
    let mut sleepers = vec![Sleeper::start()];
    write(Some(sleepers[0].pid()));
    let pid_file = format!("{}#/pids/agent", file.display()).into();
    let plan = ChaosPlan { at_ms: 50, every_ms: Some(400), fault: Fault::Kill { pid_file } };
    let chaos = Chaos::prepare(&[plan], &[]).unwrap();
    let (board, cancel, begin) = (chaos.board(), CancellationToken::new(), Instant::now());
    let run = tokio::spawn(chaos.run(cancel.clone()));
    chaos.begin_part("invoke/h1", begin);
    for _ in 0..3 {
        let last = sleepers.last_mut().unwrap();
        until(|| last.has_ended()).await;
        // As a supervisor does it: nobody for a while, then another.
        write(None);
        answer(&board, begin, false);
        answer(&board, begin, false);
        tokio::time::sleep(Duration::from_millis(100)).await;
        sleepers.push(Sleeper::start());
        answer(&board, begin, true);
        write(Some(sleepers.last().unwrap().pid()));
    }
    cancel.cancel();
    timeout(DEADLINE, run).await.unwrap().unwrap();
    let found = chaos.finish().await;
    assert!(found.len() >= 3, "{found:?}");
    for (disturbance, sleeper) in found.iter().zip(&sleepers).take(3) {
        let what = format!("kill -9 of sleep (process {})", sleeper.pid());
        assert!(disturbance.what.starts_with("kill -9 of "), "{}", disturbance.what);
        assert!(what.ends_with(disturbance.what.rsplit(" (").next().unwrap()), "{what}");
        assert_eq!((disturbance.part.as_str(), disturbance.lost), ("invoke/h1", 2));
        assert!(disturbance.recovery_ms.unwrap() >= disturbance.outage_ms, "{disturbance:?}");
        assert!(disturbance.outage_ms > 0.0 && disturbance.failed.is_none(), "{disturbance:?}");
    }
}

#[tokio::test]
async fn process_that_never_comes_back_is_a_failed_disturbance() {
    let sleeper = Sleeper::start();
    let (file, _dir) = sleeper.pid_file();
    let kill = Fault::Kill { pid_file: file.clone() };
    let chaos = Chaos::prepare(&[at_once(kill)], &[]).unwrap();
    let pid = sleeper.end();
    let run = tokio::spawn(chaos.run(CancellationToken::new()));
    chaos.begin_part("part", Instant::now());
    // It was the only one, so the run of faults is over by itself.
    timeout(DEADLINE, run).await.unwrap().unwrap();
    let found = chaos.finish().await;
    let failed = found[0].failed.as_ref().unwrap();
    assert!(failed.contains(&format!("process {pid}")) && failed.contains("not alive"), "{failed}");
    assert_eq!(found[0].what, format!("kill -9 of the process in {}", file.display()));
    assert!(found[0].at_s >= 10.0, "{}", found[0].at_s);
}

#[tokio::test]
async fn pause_ends_by_itself() {
    let sleeper = Sleeper::start();
    let (file, _dir) = sleeper.pid_file();
    let chaos = Chaos::prepare(&[at_once(pause(&file, 3000))], &[]).unwrap();
    let run = tokio::spawn(chaos.run(CancellationToken::new()));
    let begin = Instant::now();
    chaos.begin_part("part", begin);
    until(|| sleeper.state() == 'T').await;
    until(|| sleeper.state() == 'S').await;
    assert!(begin.elapsed() >= Duration::from_secs(3));
    timeout(DEADLINE, run).await.unwrap().unwrap();
    let found = chaos.finish().await;
    assert!(found[0].what.ends_with("for 3s") && found[0].failed.is_none(), "{found:?}");
}

/// How a run may end early.
#[derive(Debug, Clone, Copy)]
enum End {
    Cancel,
    Drop,
    Panic,
}

#[tokio::test]
async fn nothing_outlives_a_run_that_ends_early() {
    for end in [End::Cancel, End::Drop, End::Panic] {
        let (sleeper, mounted) = (Sleeper::start(), Mounted::new("size=4m"));
        let (file, _dir) = sleeper.pid_file();
        let faults = [pause(&file, LONG_MS), disk_full(mounted.path(), LONG_MS)].map(at_once);
        let chaos = Chaos::prepare(&faults, &[]).unwrap();
        let cancel = CancellationToken::new();
        let run = chaos.run(cancel.clone());
        chaos.begin_part("part", Instant::now());
        let both = || sleeper.state() == 'T' && mounted.free_kib() == 16;
        match end {
            End::Cancel => {
                let run = tokio::spawn(run);
                until(both).await;
                cancel.cancel();
                timeout(DEADLINE, run).await.unwrap().unwrap();
                // Not soon, but now: it has returned.
                assert!(sleeper.state() != 'T' && mounted.free_kib() == 4096);
            }
            End::Drop => {
                tokio::select! { () = run => panic!("it ended"), () = until(both) => {} }
            }
            End::Panic => {
                let panics = CancellationToken::new();
                let told = panics.clone();
                let task = tokio::spawn(async move {
                    tokio::select! { () = run => {}, () = told.cancelled() => panic!("on purpose") }
                });
                until(both).await;
                panics.cancel();
                assert!(timeout(DEADLINE, task).await.unwrap().unwrap_err().is_panic());
            }
        }
        until(|| sleeper.state() == 'S' && mounted.free_kib() == 4096).await;
        let found = chaos.finish().await;
        assert_eq!(found.len(), 2, "{end:?}: {found:?}");
    }
}

#[tokio::test]
async fn full_disk_is_full_for_its_time() {
    let mounted = Mounted::new("size=4m");
    let chaos = Chaos::prepare(&[at_once(disk_full(mounted.path(), 3000))], &[]).unwrap();
    let run = tokio::spawn(chaos.run(CancellationToken::new()));
    chaos.begin_part("part", Instant::now());
    until(|| mounted.free_kib() == 16).await;
    assert_eq!(fs::read_dir(mounted.path()).unwrap().count(), 0, "it has no name");
    timeout(DEADLINE, run).await.unwrap().unwrap();
    assert_eq!(mounted.free_kib(), 4096);
    let found = chaos.finish().await;
    assert!(found[0].what.contains("filled to 16 KiB for 3s"), "{found:?}");
    assert_eq!(found[0].failed, None);
}

#[tokio::test]
async fn disk_that_was_unmounted_meanwhile_is_not_filled() {
    let mounted = Mounted::new("size=4m");
    let chaos = Chaos::prepare(&[at_once(disk_full(mounted.path(), 500))], &[]).unwrap();
    mounted.unmount();
    let run = tokio::spawn(chaos.run(CancellationToken::new()));
    chaos.begin_part("part", Instant::now());
    timeout(DEADLINE, run).await.unwrap().unwrap();
    let failed = chaos.finish().await[0].failed.clone().unwrap();
    assert!(failed.contains("no mount point"), "{failed}");
}

#[tokio::test]
async fn fault_between_two_parts_waits_for_the_next() {
    let sleeper = Sleeper::start();
    let (file, _dir) = sleeper.pid_file();
    let fault = ChaosPlan { at_ms: 200, every_ms: None, fault: pause(&file, 100) };
    let chaos = Chaos::prepare(&[fault], &[]).unwrap();
    let run = tokio::spawn(chaos.run(CancellationToken::new()));
    chaos.begin_part("first", Instant::now());
    chaos.end_part();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!run.is_finished());
    chaos.begin_part("second", Instant::now() + Duration::from_millis(100));
    timeout(DEADLINE, run).await.unwrap().unwrap();
    let found = chaos.finish().await;
    assert_eq!((found.len(), found[0].part.as_str()), (1, "second"));
}

#[test]
fn nothing_outlives_a_harness_that_is_killed() {
    if let Ok(victim) = std::env::var(VICTIM) {
        return be_the_victim(&victim);
    }
    let (mut sleeper, mounted) = (Sleeper::start(), Mounted::new("size=4m"));
    let (file, _dir) = sleeper.pid_file();
    let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "nothing_outlives_a_harness_that_is_killed", "--nocapture"])
        .env(VICTIM, format!("{}\n{}", file.display(), mounted.path().display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let both = || {
        assert_eq!(victim.try_wait().unwrap(), None, "the victim ended by itself");
        sleeper.state() == 'T' && mounted.free_kib() == 16
    };
    let seen = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(until(both))));
    victim.kill().unwrap();
    victim.wait().unwrap();
    seen.unwrap();
    runtime.block_on(until(|| sleeper.state() == 'S' && mounted.free_kib() == 4096));
    assert_eq!(fs::read_dir(mounted.path()).unwrap().count(), 0);
    assert!(!sleeper.has_ended());
}

/// Disturbs until killed.
fn be_the_victim(victim: &str) {
    let (file, dir) = victim.split_once('\n').unwrap();
    let faults = [pause(Path::new(file), LONG_MS), disk_full(Path::new(dir), LONG_MS)];
    let chaos = Chaos::prepare(&faults.map(at_once), &[]).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    chaos.begin_part("part", Instant::now());
    runtime.block_on(chaos.run(CancellationToken::new()));
}
