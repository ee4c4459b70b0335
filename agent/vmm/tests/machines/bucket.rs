//! A real S3 server, and a way to it on which things go wrong when a test says so.
//!
//! Only answers to requests for a layer's blocks are tampered with: the rest of a snapshot arrives.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
};

use crate::fixture::built::workspace;

/// What becomes of requests for blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Way {
    /// They are answered.
    Clear,
    /// They are not, while the client waits.
    Silent,
    /// Of three, one is closed without an answer, one is a server error, one is answered.
    Rough,
    /// One byte of each answer is another.
    Wrong,
    /// The first answer has a wrong byte, the others have none.
    WrongOnce,
    /// They are said not to be there.
    Gone,
}

const WAYS: [Way; 6] = [Way::Clear, Way::Silent, Way::Rough, Way::Wrong, Way::WrongOnce, Way::Gone];

/// The server and the way to it. Both end with the test.
pub(crate) struct Bucket {
    /// Where to find it.
    pub(crate) endpoint: String,
    way: Arc<AtomicU8>,
    server: Child,
}

impl Bucket {
    /// A server with the bucket `wrenn`.
    pub(crate) fn start() -> Self {
        let mut server = Command::new("bash")
            .arg(workspace().join("pool/remote/tests/s3-server.sh"))
            .arg("0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let port: u16 = port.trim().parse().expect("the server prints its port");
        let request = Request { head: "PUT /wrenn HTTP/1.1\r\nHost: s3".to_owned(), body: vec![] };
        let answer = request.forward(port).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let way = Arc::new(AtomicU8::new(Way::Clear as u8));
        let (ours, count) = (Arc::clone(&way), Arc::new(AtomicU32::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (way, count) = (Arc::clone(&ours), Arc::clone(&count));
                std::thread::spawn(move || pass(stream, port, &way, &count));
            }
        });
        Self { endpoint, way, server }
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.store(way as u8, Ordering::SeqCst);
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Head without its last line ends, and body.
struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).ok()?.trim_end().to_owned();
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = lengths.next().map_or(0, |(_, value)| value.trim().parse().unwrap_or(0));
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        Some(Self { head, body })
    }

    /// The server's whole answer.
    fn forward(&self, port: u16) -> Option<Vec<u8>> {
        let mut server = TcpStream::connect(("127.0.0.1", port)).ok()?;
        write!(server, "{}\r\nConnection: close\r\n\r\n", self.head).ok()?;
        server.write_all(&self.body).ok()?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).ok()?;
        Some(answer)
    }

    fn is_for_blocks(&self) -> bool {
        self.head.starts_with("GET") && self.head.lines().next().unwrap().contains(".blocks")
    }
}

/// One request of one connection.
fn pass(mut client: TcpStream, port: u16, way: &AtomicU8, count: &AtomicU32) -> Option<()> {
    let request = Request::read(&mut client)?;
    let clear = !request.is_for_blocks();
    let now = if clear { Way::Clear } else { WAYS[usize::from(way.load(Ordering::SeqCst))] };
    let number = if clear { 0 } else { count.fetch_add(1, Ordering::SeqCst) };
    let status = |status: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let answer = match now {
        Way::Silent => {
            let _ = client.read(&mut [0]); // until it gives up
            return None;
        }
        Way::Rough if number % 3 == 0 => return None,
        Way::Rough if number % 3 == 1 => status("500 Internal Server Error"),
        Way::Gone => status("404 Not Found"),
        Way::Clear | Way::Rough => request.forward(port)?,
        Way::Wrong | Way::WrongOnce => {
            let mut answer = request.forward(port)?;
            let last = answer.len() - 1;
            answer[last] ^= 8;
            if now == Way::WrongOnce {
                way.store(Way::Clear as u8, Ordering::SeqCst);
            }
            answer
        }
    };
    client.write_all(&answer).ok()
}
