//! Who this sandbox is, as its last `/init` said.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{PoisonError, RwLock},
};

use envd_api::Init;

/// The user that acts when neither a call nor an init names one, as in E2B's templates.
const DEFAULT_USER: &str = "user";

/// What the last init said; shared, and read by every call.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    token: Option<String>,
    env: BTreeMap<String, String>,
    sandbox_id: String,
    template_id: String,
    user: Option<String>,
    workdir: Option<String>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known")
            .field("sandbox_id", &self.sandbox_id)
            .field("token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

impl Identity {
    fn read<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The access token, while there is one.
    pub(crate) fn token(&self) -> Option<String> {
        self.read(|known| known.token.clone())
    }

    /// The user that acts when a call names none.
    pub(crate) fn default_user(&self) -> String {
        self.read(|known| known.user.clone()).unwrap_or_else(|| DEFAULT_USER.to_owned())
    }

    /// The directory of calls that name none, if it isn't the home.
    pub(crate) fn default_workdir(&self) -> Option<String> {
        self.read(|known| known.workdir.clone())
    }

    /// The environment that every process gets.
    pub(crate) fn env(&self) -> BTreeMap<String, String> {
        self.read(|known| {
            let own = [
                ("E2B_SANDBOX", "true"),
                ("E2B_SANDBOX_ID", &known.sandbox_id),
                ("E2B_TEMPLATE_ID", &known.template_id),
                ("WRENN_SANDBOX_ID", &known.sandbox_id),
            ];
            let mut env: BTreeMap<String, String> =
                own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            env.extend(known.env.clone());
            env
        })
    }

    /// Becomes the sandbox that `init` names.
    pub(crate) fn assume(&self, init: Init) {
        self.write(|known| {
            known.sandbox_id = init.sandbox_id;
            known.template_id = init.template_id;
            known.env = init.env_vars;
            known.token = init.access_token.or(known.token.take());
            known.user = init.default_user.or(known.user.take());
            known.workdir = init.default_workdir.or(known.workdir.take());
        });
    }

    /// Forgets what no snapshot may hold: the token and the environment.
    ///
    /// Their memory is wiped as it is freed, see [`WipingAllocator`](crate::WipingAllocator).
    pub(crate) fn forget_secrets(&self) {
        self.write(|known| {
            known.token = None;
            known.env = BTreeMap::new();
        });
    }
}
