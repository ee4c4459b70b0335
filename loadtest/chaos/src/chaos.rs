//! Runs a plan's disturbances beside a run.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use loadtest_model::{ChaosPlan, Disturbance, SlowProxy};
use tokio::time::{sleep_until, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Board, ChaosError,
    fault::{Done, in_a_part},
    plan::{self, Scheduled},
    proxy::Proxy,
};

/// Longest for the proxies' connections to end when they are told to.
const STOP_MAX: Duration = Duration::from_secs(10);

/// The disturbances of one run. Dropped, its proxies end.
#[derive(Debug)]
pub struct Chaos {
    faults: Arc<[Scheduled]>,
    proxies: Vec<Arc<Proxy>>,
    board: Board,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Chaos {
    /// Takes the proxies' ports and checks that each fault could be done now: processes are alive
    /// and may be signalled, disks may be filled.
    ///
    /// # Errors
    ///
    /// [`ChaosError`] naming the first that can't be, what was found and what was expected.
    pub fn prepare(plans: &[ChaosPlan], proxies: &[SlowProxy]) -> Result<Self, ChaosError> {
        let proxies = plan::bind(proxies)?;
        Ok(Self {
            faults: plan::check(plans, &proxies)?.into(),
            proxies,
            board: Board::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Lets the proxies serve, until [`Self::finish`]. To be called once.
    ///
    /// # Errors
    ///
    /// [`ChaosError`] naming the proxy that can't listen.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn start_proxies(&self) -> Result<(), ChaosError> {
        for proxy in &self.proxies {
            let listener = proxy.listen().map_err(|source| {
                let name = proxy.name().to_owned();
                ChaosError::Proxy { name, source }
            })?;
            let (stop, tasks) = (self.stop.clone(), self.tasks.clone());
            self.tasks.spawn(proxy.clone().serve(listener, stop, tasks));
        }
        Ok(())
    }

    /// Where a proxy listens, also if the plan left the port to the system.
    #[must_use]
    pub fn proxy_address(&self, name: &str) -> Option<SocketAddr> {
        self.proxies.iter().find(|proxy| proxy.name() == name).map(|proxy| proxy.address())
    }

    /// Connections that proxies refused because they had as many as they may: the harness's doing,
    /// not the target's.
    #[must_use]
    pub fn refused_connections(&self) -> u64 {
        self.proxies.iter().map(|proxy| proxy.refused()).sum()
    }

    /// Takes the answers.
    #[must_use]
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// Says that a part begins to measure, and ends the one before. The first begins the faults'
    /// clock.
    pub fn begin_part(&self, id: &str, begin: Instant) {
        self.board.begin_part(id, begin);
    }

    /// Says that a part has its last answer. A fault whose time comes before the next part begins
    /// waits for it; what still holds from before goes on.
    pub fn end_part(&self) {
        self.board.end_part();
    }

    /// Fires the faults at their times until cancelled, or until none is left. When it returns,
    /// all is undone.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it undoes what holds, too: at once, but for a disk that is just being filled, which
    /// takes until the step that is under way has ended.
    pub fn run(&self, cancel: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let (faults, board) = (self.faults.clone(), self.board.clone());
        async move {
            // In one task, so that dropping it undoes all of them.
            join_all(faults.iter().map(|fault| fault.follow(&board, &cancel))).await;
        }
    }

    /// Ends the proxies and tells what was disturbed, in the order in which it was. To be called
    /// after [`Self::run`] has returned.
    pub async fn finish(self) -> Vec<Disturbance> {
        self.stop.cancel();
        self.tasks.close();
        // They end by themselves, so that what is late is not waited for.
        let _ = timeout(STOP_MAX, self.tasks.wait()).await;
        self.board.finish()
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Scheduled {
    /// Fires it at its times; ends when the run does, or when it isn't to be fired again.
    async fn follow(&self, board: &Board, cancel: &CancellationToken) -> Done {
        in_a_part(board, cancel).await?;
        let first = board.clock().borrow().map(|clock| clock.first)?;
        let mut due = self.at;
        loop {
            let then = first.checked_add(due)?;
            cancel.run_until_cancelled(sleep_until(then.into())).await?;
            in_a_part(board, cancel).await?;
            self.fault.fire(board, cancel).await?;
            due = self.next_after(first.elapsed())?;
        }
    }
}
