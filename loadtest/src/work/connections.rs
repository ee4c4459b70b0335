//! A worker's connections to one origin: opened when needed, used again where the protocol and the
//! plan allow it.
//!
//! HTTP/1.1 has one request per connection at a time. HTTP/2 and HTTP/3 share a connection among as
//! many as the plan allows; while one is being opened, those who come meanwhile wait for it, as
//! browsers do, rather than opening as many.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use loadtest_model::Protocol;
use loadtest_wire::{CallError, Connection, OpenTimes, Origin};
use tokio::sync::Mutex;

/// Connections of one worker to one origin.
#[derive(Debug)]
pub(crate) struct Connections {
    origin: Origin,
    protocol: Protocol,
    keep_alive: bool,
    streams_max: u32,
    idle: RefCell<Vec<Connection>>,
    shared: RefCell<Vec<Shared>>,
    opening: Mutex<()>,
}

/// A connection that carries several requests at once.
#[derive(Debug)]
struct Shared {
    connection: Connection,
    busy: Rc<Cell<u32>>,
}

/// A connection that one request has.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) connection: Connection,
    /// What it took to open, if it was opened for this request.
    pub(crate) opened: Option<OpenTimes>,
    _stream: Option<Stream>,
}

/// A place on a shared connection.
#[derive(Debug)]
struct Stream(Rc<Cell<u32>>);

impl Stream {
    fn take(busy: &Rc<Cell<u32>>) -> Self {
        busy.set(busy.get() + 1);
        Self(Rc::clone(busy))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Connections {
    pub(crate) fn new(
        origin: Origin,
        protocol: Protocol,
        keep_alive: bool,
        streams_max: u32,
    ) -> Self {
        Self {
            origin,
            protocol,
            keep_alive,
            streams_max,
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: Mutex::new(()),
        }
    }

    /// Gives a connection that can take a request now.
    ///
    /// # Errors
    ///
    /// [`CallError`] if one had to be opened and wasn't.
    pub(crate) async fn take(&self) -> Result<Lease, CallError> {
        if !self.keep_alive {
            return self.open().await;
        }
        if self.protocol != Protocol::H1 {
            return self.share().await;
        }
        while let Some(connection) = self.idle.borrow_mut().pop() {
            if connection.is_open() {
                return Ok(Lease { connection, opened: None, _stream: None });
            }
        }
        self.open().await
    }

    /// Takes back a connection whose request has ended well.
    pub(crate) fn give_back(&self, lease: Lease) {
        if self.keep_alive && self.protocol == Protocol::H1 && lease.connection.is_open() {
            self.idle.borrow_mut().push(lease.connection);
        }
    }

    async fn share(&self) -> Result<Lease, CallError> {
        if let Some(lease) = self.shared_place() {
            return Ok(lease);
        }
        let _turn = self.opening.lock().await;
        // Whoever had the turn before may have opened one.
        if let Some(lease) = self.shared_place() {
            return Ok(lease);
        }
        let opened = Connection::open(&self.origin, self.protocol).await?;
        let Some(connection) = opened.connection.handle() else {
            return Ok(Lease {
                connection: opened.connection,
                opened: Some(opened.times),
                _stream: None,
            });
        };
        let busy = Rc::new(Cell::new(0));
        let stream = Stream::take(&busy);
        self.shared.borrow_mut().push(Shared { connection: opened.connection, busy });
        Ok(Lease { connection, opened: Some(opened.times), _stream: Some(stream) })
    }

    fn shared_place(&self) -> Option<Lease> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|one| one.connection.is_open());
        let free = shared.iter().find(|one| one.busy.get() < self.streams_max)?;
        let connection = free.connection.handle()?;
        Some(Lease { connection, opened: None, _stream: Some(Stream::take(&free.busy)) })
    }

    async fn open(&self) -> Result<Lease, CallError> {
        let opened = Connection::open(&self.origin, self.protocol).await?;
        Ok(Lease { connection: opened.connection, opened: Some(opened.times), _stream: None })
    }
}
