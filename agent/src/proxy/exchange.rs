//! One exchange with a guest: the request in, the answer out, and what is held until its end.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use pool_model::{ErrorCode, Port};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::task::TaskTracker;

use super::{
    body::{Body, Error, Held},
    conn::{Manner, Used, for_guest},
    error::Failure,
    head::{self, Ours},
    inward::Interims,
    reach::Reach,
    upstream::{self, Way},
};

/// W3C Server Timing: durations in milliseconds.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What all exchanges share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Idle connections that may be kept in all.
    pub(super) places: Arc<Semaphore>,
    /// Tunnels, which outlive their requests.
    pub(super) tasks: TaskTracker,
}

/// A request and what it may take.
pub(super) struct Call {
    pub(super) ours: Ours,
    /// Where 1xx answers go, if the edge can take them.
    pub(super) interims: Option<Interims>,
    pub(super) deadline: Instant,
}

/// Where it goes.
pub(super) struct To<'a, G> {
    pub(super) guest: &'a Arc<G>,
    pub(super) port: Port,
    /// Whether connections are kept for other requests.
    pub(super) keep: bool,
}

/// Where the time went, for `Server-Timing`.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Timing {
    pub(super) lease: Option<Duration>,
    pub(super) restore: Option<Duration>,
    pub(super) upstream: Duration,
}

/// A request's lease, its guest, and the connection between them.
struct InUse<H, G: Reach> {
    held: H,
    guest: Arc<G>,
    used: Used,
    /// Where the connection may be kept.
    keep: Option<(Port, Arc<Semaphore>)>,
}

impl<H: Held, G: Reach> Held for InUse<H, G> {
    fn finish(self: Box<Self>) {
        let Self { held, guest, used, keep } = *self;
        if let (Used::H1(conn), Some((port, places))) = (used, keep) {
            guest.links().put(port, conn, &places);
        }
        Box::new(held).finish();
    }

    fn is_cut(&self) -> bool {
        self.guest.links().cutting().is_cancelled()
    }
}

/// Sends a request and passes the answer on. `held` lives until the answer's end.
pub(super) async fn exchange<G: Reach>(
    shared: &Shared,
    to: To<'_, G>,
    call: Call,
    mut timing: Timing,
    held: impl Held,
) -> Result<Response<Body>, Failure> {
    let To { guest, port, keep } = to;
    let Call { ours, interims, deadline } = call;
    let Ours { mut request, upgrade, h2c, trailers, .. } = ours;
    let began = Instant::now();
    let edge_upgrade = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let manner = match upgrade {
        _ if h2c => Manner::H2c { trailers },
        Some(protocol) => Manner::Upgrade(protocol),
        None if keep => Manner::Keep,
        None => Manner::Close,
    };
    let request = for_guest(request, &manner);
    let places = &shared.places;
    let stays = matches!(manner, Manner::Keep).then(|| (port, Arc::clone(places)));
    let way = Way { guest: guest.as_ref(), port, manner, keep, deadline, interims, places };
    let (mut response, used) = way.send(request).await?;
    timing.upstream = began.elapsed();
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = response.headers().get(header::UPGRADE).cloned();
    *response.version_mut() = Version::HTTP_11;
    head::strip(response.headers_mut());
    upstream::set_sandbox(response.headers_mut(), guest.sandbox());
    append_timing(&mut response, timing);
    let held = InUse { held, guest: Arc::clone(guest), used, keep: stays };
    match (switching, edge_upgrade, protocol) {
        (true, Some(edge), Some(protocol)) => {
            let inner = hyper::upgrade::on(&mut response);
            let cut = guest.links().cutting().clone();
            shared.tasks.spawn(upstream::tunnel(edge, inner, cut, held));
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, protocol);
            Ok(response.map(|body| Body::new(boxed(body))))
        }
        (true, ..) => {
            let message = "the guest switched to a protocol that nobody asked for";
            Err(Failure::new(ErrorCode::UpstreamReset, message).of(guest.sandbox()))
        }
        _ => Ok(response.map(|body| Body::holding(boxed(body), held))),
    }
}

fn append_timing(response: &mut Response<Incoming>, timing: Timing) {
    let entries =
        [("lease", timing.lease), ("restore", timing.restore), ("upstream", Some(timing.upstream))];
    let text: Vec<String> = entries
        .into_iter()
        .filter_map(|(name, time)| Some((name, time?)))
        .map(|(name, time)| format!("{name};dur={:.3}", time.as_secs_f64() * 1000.0))
        .collect();
    if let Ok(value) = HeaderValue::from_str(&text.join(", ")) {
        response.headers_mut().append(SERVER_TIMING, value);
    }
}

fn boxed(body: Incoming) -> UnsyncBoxBody<bytes::Bytes, Error> {
    body.map_err(Into::into).boxed_unsync()
}
