//! Why a run did not come about.

/// Why a run did not come about. (A target that fails under load is a result, not an error.)
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan can't be done.
    #[error(transparent)]
    Plan(#[from] loadtest_model::BadPlan),
    /// The target can't be found or used.
    #[error("{0}")]
    Target(String),
    /// A scenario can't be prepared.
    #[error("scenario `{scenario}` can't be prepared: {reason}")]
    Prepare {
        /// Which.
        scenario: String,
        /// Why, in full.
        reason: String,
    },
    /// The disturbances can't be prepared.
    #[error("{0}")]
    Chaos(String),
    /// The machine gave no thread, timer or file.
    #[error("the harness could not {step}")]
    Harness {
        /// What it needed.
        step: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}
