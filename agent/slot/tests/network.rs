//! What a guest can reach, and who can reach it.

#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use agent_slot::{GATEWAY_IP, GUEST_IP, Slot};
use support::{
    Guest, LIMITS, PRIVATE, PUBLIC, WAN, World, connect, greeting, index, inside, ip,
    is_prohibited, run, serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn dialing_reaches_the_guest_and_says_what_failed() {
    let world = World::new().await;
    let slot = world.slot(0).await;
    let absent = slot.dialer().dial(8000, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::TimedOut, "no guest yet");

    let guest = Guest::start(&slot);
    let closed = slot.dial(8000).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::ConnectionRefused, "a guest, but nobody listens");

    serve(&guest.netns, 8000);
    let mut stream = slot.dial(8000).await.unwrap();
    assert!(stream.nodelay().unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"172.16.0.1\nhello", "the gateway's address, then the echo");

    let dialer = slot.dialer();
    slot.destroy().await.unwrap();
    let gone = dialer.dial(8000, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NetworkUnreachable);
}

#[tokio::test]
async fn dialing_never_leaves_by_the_uplink() {
    let world = World::new().await;
    let slot = world.slot(0).await;
    slot.set_internet(true).await.unwrap();
    // Somebody on the host's own network has the guest's address.
    ip(&format!("-n {} address add 172.16.0.2/32 dev lo", world.internet));
    serve(&world.internet, 8000);
    connect(&world.host_netns, Ipv4Addr::new(172, 16, 0, 2), 8000).expect("the host reaches it");
    ip(&format!("-n {} link delete tap0", slot.netns_name()));
    let failed = slot.dial(8000).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::NetworkUnreachable);
}

#[tokio::test]
async fn internet_is_off_at_first_and_can_be_switched() {
    let world = World::new().await;
    serve(&world.internet, 80);
    let slot = world.slot(7).await;
    let guest = Guest::start(&slot);

    let start = Instant::now();
    let refused = guest.connect(PUBLIC, 80);
    assert!(is_prohibited(&refused), "{refused:?}");
    assert!(start.elapsed() < Duration::from_secs(1), "refused at once, not timed out");

    slot.set_internet(true).await.unwrap();
    let mut open = guest.connect(PUBLIC, 80).unwrap();
    assert_eq!(greeting(&open), WAN.to_string(), "the internet sees the host's address");

    slot.set_internet(false).await.unwrap();
    assert!(is_prohibited(&guest.connect(PUBLIC, 80)));
    open.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let echoed = open.write_all(b"x").and_then(|()| open.read(&mut [0]));
    assert!(!matches!(echoed, Ok(1..)), "a connection from before is cut");
}

#[tokio::test]
async fn a_connection_from_before_receives_nothing_once_internet_is_off() {
    let world = World::new().await;
    let slot = world.slot(0).await;
    let guest = Guest::start(&slot);
    slot.set_internet(true).await.unwrap();
    let server = inside(&world.internet, || UdpSocket::bind((PUBLIC, 53)).unwrap());
    let client = inside(&guest.netns, || UdpSocket::bind("0.0.0.0:0").unwrap());
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    }
    client.send_to(b"question", (PUBLIC, 53)).unwrap();
    let (_, from) = server.recv_from(&mut [0; 64]).unwrap();
    server.send_to(b"answer", from).unwrap();
    client.recv_from(&mut [0; 64]).unwrap();

    slot.set_internet(false).await.unwrap();
    server.send_to(b"answer", from).unwrap();
    let heard = client.recv_from(&mut [0; 64]);
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test]
async fn large_uploads_pass_a_host_whose_own_network_has_smaller_packets() {
    let world = World::new().await;
    serve(&world.internet, 80);
    let slot = world.slot(0).await;
    let guest = Guest::start(&slot);
    slot.set_internet(true).await.unwrap();
    ip(&format!("-n {} link set wan mtu 1300", world.host_netns));
    let mut stream = guest.connect(PUBLIC, 80).unwrap();
    greeting(&stream);
    let mut echo = vec![0; 20_000];
    for _ in 0..10 {
        stream.write_all(&[7; 20_000]).unwrap();
        stream.read_exact(&mut echo).unwrap();
    }
}

#[tokio::test]
async fn private_and_metadata_addresses_are_refused_even_with_internet() {
    let world = World::new().await;
    serve(&world.internet, 80);
    let slot = world.slot(0).await;
    let guest = Guest::start(&slot);
    slot.set_internet(true).await.unwrap();
    for address in PRIVATE {
        connect(&world.host_netns, address, 80).expect("the host itself reaches it");
        let refused = guest.connect(address, 80);
        assert!(is_prohibited(&refused), "{address}: {refused:?}");
    }
    let slot_netns = slot.netns_name();
    let list = ["netns", "exec", &slot_netns, "nft", "list", "counter", "inet", "wrenn"];
    let counter = run("ip", &[list.as_slice(), &["refused_private"]].concat());
    assert!(counter.contains("packets 4 "), "{counter}");
}

#[tokio::test]
async fn a_guest_reaches_no_service_of_its_namespace_or_host() {
    let world = World::new().await;
    let slot = world.slot(3).await;
    let guest = Guest::start(&slot);
    slot.set_internet(true).await.unwrap();
    serve(&world.host_netns, 7000);
    serve(&slot.netns_name(), 7000);
    let (host_ip, slot_ip) = (Ipv4Addr::new(10, 213, 0, 6), Ipv4Addr::new(10, 213, 0, 7));
    connect(&world.host_netns, host_ip, 7000).expect("it does listen");
    for address in [GATEWAY_IP, slot_ip, host_ip, WAN] {
        let result = guest.connect(address, 7000);
        assert!(result.is_err(), "{address} answered");
    }
    // Even a guest that has got rid of its slot's rules stops at the host's.
    run("ip", &["netns", "exec", &slot.netns_name(), "nft", "flush", "ruleset"]);
    for address in [host_ip, WAN] {
        assert!(connect(&slot.netns_name(), address, 7000).is_err(), "{address} answered");
    }
}

#[tokio::test]
async fn slots_do_not_reach_each_other() {
    let world = World::new().await;
    let (one, two) = (world.slot(1).await, world.slot(2).await);
    let (guest, other) = (Guest::start(&one), Guest::start(&two));
    one.set_internet(true).await.unwrap();
    two.set_internet(true).await.unwrap();
    serve(&other.netns, 8000);
    serve(&two.netns_name(), 9000);
    two.dial(8000).await.expect("it does listen");
    let (two_ip, two_host_ip) = (Ipv4Addr::new(10, 213, 0, 5), Ipv4Addr::new(10, 213, 0, 4));
    for (address, port) in [(two_ip, 9000), (two_ip, 8000), (two_host_ip, 9000)] {
        assert!(is_prohibited(&guest.connect(address, port)), "{address}:{port}");
    }
    // Without both slots' own rules the host's still keep them apart.
    for slot in [&one, &two] {
        run("ip", &["netns", "exec", &slot.netns_name(), "nft", "flush", "ruleset"]);
    }
    assert!(connect(&one.netns_name(), two_ip, 9000).is_err());
    // Nobody outside opens a connection to a slot either.
    ip(&format!("-n {} route add 10.213.0.0/16 via {WAN}", world.internet));
    assert!(connect(&world.internet, two_ip, 9000).is_err());
    // It is the host's rules, and nothing else.
    run("ip", &["netns", "exec", &world.host_netns, "nft", "flush", "ruleset"]);
    connect(&one.netns_name(), two_ip, 9000).expect("now it is open");
    connect(&world.internet, two_ip, 9000).expect("now it is open");
}

#[tokio::test]
async fn a_guest_cannot_use_another_source_address() {
    let world = World::new().await;
    let slot = world.slot(0).await;
    let guest = Guest::start(&slot);
    slot.set_internet(true).await.unwrap();
    let server = inside(&world.internet, || UdpSocket::bind((PUBLIC, 53)).unwrap());
    server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let send = |from: Ipv4Addr| {
        let client = inside(&guest.netns, || UdpSocket::bind((from, 0)).unwrap());
        client.send_to(b"x", (PUBLIC, 53)).unwrap();
        server.recv(&mut [0; 8]).is_ok()
    };
    ip(&format!("-n {} address add 198.18.0.77/32 dev eth0", guest.netns));
    assert!(send(GUEST_IP), "its own");
    assert!(!send(Ipv4Addr::new(198, 18, 0, 77)), "another one's");
}

#[tokio::test]
async fn dialing_costs_microseconds() {
    let world = World::new().await;
    let slot = world.slot(0).await;
    let guest = Guest::start(&slot);
    let _listener = inside(&guest.netns, || TcpListener::bind((GUEST_IP, 8000)).unwrap());
    let dialer = slot.dialer();
    let mut times = Vec::new();
    for _ in 0..100 {
        let start = Instant::now();
        dialer.dial(8000, Duration::from_secs(2)).await.unwrap();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    println!("dial p50 {:?} p90 {:?} max {:?}", times[50], times[90], times[99]);
    assert!(times[50] < Duration::from_millis(20), "{:?}", times[50]);
}

#[tokio::test]
async fn outbound_traffic_keeps_to_its_rate_after_the_burst() {
    const RATE: f64 = 2_000_000.0;
    const BURST: f64 = 1_000_000.0;
    let world = World::with(|config| {
        config.rate_bytes_per_s = 2_000_000;
        config.burst_bytes = 1_000_000;
    })
    .await;
    let slot = world.slot(0).await;
    let guest = Guest::start(&slot);
    slot.set_internet(true).await.unwrap();
    let server = inside(&world.internet, || UdpSocket::bind((PUBLIC, 9)).unwrap());
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let client = inside(&guest.netns, || UdpSocket::bind("0.0.0.0:0").unwrap());
    let count = std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        let mut bytes = 0;
        while let Ok(length) = server.recv(&mut datagram) {
            bytes += length + 42; // what the limiter counts: with Ethernet, IP and UDP headers
        }
        bytes
    });
    let start = Instant::now();
    let mut offered = 0;
    while start.elapsed() < Duration::from_secs(3) {
        // Up to 12 MB/s, six times the limit, without starving the machine's other tests.
        for _ in 0..12 {
            offered += client.send_to(&[0; 1000], (PUBLIC, 9)).unwrap_or(0) + 42;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let seconds = start.elapsed().as_secs_f64();
    let received = f64::from(u32::try_from(count.join().unwrap()).unwrap());
    let allowed = BURST + RATE * seconds;
    println!("offered {offered} B, received {received} B in {seconds:.2} s, allowed {allowed} B");
    assert!(f64::from(u32::try_from(offered).unwrap()) > 1.5 * allowed, "too little was offered");
    assert!(received <= 1.1 * allowed, "received {received} B of {allowed} B");
    assert!(received >= 0.8 * allowed, "received only {received} B of {allowed} B");
}

#[tokio::test]
async fn ipv6_leads_nowhere() {
    let world = World::new().await;
    let slot = world.slot(0).await;
    let _guest = Guest::start(&slot);
    for netns in [&slot.netns_name(), &world.host_netns] {
        let addresses = ip(&format!("-6 -n {netns} -brief address"));
        let ours = |line: &&str| {
            ["tap0", "uplink0", "w"].iter().any(|name| line.starts_with(name))
                && !line.starts_with("wan")
        };
        assert_eq!(addresses.lines().find(ours), None);
    }
    let second = Slot::create(&world.host, index(0), LIMITS).await;
    assert!(matches!(second, Err(agent_slot::SlotError::Exists { .. })), "and it is there once");
}
