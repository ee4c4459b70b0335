//! The edge while it serves: what it hands to a successor, its numbers, and its end.

use std::{
    fmt, io,
    net::{TcpListener, UdpSocket},
    path::Path,
    sync::Arc,
    time::Duration,
};

use edge_quic::{
    ForwardSocket,
    handover::{Named, Parcel},
};
use tokio::time::timeout;

use super::{Bound, Drained, HTTP, HTTPS, QUIC, byte, worker};

/// How long what was cut has to be gone.
const CUT_WAIT: Duration = Duration::from_secs(5);

/// Serving.
pub struct Running {
    pub(super) workers: Vec<worker::Running>,
    pub(super) setup: worker::Setup,
    pub(super) kept: Bound,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Running {
    /// Begins to read QUIC's packets: at once, or when the edge before has stopped to.
    pub fn read_quic(&self) {
        for socket in self.workers.iter().filter_map(|worker| worker.socket.as_ref()) {
            socket.start_reading();
        }
    }

    /// What a successor needs of the data plane: copies of the sockets, and where to send packets of
    /// connections that stay here.
    ///
    /// # Errors
    ///
    /// If `directory` does not take the sockets that those packets come by.
    pub fn parcel(&self, directory: &Path) -> io::Result<(Parcel, Option<ForwardSocket>)> {
        let Bound { http, https, quic } = &self.kept;
        let mut tcp = named(HTTP, http, TcpListener::try_clone)?;
        tcp.extend(named(HTTPS, https, TcpListener::try_clone)?);
        let udp = named(QUIC, quic, UdpSocket::try_clone)?;
        let mut parcel = Parcel { tcp, udp, ..Parcel::default() };
        let Some(shared) = &self.setup.quic else { return Ok((parcel, None)) };
        parcel.generation = shared.generation();
        parcel.elders = shared.elders();
        if quic.is_empty() {
            return Ok((parcel, None));
        }
        let forward = ForwardSocket::bind(directory, shared.generation(), shared.workers())?;
        parcel.elders.push(forward.elder().clone());
        Ok((parcel, Some(forward)))
    }

    /// Stops accepting and reading: the successor does that from now on. Requests on open
    /// connections go on.
    ///
    /// # Errors
    ///
    /// If a socket for the packets that the successor passes on can't be had.
    pub fn release(&self, forward: Option<&ForwardSocket>) -> io::Result<()> {
        self.setup.life.accept(false);
        let Some(forward) = forward else { return Ok(()) };
        for (number, worker) in self.workers.iter().enumerate() {
            if let Some(socket) = &worker.socket {
                socket.stop_reading(forward.socket(byte(number))?);
            }
        }
        Ok(())
    }

    /// Takes back what was released: the successor went away.
    pub fn resume(&self) {
        self.setup.life.accept(true);
        self.read_quic();
    }

    /// Connections that are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.setup.life.open()
    }

    /// Numbers that only the listeners know, for the metrics.
    #[must_use]
    pub fn gauges(&self) -> edge_telemetry::Gauges {
        let (life, quic) = (self.setup.life.clone(), self.setup.quic.clone());
        Box::new(move || {
            let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            let mut all = vec![("connections", "Open connections.", number(life.open() as u64))];
            if let Some(counters) = quic.as_ref().map(|shared| shared.counters()) {
                let steered = counters.own;
                all.push((
                    "quic_datagrams_own",
                    "Datagrams that came to their worker.",
                    number(steered),
                ));
            }
            all
        })
    }

    /// The gateway itself, for requests that come from no listener.
    #[must_use]
    pub fn inside(&self) -> crate::Inside {
        crate::Inside::new(Arc::clone(&self.setup.gateway))
    }

    /// Tells every connection to finish, waits for at most `grace`, cuts what is left.
    pub async fn drain(self, grace: Duration) -> Drained {
        let Self { workers, setup, kept } = self;
        drop(kept); // the last copies of the listening sockets, unless a successor has others
        let life = &setup.life;
        life.drain.cancel();
        life.tasks.close();
        let drained = if timeout(grace, life.tasks.wait()).await.is_ok() {
            Drained { cut: 0 }
        } else {
            let cut = life.open();
            tracing::warn!(connections = cut, "cutting what did not end in time");
            life.cut.cancel();
            let _ = timeout(CUT_WAIT, life.tasks.wait()).await; // they only have to notice
            Drained { cut }
        };
        setup.stop.cancel();
        let joined = tokio::task::spawn_blocking(move || {
            for worker in workers {
                let _ = worker.thread.join(); // a panic was logged by its hook
            }
        });
        let _ = timeout(CUT_WAIT, joined).await; // the process ends anyway
        drained
    }
}

fn named<S>(
    name: &str,
    sockets: &[S],
    clone: fn(&S) -> io::Result<S>,
) -> io::Result<Vec<Named<S>>> {
    let named = |(worker, socket): (usize, &S)| {
        Ok(Named { name: name.to_owned(), worker: byte(worker), socket: clone(socket)? })
    };
    sockets.iter().enumerate().map(named).collect()
}
