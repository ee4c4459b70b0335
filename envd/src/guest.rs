//! Everything that the guest daemon's parts share.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    accounts::{Accounts, LookUpUserError, User},
    cgroup::UserCgroup,
    identity::Identity,
    lifecycle::Lifecycle,
    metrics::CpuMeter,
    process::Processes,
    system::System,
};

/// `PATH` of processes when the daemon itself was started without one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the daemon needs from its surroundings.
#[derive(Debug)]
pub struct Surroundings {
    /// The machine that an init changes.
    pub system: Box<dyn System>,
    /// Where user processes live.
    pub cgroup: UserCgroup,
    /// Users and groups.
    pub accounts: Accounts,
}

/// One sandbox, from the inside.
#[derive(Debug)]
pub struct Guest {
    pub(crate) system: Box<dyn System>,
    pub(crate) cgroup: UserCgroup,
    pub(crate) accounts: Accounts,
    pub(crate) identity: Identity,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) processes: Processes,
    pub(crate) cpu: CpuMeter,
    path: String,
}

impl Guest {
    /// A guest that has no identity yet.
    #[must_use]
    pub fn new(surroundings: Surroundings) -> Self {
        let Surroundings { system, cgroup, accounts } = surroundings;
        Self {
            system,
            cgroup,
            accounts,
            identity: Identity::default(),
            lifecycle: Lifecycle::new(),
            processes: Processes::default(),
            cpu: CpuMeter::default(),
            path: std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned()),
        }
    }

    /// The account that acts: the one named, else the default one.
    pub(crate) fn user(&self, named: Option<&str>) -> Result<User, LookUpUserError> {
        match named {
            Some(name) => self.accounts.user(name),
            None => self.accounts.user(&self.identity.default_user()),
        }
    }

    /// A process's environment: the user's, then the sandbox's, then the request's.
    pub(crate) fn env(
        &self,
        user: &User,
        request: impl IntoIterator<Item = (String, String)>,
    ) -> BTreeMap<String, String> {
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), self.path.clone()),
            ("HOME".to_owned(), user.home.to_string_lossy().into_owned()),
            ("USER".to_owned(), user.name.clone()),
            ("LOGNAME".to_owned(), user.name.clone()),
        ]);
        env.extend(self.identity.env());
        env.extend(request);
        env
    }

    /// Where a path that a call gave leads to.
    pub(crate) fn resolve(
        &self,
        path: &str,
        user: &User,
    ) -> Result<PathBuf, crate::files::BadPath> {
        crate::files::resolve(path, &user.home, self.identity.default_workdir().as_deref())
    }
}
