//! Page servers that are killed, and memory that is taken away: no wrong byte, no hang.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pool_model::Prefetch;
use pool_store::{LAYERS_MAX, Snapshot};

use crate::{
    paged::{Host, PATIENCE},
    pattern::{self, Command, PAGES},
};

/// How often the page server is killed.
const KILLS: u64 = 50;

/// Kills the page server at moments that nothing is in step with, and has another one take over.
async fn kills(host: &Host) {
    for round in 0..KILLS {
        // 3 to 60 ms after the last one took over.
        let pause = Duration::from_micros(3000 + round * 7_919_317 % 57_000);
        tokio::time::sleep(pause).await;
        host.kill();
        host.start();
        host.reattach().await;
    }
}

/// Restores clones, one after the other, and has each verify its whole memory.
async fn restores(host: Arc<Host>, snapshot: Snapshot, fresh: bool, done: Arc<AtomicBool>) -> u32 {
    let prefetches = [Prefetch::None, Prefetch::Full, Prefetch::WorkingSet];
    for clones in 1.. {
        if fresh {
            host.forget_base(&snapshot).await;
        }
        let prefetch = prefetches[clones as usize % prefetches.len()];
        let machine = host.clone_of(&snapshot, prefetch).await;
        let pid = machine.record().pid;
        pattern::verified(&*machine).await.unwrap_or_else(|exit| panic!("{pid} ended: {exit}"));
        // What it touched is prefetched next time; the page server may be dead just now.
        let _ = host.client().await.record(pid).await;
        host.end(machine).await;
        if done.load(Ordering::Relaxed) {
            return clones;
        }
    }
    unreachable!("clones are counted without an end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_killed_page_servers_cost_no_wrong_byte_and_no_guest() {
    let (host, snapshot) = Host::with_snapshot().await;
    let host = Arc::new(host);
    let done = Arc::<AtomicBool>::default();
    let clones = [true, false].map(|fresh| {
        let (host, snapshot, done) = (Arc::clone(&host), snapshot.clone(), Arc::clone(&done));
        tokio::spawn(restores(host, snapshot, fresh, done))
    });
    kills(&host).await;
    done.store(true, Ordering::Relaxed);
    for verified in clones {
        let verified = verified.await.unwrap();
        println!("{verified} clones verified everything");
    }
}

/// How often a clone is changed, captured over its parent, and restored.
const GENERATIONS: u32 = 12;

#[tokio::test]
async fn twelve_generations_of_scattered_changes_are_restored_from_their_layers() {
    let (host, mut snapshot) = Host::with_snapshot().await;
    let host = Arc::new(host);
    for generation in 1..=GENERATIONS {
        let machine = host.clone_of(&snapshot, Prefetch::None).await;
        let seen = pattern::verified(&*machine).await.unwrap();
        assert_eq!(seen.generation, generation - 1);
        pattern::order(&*machine, Command::Write, 0).await.unwrap();
        machine.pause().await.unwrap();
        snapshot = host.save(&*machine, Some(&snapshot), &host.store).await.unwrap();
        host.end(machine).await;
        // Each third of the pages is in the layer of the generation that wrote it last. What is
        // below the pattern is in the first one, and in those of some generations.
        let layers = snapshot.map().layers().len();
        assert!((2..=LAYERS_MAX).contains(&layers), "{layers} layers");
    }
    let machine = host.clone_of(&snapshot, Prefetch::Full).await;
    assert_eq!(pattern::verified(&*machine).await.unwrap().generation, GENERATIONS);
    host.end(machine).await;
    // And on a host whose page server has only just started.
    host.kill();
    host.start();
    let machine = host.clone_of(&snapshot, Prefetch::None).await;
    pattern::verified(&*machine).await.unwrap();
    host.end(machine).await;
}

#[tokio::test]
async fn pages_given_away_while_the_page_server_is_dead_are_the_snapshots_again() {
    let (host, snapshot) = Host::with_snapshot().await;
    let host = Arc::new(host);
    let machine = host.clone_of(&snapshot, Prefetch::None).await;
    pattern::verified(&*machine).await.unwrap();
    // A third of the pages becomes the clone's own, with other content than the snapshot's.
    pattern::order(&*machine, Command::Write, 0).await.unwrap();
    assert_eq!(pattern::verified(&*machine).await.unwrap().generation, 1);
    host.kill();
    pattern::tell(&*machine, Command::Give, 0).await.unwrap();
    let waiting = pattern::obeyed(&*machine);
    let early = tokio::time::timeout(Duration::from_millis(300), waiting).await;
    assert!(early.is_err(), "it went on before a page server knew: {early:?}");
    host.start();
    host.reattach().await;
    pattern::obeyed(&*machine).await.unwrap();
    // Its own pages are gone: what it finds everywhere is what the snapshot has.
    assert_eq!(pattern::verified(&*machine).await.unwrap().generation, 0);
    // None was lost. The kernel lets QEMU go on when an event is read, before it is counted: of the
    // last one the guest may know earlier than the page server's counter.
    let bytes = u64::from(PAGES) * 4096;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let removed = host.stats().await.clones[0].removed_bytes;
        if removed == bytes {
            break;
        }
        let log = host.pager_log();
        assert!(removed < bytes && Instant::now() < deadline, "{removed} of {bytes}: {log}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    host.end(machine).await;
}
