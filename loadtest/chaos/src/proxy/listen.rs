//! Accepts a proxy's connections and carries them.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{CONNECT_MAX, Proxy, pipe};

/// Until the next try, when the system has no socket for us.
const RETRY: Duration = Duration::from_millis(50);

impl Proxy {
    /// Serves until told to stop. Connections are tasks of `tasks`.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) {
        let mut next = Some(listener);
        let serve = async {
            loop {
                if let Some(listener) = next.take().or_else(|| self.listen().ok()) {
                    self.accept_until_cut(listener, &stop, &tasks).await;
                } else {
                    sleep(RETRY).await;
                }
                // The sender is ours, so this can't fail.
                let _ = self.slowness.subscribe().wait_for(|now| !now.cut).await;
            }
        };
        stop.run_until_cancelled(serve).await;
    }

    /// Closes the listener at a cut: whoever connects is then refused.
    async fn accept_until_cut(
        self: &Arc<Self>,
        listener: TcpListener,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        let mut slowness = self.slowness.subscribe();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = slowness.wait_for(|now| now.cut) => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((client, _)) = accepted else {
                sleep(RETRY).await;
                continue;
            };
            if let Ok(slot) = self.slots.clone().try_acquire_owned() {
                let (proxy, stop) = (self.clone(), stop.clone());
                tasks.spawn(async move { proxy.carry(client, &stop, slot).await });
            } else {
                self.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                reset(&client);
            }
        }
    }

    async fn carry(
        &self,
        mut client: TcpStream,
        stop: &CancellationToken,
        _slot: OwnedSemaphorePermit,
    ) {
        let mut cuts = self.slowness.subscribe();
        let cut = async {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = cuts.wait_for(|now| now.cut) => {}
            }
        };
        tokio::pin!(cut);
        let connected = tokio::select! {
            biased;
            () = &mut cut => return reset(&client),
            connected = timeout(CONNECT_MAX, TcpStream::connect(self.upstream)) => connected,
        };
        let Ok(Ok(mut upstream)) = connected else { return reset(&client) };
        let whole = tokio::select! {
            biased;
            () = &mut cut => false,
            whole = self.relay(&mut client, &mut upstream) => whole,
        };
        if !whole {
            reset(&client);
            reset(&upstream);
        }
    }

    /// Carries both directions; true if both came to their ends.
    async fn relay(&self, client: &mut TcpStream, upstream: &mut TcpStream) -> bool {
        // Small pieces are not to wait for each other: the delay is what was asked for.
        let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
        let (ask, answer) = client.split();
        let (answers, asks) = upstream.split();
        let meter = pipe::Meter::new();
        let slowness = || self.slowness.subscribe();
        let requests = pipe::carry(ask, asks, slowness(), false, &meter);
        let answers = pipe::carry(answers, answer, slowness(), true, &meter);
        tokio::try_join!(requests, answers).is_ok()
    }
}

/// Its peer gets a reset when it is dropped.
fn reset(stream: &TcpStream) {
    // It fails only for sockets that are gone already.
    let _ = stream.set_zero_linger();
}
