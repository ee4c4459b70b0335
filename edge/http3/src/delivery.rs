//! Which small answers may not have reached the client yet, so that a drain can wait for them.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Mutex, PoisonError},
};

use futures::FutureExt;

use crate::respond::Stopped;

/// Ends once the client has acknowledged an answer, or stopped it.
pub(crate) type Delivery = Pin<Box<dyn Future<Output = Stopped> + Send + Sync>>;

/// How many are kept without a look whether they have ended.
const UNCHECKED: usize = 16;
/// How many are looked at for each that is added: more than one, so that they become fewer.
const CHECKED: usize = 2;
/// Most that are kept, should the transport allow more requests at a time; the oldest go first.
const KEPT_MAX: usize = 1024;

/// Answers that are written, in about the order in which that was.
#[derive(Default)]
pub(crate) struct Deliveries(Mutex<VecDeque<Delivery>>);

impl Deliveries {
    /// Keeps one more.
    pub(crate) fn push(&self, delivery: Delivery) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..CHECKED {
            if kept.len() < UNCHECKED {
                break;
            }
            let Some(mut oldest) = kept.pop_front() else { break };
            let pending = oldest.as_mut().now_or_never().is_none();
            if pending && kept.len() < KEPT_MAX {
                kept.push_back(oldest);
            }
        }
        kept.push_back(delivery);
    }

    /// Forgets those that have ended.
    pub(crate) fn tidy(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain_mut(|delivery| delivery.as_mut().now_or_never().is_none());
        kept.shrink_to_fit();
    }

    /// Waits until all have ended.
    pub(crate) async fn all(&self) {
        let kept = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *kept)
        };
        for delivery in kept {
            let _ = delivery.await; // stopped, acknowledged, lost: there is nothing more to wait for
        }
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(deliveries: &Deliveries) -> usize {
        deliveries.0.lock().unwrap().len()
    }

    #[test]
    fn what_has_ended_makes_room_and_what_has_not_stays_up_to_a_limit() {
        let deliveries = Deliveries::default();
        for _ in 0..200 {
            deliveries.push(Box::pin(std::future::ready(Ok(None))));
        }
        assert_eq!(kept(&deliveries), UNCHECKED);
        for _ in 0..100 {
            deliveries.push(Box::pin(std::future::pending()));
        }
        assert!((100..100 + UNCHECKED).contains(&kept(&deliveries)));
        for _ in 0..2 * KEPT_MAX {
            deliveries.push(Box::pin(std::future::pending()));
        }
        assert!(kept(&deliveries) <= KEPT_MAX + 1);
    }

    #[test]
    fn tidying_up_leaves_those_that_have_not_ended() {
        let deliveries = Deliveries::default();
        for n in 0..10 {
            deliveries.push(Box::pin(async move {
                if n % 2 == 0 { std::future::pending().await } else { Ok(None) }
            }));
        }
        deliveries.tidy();
        assert_eq!(kept(&deliveries), 5);
        deliveries.tidy();
        assert_eq!(kept(&deliveries), 5);
    }
}
