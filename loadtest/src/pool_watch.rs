//! Looks at a pool while a part runs.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use edge_api::{Client, FunctionName};
use loadtest_model::{PoolLevel, PoolSample};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

/// How often a pool is looked at: each look is a call of the API.
const EVERY: Duration = Duration::from_millis(250);
/// Most samples of a part: from then on every second one is dropped.
const SAMPLES_MAX: usize = 4096;

/// What was seen so far.
#[derive(Debug, Default)]
struct Seen {
    samples: Vec<PoolSample>,
    /// Only every so many looks are kept.
    keep_every: u32,
    looks: u32,
}

/// A running watch. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct PoolWatch {
    seen: Arc<Mutex<Seen>>,
    task: Option<JoinHandle<()>>,
}

impl PoolWatch {
    /// Begins; without a pool there is nothing to see.
    pub(crate) fn start(pool: Option<(Client, FunctionName)>, begin: Instant) -> Self {
        let seen = Arc::new(Mutex::new(Seen { keep_every: 1, ..Seen::default() }));
        let task = pool.map(|(api, function)| {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move { look(&api, &function, begin, &seen).await })
        });
        Self { seen, task }
    }

    /// How it was when it was last looked at.
    pub(crate) fn level(&self) -> Option<PoolLevel> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.samples.last().map(|sample| PoolLevel {
            warm: sample.warm,
            restoring: sample.restoring,
            leased: sample.leased,
        })
    }

    /// Ends and gives what was seen.
    pub(crate) async fn stop(mut self) -> Vec<PoolSample> {
        if let Some(task) = self.task.take() {
            task.abort();
            // Aborted on purpose.
            let _ = task.await;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut seen.samples)
    }
}

impl Drop for PoolWatch {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn look(api: &Client, function: &FunctionName, begin: Instant, seen: &Mutex<Seen>) {
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        looks.tick().await;
        // A target that is being killed does not answer; the next look may.
        let Ok(info) = api.pool(function).await else { continue };
        let Some(stats) = info.stats else { continue };
        let sample = PoolSample {
            at_s: begin.elapsed().as_secs_f64(),
            warm: stats.warm,
            restoring: stats.restoring,
            leased: stats.leased,
            reaping: stats.reaping,
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.add(sample);
    }
}

impl Seen {
    fn add(&mut self, sample: PoolSample) {
        self.looks += 1;
        if !self.looks.is_multiple_of(self.keep_every) {
            return;
        }
        self.samples.push(sample);
        if self.samples.len() >= SAMPLES_MAX {
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.keep_every *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stay_few_and_span_the_whole_time() {
        let mut seen = Seen { keep_every: 1, ..Seen::default() };
        for look in 0..100_000 {
            seen.add(PoolSample { at_s: f64::from(look), ..PoolSample::default() });
        }
        assert!(seen.samples.len() < SAMPLES_MAX && seen.samples.len() > SAMPLES_MAX / 4);
        assert!(seen.samples[0].at_s < 100.0 && seen.samples.last().unwrap().at_s > 99_000.0);
        assert!(seen.samples.windows(2).all(|pair| pair[0].at_s < pair[1].at_s));
    }
}
