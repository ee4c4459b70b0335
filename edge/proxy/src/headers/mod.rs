//! What crosses the edge: hop-by-hop fields go, forwarding fields are set, ours are not forged.

pub(crate) mod added;
pub(crate) mod forwarded;
mod hop;
pub(crate) mod inward;
pub(crate) mod location;
pub(crate) mod outward;
pub(crate) mod seen;

pub(crate) use hop::asks_for_websocket;
use http::{HeaderMap, HeaderName, header};

use self::seen::Seen;

/// What the agent wants to see.
pub(crate) const TOKEN: HeaderName = HeaderName::from_static("x-wrenn-token");
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

/// Removes what speaks of one connection only, what `Connection` names, and what is `doomed` besides.
fn strip(headers: &mut HeaderMap, mut doomed: impl FnMut(&HeaderName, Seen) -> bool) {
    let mut gone = Vec::new();
    for name in headers.keys() {
        let kind = Seen::kind(name);
        if kind.has(Seen::HOP_BY_HOP) || doomed(name, kind) {
            gone.push(name.clone());
        }
    }
    if gone.contains(&header::CONNECTION) {
        gone.extend(hop::named(headers));
    }
    for name in gone {
        headers.remove(name);
    }
}
