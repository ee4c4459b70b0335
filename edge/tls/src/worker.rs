//! Who keeps certificates fresh while the edge runs?
//!
//! One task: it watches files, asks about unknown names and starts orders, a few at a time, one per
//! name. Orders of one installation are made by one process: the one that holds the store's lock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::{Timestamp, ToSpan as _};
use tokio::{
    sync::mpsc,
    task::{self, JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    acme::{Acme, AcmeConfig, order},
    certs::Certs,
    config::TlsSource,
    error::TlsError,
    subject::Subject,
};

/// Most orders and questions at once.
const JOBS_MAX: usize = 8;
/// The time of a question whether a name is ours.
const ASK_TIME: Duration = Duration::from_secs(10);
/// A name that was refused is not asked about again for this time.
const REFUSED_TIME: Duration = Duration::from_secs(60);
/// Most refused names that are remembered.
const REFUSED_MAX: usize = 4096;
/// The longest sleep, and how often the local authority's certificates are looked at.
const UPKEEP_EVERY: Duration = Duration::from_secs(60 * 60);
/// How long running jobs may take to clean up after themselves at the end.
const END_TIME: Duration = Duration::from_secs(10);

/// What a job was about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    Ask,
    Order,
    Window,
}

/// How a job ended.
enum Done {
    Asked(bool),
    Ordered(Result<(), TlsError>),
    /// The name may have no certificate any more.
    Refused,
    Window(Result<Option<(Timestamp, u64)>, TlsError>),
}

pub(crate) struct Worker {
    certs: Arc<Certs>,
    queue: mpsc::Receiver<String>,
    cancel: CancellationToken,
    acme: Arc<Acme>,
    jobs: JoinSet<Done>,
    running: HashMap<task::Id, (String, Task)>,
    subjects: BTreeMap<String, Subject>,
    refused: HashMap<String, Instant>,
}

impl Worker {
    pub(crate) fn new(
        certs: Arc<Certs>,
        queue: mpsc::Receiver<String>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            certs,
            queue,
            cancel,
            acme: Arc::default(),
            jobs: JoinSet::new(),
            running: HashMap::new(),
            subjects: BTreeMap::new(),
            refused: HashMap::new(),
        }
    }

    pub(crate) async fn run(mut self) {
        let mut look = interval(self.certs.config().reload_interval);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut upkeep = interval(UPKEEP_EVERY);
        if let Some(config) = self.config() {
            let names = config.domain_names(&self.certs.config().domain);
            let subject = Subject::new(names, config.dns_hook.is_some(), false, Timestamp::now());
            self.subjects.insert(self.certs.config().domain.clone(), subject);
        }
        self.sync_subjects();
        let cancel = self.cancel.clone();
        let mut next = Instant::now() + self.start_due();
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(name) = self.queue.recv() => {
                    self.ask(name);
                    continue; // nothing becomes due by a question, and there may be many
                }
                Some(done) = self.jobs.join_next_with_id() => self.settle(done),
                _ = look.tick() => {
                    self.blocking(Certs::reload_changed).await;
                    self.sync_subjects();
                }
                _ = upkeep.tick() => self.blocking(Certs::renew_local).await,
                () = sleep_until(next) => {}
            }
            next = Instant::now() + self.start_due();
        }
        self.end().await;
    }

    /// Orders see the cancellation and clean up; whoever doesn't in time is cut.
    async fn end(mut self) {
        let deadline = Instant::now() + END_TIME;
        while let Ok(Some(_)) = timeout_at(deadline, self.jobs.join_next()).await {}
        self.jobs.shutdown().await;
        if let Some(store) = self.certs.store() {
            store.release();
        }
    }

    fn config(&self) -> Option<AcmeConfig> {
        match &self.certs.config().source {
            TlsSource::Acme(config) => Some(AcmeConfig::clone(config)),
            _ => None,
        }
    }

    /// Files are read where it hurts nobody.
    async fn blocking(&self, work: fn(&Certs)) {
        let certs = Arc::clone(&self.certs);
        if let Err(error) = task::spawn_blocking(move || work(&certs)).await {
            tracing::error!(%error, "looking after certificates failed");
        }
    }

    /// Takes note of certificates that came from the store, perhaps by another process.
    fn sync_subjects(&mut self) {
        if self.certs.store().is_none() {
            return;
        }
        let now = Timestamp::now();
        for entry in self.certs.table().entries().iter().filter(|entry| entry.source == "acme") {
            let new = || Subject::new(vec![entry.id.clone()], false, true, now);
            let subject = self.subjects.entry(entry.id.clone()).or_insert_with(new);
            if subject.hold(&entry.facts, now) {
                self.certs.set_progress(&entry.id, subject.progress());
            }
        }
    }

    fn is_running(&self, id: &str) -> bool {
        self.running.values().any(|(running, _)| running == id)
    }

    fn spawn(&mut self, id: &str, task: Task, job: impl Future<Output = Done> + Send + 'static) {
        let handle = self.jobs.spawn(job);
        self.running.insert(handle.id(), (id.to_owned(), task));
    }

    /// A client came for an unknown name.
    fn ask(&mut self, name: String) {
        let now = Instant::now();
        let is_refused = self.refused.get(&name).is_some_and(|at| now < *at + REFUSED_TIME);
        let domain = self.subjects.get(&self.certs.config().domain);
        let is_known = self.subjects.contains_key(&name)
            || domain.is_some_and(|subject| subject.covers(&name))
            || self.certs.table().find(&name).is_some();
        if is_refused || is_known || self.is_running(&name) || self.jobs.len() >= JOBS_MAX {
            return; // the next client asks again
        }
        let certs = Arc::clone(&self.certs);
        let asked = name.clone();
        self.spawn(&name, Task::Ask, async move { Done::Asked(allowed(&certs, &asked).await) });
    }

    /// Starts what is due; says how long to sleep if nothing happens.
    fn start_due(&mut self) -> Duration {
        let (Some(config), Some(store)) = (self.config(), self.certs.store()) else {
            return UPKEEP_EVERY;
        };
        if !store.may_order() {
            return self.certs.config().reload_interval;
        }
        let certs = Arc::clone(&self.certs);
        let now = Timestamp::now();
        let mut next = now + 1.hour();
        let ids: Vec<_> = self.subjects.keys().cloned().collect();
        for id in ids {
            if self.is_running(&id) {
                continue;
            }
            let is_full = self.jobs.len() >= JOBS_MAX;
            let Some(subject) = self.subjects.get_mut(&id) else { continue };
            let wants = [Some(subject.due), subject.ask_window].into_iter().flatten().min();
            let wants = wants.unwrap_or(subject.due);
            if wants > now {
                next = next.min(wants);
            } else if is_full {
                continue; // looked at again when a job ends
            } else if subject.due > now {
                self.ask_window(&config, &id);
            } else if let Err(at) = certs.store().map_or(Ok(()), |store| store.take_order(now)) {
                subject.due = at;
                next = next.min(at);
                tracing::warn!(id, until = %at, "the hour's orders are used up");
                certs.set_progress(&id, subject.progress());
            } else {
                self.order(&id);
            }
        }
        Duration::try_from(next.duration_since(now)).unwrap_or_default()
    }

    fn ask_window(&mut self, config: &AcmeConfig, id: &str) {
        let Some(subject) = self.subjects.get(id) else { return };
        let Some(facts) = subject.held().cloned() else { return };
        let (certs, acme, config) =
            (Arc::clone(&self.certs), Arc::clone(&self.acme), config.clone());
        self.spawn(id, Task::Window, async move {
            let Some(store) = certs.store() else { return Done::Window(Ok(None)) };
            Done::Window(acme.window(&config, &store.account(), &facts).await)
        });
    }

    fn order(&mut self, id: &str) {
        let Some(subject) = self.subjects.get(id) else { return };
        let (job, on_demand) = (subject.job(id), subject.on_demand && subject.held().is_some());
        let (certs, acme) = (Arc::clone(&self.certs), Arc::clone(&self.acme));
        let cancel = self.cancel.clone();
        self.spawn(id, Task::Order, async move {
            if on_demand && !allowed(&certs, &job.id).await {
                return Done::Refused;
            }
            Done::Ordered(order(&certs, &acme, &job, &cancel).await)
        });
    }

    fn settle(&mut self, done: Result<(task::Id, Done), JoinError>) {
        let (task, done) = match done {
            Ok((task, done)) => (task, Some(done)),
            Err(error) => {
                tracing::error!(%error, "a job for a certificate failed");
                (error.id(), None)
            }
        };
        let Some((id, kind)) = self.running.remove(&task) else { return };
        match done {
            Some(Done::Asked(true)) => self.grant(id),
            Some(Done::Asked(false)) => self.refuse(id),
            Some(Done::Refused) => self.retire(id),
            Some(Done::Ordered(Ok(()))) => {
                self.sync_subjects();
                if let Some(subject) = self.subjects.get_mut(&id) {
                    subject.rest(Timestamp::now());
                    self.certs.set_progress(&id, subject.progress());
                }
            }
            Some(Done::Ordered(Err(error))) => self.fail(&id, &error),
            Some(Done::Window(advice)) => self.advise(&id, advice),
            None if kind == Task::Order => self.fail(&id, &TlsError::Stopped),
            None if kind == Task::Window => self.advise(&id, Err(TlsError::Stopped)),
            None => {}
        }
    }

    /// A held name is not allowed any more: its certificate is used until its end, since whoever
    /// was asked may have been mistaken, and then forgotten.
    fn retire(&mut self, id: String) {
        let held = self.subjects.get(&id).and_then(Subject::held);
        if held.is_some_and(|facts| Timestamp::now() < facts.not_after) {
            let detail = "it is not allowed here any more".to_owned();
            return self.fail(&id, &TlsError::Refused { names: id.clone(), detail });
        }
        tracing::info!(id, "the name is not ours any more");
        self.subjects.remove(&id);
        self.certs.remove(&id);
        if let Some(store) = self.certs.store() {
            store.remove(&id);
        }
        self.refuse(id);
    }

    fn fail(&mut self, id: &str, error: &TlsError) {
        let (Some(config), Some(subject)) = (self.config(), self.subjects.get_mut(id)) else {
            return;
        };
        subject.fail(error, &config, Timestamp::now());
        tracing::warn!(id, error = error.chain(), again = %subject.due, "no certificate was got");
        self.certs.set_progress(id, subject.progress());
    }

    fn advise(&mut self, id: &str, advice: Result<Option<(Timestamp, u64)>, TlsError>) {
        let Some(subject) = self.subjects.get_mut(id) else { return };
        match advice {
            Ok(advice) => subject.advise(advice, Timestamp::now()),
            Err(error) => {
                tracing::debug!(id, error = error.chain(), "no renewal information");
                subject.ask_later(0, Timestamp::now());
            }
        }
        self.certs.set_progress(id, subject.progress());
    }

    /// A name is ours: it gets a certificate.
    fn grant(&mut self, name: String) {
        if self.certs.store().is_none() {
            self.certs.make_local(&name);
            return;
        }
        if self.subjects.len() >= self.certs.config().certificates_max {
            tracing::warn!(name, "as many certificates as may be held");
            return;
        }
        let subject = Subject::new(vec![name.clone()], false, true, Timestamp::now());
        self.certs.set_progress(&name, subject.progress());
        self.subjects.insert(name, subject);
    }

    fn refuse(&mut self, name: String) {
        if self.refused.len() >= REFUSED_MAX {
            let now = Instant::now();
            self.refused.retain(|_, at| now < *at + REFUSED_TIME);
        }
        if self.refused.len() < REFUSED_MAX {
            self.refused.insert(name, Instant::now());
        }
    }
}

async fn allowed(certs: &Certs, name: &str) -> bool {
    let Some(on_demand) = &certs.config().on_demand else { return false };
    timeout(ASK_TIME, on_demand.allowed(name)).await.unwrap_or(false)
}
