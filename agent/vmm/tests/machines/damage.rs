//! Damage at two hundred places of a snapshot, one at a time: refused by name, or the guest dies
//! with the cause in the page server's stats, or it was of no consequence. Never a wrong byte.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use pool_model::{Prefetch, chain};
use pool_pager::PagerError;
use pool_store::Snapshot;

use crate::{
    paged::Host,
    pattern::{self, Command},
};

/// How many places of each file are damaged; two layers have two files each.
const PLACES: &[(&str, u64)] = &[
    ("manifest.json", 25),
    ("memory.map", 25),
    ("state", 25),
    ("scratch.ext4", 25),
    ("index", 25),
    ("blocks", 25),
];

/// What became of damage.
#[derive(Debug, Default)]
struct Outcomes {
    refused: u32,
    killed: u32,
    harmless: u32,
}

/// A file before and while it is damaged.
struct Damaged {
    path: PathBuf,
    whole: Vec<u8>,
}

impl Damaged {
    /// Does it in place, in one of three ways: a bit, a sector that was never written, a file that
    /// ends early.
    fn at(path: &Path, place: u64) -> Self {
        let whole = fs::read(path).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        let at = place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let at = usize::try_from(at % whole.len() as u64).unwrap();
        let sector = at / 512 * 512..whole.len().min(at / 512 * 512 + 512);
        match place % 8 {
            0 => file.set_len(at as u64).unwrap(),
            1 if whole[sector.clone()].iter().any(|byte| *byte != 0) => {
                file.write_all_at(&vec![0; sector.len()], sector.start as u64).unwrap();
            }
            bit => file.write_all_at(&[whole[at] ^ 1 << (bit % 8)], at as u64).unwrap(),
        }
        Self { path: path.to_owned(), whole }
    }
}

impl Drop for Damaged {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, &self.whole);
    }
}

/// What is done before a VMM is given the snapshot. Err: the words of who refused.
async fn checked(host: &Host, snapshot: &Snapshot) -> Result<(), String> {
    let id = snapshot.manifest.snapshot;
    let opened = host.store.open(id).map_err(|error| chain(&error))?;
    opened.verify_files().map_err(|error| chain(&error))?;
    host.forget_base(snapshot).await;
    match host.base(snapshot, Prefetch::None).await {
        Ok(_) => Ok(()),
        Err(error @ PagerError::Refused { .. }) => Err(chain(&error)),
        Err(error) => panic!("the page server should say no: {}", chain(&error)),
    }
}

/// Restores a clone of a snapshot that nobody refused. Err: why it died, by the stats.
async fn restored(host: &Arc<Host>, snapshot: &Snapshot) -> Result<(), String> {
    let killed = host.stats().await.totals.killed;
    let verified = match host.restore(snapshot, Prefetch::None).await {
        Ok(machine) => {
            let _ = machine.resume().await; // it may be dead by now
            let verified = pattern::verified(&*machine).await.is_ok();
            host.end(machine).await;
            verified
        }
        Err(_) => false, // killed while its device state was loaded
    };
    let stats = host.stats().await;
    if verified {
        return Ok(());
    }
    assert_eq!(stats.totals.killed, killed + 1, "it died of something else: {}", host.pager_log());
    Err(stats.bases.iter().find_map(|base| base.last_error.clone()).unwrap())
}

/// The files of a kind, with what an error about each has to name.
fn files(host: &Host, snapshot: &Snapshot, kind: &str) -> Vec<(PathBuf, String)> {
    let layers = host.store.layers();
    let of_layers = snapshot.map().layers().iter();
    match kind {
        "index" => of_layers.map(|id| (layers.index_path(*id), id.to_string())).collect(),
        "blocks" => of_layers.map(|id| (layers.blocks_path(*id), id.to_string())).collect(),
        file => {
            let id = snapshot.manifest.snapshot.to_string();
            vec![(snapshot.dir().join(file), id)]
        }
    }
}

/// A snapshot of two layers, both of which its clones need.
async fn two_layers() -> (Arc<Host>, Snapshot) {
    let (host, first) = Host::with_snapshot().await;
    let host = Arc::new(host);
    let machine = host.clone_of(&first, Prefetch::None).await;
    pattern::order(&*machine, Command::Write, 0).await.unwrap();
    machine.pause().await.unwrap();
    let second = host.save(&*machine, Some(&first), &host.store).await.unwrap();
    host.end(machine).await;
    (host, second)
}

#[tokio::test]
async fn damage_at_two_hundred_places_never_reaches_a_guest() {
    let (host, snapshot) = two_layers().await;
    let mut place = 0;
    for (kind, places) in PLACES {
        let mut outcomes = Outcomes::default();
        for (path, name) in files(&host, &snapshot, kind) {
            for _ in 0..*places {
                place += 1;
                let damaged = Damaged::at(&path, place);
                let (outcome, said) = match checked(&host, &snapshot).await {
                    Err(refused) => (&mut outcomes.refused, Some(refused)),
                    Ok(()) => match restored(&host, &snapshot).await {
                        Err(cause) => (&mut outcomes.killed, Some(cause)),
                        Ok(()) => (&mut outcomes.harmless, None),
                    },
                };
                *outcome += 1;
                if let Some(said) = said {
                    assert!(said.contains(&name), "place {place} of {kind} {name}: {said}");
                }
                drop(damaged);
            }
        }
        println!("{kind}: {outcomes:?}");
        let verified = kind == &"blocks";
        assert!(verified || outcomes.killed + outcomes.harmless == 0, "{kind}: {outcomes:?}");
        assert!(!verified || outcomes.killed > 20, "{kind}: {outcomes:?}");
    }
    assert_eq!(place, 200);
    checked(&host, &snapshot).await.unwrap();
    restored(&host, &snapshot).await.unwrap();
}
