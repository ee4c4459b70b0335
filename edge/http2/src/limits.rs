//! What a client can make us do per second: frames are counted, because what one costs us has little to
//! do with its size.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    Config, Counters,
    wire::{
        Code, Header,
        frame::{flag, kind},
    },
};

/// A DATA frame that brings less costs more than it brings.
const TINY_BYTES: usize = 16;
/// Over which time frames are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// Which bound a client went over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Resets,
    Continuations,
    Settings,
    Pings,
    Control,
    TinyData,
    HeadBytes,
}

impl Excess {
    pub(crate) fn count(self, counters: &Counters) {
        Counters::count(match self {
            Self::Resets => &counters.resets,
            Self::Continuations => &counters.continuations,
            Self::Settings => &counters.settings,
            Self::Pings => &counters.pings,
            Self::Control => &counters.control,
            Self::TinyData => &counters.tiny_data,
            Self::HeadBytes => &counters.head_bytes,
        });
    }

    /// What the client is told (RFC 9113 10.5).
    pub(crate) const CODE: Code = Code::ENHANCE_YOUR_CALM;

    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Resets => "too many streams were reset",
            Self::Continuations => "a head has too many CONTINUATION frames",
            Self::Settings => "too many SETTINGS frames",
            Self::Pings => "too many PING frames",
            Self::Control => "too many control frames",
            Self::TinyData => "too many DATA frames with next to nothing in them",
            Self::HeadBytes => "a head is far too large",
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    resets: u32,
    settings: u32,
    pings: u32,
    control: u32,
    window_updates: u32,
    tiny: u32,
}

/// Counts of one connection.
#[derive(Debug)]
pub(crate) struct Limits {
    since: Instant,
    counts: Counts,
    continuations: u32,
}

impl Limits {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, counts: Counts::default(), continuations: 0 }
    }

    /// Time goes on.
    #[inline]
    pub(crate) fn tick(&mut self, now: Instant) {
        if now.duration_since(self.since) >= WINDOW {
            (self.since, self.counts) = (now, Counts::default());
        }
    }

    /// A frame has come.
    #[inline]
    pub(crate) fn frame(&mut self, header: &Header, config: &Config) -> Result<(), Excess> {
        let counts = &mut self.counts;
        let control = config.max_control_frames_per_second;
        match header.kind {
            // The last of a stream brings its end; there are no more of them than streams.
            kind::DATA if header.length >= TINY_BYTES || header.has(flag::END_STREAM) => Ok(()),
            kind::DATA => {
                within(&mut counts.tiny, config.max_tiny_data_frames_per_second, Excess::TinyData)
            }
            kind::HEADERS => {
                self.continuations = 0;
                Ok(())
            }
            kind::CONTINUATION => {
                within(&mut self.continuations, config.max_continuations, Excess::Continuations)
            }
            kind::RST_STREAM => self.reset(config),
            kind::SETTINGS => within(&mut counts.settings, control, Excess::Settings),
            kind::PING => within(&mut counts.pings, control, Excess::Pings),
            kind::WINDOW_UPDATE => within(
                &mut counts.window_updates,
                config.max_window_updates_per_second,
                Excess::Control,
            ),
            _ => within(&mut counts.control, control, Excess::Control),
        }
    }

    /// A stream was reset, by the client or because of what the client did in it: both cost a request
    /// that nobody waits for.
    pub(crate) fn reset(&mut self, config: &Config) -> Result<(), Excess> {
        within(&mut self.counts.resets, config.max_resets_per_second, Excess::Resets)
    }
}

fn within(count: &mut u32, max: u32, excess: Excess) -> Result<(), Excess> {
    *count += 1;
    if *count > max { Err(excess) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The excess after `count` frames.
    fn after(count: u32, kind: u8, flags: u8, length: usize) -> Option<Excess> {
        let config = Config {
            max_resets_per_second: 10,
            max_control_frames_per_second: 10,
            max_window_updates_per_second: 10,
            max_tiny_data_frames_per_second: 10,
            max_continuations: 10,
            ..Config::default()
        };
        let mut limits = Limits::new(Instant::now());
        let header = Header { length, kind, flags, stream: 1 };
        (0..count).find_map(|_| limits.frame(&header, &config).err())
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_of_flood_is_told_apart() {
        for (kind, length, excess) in [
            (0, 0, Excess::TinyData),
            (2, 5, Excess::Control),
            (3, 4, Excess::Resets),
            (4, 6, Excess::Settings),
            (6, 8, Excess::Pings),
            (8, 4, Excess::Control),
            (9, 100, Excess::Continuations),
            (0xbe, 1000, Excess::Control),
        ] {
            assert_eq!(after(10, kind, 0, length), None, "{kind}");
            assert_eq!(after(11, kind, 0, length), Some(excess), "{kind}");
        }
        assert_eq!(after(1000, 0, 0, 1000), None, "data that brings something");
        assert_eq!(after(1000, 0, flag::END_STREAM, 0), None, "data that brings an end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_later_all_is_forgotten() {
        let config = Config { max_resets_per_second: 1, ..Config::default() };
        let mut limits = Limits::new(Instant::now());
        limits.reset(&config).unwrap();
        limits.tick(Instant::now() + WINDOW / 2);
        limits.reset(&config).unwrap_err();
        limits.tick(Instant::now() + WINDOW);
        limits.reset(&config).unwrap();
    }
}
