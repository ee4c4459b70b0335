//! What crosses the edge: hop-by-hop fields go, forwarding fields are set, ours are not forged.

pub(crate) mod forwarded;
mod hop;
pub(crate) mod inward;
pub(crate) mod location;
pub(crate) mod outward;

pub(crate) use hop::asks_for_websocket;
use http::{HeaderMap, HeaderName, HeaderValue};

/// What the agent wants to see.
pub(crate) const TOKEN: HeaderName = HeaderName::from_static("x-wrenn-token");
/// `function/<fn id>` or `sandbox/<sb id>/<port>`.
pub(crate) const TARGET: HeaderName = HeaderName::from_static("x-wrenn-target");
/// The request's id on its way inwards.
pub(crate) const INNER_REQUEST_ID: HeaderName = HeaderName::from_static("x-wrenn-request-id");
/// `h2c` if the guest's server speaks HTTP/2 only.
pub(crate) const APP_PROTOCOL: HeaderName = HeaderName::from_static("x-wrenn-protocol");
/// The request's id on its way outwards.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The code of an error made by an agent or by the edge.
pub(crate) const ERROR: HeaderName = HeaderName::from_static("x-wrenn-error");
/// Which sandbox answered.
pub(crate) const SANDBOX: HeaderName = HeaderName::from_static("x-wrenn-sandbox");
/// Whether the sandbox serves this request only: `never`, or `sequential; request=2; max=10`. From
/// the agent, which lets none of a guest's through.
pub(crate) const REUSE: HeaderName = HeaderName::from_static("x-wrenn-reuse");
/// Which version answered, if the function has tags: `3` or `3; tag=canary`.
pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-wrenn-version");
/// Where the time went.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// What path a client called that the guest sees without its beginning.
pub(crate) const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Every field of ours begins with this; none from outside is passed on.
const OURS: &str = "x-wrenn-";

/// What an invocation by the clock or out of the queue says about itself; nobody else can.
const OF_JOBS: [HeaderName; 3] = [
    HeaderName::from_static("wrenn-trigger"),
    HeaderName::from_static("wrenn-invocation"),
    HeaderName::from_static("wrenn-attempt"),
];

/// Removes fields of ours.
fn strip_ours(headers: &mut HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    if !headers.keys().any(|name| name.as_str().starts_with(OURS)) {
        return;
    }
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(OURS) && !keep(name))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// Sets a field to text that may turn out to be no field value: then it is left out.
fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
