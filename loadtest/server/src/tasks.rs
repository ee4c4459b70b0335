//! Who waits for tasks that were started.

use std::{io, net::UdpSocket, pin::Pin, sync::Arc, time::Instant};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks of one server. All end soon after they are cancelled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Tasks {
    /// Starts one; it is dropped where it stands when the server stops.
    pub(crate) fn spawn<F: Future<Output: Send> + Send + 'static>(&self, task: F) {
        let cancel = self.cancel.clone();
        self.tracker.spawn(async move { cancel.run_until_cancelled_owned(task).await });
    }

    /// Stops them.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
        self.tracker.close();
    }

    /// Waits until all are gone.
    pub(crate) async fn wait(&self) {
        self.tracker.wait().await;
    }
}

/// For hyper, whose own choice would detach the streams of HTTP/2.
impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

/// For quinn, likewise. These aren't cancelled: they end when their endpoint has said goodbye to all
/// and nobody holds it any more, and only then its socket is closed.
impl Runtime for Tasks {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.tracker.spawn(task);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }
}
