//! What all tests share: a runtime, one stack, and its end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use libtest_mimic::Trial;
use loadtest::Protocol;
use tokio::{
    runtime::Runtime,
    time::{Instant, sleep, timeout},
};

use crate::teststack::{Options, TestStack};

/// How often a state is looked at while it is waited for.
const POLL: Duration = Duration::from_millis(100);

/// Guest memory that the stack may promise: known, so that a test can ask for more than that.
pub(crate) const MEMORY_BUDGET_MIB: u32 = 12_288;

/// A runtime and the stack, made on first use: listing tests starts nothing.
pub(crate) struct Fixture {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Runtime,
    stack: Mutex<Slot>,
}

enum Slot {
    Unmade,
    Made(Arc<TestStack>),
    /// It did not start, for this reason; the other tests need not try again.
    Broken(String),
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        Self { inner: Arc::new(Inner { runtime, stack: Mutex::new(Slot::Unmade) }) }
    }

    /// A test of the stack that may take as long as `limit`.
    pub(crate) fn trial<F, W>(&self, name: &str, limit: Duration, test: F) -> Trial
    where
        F: FnOnce(Arc<TestStack>) -> W + Send + 'static,
        W: Future<Output = anyhow::Result<()>>,
    {
        let inner = Arc::clone(&self.inner);
        Trial::test(name, move || {
            let began = Instant::now();
            let stack = inner.stack()?;
            let tested = inner.runtime.block_on(async {
                timeout(limit, test(stack))
                    .await
                    .unwrap_or_else(|_| Err(anyhow!("not done after {limit:?}")))
            });
            eprintln!("    took {:.1} s", began.elapsed().as_secs_f64());
            tested.map_err(|error| format!("{error:#}").into())
        })
    }

    /// Takes the stack down, after showing what it logged if a test failed.
    pub(crate) fn end(&self, failed: bool) {
        let mut slot = self.inner.lock();
        if let Slot::Made(stack) = std::mem::replace(&mut *slot, Slot::Unmade) {
            if failed {
                stack.show_logs();
            }
            drop(stack);
        }
    }
}

impl Inner {
    fn stack(&self) -> Result<Arc<TestStack>, String> {
        let mut slot = self.lock();
        if let Slot::Unmade = *slot {
            let config = format!("[agent]\nmemory_budget_mib = {MEMORY_BUDGET_MIB}\n");
            let options = Options { sample: true, config, ..Options::default() };
            *slot = match self.runtime.block_on(TestStack::start(&options)) {
                Ok(stack) => Slot::Made(Arc::new(stack)),
                Err(error) => Slot::Broken(format!("the stack did not start: {error:#}")),
            };
        }
        match &*slot {
            Slot::Made(stack) => Ok(Arc::clone(stack)),
            Slot::Broken(reason) => Err(reason.clone()),
            Slot::Unmade => Err("the stack was taken down".to_owned()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The version that answers over a protocol have.
pub(crate) const fn version(protocol: Protocol) -> http::Version {
    match protocol {
        Protocol::H1 => http::Version::HTTP_11,
        Protocol::H2 => http::Version::HTTP_2,
        Protocol::H3 => http::Version::HTTP_3,
    }
}

/// A number of minutes.
pub(crate) const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// A number of seconds.
pub(crate) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Looks until `look` finds what it looks for; its last error says why it didn't.
pub(crate) async fn eventually<T, W>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> W,
) -> anyhow::Result<T>
where
    W: Future<Output = anyhow::Result<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let last = match timeout(limit, look()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => error,
            Err(_) => anyhow!("the look itself took over {limit:?}"),
        };
        if Instant::now() >= deadline {
            return Err(last).with_context(|| format!("{what}: not within {limit:?}"));
        }
        sleep(POLL).await;
    }
}
