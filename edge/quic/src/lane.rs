//! How do packets get from the worker that received them to the worker they belong to?
//!
//! Each worker has one lane: a bounded queue others put packets into, the waker of its endpoint, and its counters.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures::task::AtomicWaker;
use quinn::udp::RecvMeta;

use crate::packet::Packet;

/// Most packets (of coalesced datagrams) that wait for one worker.
pub(crate) const PACKETS_MAX: usize = 1024;
/// Most bytes that wait for one worker.
pub(crate) const BYTES_MAX: usize = 4 << 20;

#[derive(Debug, Default)]
pub(crate) struct Lane {
    queue: Mutex<Queue>,
    /// Length of the queue, so that the owner need not lock to see that it is empty.
    len: AtomicUsize,
    waker: AtomicWaker,
    pub(crate) counters: LaneCounters,
}

#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<Packet>,
    bytes: usize,
}

/// Counters of one worker; nobody else writes them, so that workers do not share a cache line in the fast path.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct LaneCounters {
    pub(crate) own: AtomicU64,
    pub(crate) to_worker: AtomicU64,
    pub(crate) to_elder: AtomicU64,
    pub(crate) from_worker: AtomicU64,
    pub(crate) from_successor: AtomicU64,
    pub(crate) foreign: AtomicU64,
    pub(crate) worker_full: AtomicU64,
    pub(crate) elder_full: AtomicU64,
    pub(crate) malformed: AtomicU64,
}

/// Adds `n` to a counter.
pub(crate) fn count(counter: &AtomicU64, n: usize) {
    if n > 0 {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }
}

impl Lane {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is consistent after each statement, so a panic elsewhere spoils nothing.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a packet in and wakes the worker; false if the lane is full.
    pub(crate) fn put(&self, packet: Packet) -> bool {
        {
            let mut queue = self.queue();
            let bytes = queue.bytes + packet.data.len();
            if queue.packets.len() >= PACKETS_MAX || bytes > BYTES_MAX {
                return false;
            }
            queue.bytes = bytes;
            queue.packets.push_back(packet);
            self.len.store(queue.packets.len(), Ordering::Release);
        }
        self.waker.wake();
        true
    }

    /// Whether nothing waits here; takes no lock.
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }

    /// Moves what waits into `bufs` and `meta`, a packet each, and says how many.
    pub(crate) fn take(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut queue = self.queue();
        let mut filled = 0;
        while filled < bufs.len().min(meta.len()) {
            let Some(packet) = queue.packets.pop_front() else { break };
            queue.bytes -= packet.data.len();
            let Some(buf) = bufs[filled].get_mut(..packet.data.len()) else {
                count(&self.counters.malformed, 1);
                continue;
            };
            buf.copy_from_slice(&packet.data);
            meta[filled] = packet.meta;
            count(&self.counters.from_worker, datagrams(&packet.meta));
            filled += 1;
        }
        self.len.store(queue.packets.len(), Ordering::Release);
        filled
    }

    /// Registers whom to wake when something comes in or the socket's state changes.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Wakes the worker's endpoint.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }
}

/// How many datagrams a buffer described by `meta` has.
pub(crate) fn datagrams(meta: &RecvMeta) -> usize {
    if meta.stride == 0 { 1 } else { meta.len.div_ceil(meta.stride) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(len: usize) -> Packet {
        let meta = RecvMeta { stride: len, ..RecvMeta::default() };
        Packet::copy(&vec![7; len], &meta)
    }

    #[test]
    fn packets_come_out_in_order_with_what_is_known_of_them() {
        let lane = Lane::default();
        assert!(lane.put(packet(10)) && lane.put(packet(20)) && lane.put(packet(30)));
        let (mut a, mut b) = ([0; 64], [0; 64]);
        let mut bufs = [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)];
        let mut meta = [RecvMeta::default(); 2];
        assert_eq!(lane.take(&mut bufs, &mut meta), 2);
        assert_eq!((meta[0].len, meta[1].len), (10, 20));
        assert_eq!(lane.take(&mut bufs, &mut meta), 1);
        assert_eq!((meta[0].len, meta[0].stride), (30, 30));
        assert!(lane.is_empty());
        assert_eq!(lane.counters.from_worker.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_full_lane_refuses_by_count_and_by_bytes() {
        let by_count = Lane::default();
        assert!((0..PACKETS_MAX).all(|_| by_count.put(packet(1))));
        assert!(!by_count.put(packet(1)));
        let by_bytes = Lane::default();
        assert!(by_bytes.put(packet(BYTES_MAX)));
        assert!(!by_bytes.put(packet(1)));
    }

    #[test]
    fn a_packet_too_large_for_the_buffer_is_dropped_and_counted() {
        let lane = Lane::default();
        assert!(lane.put(packet(100)) && lane.put(packet(5)));
        let mut buf = [0; 10];
        let mut meta = [RecvMeta::default()];
        assert_eq!(lane.take(&mut [IoSliceMut::new(&mut buf)], &mut meta), 1);
        assert_eq!(meta[0].len, 5);
        assert_eq!(lane.counters.malformed.load(Ordering::Relaxed), 1);
    }
}
