//! Why a call had no answer.

use std::{error::Error, time::Duration};

/// Why a call had no answer. (A refusal is an answer.)
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// A step failed.
    #[error("could not {step}")]
    Failed {
        /// Which.
        step: &'static str,
        /// How.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It took too long.
    #[error("{step} took longer than {after:?}")]
    Deadline {
        /// What was waited for.
        step: &'static str,
        /// How long.
        after: Duration,
    },
}

impl CallError {
    /// Wraps whatever made `step` fail.
    pub(crate) fn at<E: Into<Box<dyn Error + Send + Sync>>>(
        step: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Failed { step, source: source.into() }
    }

    /// Whether the time was up, as opposed to a connection that broke.
    #[must_use]
    pub fn is_deadline(&self) -> bool {
        matches!(self, Self::Deadline { .. })
    }
}
