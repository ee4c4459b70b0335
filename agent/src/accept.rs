//! Takes connections, as many at once as a listener is allowed.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

/// Pause after an accept that failed, e.g. for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The next connection and its place among the allowed ones.
///
/// # Cancel safety
///
/// No connection is lost: it waits in the kernel's queue.
pub(crate) async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = Arc::clone(connections).acquire_owned().await;
    let permit = permit.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => {
                // A reply is often one small write: it must not wait for an ACK.
                let _ = stream.set_nodelay(true);
                return (stream, permit);
            }
            Err(error) => {
                tracing::warn!("accept failed: {error}");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}
