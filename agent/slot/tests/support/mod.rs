//! A world for tests: a host, an internet and guests, each in a namespace of its own. Nothing of
//! the machine's own network is touched.
//!
//! ```text
//! guest eth0 ~~frames copied~~ tap0 [slot] ---- [host] wan 198.18.0.2 ---- 198.18.0.1 [internet]
//!                                                              203.0.113.1, 10.99.0.1, 169.254.169.254
//! ```
#![allow(dead_code, unreachable_pub, missing_docs)] // each test binary uses a part of it

mod tap;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use agent_slot::{Host, Limits, Slot, SlotConfig, SlotIndex};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

pub const LIMITS: Limits = Limits { memory_bytes: 64 << 20, pids: 64 };
/// The host's address towards the internet.
pub const WAN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// A server on the internet.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Servers beyond the host that guests must not reach.
pub const PRIVATE: [Ipv4Addr; 4] = [
    Ipv4Addr::new(10, 99, 0, 1),
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
];

static WORLDS: AtomicU32 = AtomicU32::new(0);

pub fn index(number: u16) -> SlotIndex {
    SlotIndex::new(number).unwrap()
}

/// Runs a program that must succeed.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn ip(line: &str) -> String {
    run("ip", &line.split_whitespace().collect::<Vec<_>>())
}

/// Does something inside a named namespace, on a thread of its own.
pub fn inside<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = Path::new("/run/netns").join(netns);
    thread::scope(|scope| {
        let enter = || {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        scope.spawn(enter).join().unwrap()
    })
}

/// Connects from inside a namespace.
pub fn connect(netns: &str, to: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let to = SocketAddr::from((to, port));
    inside(netns, || TcpStream::connect_timeout(&to, Duration::from_millis(1500)))
}

/// A TCP server in a namespace, on all addresses: sends the client's address, then echoes.
pub fn serve(netns: &str, port: u16) {
    let listener = inside(netns, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    thread::spawn(move || {
        while let Ok((mut client, from)) = listener.accept() {
            thread::spawn(move || {
                let mut buffer = [0; 1024];
                let mut sent = client.write_all(format!("{}\n", from.ip()).as_bytes());
                while let (Ok(()), Ok(read @ 1..)) = (sent, client.read(&mut buffer)) {
                    sent = client.write_all(&buffer[..read]);
                }
            });
        }
    });
}

/// The first line that a server sends.
pub fn greeting(mut stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

pub struct World {
    pub host: Host,
    pub tag: String,
    pub host_netns: String,
    pub internet: String,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut SlotConfig)) -> Self {
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        // Pids fit 22 bits, so 5 digits of base 36 hold one; test binaries run at the same time.
        let tag = format!("{}{}", base36(std::process::id()), base36(number));
        let (host_netns, internet) = (format!("test-{tag}-h"), format!("test-{tag}-i"));
        for netns in [&host_netns, &internet] {
            ip(&format!("netns add {netns}"));
            ip(&format!("-n {netns} link set lo up"));
        }
        let (h, i) = (&host_netns, &internet);
        ip(&format!("-n {h} link add wan type veth peer name wan netns {i}"));
        ip(&format!("-n {h} address add {WAN}/24 dev wan"));
        ip(&format!("-n {i} address add 198.18.0.1/24 dev wan"));
        for address in PRIVATE.iter().chain([&PUBLIC]) {
            ip(&format!("-n {i} address add {address}/32 dev lo"));
        }
        for netns in [h, i] {
            ip(&format!("-n {netns} link set wan up"));
        }
        ip(&format!("-n {h} route add default via 198.18.0.1"));
        let mut config = SlotConfig::new(tag.clone());
        config.host_netns = Some(PathBuf::from(format!("/run/netns/{host_netns}")));
        change(&mut config);
        let host = Host::setup(&config).await.unwrap();
        Self { host, tag, host_netns, internet }
    }

    pub async fn slot(&self, number: u16) -> Slot {
        Slot::create(&self.host, index(number), LIMITS).await.unwrap()
    }

    /// What is left on the system of this installation's slots; empty when all is clean.
    pub fn remains(&self) -> Vec<String> {
        let prefix = format!("w{}-", self.tag);
        let names = ip("netns list") + &ip(&format!("-n {} -brief link", self.host_netns));
        let mut found: Vec<String> = names
            .lines()
            .filter_map(|line| line.split([' ', '@']).next())
            .filter(|name| name.starts_with(&prefix))
            .map(str::to_owned)
            .collect();
        for parent in self.cgroup_parents() {
            for entry in std::fs::read_dir(parent).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    found.push(entry.path().display().to_string());
                }
            }
        }
        found
    }

    pub fn cgroup_parents(&self) -> Vec<PathBuf> {
        let name = format!("wrenn-{}", self.tag);
        ["memory", "pids", "."]
            .iter()
            .map(|hierarchy| Path::new("/sys/fs/cgroup").join(hierarchy).join(&name))
            .filter(|path| path.exists())
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let host = self.host.clone();
        let teardown = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(host.teardown())
        };
        let result = thread::spawn(teardown).join().unwrap();
        for netns in [&self.host_netns, &self.internet] {
            ip(&format!("netns delete {netns}"));
        }
        if !thread::panicking() {
            result.unwrap();
            assert_eq!(self.cgroup_parents(), Vec::<PathBuf>::new());
        }
    }
}

fn base36(mut number: u32) -> String {
    let mut text = String::new();
    loop {
        text.insert(0, char::from_digit(number % 36, 36).unwrap());
        number /= 36;
        if number == 0 {
            return text;
        }
    }
}

/// A machine behind a slot's tap: a namespace whose network card is wired to it frame by frame.
pub struct Guest {
    pub netns: String,
    stop: Arc<AtomicBool>,
    wire: Option<JoinHandle<()>>,
}

impl Guest {
    pub fn start(slot: &Slot) -> Self {
        let netns = format!("test-{}", slot.netns_name());
        ip(&format!("netns add {netns}"));
        let card = inside(&netns, tap::open_guest_tap).unwrap();
        for line in [
            "link set lo up",
            "link set eth0 address 02:57:52:00:00:02",
            "link set eth0 up",
            "address add 172.16.0.2/30 dev eth0",
            "route add default via 172.16.0.1",
        ] {
            ip(&format!("-n {netns} {line}"));
        }
        let socket = File::from(slot.open_tap().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let wire = Some(thread::spawn(move || copy_frames(&card, &socket, &stopped)));
        Self { netns, stop, wire }
    }

    pub fn connect(&self, to: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
        connect(&self.netns, to, port)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wire.take().unwrap().join().unwrap();
        ip(&format!("netns delete {}", self.netns));
    }
}

fn copy_frames(a: &File, b: &File, stop: &AtomicBool) {
    let mut frame = vec![0; 70_000];
    while !stop.load(Ordering::Relaxed) {
        let readable = |file| PollFd::new(AsFd::as_fd(file), PollFlags::POLLIN);
        poll(&mut [readable(a), readable(b)], PollTimeout::from(20_u8)).unwrap();
        for (mut from, mut to) in [(a, b), (b, a)] {
            for _ in 0..64 {
                let Ok(length) = from.read(&mut frame) else { break };
                // A full queue or a link that is down loses frames, as a wire does.
                let _ = to.write(&frame[..length]);
            }
        }
    }
}

/// What a refused connection looks like, as opposed to one that hangs.
pub fn is_prohibited(result: &io::Result<TcpStream>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::HostUnreachable)
}
