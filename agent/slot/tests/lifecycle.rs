//! Slots come and go without a trace, also when their maker dies.

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent_slot::{Host, Limits, Slot, SlotConfig, SlotError};
use support::{Guest, LIMITS, PUBLIC, World, greeting, index, inside, ip, run, serve};

/// A process that has joined a slot's cgroups.
fn start_member(slot: &Slot) -> Child {
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    for procs in slot.cgroup_procs() {
        fs::write(procs, child.id().to_string()).unwrap();
    }
    child
}

fn ended_within(child: &mut Child, limit: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

fn tracked(netns: &str) -> u32 {
    let path = "/proc/sys/net/netfilter/nf_conntrack_count";
    inside(netns, || fs::read_to_string(path).unwrap()).trim().parse().unwrap()
}

#[tokio::test]
async fn destroying_leaves_nothing_even_when_everything_is_held() {
    let world = World::new().await;
    let slot = world.slot(12).await;
    assert!(world.remains().len() >= 3, "{:?}", world.remains());
    assert_eq!(world.host.existing().await.unwrap(), [index(12)]);
    let mut member = start_member(&slot);
    let (_tap, _dialer) = (slot.open_tap().unwrap(), slot.dialer());

    slot.destroy().await.unwrap();

    assert!(ended_within(&mut member, Duration::from_secs(1)));
    assert_eq!(world.remains(), Vec::<String>::new());
    assert_eq!(world.host.existing().await.unwrap(), []);
    world.slot(12).await.open_tap().expect("the index can be used again at once");
}

#[tokio::test]
async fn the_tap_is_as_the_vmm_needs_it_and_survives_it() {
    let world = World::new().await;
    let slot = world.slot(0).await;
    let tap = slot.open_tap().unwrap();
    let flags = nix::fcntl::fcntl(&tap, nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    let busy = slot.open_tap().unwrap_err();
    assert!(matches!(busy, SlotError::Step { source, .. } if source.raw_os_error() == Some(16)));

    let details = ip(&format!("-n {} -details link show tap0", slot.netns_name()));
    for part in ["vnet_hdr on", "pi off", "persist on", "user 700000", "qlen 5000"] {
        assert!(details.contains(part), "{part}: {details}");
    }
    assert!(details.contains("02:57:52:00:00:01"), "{details}");
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", tap.as_raw_fd())).unwrap();
    assert!(info.contains("iff:\ttap0"), "{info}");
    drop(tap);
    slot.open_tap().expect("closing it does not remove it");
}

#[tokio::test]
async fn limits_are_written_and_can_be_changed() {
    let world = World::with(|config| config.memory_overhead_bytes = 16 << 20).await;
    let slot = world.slot(0).await;
    let read = |name: &[&str]| {
        let files = slot.cgroup_procs();
        let found =
            files.iter().flat_map(|procs| name.iter().map(|name| procs.with_file_name(name)));
        fs::read_to_string(found.into_iter().find(|path| path.exists()).unwrap()).unwrap()
    };
    let memory = ["memory.limit_in_bytes", "memory.max"];
    assert_eq!(read(&memory).trim(), (80_u64 << 20).to_string());
    assert_eq!(read(&["pids.max"]).trim(), "64");
    for memory_mib in [512, 32] {
        let limits = Limits { memory_bytes: memory_mib << 20, pids: 7 };
        slot.set_limits(limits).await.unwrap();
        assert_eq!(read(&memory).trim(), ((memory_mib + 16) << 20).to_string());
        assert_eq!(read(&["pids.max"]).trim(), "7");
    }
}

#[tokio::test]
async fn resetting_makes_a_used_slot_as_new() {
    let world = World::new().await;
    serve(&world.internet, 80);
    let slot = world.slot(5).await;
    let mut member = start_member(&slot);
    {
        let guest = Guest::start(&slot);
        slot.set_internet(true).await.unwrap();
        let stream = guest.connect(PUBLIC, 80).unwrap();
        greeting(&stream);
        assert!(tracked(&slot.netns_name()) > 0 && tracked(&world.host_netns) > 0);
        // What a VMM gone bad could do with the tap's descriptor, and worse.
        ip(&format!("-n {} link set tap0 address 02:00:00:00:00:99", slot.netns_name()));
    }
    slot.reset().await.unwrap();

    assert!(ended_within(&mut member, Duration::from_secs(1)));
    assert_eq!((tracked(&slot.netns_name()), tracked(&world.host_netns)), (0, 0));
    let routes = ip(&format!("-n {} route", slot.netns_name()));
    assert!(routes.contains("prohibit default"), "{routes}");
    let link = ip(&format!("-n {} link show tap0", slot.netns_name()));
    assert!(link.contains("02:57:52:00:00:01"), "{link}");

    ip(&format!("-n {} link delete tap0", slot.netns_name()));
    slot.reset().await.unwrap();
    let guest = Guest::start(&slot);
    serve(&guest.netns, 8000);
    slot.dial(8000).await.expect("the next guest can be reached");
    slot.set_internet(true).await.unwrap();
    guest.connect(PUBLIC, 80).expect("and reaches the internet");
}

#[tokio::test]
async fn forgetting_one_slots_connections_keeps_the_others() {
    let world = World::new().await;
    serve(&world.internet, 80);
    let (one, two) = (world.slot(1).await, world.slot(2).await);
    let (guest, other) = (Guest::start(&one), Guest::start(&two));
    let mut streams = Vec::new();
    for (slot, guest) in [(&one, &guest), (&two, &other)] {
        slot.set_internet(true).await.unwrap();
        streams.push(guest.connect(PUBLIC, 80).unwrap());
        greeting(&streams[streams.len() - 1]);
    }
    assert_eq!(tracked(&world.host_netns), 2);
    one.reset().await.unwrap();
    assert_eq!(tracked(&world.host_netns), 1);
}

#[tokio::test]
async fn a_new_process_adopts_whole_slots_of_the_same_configuration_only() {
    let world = World::new().await;
    serve(&world.internet, 80);
    let slot = world.slot(4).await;
    slot.set_internet(true).await.unwrap();
    let guest = Guest::start(&slot);
    serve(&guest.netns, 8000);
    drop(slot);

    let again = Host::setup(world.host.config()).await.unwrap();
    assert_eq!(again.existing().await.unwrap(), [index(4)]);
    let adopted = Slot::adopt(&again, index(4)).await.unwrap();
    adopted.dial(8000).await.expect("its guest runs on");
    guest.connect(PUBLIC, 80).expect("with its internet");
    adopted.set_internet(false).await.unwrap();
    assert!(guest.connect(PUBLIC, 80).is_err());

    let refused = |host, number| async move {
        let result = Slot::adopt(host, index(number)).await;
        assert!(matches!(result, Err(SlotError::NotAdoptable { .. })), "{number}: {result:?}");
    };
    refused(&again, 5).await;
    let other = SlotConfig { rate_bytes_per_s: 1, ..again.config().clone() };
    let other = Host::setup(&other).await.unwrap();
    refused(&other, 4).await;
    ip(&format!("-n {} link delete {}", world.host_netns, adopted.netns_name()));
    refused(&again, 4).await;
}

#[tokio::test]
async fn sweeping_removes_every_kind_of_half_made_slot_and_keeps_the_kept() {
    let world = World::new().await;
    let kept = world.slot(0).await;
    let whole = world.slot(1).await;
    let mut member = start_member(&whole);
    let name = |number| format!("w{}-{number}", world.tag);
    // Just the name; name and namespace; just a link; just one cgroup.
    File::create(format!("/run/netns/{}", name(2))).unwrap();
    ip(&format!("netns add {}", name(3)));
    ip(&format!("-n {} link add {} type veth peer name x", world.host_netns, name(4)));
    let parent = world.cgroup_parents().remove(0);
    fs::create_dir(parent.join("5")).unwrap();
    // And things that are not ours.
    let foreign = [format!("w{}x-6", world.tag), format!("w{}-07", world.tag)];
    foreign.iter().for_each(|name| drop(ip(&format!("netns add {name}"))));
    drop(whole);

    let swept = world.host.sweep(&[kept.index()]).await.unwrap();

    assert_eq!(swept, [1, 2, 3, 4, 5].map(index));
    assert!(ended_within(&mut member, Duration::from_secs(1)));
    let names = ip("netns list");
    assert!(foreign.iter().all(|name| names.contains(name)));
    foreign.iter().for_each(|name| drop(ip(&format!("netns delete {name}"))));
    assert_eq!(world.host.existing().await.unwrap(), [index(0)]);
    kept.open_tap().expect("the kept slot works");
    assert_eq!(world.host.sweep(&[kept.index()]).await.unwrap(), []);
    kept.destroy().await.unwrap();
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[tokio::test]
async fn a_dropped_creation_leaves_nothing() {
    let world = World::new().await;
    let creation = Slot::create(&world.host, index(0), LIMITS);
    assert!(tokio::time::timeout(Duration::from_millis(1), creation).await.is_err());
    let deadline = Instant::now() + Duration::from_secs(10);
    tokio::time::sleep(Duration::from_millis(50)).await;
    while !world.remains().is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.remains(), Vec::<String>::new());
}

/// Not a test by itself: the process that the next test kills.
#[tokio::test]
async fn helper_that_makes_and_destroys_slots_until_it_is_killed() {
    let (Some(tag), Some(netns)) = (std::env::var_os("SLOT_TAG"), std::env::var_os("SLOT_NETNS"))
    else {
        return;
    };
    let mut config = SlotConfig::new(tag.into_string().unwrap());
    config.host_netns = Some(PathBuf::from(netns));
    let host = Host::setup(&config).await.unwrap();
    println!("\nready");
    loop {
        for number in 0..4 {
            let slot = Slot::create(&host, index(number), LIMITS).await.unwrap();
            if number % 2 == 0 {
                slot.reset().await.unwrap();
            }
            slot.destroy().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_maker_killed_at_any_moment_leaves_nothing_that_a_sweep_does_not_find() {
    let world = World::new().await;
    let netns = format!("/run/netns/{}", world.host_netns);
    let mut halves = 0;
    for round in 0..8 {
        let mut maker = Command::new(std::env::current_exe().unwrap())
            .args(["helper_that_makes_and_destroys_slots_until_it_is_killed", "--nocapture"])
            .env("SLOT_TAG", &world.tag)
            .env("SLOT_NETNS", &netns)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(maker.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"));
        std::thread::sleep(Duration::from_millis(3 + 17 * round));
        maker.kill().unwrap();
        maker.wait().unwrap();
        halves += usize::from(!world.host.existing().await.unwrap().is_empty());
        world.host.sweep(&[]).await.unwrap();
        assert_eq!(world.remains(), Vec::<String>::new(), "round {round}");
        world.slot(0).await.destroy().await.unwrap();
    }
    assert!(halves > 0, "no kill ever hit a slot in the making");
    let table = format!("wrenn_{}", world.tag);
    let tables = run("ip", &["netns", "exec", &world.host_netns, "nft", "list", "tables"]);
    assert_eq!(tables.matches(&table).count(), 1, "{tables}");
}
