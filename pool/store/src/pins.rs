//! Who keeps layers from being deleted.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Counts pins; a collection runs while there are none.
///
/// A pin is given also while a collection waits: whoever holds one may need another to get done.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pins {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: usize,
    collecting: bool,
}

/// Keeps layers from being deleted while it lives. See [`crate::LayerStore::pin`].
#[derive(Debug)]
#[must_use = "it keeps nothing once dropped"]
pub struct LayerPin {
    shared: Arc<Shared>,
}

/// A collection under way.
#[derive(Debug)]
pub(crate) struct Collection<'a> {
    shared: &'a Shared,
}

impl Pins {
    pub(crate) fn pin(&self) -> LayerPin {
        let mut state = self.shared.wait_while(|state| state.collecting);
        state.held += 1;
        LayerPin { shared: Arc::clone(&self.shared) }
    }

    /// Waits until no pin is held and nobody else collects.
    pub(crate) fn collect(&self) -> Collection<'_> {
        let mut state = self.shared.wait_while(|state| state.collecting || state.held > 0);
        state.collecting = true;
        Collection { shared: &self.shared }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // The two fields are each changed in one step: a panic elsewhere leaves them right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, busy: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        self.changed
            .wait_while(self.state(), |state| busy(state))
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LayerPin {
    fn drop(&mut self) {
        self.shared.state().held -= 1;
        self.shared.changed.notify_all();
    }
}

impl Drop for Collection<'_> {
    fn drop(&mut self) {
        self.shared.state().collecting = false;
        self.shared.changed.notify_all();
    }
}
