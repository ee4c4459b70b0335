//! The futures of a connection's streams, run by the connection's own task.
//!
//! A turn of the connection runs those that were woken, so that what several streams have to say goes
//! out in one write. A task of the runtime for each would be woken, and write, one by one.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// How many slots a connection keeps while it has no future.
const KEPT_MAX: usize = 8;

/// Which futures are to run, and whom to tell.
#[derive(Debug, Default)]
struct State {
    ready: Vec<usize>,
    /// The connection's task.
    waker: Option<Waker>,
    /// Something has changed that the connection has to see.
    nudged: bool,
    /// The connection's turn: it will look by itself.
    in_turn: bool,
}

/// Wakes a connection, for its futures or for itself.
#[derive(Debug, Default)]
pub(crate) struct Bell(Mutex<State>);

impl Bell {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection's turn begins.
    pub(crate) fn begin_turn(&self, cx: &Context<'_>) {
        let mut state = self.lock();
        state.in_turn = true;
        state.nudged = false;
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Whether the connection's turn is over: nothing has come up meanwhile.
    pub(crate) fn end_turn(&self) -> bool {
        let mut state = self.lock();
        let over = state.ready.is_empty() && !state.nudged;
        state.nudged = false;
        state.in_turn = !over;
        over
    }

    /// The connection's turn is over, though there is more to do.
    pub(crate) fn yield_turn(&self) {
        self.lock().in_turn = false;
    }

    /// Something has changed that the connection has to see.
    pub(crate) fn nudge(&self) {
        let mut state = self.lock();
        state.nudged = true;
        state.wake();
    }
}

impl State {
    fn wake(&self) {
        if !self.in_turn
            && let Some(waker) = &self.waker
        {
            waker.wake_by_ref();
        }
    }
}

/// Wakes one future.
#[derive(Debug)]
struct SlotWaker {
    slot: usize,
    queued: AtomicBool,
    bell: Arc<Bell>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let mut state = self.bell.lock();
            state.ready.push(self.slot);
            state.wake();
        }
    }
}

/// A place for a future. Its waker stays when the future changes: a late call runs the next one once
/// for nothing.
struct Slot<F> {
    future: Option<Pin<Box<F>>>,
    own: Arc<SlotWaker>,
    waker: Waker,
}

/// The futures, each in a slot with a number.
pub(crate) struct Tasks<F> {
    slots: Vec<Slot<F>>,
    free: Vec<usize>,
    /// Those that run in this round.
    round: Vec<usize>,
    bell: Arc<Bell>,
}

impl<F: Future<Output = ()>> Tasks<F> {
    pub(crate) const fn new(bell: Arc<Bell>) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), round: Vec::new(), bell }
    }

    /// Makes a future, which runs in the next round. Gives its slot.
    pub(crate) fn insert(&mut self, make: impl FnOnce() -> F) -> usize {
        // Its place first: what fails in between would have it made elsewhere and copied.
        let place = Box::new_uninit();
        let future = Some(Box::into_pin(Box::write(place, make())));
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot].future = future;
                slot
            }
            None => {
                let slot = self.slots.len();
                let bell = Arc::clone(&self.bell);
                let own = Arc::new(SlotWaker { slot, queued: AtomicBool::new(false), bell });
                let waker = Waker::from(Arc::clone(&own));
                self.slots.push(Slot { future, own, waker });
                slot
            }
        };
        self.wake(slot);
        slot
    }

    /// The future in this slot is to run in the next round.
    pub(crate) fn wake(&self, slot: usize) {
        if let Some(slot) = self.slots.get(slot) {
            slot.own.wake_by_ref();
        }
    }

    /// Drops the future in this slot, unless it has ended.
    pub(crate) fn remove(&mut self, slot: usize) {
        if self.slots.get_mut(slot).is_some_and(|slot| slot.future.take().is_some()) {
            self.free.push(slot);
        }
    }

    /// Gives memory back while there is no future.
    pub(crate) fn shrink(&mut self) {
        if self.slots.len() > KEPT_MAX && self.free.len() == self.slots.len() {
            self.clear();
        }
    }

    /// Drops all.
    pub(crate) fn clear(&mut self) {
        (self.slots, self.free, self.round) = Default::default();
    }

    /// Runs those that are to run, once each. False: there was none.
    pub(crate) fn run(&mut self) -> bool {
        std::mem::swap(&mut self.round, &mut self.bell.lock().ready);
        if self.round.is_empty() {
            return false;
        }
        for index in 0..self.round.len() {
            let number = self.round[index];
            let Some(slot) = self.slots.get_mut(number) else { continue };
            // Before it runs: what wakes it meanwhile counts.
            slot.own.queued.store(false, Ordering::Release);
            let Some(future) = &mut slot.future else { continue };
            if let Poll::Ready(()) = future.as_mut().poll(&mut Context::from_waker(&slot.waker)) {
                slot.future = None;
                self.free.push(number);
            }
        }
        self.round.clear();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicUsize};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A future that counts its runs and ends with the `last`.
    async fn counted(runs: Arc<AtomicUsize>, last: usize, wakers: Arc<Mutex<Vec<Waker>>>) {
        poll_fn(|cx| {
            wakers.lock().unwrap().push(cx.waker().clone());
            let run = runs.fetch_add(1, Ordering::Relaxed) + 1;
            if run == last { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    #[test]
    fn only_what_was_woken_runs_and_slots_are_used_again() {
        let (bell, wakers) = (Arc::new(Bell::default()), Arc::new(Mutex::new(Vec::new())));
        let mut tasks = Tasks::new(Arc::clone(&bell));
        let runs: Vec<Arc<AtomicUsize>> = (0..3).map(|_| Arc::default()).collect();
        let seen = || runs.iter().map(|runs| runs.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let start =
            |runs: &Arc<AtomicUsize>, last| counted(Arc::clone(runs), last, Arc::clone(&wakers));
        assert_eq!(tasks.insert(|| start(&runs[0], 2)), 0);
        assert_eq!(tasks.insert(|| start(&runs[1], 9)), 1);
        assert!(tasks.run() && !tasks.run());
        assert_eq!(seen(), [1, 1, 0]);
        tasks.wake(0);
        tasks.wake(0);
        assert!(tasks.run() && !tasks.run(), "woken twice is run once");
        assert_eq!(seen(), [2, 1, 0]);
        assert_eq!(tasks.insert(|| start(&runs[2], 9)), 0, "its slot is free");
        tasks.remove(1);
        wakers.lock().unwrap().iter().for_each(Waker::wake_by_ref);
        assert!(tasks.run() && !tasks.run());
        assert_eq!(seen(), [2, 1, 1], "what was removed does not run");
    }

    #[test]
    fn the_connection_is_woken_but_not_in_its_own_turn() {
        let (bell, count) = (Arc::new(Bell::default()), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let woken = || count.0.load(Ordering::Relaxed);
        bell.nudge();
        bell.begin_turn(&Context::from_waker(&waker));
        bell.nudge();
        assert_eq!(woken(), 0);
        assert!(!bell.end_turn(), "there is something to look at");
        assert!(bell.end_turn());
        bell.nudge();
        assert_eq!(woken(), 1);
        let mut tasks = Tasks::new(Arc::clone(&bell));
        let slot = tasks.insert(std::future::pending);
        assert_eq!(woken(), 2);
        bell.begin_turn(&Context::from_waker(&waker));
        tasks.run();
        tasks.wake(slot);
        assert!(!bell.end_turn());
        tasks.run();
        assert!(bell.end_turn());
        assert_eq!(woken(), 2);
    }
}
