//! How long a restore takes from a blank that is ready, and from nothing; what a blank costs idle.
//!
//! Rounds of both kinds are interleaved, and medians are printed as a Markdown table. Base memory
//! is complete, so the page server's part is not in it. Run as root, with the number of rounds:
//! `cargo run --release -p agent-vmm --example blank_times -- 50`.
#![allow(clippy::unwrap_used, reason = "a measurement fails by panicking")]

#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../tests/machines/fixture.rs"]
mod fixture;
#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../tests/machines/guest.rs"]
mod guest;
#[path = "../tests/machines/tap.rs"]
mod tap;

use std::time::{Duration, Instant};

use agent_vmm::{MachineRecord, RestoreTimings};

use fixture::{Fixture, Snapshot, attached, counts_beyond};

/// Rounds, unless the command line says how many.
const ROUNDS: usize = 30;

/// One kind of restore, all its rounds.
#[derive(Default)]
struct Column(Vec<RestoreTimings>);

impl Column {
    fn row(&self, name: &str, part: impl Fn(&RestoreTimings) -> Duration) {
        let mut millis: Vec<f64> =
            self.0.iter().map(|timings| part(timings).as_secs_f64() * 1e3).collect();
        millis.sort_by(f64::total_cmp);
        let at = |percent: usize| millis[(millis.len() - 1) * percent / 100];
        println!("| {name} | {:.2} | {:.2} | {:.2} |", at(50), at(90), at(100));
    }
}

#[tokio::main]
async fn main() {
    let rounds = std::env::args().nth(1).map_or(ROUNDS, |text| text.parse().unwrap());
    assert!(rounds > 0, "at least one round");
    let fixture = Fixture::new().await;
    let snapshot = fixture.snapshot().await;
    let (mut cold, mut warm) = (Column::default(), Column::default());
    for _ in 0..rounds {
        cold.0.push(restore(&fixture, &snapshot, Duration::ZERO).await);
        warm.0.push(restore(&fixture, &snapshot, Duration::from_millis(100)).await);
    }
    println!("| {rounds} rounds, ms | median | p90 | most |");
    println!("|---|---|---|---|");
    warm.row("blank: memory", |timings| timings.memory);
    warm.row("blank: state_load", |timings| timings.state_load);
    warm.row("**blank: total**", |timings| timings.total);
    cold.row("cold: prepare", |timings| timings.prepare);
    cold.row("cold: memory", |timings| timings.memory);
    cold.row("cold: state_load", |timings| timings.state_load);
    cold.row("**cold: total**", |timings| timings.prepare + timings.total);
    idle(&fixture).await;
}

/// One restore, of a blank that was idle for `idle` before. Checks that the guest goes on.
async fn restore(fixture: &Fixture, snapshot: &Snapshot, idle: Duration) -> RestoreTimings {
    let begun = Instant::now();
    let blank = fixture.blank().await;
    let prepare = blank.prepared_in();
    assert!(begun.elapsed() >= prepare, "a part takes no longer than the whole");
    tokio::time::sleep(idle).await;
    let restoring = blank.restore(snapshot.base(), snapshot.state(), attached());
    let restored = restoring.await.unwrap();
    restored.machine.resume().await.unwrap();
    counts_beyond(&*restored.machine, snapshot.count).await;
    restored.machine.kill().await.unwrap();
    RestoreTimings { prepare, ..restored.timings }
}

/// What several idle blanks cost: the last one's own pages are what one more would add.
async fn idle(fixture: &Fixture) {
    let (first, second, third) =
        (fixture.blank().await, fixture.blank().await, fixture.blank().await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("\n| an idle blank (of {} MiB), KiB | |", guest::MEMORY_BYTES >> 20);
    println!("|---|---|");
    for name in ["Rss", "Pss", "Private_Clean", "Private_Dirty", "Anonymous"] {
        println!("| {name} | {} |", rollup(&third.record(), name));
    }
    for blank in [first, second, third] {
        blank.kill().await.unwrap();
    }
}

/// A field of `/proc/<pid>/smaps_rollup`, KiB.
fn rollup(record: &MachineRecord, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", record.pid)).unwrap();
    let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.next().unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}
