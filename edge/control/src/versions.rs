//! Versions of a function: which there are, which the plain name means, and their tags.

use std::sync::Arc;

use edge_api::{Function, FunctionName, FunctionTag, FunctionVersion, Promote, SetTag, TagName};
use edge_store::{Change, LiveFunction, TagRecord};
use pool_model::{FunctionId, TagWeight, TeamId};

use crate::{ApiError, Control, functions::no_function, validate};

impl Control {
    /// A team's function's versions, lowest number first.
    pub(crate) async fn versions(
        &self,
        team: TeamId,
        name: &str,
    ) -> Result<Vec<FunctionVersion>, ApiError> {
        let live = self.owned_live(team, name).await?;
        let version = |found: &edge_store::VersionRecord| {
            let tags = live.tags.iter().filter(|tag| tag.version == found.version);
            Ok(FunctionVersion {
                version: found.version,
                current: found.version == live.function.version,
                tags: tags.map(tag_name).collect::<Result<_, _>>()?,
                template: found.template,
                snapshot: found.snapshot,
                port: found.port,
                start: found.start.clone(),
                ready_path: found.ready_path.clone(),
                timeout_ms: found.timeout_ms,
                internet: found.internet,
                created_at: found.created_at,
            })
        };
        live.versions.iter().map(version).collect()
    }

    /// Makes or moves a tag of a team's function.
    pub(crate) async fn set_tag(
        self: &Arc<Self>,
        team: TeamId,
        name: &FunctionName,
        tag: &TagName,
        SetTag { version }: SetTag,
    ) -> Result<Function, ApiError> {
        validate::tag(name, tag)?;
        let change = Change::SetTag { tag: tag.to_string(), version };
        self.change_versions(team, name, change).await
    }

    /// Removes a tag of a team's function.
    pub(crate) async fn remove_tag(
        self: &Arc<Self>,
        team: TeamId,
        name: &FunctionName,
        tag: &TagName,
    ) -> Result<(), ApiError> {
        let change = Change::RemoveTag { tag: tag.to_string() };
        self.change_versions(team, name, change).await.map(|_| ())
    }

    /// Makes another version of a team's function the current one.
    pub(crate) async fn promote(
        self: &Arc<Self>,
        team: TeamId,
        name: &FunctionName,
        wish: Promote,
    ) -> Result<Function, ApiError> {
        let version = match (wish.version, wish.tag) {
            (Some(version), None) => version,
            (None, Some(tag)) => {
                let live = self.owned_live(team, name.as_str()).await?;
                let gone = || edge_store::ChangeError::NoTag { tag: tag.to_string() };
                live.tag(tag.as_str()).ok_or_else(gone)?.version
            }
            _ => {
                let why = "expected exactly one of `version` and `tag`";
                return Err(ApiError::field("version", why));
            }
        };
        let spare = FunctionId::from_u128(rand::random());
        self.change_versions(team, name, Change::Promote { version, spare }).await
    }

    /// Splits the requests to a team's function's plain name between its tags.
    pub(crate) async fn split(
        self: &Arc<Self>,
        team: TeamId,
        name: &FunctionName,
        split: Vec<TagWeight>,
    ) -> Result<Function, ApiError> {
        TagWeight::check_split(&split).map_err(|bad| ApiError::field(bad.field, bad.reason))?;
        self.change_versions(team, name, Change::Split(split)).await
    }

    async fn change_versions(
        self: &Arc<Self>,
        team: TeamId,
        name: &FunctionName,
        change: Change,
    ) -> Result<Function, ApiError> {
        let (control, name) = (Arc::clone(self), name.to_string());
        self.to_the_end(async move {
            let pools = control.pools.lock().await;
            let before = control.owned_live(team, &name).await?;
            let after = before.change(&change)?;
            let commit = async {
                let changed = control.store().change_versions(team, &name, &change).await?;
                changed.ok_or_else(|| no_function(&name))
            };
            let changed = control.roll_out(Some(&before), &after, commit).await?;
            drop(pools);
            if let Err(error) = control.collect_snapshots().await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(function.name = name, error, "unused snapshots were not deleted");
            }
            control.function_of(changed)
        })
        .await
    }

    pub(crate) async fn owned_live(
        &self,
        team: TeamId,
        name: &str,
    ) -> Result<LiveFunction, ApiError> {
        self.store().live_function(team, name).await?.ok_or_else(|| no_function(name))
    }

    /// A function's tags as the API tells them.
    pub(crate) fn tags_of(&self, live: &LiveFunction) -> Result<Vec<FunctionTag>, ApiError> {
        let name: FunctionName = live.function.name.parse().map_err(ApiError::internal)?;
        let tag = |found: &TagRecord| {
            let tag = tag_name(found)?;
            let label = tag.label(&name).ok_or_else(|| ApiError::internal("a tag is too long"))?;
            let url = self.public().function_url(&label);
            Ok(FunctionTag { tag, version: found.version, weight: found.weight, url })
        };
        live.tags.iter().map(tag).collect()
    }
}

fn tag_name(found: &TagRecord) -> Result<TagName, ApiError> {
    found.tag.parse().map_err(ApiError::internal)
}
