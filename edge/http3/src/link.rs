//! What the tasks of one connection share: the way to close it, its limits, its meters.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::VarInt;

use crate::{
    Config, ConnectionError, Counters,
    delivery::Deliveries,
    priority::Updates,
    wire::{Code, FrameError, Limits},
};

/// A connection as its tasks see it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) quic: quinn::Connection,
    pub(crate) config: Arc<Config>,
    pub(crate) limits: Limits,
    pub(crate) updates: Updates,
    pub(crate) deliveries: Deliveries,
    /// Which of the client's critical streams are open, a bit for each type.
    pub(crate) critical: AtomicU8,
    /// How many requests were accepted.
    pub(crate) accepted: AtomicU64,
    draining: AtomicBool,
    failure: OnceLock<ConnectionError>,
    resets: Rate,
    unanswered: Rate,
    provoked: Rate,
    control: Rate,
    unis: Rate,
}

impl Link {
    pub(crate) fn new(quic: quinn::Connection, config: Arc<Config>) -> Self {
        let limits = Limits {
            field_section_bytes: usize::try_from(config.max_field_section_bytes)
                .unwrap_or(usize::MAX),
            fields: config.max_fields,
            idle_frames: config.frames_without_progress_max,
        };
        Self {
            quic,
            limits,
            updates: Updates::new(config.priority_updates_max),
            deliveries: Deliveries::default(),
            critical: AtomicU8::new(0),
            accepted: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            failure: OnceLock::new(),
            resets: Rate::new(config.resets_per_second_max),
            unanswered: Rate::new(config.unanswered_resets_per_second_max),
            provoked: Rate::new(config.provoked_resets_per_second_max),
            control: Rate::new(config.control_frames_per_second_max),
            unis: Rate::new(config.uni_streams_per_second_max),
            config,
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.config.counters
    }

    /// Closes the connection because of a rule that the client broke.
    pub(crate) fn refuse(&self, code: Code, reason: String) {
        self.close(code, reason, &self.counters().protocol);
    }

    /// Closes the connection because of frames that are wrong.
    pub(crate) fn refuse_frame(&self, error: FrameError) {
        let counters = self.counters();
        let counter = match error {
            FrameError::Idle(_) => &counters.empty_frames,
            _ => &counters.protocol,
        };
        self.close(error.code(), error.to_string(), counter);
    }

    /// Only the first reason is told and counted.
    fn close(&self, code: Code, reason: String, counter: &AtomicU64) {
        self.quic.close(varint(code), reason.as_bytes());
        if self.failure.set(ConnectionError::Refused { code, reason }).is_ok() {
            Counters::count(counter);
        }
    }

    fn close_excess(&self, reason: &str, counter: &AtomicU64) {
        self.close(Code::H3_EXCESSIVE_LOAD, reason.to_owned(), counter);
    }

    /// Why the connection was closed by us, if it was.
    pub(crate) fn failure(&self) -> Option<ConnectionError> {
        self.failure.get().cloned()
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Counts a request that the client gave up, and closes the connection if there are too many.
    pub(crate) fn count_reset(&self, unanswered: bool) {
        let counters = self.counters();
        Counters::count(&counters.resets);
        if unanswered {
            Counters::count(&counters.unanswered_resets);
            if self.unanswered.is_exceeded() {
                let reason = "too many requests were given up before their answer";
                self.close_excess(reason, &counters.unanswered_resets_excess);
            }
        }
        if self.resets.is_exceeded() {
            self.close_excess("too many requests were given up", &counters.resets_excess);
        }
    }

    /// Counts a request that we reset because of what the client did in it, and closes the connection
    /// if there are too many.
    pub(crate) fn count_provoked(&self) {
        let counters = self.counters();
        Counters::count(&counters.provoked_resets);
        if self.provoked.is_exceeded() {
            let reason = "too many requests had to be reset";
            self.close_excess(reason, &counters.provoked_resets_excess);
        }
    }

    /// Counts a frame or a piece on a critical stream. False: it was one too many.
    pub(crate) fn count_control(&self) -> bool {
        if self.control.is_exceeded() {
            self.close_excess("too much on the control streams", &self.counters().control_excess);
            return false;
        }
        true
    }

    /// Counts a stream in one direction. False: it was one too many.
    pub(crate) fn count_uni(&self, open: usize, open_max: usize) -> bool {
        if self.unis.is_exceeded() || open >= open_max {
            self.close_excess("too many unidirectional streams", &self.counters().uni_excess);
            return false;
        }
        true
    }
}

/// A code as QUIC takes it.
pub(crate) fn varint(code: Code) -> VarInt {
    VarInt::from_u32(code.value())
}

/// Counts events per second.
#[derive(Debug)]
struct Rate {
    max: u32,
    window: Mutex<(Instant, u32)>,
}

impl Rate {
    fn new(max: u32) -> Self {
        Self { max, window: Mutex::new((Instant::now(), 0)) }
    }

    /// Counts one, and says whether it is above what a second may have.
    fn is_exceeded(&self) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.duration_since(window.0) >= Duration::from_secs(1) {
            *window = (now, 0);
        }
        window.1 = window.1.saturating_add(1);
        window.1 > self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_exceeded_by_one_more_and_forgets_after_a_second() {
        let rate = Rate::new(3);
        assert!((0..3).all(|_| !rate.is_exceeded()));
        assert!(rate.is_exceeded());
        rate.window.lock().unwrap().0 = Instant::now() - Duration::from_secs(1);
        assert!(!rate.is_exceeded());
    }
}
