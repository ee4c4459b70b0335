//! A sandbox that will be killed, whatever happens.

use std::time::Duration;

use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};

use super::{Created, Lives};
use crate::outcome::Failure;

/// Longest for one attempt to kill a sandbox.
const KILL_MAX: Duration = Duration::from_secs(30);
/// Attempts, once the first has failed or nobody waits any more.
const TRIES: u32 = 5;
/// The pause before the second attempt; it doubles each time.
const PAUSE: Duration = Duration::from_millis(200);

/// A sandbox. Dropped alive, it is killed by a task of its [`Lives`].
#[derive(Debug)]
pub(super) struct Doomed {
    lives: Lives,
    created: Created,
    alive: bool,
}

impl Doomed {
    pub(super) const fn new(lives: Lives, created: Created) -> Self {
        Self { lives, created, alive: true }
    }

    pub(super) const fn created(&self) -> &Created {
        &self.created
    }

    /// Kills it. After a failure it is tried again, with nobody waiting.
    pub(super) async fn kill(mut self) -> Result<(), Failure> {
        once(&self.lives, &self.created).await?;
        self.alive = false;
        Ok(())
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        if !self.alive {
            return;
        }
        let (lives, created) = (self.lives.clone(), self.created.clone());
        // Without a runtime nothing can be sent any more.
        let Ok(runtime) = Handle::try_current() else {
            lives.give_up(format!("sandbox {}: the runtime has ended", created.id));
            return;
        };
        self.lives.tasks().spawn_on(insist(lives, created), &runtime);
    }
}

async fn once(lives: &Lives, created: &Created) -> Result<(), Failure> {
    timeout(KILL_MAX, lives.api().kill(created)).await.unwrap_or_else(|_| {
        Err(Failure::new("timeout", format!("it was not killed within {KILL_MAX:?}")))
    })
}

async fn insist(lives: Lives, created: Created) {
    let mut pause = PAUSE;
    let mut last = String::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            sleep(pause).await;
            pause *= 2;
        }
        match once(&lives, &created).await {
            Ok(()) => return,
            // An attempt before this one did it, and its answer was lost.
            Err(failure) if failure.kind == "status_404" => return,
            Err(failure) => last = failure.message,
        }
    }
    lives.give_up(format!("sandbox {}: {last}", created.id));
}
