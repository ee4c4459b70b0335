//! Measures what slots cost on this machine: `slot_times [ROUNDS] [here]`, as root.
//!
//! Works in a namespace of its own, which it makes and removes with `ip`; with `here` in the one
//! that it is started in.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use agent_slot::{Host, Limits, Slot, SlotConfig, SlotIndex};

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let rounds = std::env::args().nth(1).map_or(Ok(50), |text| text.parse())?;
    let netns = format!("slot-times-{}", std::process::id());
    ip(&["netns", "add", &netns])?;
    let mut config = SlotConfig::new("times");
    if std::env::args().nth(2).as_deref() != Some("here") {
        config.host_netns = Some(PathBuf::from(format!("/run/netns/{netns}")));
    }
    let host = Host::setup(&config).await?;
    let result = measure(&host, rounds).await;
    host.teardown().await?;
    ip(&["netns", "delete", &netns])?;
    result
}

fn ip(args: &[&str]) -> Result<(), Failure> {
    let status = Command::new("ip").args(args).status()?;
    if status.success() { Ok(()) } else { Err(format!("ip {args:?}: {status}").into()) }
}

async fn measure(host: &Host, rounds: u16) -> Result<(), Failure> {
    let limits = Limits { memory_bytes: 256 << 20, pids: 64 };
    let mut times: [Vec<Duration>; 6] = Default::default();
    let mut slots = Vec::new();
    for number in 0..rounds {
        let index = SlotIndex::new(number)?;
        let start = Instant::now();
        slots.push(Slot::create(host, index, limits).await?);
        times[0].push(start.elapsed());
    }
    for slot in &slots {
        let mut lap = Instant::now();
        let mut note = |row: usize| {
            times[row].push(lap.elapsed());
            lap = Instant::now();
        };
        let tap = slot.open_tap()?;
        note(1);
        slot.set_internet(true).await?;
        note(2);
        drop(tap);
        note(3);
        slot.reset().await?;
        note(4);
    }
    for slot in slots {
        let start = Instant::now();
        slot.destroy().await?;
        times[5].push(start.elapsed());
    }
    let names = ["create", "open_tap", "set_internet", "close tap", "reset", "destroy"];
    for (name, mut row) in names.iter().zip(times) {
        row.sort_unstable();
        let at = |percent: usize| row[(row.len() - 1) * percent / 100];
        println!("{name:12} p50 {:>9.3?}  p90 {:>9.3?}  max {:>9.3?}", at(50), at(90), at(100));
    }
    Ok(())
}
