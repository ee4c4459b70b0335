//! A guest daemon of the test's own, with its own accounts, home and cgroup.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use envd::{Accounts, Guest, Linux, Surroundings, System, UserCgroup};
use envd_api::{EnvdClient, Init, Output, Start};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longest that anything in these tests may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The user id of `user`; belongs to nobody on the machine that tests.
const UID: u32 = 61_234;

/// What an init wanted to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Clock(Timestamp),
    Entropy(usize),
    Hostname(String),
}

/// Watches what would be changed; entropy does reach the kernel.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) changes: Arc<Mutex<Vec<Change>>>,
    pub(crate) refuse_hostname: Arc<Mutex<bool>>,
}

impl System for Watched {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn set_clock(&self, to: Timestamp) -> io::Result<()> {
        self.changes.lock().unwrap().push(Change::Clock(to));
        Ok(())
    }

    fn add_entropy(&self, bytes: &[u8]) -> io::Result<()> {
        self.changes.lock().unwrap().push(Change::Entropy(bytes.len()));
        Linux::default().add_entropy(bytes)
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        if *self.refuse_hostname.lock().unwrap() {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        self.changes.lock().unwrap().push(Change::Hostname(name.to_owned()));
        Ok(())
    }
}

/// A cgroup of one test, removed with everything in it.
#[derive(Debug)]
pub(crate) struct TestCgroup {
    pub(crate) root: PathBuf,
}

impl TestCgroup {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mounted = mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            (fields[2] == "cgroup2").then(|| PathBuf::from(fields[1]))
        });
        let mounted = mounted.expect("a cgroup v2 mount");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = mounted.join(format!("envd-test-{}-{number}", std::process::id()));
        fs::create_dir(&root).unwrap();
        Self { root }
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.root.join("user").join(file)).unwrap()
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let user = self.root.join("user");
        let _ = fs::write(user.join("cgroup.kill"), "1");
        for _ in 0..200 {
            if !user.exists() || fs::remove_dir(&user).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = fs::remove_dir(&self.root);
    }
}

/// One running guest daemon.
pub(crate) struct TestGuest {
    pub(crate) address: SocketAddr,
    pub(crate) client: EnvdClient,
    pub(crate) system: Watched,
    pub(crate) cgroup: TestCgroup,
    pub(crate) home: PathBuf,
    _files: TempDir,
    stop: CancellationToken,
}

impl Drop for TestGuest {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl TestGuest {
    /// A daemon that nobody has initialised: `user` acts by default.
    pub(crate) async fn start() -> Self {
        let files = TempDir::new().unwrap();
        // Others than root must reach what is theirs.
        std::os::unix::fs::chown(files.path(), Some(UID), Some(UID)).unwrap();
        let home = files.path().join("home");
        fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(UID), Some(UID)).unwrap();
        let (passwd, group) = (files.path().join("passwd"), files.path().join("group"));
        let home_text = home.display();
        let lines =
            format!("root:x:0:0:root:/root:/bin/bash\nuser:x:{UID}:{UID}::{home_text}:/bin/bash\n");
        fs::write(&passwd, lines).unwrap();
        fs::write(&group, format!("user:x:{UID}:\nextra:x:61235:user\n")).unwrap();
        let system = Watched { changes: Arc::default(), refuse_hostname: Arc::default() };
        let cgroup = TestCgroup::new();
        let guest = Guest::new(Surroundings {
            system: Box::new(system.clone()),
            cgroup: UserCgroup::create(&cgroup.root),
            accounts: Accounts::in_files(passwd, group),
        });
        let listener = envd::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(envd::serve(listener, Arc::new(guest), stop.clone()));
        let client = client(address);
        Self { address, client, system, cgroup, home, _files: files, stop }
    }

    /// Runs a line of shell as the default user.
    pub(crate) async fn shell(&self, line: &str) -> Output {
        self.run(&shell(line)).await
    }

    pub(crate) async fn run(&self, start: &Start) -> Output {
        let stream = self.client.start(start).await.unwrap();
        timeout(PATIENCE, stream.output(1 << 20)).await.expect("the process to end").unwrap()
    }

    /// Sends raw bytes and reads until the daemon closes.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("a close").unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A request without a body, on a connection of its own.
    pub(crate) async fn get(&self, target: &str, headers: &str) -> String {
        let head =
            format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        self.raw(&head).await
    }

    pub(crate) async fn post(&self, target: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        self.raw(&format!(
            "POST {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\
             {headers}\r\n{body}"
        ))
        .await
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.home.join(name).display().to_string()
    }
}

pub(crate) fn client(address: SocketAddr) -> EnvdClient {
    EnvdClient::new(move || TcpStream::connect(address)).with_deadline(PATIENCE)
}

/// Without `-l`: the profile of the machine that tests is none of our business.
pub(crate) fn shell(line: &str) -> Start {
    Start::new("/bin/bash", ["-c", line])
}

/// An init that changes nothing but the identity.
pub(crate) fn init(sandbox: &str, generation: u64) -> Init {
    Init {
        timestamp: Timestamp::now(),
        entropy: vec![0xa5; 64],
        hostname: format!("host-{sandbox}"),
        sandbox_id: sandbox.to_owned(),
        template_id: "base".to_owned(),
        generation,
        env_vars: BTreeMap::new(),
        access_token: None,
        default_user: None,
        default_workdir: None,
    }
}

/// Whether a process exists and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

/// Asks again until it is so.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came about that {what}");
}
