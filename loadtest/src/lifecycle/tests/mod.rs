//! Lives over E2B's API, with Wrenn's own guest daemon behind a control plane of the tests' own;
//! refusals over both APIs.

mod e2b;
mod guest;
mod plane;
mod refusals;
mod sdk;
mod v1;

use std::{net::SocketAddr, time::Duration};

use loadtest_wire::{Guard, Origin};

use super::{Access, E2bAccess, Life, Lives, Reach, dialect};
use crate::outcome::{Outcome, Timing};

/// Longest that anything in these tests may take; the machine may be slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// A life with everything in it.
fn life() -> Life {
    Life {
        template: None,
        command: "echo ready".to_owned(),
        file_bytes: 100_000,
        pause: true,
        timeout: PATIENCE,
    }
}

/// A nonce that nobody else has.
fn nonce(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn access(address: SocketAddr, key: &str) -> Access {
    let guard = Guard::new([], false);
    let origin = Origin::new(&address.ip().to_string(), address.port(), None, guard);
    let sandboxes = Reach::Headers(origin.clone());
    Access::E2b(E2bAccess { api: origin, key: key.to_owned(), sandboxes })
}

fn lives(address: SocketAddr, key: &str) -> Lives {
    Lives::new(dialect(access(address, key)))
}

/// The steps that were timed, in their order.
fn steps(outcome: &Outcome) -> Vec<&'static str> {
    let step = |(timing, _): &(Timing, Duration)| match timing {
        Timing::Step(name) => *name,
        other => panic!("{other:?}"),
    };
    outcome.timings.iter().map(step).collect()
}

fn kind(outcome: &Outcome) -> &str {
    outcome.failure.as_ref().map_or("", |failure| &failure.kind)
}

fn message(outcome: &Outcome) -> &str {
    outcome.failure.as_ref().map_or("", |failure| &failure.message)
}
