//! An agent that speaks HTTP/1.1 by hand: it counts what comes and answers by a script.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// Longest wait for what is to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A whole answer.
pub(crate) const FINE: Step = Step::Say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine");

/// What is done after a request's head, one after the other. The connection stays open, unless the
/// script closes it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Say(&'static str),
    /// Takes so many bytes of the body.
    Read(usize),
    /// Until the test says so.
    Wait,
    Close,
}

/// A running agent; stops when dropped.
pub(crate) struct ByHand {
    pub(crate) address: SocketAddr,
    pub(crate) go: Arc<Notify>,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    closed: AtomicUsize,
    heads: Mutex<Vec<String>>,
    bodies: Mutex<Vec<u8>>,
    changed: Notify,
}

impl Drop for ByHand {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ByHand {
    /// `script` says what is done with which request, counted from 0.
    pub(crate) async fn start(script: fn(usize) -> &'static [Step]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, go) = (Arc::new(Seen::default()), Arc::new(Notify::new()));
        let (of_all, going) = (Arc::clone(&seen), Arc::clone(&go));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                of_all.connections.fetch_add(1, Ordering::SeqCst);
                let (seen, go) = (Arc::clone(&of_all), Arc::clone(&going));
                connections.spawn(async move {
                    serve(stream, script, &seen, &go).await;
                    seen.closed.fetch_add(1, Ordering::SeqCst);
                    seen.changed.notify_waiters();
                });
            }
        });
        Self { address, go, seen, task }
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// The heads of all requests.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.seen.heads.lock().unwrap().clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.heads.lock().unwrap().len()
    }

    /// All that was read of bodies.
    pub(crate) fn bodies(&self) -> String {
        String::from_utf8(self.seen.bodies.lock().unwrap().clone()).unwrap()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn asked(&self, requests: usize) {
        self.until(|| self.requests() >= requests).await;
    }

    /// Waits until so many connections have ended.
    pub(crate) async fn closed(&self, connections: usize) {
        self.until(|| self.seen.closed.load(Ordering::SeqCst) >= connections).await;
    }

    async fn until(&self, is: impl Fn() -> bool) {
        let waiting = async {
            loop {
                let mut changed = std::pin::pin!(self.seen.changed.notified());
                changed.as_mut().enable();
                if is() {
                    return;
                }
                changed.await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("it happens");
    }
}

async fn serve(
    mut stream: TcpStream,
    script: fn(usize) -> &'static [Step],
    seen: &Seen,
    go: &Notify,
) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let number = {
            let mut heads = seen.heads.lock().unwrap();
            heads.push(String::from_utf8(head).unwrap().to_ascii_lowercase());
            heads.len() - 1
        };
        seen.changed.notify_waiters();
        for step in script(number) {
            match step {
                Step::Say(text) => stream.write_all(text.as_bytes()).await.ok()?,
                Step::Read(bytes) => {
                    let mut body = vec![0; *bytes];
                    stream.read_exact(&mut body).await.ok()?;
                    seen.bodies.lock().unwrap().extend(body);
                }
                Step::Wait => go.notified().await,
                Step::Close => return None,
            }
        }
    }
}
