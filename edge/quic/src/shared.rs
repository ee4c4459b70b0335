//! What do the workers of one process share, and where does a packet go?

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quinn::BloomTokenLog;
use quinn::udp::RecvMeta;

use crate::cid::{CID_LEN, Owner};
use crate::elders::{Elder, ElderError, Elders, Refused};
use crate::lane::{Lane, count};
use crate::packet::{Packet, encode};
use crate::secrets::QuicSecrets;

/// Where a datagram belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// To the endpoint of the worker that received it.
    Here,
    /// To another worker of this process.
    Worker(u8),
    /// To an older generation.
    Elder(Owner),
    /// To nobody: a short packet whose connection id none of us made.
    Nowhere,
}

/// What all workers of one process share: keys, generation, the lanes between them and the elders.
pub struct Shared {
    pub(crate) secrets: QuicSecrets,
    pub(crate) token_log: Arc<BloomTokenLog>,
    generation: u16,
    lanes: Box<[Lane]>,
    elders: Elders,
}

/// What happened to received datagrams so far; sums over all workers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SteerCounters {
    /// Datagrams that arrived at the worker they belong to.
    pub own: u64,
    /// Datagrams put into the lane of another worker.
    pub to_worker: u64,
    /// Datagrams queued for an older generation.
    pub to_elder: u64,
    /// Datagrams taken out of a lane.
    pub from_worker: u64,
    /// Datagrams the successor sent us, when we are the older generation.
    pub from_successor: u64,
    /// Datagrams dropped since their connection id is none of ours.
    pub foreign: u64,
    /// Datagrams dropped since the other worker's lane was full.
    pub worker_full: u64,
    /// Datagrams dropped since the queue of an older generation was full or the generation gone.
    pub elder_full: u64,
    /// Messages (each one or more datagrams) an older generation's socket did not take in time.
    pub elder_lost: u64,
    /// Packets from others that made no sense or did not fit the buffer.
    pub malformed: u64,
}

impl Shared {
    /// For a process with `workers` workers that makes connection ids of `generation`.
    ///
    /// # Panics
    ///
    /// If `workers` is 0.
    #[must_use]
    pub fn new(secrets: QuicSecrets, generation: u16, workers: u8) -> Arc<Self> {
        assert!(workers > 0, "an edge has at least one worker");
        Arc::new(Self {
            secrets,
            token_log: Arc::new(BloomTokenLog::default()),
            generation,
            lanes: (0..workers).map(|_| Lane::default()).collect(),
            elders: Elders::default(),
        })
    }

    /// The generation of this process.
    #[must_use]
    pub fn generation(&self) -> u16 {
        self.generation
    }

    /// How many workers this process has.
    #[must_use]
    pub fn workers(&self) -> u8 {
        u8::try_from(self.lanes.len()).unwrap_or(u8::MAX)
    }

    /// From now on sends packets of `elder`'s connections to its sockets, until these are gone.
    ///
    /// The sending tasks run on the tokio runtime this is called on; it should live as long as the process.
    ///
    /// # Errors
    ///
    /// [`ElderError`]: too many, known already (or our own), or gone.
    pub fn add_elder(&self, elder: Elder) -> Result<(), ElderError> {
        if elder.generation == self.generation {
            return Err(ElderError::Known(elder.generation));
        }
        self.elders.add(elder)
    }

    /// [`Shared::add_elder`] for those of a parcel; says which were not taken on, once per cause. One
    /// whose process has ended is not among them.
    pub fn add_elders(&self, elders: Vec<Elder>) -> Vec<Refused> {
        let mut refused = Vec::new();
        for elder in elders {
            let generation = elder.generation;
            match self.add_elder(elder) {
                Ok(()) => {}
                Err(error) if error.has_ended() => {
                    tracing::debug!(generation, %error, "an old generation has ended");
                }
                Err(error) => Refused::note(&mut refused, error, generation),
            }
        }
        refused
    }

    /// The elders that we send to and that live, for the parcel of the next hand-over.
    #[must_use]
    pub fn elders(&self) -> Vec<Elder> {
        self.elders.living()
    }

    /// The counters so far.
    #[must_use]
    pub fn counters(&self) -> SteerCounters {
        let mut sum = SteerCounters { elder_lost: self.elders.lost(), ..SteerCounters::default() };
        for lane in &self.lanes {
            let c = &lane.counters;
            sum.own += c.own.load(Ordering::Relaxed);
            sum.to_worker += c.to_worker.load(Ordering::Relaxed);
            sum.to_elder += c.to_elder.load(Ordering::Relaxed);
            sum.from_worker += c.from_worker.load(Ordering::Relaxed);
            sum.from_successor += c.from_successor.load(Ordering::Relaxed);
            sum.foreign += c.foreign.load(Ordering::Relaxed);
            sum.worker_full += c.worker_full.load(Ordering::Relaxed);
            sum.elder_full += c.elder_full.load(Ordering::Relaxed);
            sum.malformed += c.malformed.load(Ordering::Relaxed);
        }
        sum
    }

    pub(crate) fn lane(&self, worker: u8) -> &Lane {
        &self.lanes[usize::from(worker)]
    }

    /// Where a datagram with this connection id goes when `worker` received it. Locks only for other generations.
    pub(crate) fn route(&self, id: &[u8; CID_LEN], long: bool, worker: u8) -> Route {
        let Some(owner) = self.secrets.cid.decode(id) else {
            return if long { Route::Here } else { Route::Nowhere };
        };
        if owner.generation != self.generation {
            if self.elders.knows(owner.generation, owner.worker) {
                return Route::Elder(owner);
            }
            // Its process is gone: the endpoint answers with a reset, so that the peer need not wait.
            return Route::Here;
        }
        if owner.worker != worker && usize::from(owner.worker) < self.lanes.len() {
            return Route::Worker(owner.worker);
        }
        Route::Here
    }

    /// Passes the `n` datagrams in `data` on to where they belong; `worker` received them.
    pub(crate) fn pass_on(&self, route: Route, data: &[u8], meta: &RecvMeta, n: usize, worker: u8) {
        let c = &self.lane(worker).counters;
        match route {
            Route::Here => {}
            Route::Nowhere => count(&c.foreign, n),
            Route::Worker(other) => {
                let taken = self.lane(other).put(Packet::copy(data, meta));
                count(if taken { &c.to_worker } else { &c.worker_full }, n);
            }
            Route::Elder(Owner { generation, worker }) => {
                let taken = self.elders.send(generation, worker, encode(data, meta));
                count(if taken { &c.to_elder } else { &c.elder_full }, n);
            }
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("generation", &self.generation)
            .field("workers", &self.workers())
            .field("elders", &self.elders)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::elders::ELDERS_MAX;

    #[tokio::test]
    async fn refused_elders_are_told_once_per_cause_and_ended_ones_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let elder = |generation: u16| {
            let path = directory.path().join(format!("{generation}.sock"));
            (UnixDatagram::bind(&path).unwrap(), Elder { generation, sockets: vec![path] })
        };
        let (ended, ended_elder) = elder(99);
        drop(ended);
        let nowhere = Elder { generation: 98, sockets: vec!["/nowhere/98.sock".into()] };
        let secrets = QuicSecrets::derive(b"a secret of thirty-two bytes or so").unwrap();
        let shared = Shared::new(secrets, 100, 1);
        assert!(shared.add_elders(vec![ended_elder, nowhere]).is_empty());

        let most = u16::try_from(ELDERS_MAX).unwrap();
        let (_sockets, mut elders): (Vec<_>, Vec<_>) = (0..most + 2).map(elder).unzip();
        elders.push(elders[0].clone());
        let refused = shared.add_elders(elders);
        let told: Vec<_> =
            refused.iter().map(|r| (r.error.to_string(), r.generations.clone())).collect();
        let expected = [
            (ElderError::TooMany.to_string(), vec![most, most + 1]),
            (ElderError::Known(0).to_string(), vec![0]),
        ];
        assert_eq!(told, expected);
        assert_eq!(shared.elders().len(), ELDERS_MAX);
    }
}
