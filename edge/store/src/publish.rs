//! How a new version comes to a function.

use jiff::Timestamp;
use pool_model::{FunctionId, InvocationPolicy, PoolPolicy, Port, SnapshotId, TeamId, TemplateId};

use crate::{FunctionRecord, LiveFunction, SnapshotRecord, Store, StoreError, live_sql, snapshots};

/// A version that is ready to be published.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// The id if the name is new.
    pub id: FunctionId,
    /// Whose it is.
    pub team: TeamId,
    /// Its name.
    pub name: String,
    /// The template it was built in.
    pub template: TemplateId,
    /// Its snapshot, recorded in the same transaction.
    pub snapshot: SnapshotRecord,
    /// Where its server listens.
    pub port: Port,
    /// What started the server.
    pub start: String,
    /// What was asked until it answered.
    pub ready_path: String,
    /// Longest time of one invocation, milliseconds.
    pub timeout_ms: u64,
    /// Whether invocations may reach the internet.
    pub internet: bool,
    /// What its pool aims for.
    pub policy: PoolPolicy,
    /// How it may be invoked.
    pub invocation: InvocationPolicy,
    /// A tag to give it.
    pub tag: Option<String>,
    /// Whether it becomes the current version.
    pub promote: bool,
    /// The pool of whichever version is not the current one after this: the new one, or the one
    /// before it if a tag keeps that.
    pub spare: FunctionId,
    /// Now.
    pub at: Timestamp,
}

impl NewVersion {
    /// The function as it is with this version as the current one.
    pub(crate) fn record(
        &self,
        id: FunctionId,
        version: u32,
        created_at: Timestamp,
    ) -> FunctionRecord {
        FunctionRecord {
            id,
            team: self.team,
            name: self.name.clone(),
            version,
            version_max: version,
            template: self.template,
            snapshot: self.snapshot.id,
            port: self.port,
            start: self.start.clone(),
            ready_path: self.ready_path.clone(),
            timeout_ms: self.timeout_ms,
            internet: self.internet,
            policy: self.policy.clone(),
            invocation: self.invocation.clone(),
            signing_secret: None,
            created_at,
            updated_at: self.at,
        }
    }
}

/// What publishing did.
#[derive(Debug, Clone)]
pub struct Published {
    /// The function as it is now.
    pub function: FunctionRecord,
    /// Its versions and tags too.
    pub live: LiveFunction,
    /// The snapshot of the version that was current before, if nothing leads to that any more: to
    /// be deleted once its pool is off it.
    pub replaced: Option<SnapshotId>,
}

impl Store {
    /// Makes a function or gives it a new version, in one step.
    ///
    /// # Errors
    ///
    /// [`StoreError::NameTaken`] if another team has the name; [`StoreError::Change`] if the version
    /// can't be published like that; [`StoreError::Query`]; and what [`Store::function`] says of a
    /// version before that can't be read.
    pub async fn publish(&self, new: &NewVersion) -> Result<Published, StoreError> {
        let mut tx = self.write().await?;
        let old = live_sql::by_name(&mut tx, &new.name).await?;
        if old.as_ref().is_some_and(|old| old.function.team != new.team) {
            return Err(StoreError::NameTaken { name: new.name.clone() });
        }
        let live = match &old {
            Some(old) => old.publish(new)?,
            None => LiveFunction::first(new)?,
        };
        snapshots::insert(&mut *tx, &new.snapshot).await?;
        live_sql::save(&mut tx, &live).await?;
        tx.commit().await.map_err(StoreError::query("commit"))?;
        let replaced = old
            .map(|old| old.function.snapshot)
            .filter(|old| live.versions.iter().all(|found| found.snapshot != *old));
        Ok(Published { function: live.function.clone(), live, replaced })
    }
}
