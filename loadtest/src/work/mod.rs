//! What arrivals do, made ready: functions found, sandboxes created, checks set.
//!
//! ```text
//! Work (plan) --prepare--> Ready (shared by workers) --doer--> Doer (one worker) --once--> Outcome
//!                            \--clear--> nothing stays behind
//! ```

pub(crate) mod check;
mod connections;
mod guest;
mod prepare;
mod request;
mod stream;

use std::{cell::RefCell, sync::Arc, time::Duration};

use edge_api::{Client, FunctionName};
use loadtest_model::Protocol;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

pub(crate) use prepare::prepare;

use self::{
    guest::Guests,
    request::{Call, Caller},
    stream::{Feed, Follower},
};
use crate::{
    error::RunError,
    lifecycle::{Life, Lives},
    outcome::Outcome,
    paced::Paced,
};

/// Longest to wait for kills of sandboxes when the last arrival is over.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// A scenario that can begin.
#[derive(Debug)]
pub(crate) struct Ready {
    choices: Vec<(f64, Kind)>,
    /// A work that paces itself.
    pub(crate) paced: Option<Paced>,
    pool: Option<(Client, FunctionName)>,
    guests: Vec<Guests>,
}

/// One kind of work, as all workers share it.
#[derive(Debug, Clone)]
enum Kind {
    Call(Arc<Call>),
    WebSocket(Arc<Feed>),
    Events(Arc<Feed>),
    Life(Arc<Life>, Lives),
}

/// What one worker does at each arrival.
#[derive(Debug)]
pub(crate) struct Doer {
    choices: Vec<(f64, Hand)>,
    total: f64,
    random: RefCell<ChaCha8Rng>,
}

/// One kind of work, as one worker does it.
#[derive(Debug)]
enum Hand {
    Call(Box<Caller>),
    WebSocket(Arc<Feed>),
    Events(Box<Follower>),
    Life(Arc<Life>, Lives),
}

impl Ready {
    /// What a worker needs. The same seed makes the same choices.
    pub(crate) fn doer(&self, protocol: Option<Protocol>, seed: u64) -> Doer {
        let protocol = protocol.unwrap_or(Protocol::H1);
        let hand = |kind: &Kind| match kind {
            Kind::Call(call) => {
                Hand::Call(Box::new(Caller::new(call, protocol, rand::rng().random())))
            }
            Kind::WebSocket(feed) => Hand::WebSocket(Arc::clone(feed)),
            Kind::Events(feed) => Hand::Events(Box::new(Follower::new(feed, protocol))),
            Kind::Life(life, lives) => Hand::Life(Arc::clone(life), lives.clone()),
        };
        Doer {
            choices: self.choices.iter().map(|(weight, kind)| (*weight, hand(kind))).collect(),
            total: self.choices.iter().map(|(weight, _)| weight).sum(),
            random: RefCell::new(ChaCha8Rng::seed_from_u64(seed)),
        }
    }

    /// The pool to look at meanwhile, if there is one.
    pub(crate) fn pool(&self) -> Option<(Client, FunctionName)> {
        self.pool.clone()
    }
}

impl Doer {
    /// Does one.
    pub(crate) async fn once(&self) -> Outcome {
        match self.choose() {
            Hand::Call(caller) => caller.once().await,
            Hand::WebSocket(feed) => stream::web_socket(feed).await,
            Hand::Events(follower) => follower.once().await,
            Hand::Life(life, lives) => {
                let nonce = check::nonce(rand::rng().random());
                lives.live(life, &nonce).await
            }
        }
    }

    /// Waits for what goes on behind the works, and says what is left behind.
    pub(crate) async fn settle(&self) -> Vec<String> {
        let mut left = Vec::new();
        for (_, hand) in &self.choices {
            if let Hand::Life(_, lives) = hand {
                let found = lives.settle(SETTLE_MAX).await;
                left.extend(found.orphans);
                if found.unfinished > 0 {
                    left.push(format!("{} creates or kills have not ended", found.unfinished));
                }
            }
        }
        left
    }

    fn choose(&self) -> &Hand {
        if let [(_, only)] = &self.choices[..] {
            return only;
        }
        let mut left = self.random.borrow_mut().random::<f64>() * self.total;
        let chosen = self.choices.iter().find(|(weight, _)| {
            left -= weight;
            left < 0.0
        });
        // Rounding may leave nothing for the last one.
        &chosen.unwrap_or_else(|| self.choices.last().expect("a checked mix is not empty")).1
    }
}

/// Clears away what was prepared.
///
/// # Errors
///
/// [`RunError`] naming what is left.
pub(crate) async fn clear(ready: Arc<Ready>, scenario: &str) -> Result<(), RunError> {
    let mut left = Vec::new();
    left.extend(clear_guests(&ready.guests).await.err());
    if let Some(paced) = &ready.paced {
        left.extend(paced.clear().await.err());
    }
    if left.is_empty() {
        return Ok(());
    }
    Err(RunError::Prepare { scenario: scenario.to_owned(), reason: left.join("; ") })
}

async fn clear_guests(guests: &[Guests]) -> Result<(), String> {
    let mut left = Vec::new();
    for guests in guests {
        left.extend(guests.clear().await.err());
    }
    if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
}
