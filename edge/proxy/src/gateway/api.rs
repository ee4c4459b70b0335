//! Requests for the API: they run beside the workers, since they may wait for a disk or a machine.

use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt as _;

use super::{Call, Worker};
use crate::{body::AnswerBody, error::EdgeError, head::Tunnel};

impl Worker {
    pub(super) async fn call_api(
        &self,
        call: &mut Call<'_>,
    ) -> Result<Response<AnswerBody>, EdgeError> {
        if call.tunnel != Tunnel::No {
            return Err(EdgeError::NotImplemented { what: "a WebSocket to the API" });
        }
        call.finish.draft.set_api();
        let (nothing, ()) = Request::new(()).into_parts();
        let parts = std::mem::replace(&mut call.parts, nothing);
        let body = std::mem::take(&mut call.body);
        let mut request = Request::from_parts(parts, body.boxed());
        request.extensions_mut().insert(call.id);
        request.extensions_mut().insert(call.client.clone());
        let after = self.gateway.limits.api_timeout;
        let step = "the API call";
        let api = self.gateway.api.clone();
        let calling: BoxFuture<'static, _> = Box::pin(api.oneshot(request));
        // Dropped with the request: what has to go on, goes on in a task of its own.
        let calling = AbortOnDropHandle::new(self.gateway.lookups.spawn(calling));
        match timeout(after, calling).await {
            Ok(Ok(Ok(response))) => Ok(response.map(AnswerBody::any)),
            Ok(Ok(Err(never))) => match never {},
            Ok(Err(_)) => Err(EdgeError::UpstreamReset { source: "the API call panicked".into() }),
            Err(_) => Err(EdgeError::DeadlineExceeded { step, after }),
        }
    }
}
