//! What the data plane makes of an answer once, kept with the answer and forgotten with it.

use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock},
};

/// A place for one value of the data plane's own. It says nothing of the answer that it is part of:
/// all of them are equal.
#[derive(Default)]
pub struct Attached(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Attached {
    /// The value that was made before, or else that of `make`, which is kept. Two that race may both
    /// make one; both get the one that is kept. A second type of value is made anew each time.
    pub fn get_or_make<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        if let Some(known) = self.0.get() {
            return Arc::clone(known).downcast().unwrap_or_else(|_| Arc::new(make()));
        }
        let made = Arc::new(make());
        let kept = self.0.get_or_init(|| Arc::<T>::clone(&made));
        Arc::clone(kept).downcast().unwrap_or(made)
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attached(..)")
    }
}

impl Clone for Attached {
    /// Empty: what was made belongs to the answer that it was made of.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Attached {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Attached {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_and_another_type_does_not_disturb_it() {
        let attached = Attached::default();
        let first = attached.get_or_make(|| "one".to_owned());
        assert!(Arc::ptr_eq(&first, &attached.get_or_make(|| "two".to_owned())));
        assert_eq!(*attached.get_or_make(|| 7_u32), 7);
        assert_eq!(*attached.get_or_make(|| "three".to_owned()), "one");
        assert_eq!(*attached.clone().get_or_make(|| "four".to_owned()), "four");
    }
}
