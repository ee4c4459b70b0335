//! Why a record could not be read or written.

use crate::{ChangeError, domains::DOMAINS_MAX};

/// What the store can fail with.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database could not be opened.
    #[error("could not open the database {path}")]
    Open {
        /// Its file.
        path: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// Its tables could not be brought up to date.
    #[error("could not bring the database up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A statement failed.
    #[error("the database failed to {action}")]
    Query {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: sqlx::Error,
    },
    /// A record holds what this version can't read.
    #[error("column `{column}` of the database holds {found}, which is not valid there")]
    Corrupt {
        /// Which column.
        column: &'static str,
        /// What is in it, cut to 64 characters.
        found: String,
    },
    /// What a function's pool aims for can't be read. Deleting the function still works.
    #[error("the column `pool_policy` of function `{function}` holds no pool policy")]
    DamagedPolicy {
        /// Its name.
        function: String,
        /// What is wrong with the JSON, and where.
        #[source]
        source: serde_json::Error,
    },
    /// How a function may be invoked can't be read. Deleting the function still works.
    #[error("the column `invocation_policy` of function `{function}` holds no invocation policy")]
    DamagedInvocation {
        /// Its name.
        function: String,
        /// What is wrong with the JSON, and where.
        #[source]
        source: serde_json::Error,
    },
    /// A function's versions can't be changed like that.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The domain belongs to another team, or leads to another function of the same team.
    #[error("the domain `{name}` is claimed already")]
    DomainTaken {
        /// The domain.
        name: String,
    },
    /// As many domains are claimed for the function as may be.
    #[error("the function has {DOMAINS_MAX} domains already")]
    TooManyDomains,
    /// The name belongs to another team.
    #[error("the function name `{name}` belongs to another team")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A deploy of this function is under way.
    #[error("function `{name}` is being deployed")]
    Busy {
        /// Its name.
        name: String,
    },
}

impl StoreError {
    /// For `map_err` after a statement.
    pub(crate) fn query(action: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Query { action, source }
    }
}
