//! What does a client see of a proxy, as fast as it goes, at a given rate, or while it holds idle connections?
//!
//! ```text
//! edge_load load --url https://HOST:8443/ --ca-file ca.pem --protocol h3 --connections 64 --seconds 5
//! edge_load load ... --rate 5000
//! edge_load hold --url https://HOST:8443/ --ca-file ca.pem --kind h2 --connections 1000
//! ```
//!
//! `load` prints one `name value` per line: `done`, `failed`, `bytes`, `seconds`, `p50_us`, `p99_us`.
//! With a rate, requests are due at even distances whether or not others have been answered
//! (an open loop), and their time counts from when they were due. `--upload BYTES` gives each a body;
//! with `--protocol ws` a message of 1 KiB and its echo take the place of a request and its answer.
//! `hold` opens connections (of kind `h1`, `h2`, `h3`, each with one request; or WebSockets: `ws` over
//! HTTP/1.1, `ws-h2` a hundred on a connection of HTTP/2), prints `open COUNT`, keeps them until its
//! input ends, and asks each once more: one that was lost makes it fail.

use std::{
    io::Read as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use loadtest_wire::{Connection, Guard, Message, Origin, Protocol, Request, WebSocket, trusting};
use tokio::{sync::mpsc, task::JoinHandle};

/// Requests that may be due on one stream while it is busy.
const DUE_MAX: usize = 4096;
/// Connections are opened in groups of so many.
const OPEN_AT_ONCE: u32 = 32;
/// Longest wait for a WebSocket.
const OPENING: Duration = Duration::from_secs(30);
/// Longest time that one is held.
const HOLDING: Duration = Duration::from_secs(600);
/// Where WebSockets are.
const WS_PATH: &str = "/ws";
/// As many streams as most servers allow a connection (RFC 9113 6.5.2).
const WS_PER_CONNECTION: u32 = 100;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Args(Vec<String>);

impl Args {
    fn get(&self, flag: &str) -> Option<&str> {
        self.0.chunks_exact(2).find(|pair| pair[0] == flag).map(|pair| pair[1].as_str())
    }

    fn number(&self, flag: &str, otherwise: u32) -> Result<u32, Failure> {
        self.get(flag).map_or(Ok(otherwise), |text| Ok(text.parse()?))
    }

    /// Where to; on this machine, whatever the host is called.
    fn origin(&self) -> Result<(Origin, String), Failure> {
        let url: Uri = self.get("--url").ok_or("--url is missing")?.parse()?;
        let host = url.host().ok_or("--url names no host")?;
        let port = url.port_u16().ok_or("--url names no port")?;
        let secure = url.scheme_str() == Some("https");
        let file = self.get("--ca-file").map(Path::new).filter(|_| secure);
        let tls = file.map(trusting).transpose()?;
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let origin = Origin::new(host, port, tls, Guard::new(Some(address), true))
            .connect_to(SocketAddr::new(address, port));
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        Ok((origin, path.to_owned()))
    }
}

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let command = if args.is_empty() { String::new() } else { args.remove(0) };
    let args = Args(args);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Failure::from).and_then(|runtime| {
        runtime.block_on(async {
            match command.as_str() {
                "load" => load(&args).await,
                "hold" => hold(&args).await,
                _ => Err("usage: edge_load load|hold --url URL ...".into()),
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("edge_load: {error}: {:?}", error.source().map(ToString::to_string));
            ExitCode::FAILURE
        }
    }
}

/// What one stream saw.
#[derive(Default)]
struct Seen {
    waits_us: Vec<u32>,
    failed: u64,
    bytes: u64,
    why: Option<String>,
}

impl Seen {
    fn answered(&mut self, since: Instant, bytes: u64) {
        self.waits_us.push(u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX));
        self.bytes += bytes;
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.why = Some(why);
    }
}

async fn load(args: &Args) -> Result<(), Failure> {
    let (origin, path) = args.origin()?;
    if args.get("--protocol") == Some("ws") {
        return echoes(args, &origin, &path).await;
    }
    let protocol: Protocol = args.get("--protocol").unwrap_or("h1").parse()?;
    let streams = args.number("--streams", 1)?;
    let mut handles = Vec::new();
    for _ in 0..args.number("--connections", 64)? {
        let first = Connection::open(&origin, protocol).await?.connection;
        for _ in 1..streams {
            handles.push(first.handle().ok_or("h1 has one stream per connection")?);
        }
        handles.push(first);
    }
    let seconds = Duration::from_secs(args.number("--seconds", 5)?.max(1).into());
    let request = match args.number("--upload", 0)? {
        0 => Request::get(path),
        bytes => Request::new(Method::POST, path).content(vec![b'x'; bytes.try_into()?].into()),
    };
    let began = Instant::now();
    let workers: Vec<_> = match args.number("--rate", 0)? {
        0 => handles
            .into_iter()
            .map(|handle| tokio::spawn(as_fast(handle, request.clone(), began + seconds)))
            .collect(),
        rate => {
            let (queues, dues): (Vec<_>, Vec<_>) =
                handles.iter().map(|_| mpsc::channel(DUE_MAX)).unzip();
            thread::spawn(move || pace(&queues, rate, began + seconds));
            let due = handles.into_iter().zip(dues);
            due.map(|(handle, due)| tokio::spawn(as_due(handle, request.clone(), due))).collect()
        }
    };
    sum(workers, began).await
}

async fn sum(workers: Vec<JoinHandle<Seen>>, began: Instant) -> Result<(), Failure> {
    let mut all = Seen::default();
    for worker in workers {
        let seen = worker.await?;
        all.waits_us.extend(seen.waits_us);
        all.failed += seen.failed;
        all.bytes += seen.bytes;
        all.why = all.why.or(seen.why);
    }
    report(&mut all, began.elapsed())
}

fn report(all: &mut Seen, took: Duration) -> Result<(), Failure> {
    all.waits_us.sort_unstable();
    let count = all.waits_us.len();
    let at = |percent: usize| all.waits_us.get(count * percent / 100).copied().unwrap_or(0);
    println!("done {count}\nfailed {}\nbytes {}", all.failed, all.bytes);
    println!("seconds {:.3}\np50_us {}\np99_us {}", took.as_secs_f64(), at(50), at(99));
    match &all.why {
        Some(why) => Err(format!("{} requests failed: {why}", all.failed).into()),
        None => Ok(()),
    }
}

/// One request after the other.
async fn as_fast(mut connection: Connection, request: Request, until: Instant) -> Seen {
    let mut seen = Seen::default();
    while seen.why.is_none() && Instant::now() < until {
        one(&mut connection, &request, Instant::now(), &mut seen).await;
    }
    seen
}

/// Requests when they are due.
async fn as_due(
    mut connection: Connection,
    request: Request,
    mut due: mpsc::Receiver<Instant>,
) -> Seen {
    let mut seen = Seen::default();
    while let Some(due) = due.recv().await {
        if seen.why.is_some() {
            seen.failed += 1;
            continue;
        }
        one(&mut connection, &request, due, &mut seen).await;
    }
    seen
}

async fn one(connection: &mut Connection, request: &Request, since: Instant, seen: &mut Seen) {
    let mut bytes = 0;
    let answer = connection.exchange(request, &mut |data: &[u8]| bytes += data.len() as u64).await;
    match answer {
        Ok(answer) if answer.status.is_success() => seen.answered(since, bytes),
        Ok(answer) => seen.fail(answer.status.to_string()),
        Err(error) => seen.fail(error.in_full()),
    }
}

/// WebSockets that send one message after the other, each when the last has come back.
async fn echoes(args: &Args, origin: &Origin, path: &str) -> Result<(), Failure> {
    let seconds = Duration::from_secs(args.number("--seconds", 5)?.max(1).into());
    let deadline = tokio::time::Instant::now() + seconds + OPENING;
    let mut sockets = Vec::new();
    for _ in 0..args.number("--connections", 64)? {
        sockets.push(WebSocket::open(origin, path, &HeaderMap::new(), deadline).await?.0);
    }
    let began = Instant::now();
    let until = began + seconds;
    let workers = sockets.into_iter().map(|mut socket| {
        tokio::spawn(async move {
            let mut seen = Seen::default();
            while seen.why.is_none() && Instant::now() < until {
                let since = Instant::now();
                match echo(&mut socket).await {
                    Ok(bytes) => seen.answered(since, bytes),
                    Err(error) => seen.fail(error.to_string()),
                }
            }
            seen
        })
    });
    sum(workers.collect(), began).await
}

/// Bytes of the answer.
async fn echo(socket: &mut WebSocket) -> Result<u64, Failure> {
    socket.send(Message::Binary(Bytes::from_static(&[b'x'; 1024]))).await?;
    match socket.next().await? {
        Some(Message::Binary(answer)) => Ok(answer.len() as u64),
        other => Err(format!("not the message that was sent: {other:?}").into()),
    }
}

/// Says when requests are due, in turn on each stream. A thread of its own: the runtime's timers
/// have a resolution of a millisecond.
fn pace(queues: &[mpsc::Sender<Instant>], rate: u32, until: Instant) {
    let distance = Duration::from_secs(1) / rate;
    let mut due = Instant::now();
    for queue in queues.iter().cycle() {
        let now = Instant::now();
        if now >= until {
            return;
        }
        if let Some(rest) = due.checked_duration_since(now) {
            thread::sleep(rest);
        }
        // From when it could go out: a late wake-up here is not the server's.
        if queue.try_send(Instant::now().max(due)).is_err() {
            return; // as many wait as may: the server is far behind
        }
        due += distance;
    }
}

/// What is held open: a connection that was asked once, or a WebSocket.
enum Held {
    Connection(Connection),
    WebSocket(Box<WebSocket>),
}

impl Held {
    /// Opens at most so many: one connection, or with `ws-h2` the WebSockets of one.
    async fn open(origin: &Origin, kind: &str, request: &Request, most: u32) -> Opened {
        let (none, until) = (HeaderMap::new(), tokio::time::Instant::now() + HOLDING);
        let mut held = Vec::new();
        match kind {
            "ws" => {
                let (socket, _) = WebSocket::open(origin, WS_PATH, &none, until).await?;
                held.push(Self::WebSocket(Box::new(socket)));
            }
            "ws-h2" => {
                let mut connection = Connection::open(origin, Protocol::H2).await?.connection;
                for _ in 0..most.min(WS_PER_CONNECTION) {
                    let socket = WebSocket::open_on(&mut connection, WS_PATH, &none, until).await?;
                    held.push(Self::WebSocket(Box::new(socket)));
                }
            }
            protocol => {
                let mut connection = Connection::open(origin, protocol.parse()?).await?.connection;
                connection.call(request).await?;
                held.push(Self::Connection(connection));
            }
        }
        Ok(held)
    }

    /// Asks once more.
    async fn ask(&mut self, request: &Request) -> Result<(), Failure> {
        match self {
            Self::Connection(connection) => drop(connection.call(request).await?),
            Self::WebSocket(socket) => drop(echo(socket).await?),
        }
        Ok(())
    }
}

type Opened = Result<Vec<Held>, Failure>;

async fn hold(args: &Args) -> Result<(), Failure> {
    let (origin, path) = args.origin()?;
    let kind = args.get("--kind").unwrap_or("h1").to_owned();
    let count = args.number("--connections", 1000)?;
    let request = Request::get(path);
    let each = if kind == "ws-h2" { WS_PER_CONNECTION } else { 1 };
    let mut held: Vec<Held> = Vec::new();
    while let left @ 1.. = count - u32::try_from(held.len())? {
        let group = left.div_ceil(each).min(OPEN_AT_ONCE);
        let opening =
            (0..group).map(|index| Held::open(&origin, &kind, &request, left - index * each));
        for opened in futures::future::join_all(opening).await {
            held.extend(opened?);
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("open {}", held.len());
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0; 16]));
    ended.await??;
    for held in &mut held {
        held.ask(&request).await.map_err(|error| format!("one was not held: {error}"))?;
    }
    Ok(())
}
