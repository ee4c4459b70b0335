//! Capsules: what of them only the edge knows.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pool_model::{SandboxId, TeamId, TrafficPolicy};
use sqlx::sqlite::SqliteRow;

use crate::{Secret, Store, StoreError, row::Typed};

/// A capsule's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapsuleRecord {
    /// Its id.
    pub id: SandboxId,
    /// Whose it is.
    pub team: TeamId,
    /// The caller's notes.
    pub metadata: BTreeMap<String, String>,
    /// How its ports may be reached.
    pub traffic: TrafficPolicy,
    /// What opens its private ports, once it has any.
    pub traffic_token: Option<Secret>,
    /// When it was asked for.
    pub created_at: Timestamp,
}

impl Store {
    /// Records a capsule, before it is asked from an agent.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn add_capsule(&self, capsule: &CapsuleRecord) -> Result<(), StoreError> {
        // A map of texts always has a JSON form.
        let metadata = serde_json::to_string(&capsule.metadata).unwrap_or_else(|_| "{}".to_owned());
        sqlx::query(
            "INSERT INTO capsules (id, team_id, metadata, created_at_ms, traffic, traffic_token) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(capsule.id.to_string())
        .bind(capsule.team.to_string())
        .bind(metadata)
        .bind(capsule.created_at.as_millisecond())
        .bind(traffic_json(&capsule.traffic))
        .bind(capsule.traffic_token.as_ref().map(|token| token.expose().to_string()))
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("record a capsule"))?;
        Ok(())
    }

    /// Looks a team's capsule up.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn capsule(
        &self,
        team: TeamId,
        id: SandboxId,
    ) -> Result<Option<CapsuleRecord>, StoreError> {
        let row = sqlx::query("SELECT * FROM capsules WHERE team_id = $1 AND id = $2")
            .bind(team.to_string())
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("look a capsule up"))?;
        row.map(|row| read(&row)).transpose()
    }

    /// A team's capsules, oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn capsules(&self, team: TeamId) -> Result<Vec<CapsuleRecord>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM capsules WHERE team_id = $1 ORDER BY created_at_ms, id")
                .bind(team.to_string())
                .fetch_all(&self.pool)
                .await
                .map_err(StoreError::query("list the capsules"))?;
        rows.iter().map(read).collect()
    }

    /// Looks any team's capsule up. For the router: host names are not scoped by team.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn capsule_of_any(&self, id: SandboxId) -> Result<Option<CapsuleRecord>, StoreError> {
        let row = sqlx::query("SELECT * FROM capsules WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("look a capsule up"))?;
        row.map(|row| read(&row)).transpose()
    }

    /// Sets how a team's capsule's ports may be reached. With the first private port it gets a
    /// token, which it keeps. `None` if there is no such capsule.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn set_traffic(
        &self,
        team: TeamId,
        id: SandboxId,
        traffic: &TrafficPolicy,
    ) -> Result<Option<CapsuleRecord>, StoreError> {
        let token = traffic.has_private().then(|| Secret::generate().expose().to_string());
        let row = sqlx::query(
            "UPDATE capsules SET traffic = $3, traffic_token = COALESCE(traffic_token, $4) \
             WHERE team_id = $1 AND id = $2 RETURNING *",
        )
        .bind(team.to_string())
        .bind(id.to_string())
        .bind(traffic_json(traffic))
        .bind(token)
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::query("set how a capsule is reached"))?;
        row.map(|row| read(&row)).transpose()
    }

    /// Capsules of any team that were recorded before `before`. For the reconciler.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn capsules_before(&self, before: Timestamp) -> Result<Vec<SandboxId>, StoreError> {
        let rows = sqlx::query("SELECT id FROM capsules WHERE created_at_ms < $1")
            .bind(before.as_millisecond())
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::query("list the capsules"))?;
        rows.iter().map(|row| Typed(row).parse("id")).collect()
    }

    /// Forgets a capsule. False if there was none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn remove_capsule(&self, id: SandboxId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM capsules WHERE id = $1")
            .bind(id.to_string())
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("forget a capsule"))?;
        Ok(done.rows_affected() > 0)
    }
}

/// The column `traffic`; NULL for what is nothing but defaults.
fn traffic_json(traffic: &TrafficPolicy) -> Option<String> {
    let json = || serde_json::to_string(traffic).expect("ports, networks and numbers are JSON");
    (*traffic != TrafficPolicy::default()).then(json)
}

fn read(row: &SqliteRow) -> Result<CapsuleRecord, StoreError> {
    let row = Typed(row);
    let json =
        |column, text: &str| StoreError::Corrupt { column, found: text.chars().take(64).collect() };
    let metadata = row.text("metadata")?;
    let traffic = row.optional_text("traffic")?;
    Ok(CapsuleRecord {
        id: row.parse("id")?,
        team: row.parse("team_id")?,
        metadata: serde_json::from_str(&metadata).map_err(|_| json("metadata", &metadata))?,
        // One that can't be read is an error and never taken for "everybody".
        traffic: match &traffic {
            Some(text) => serde_json::from_str(text).map_err(|_| json("traffic", text))?,
            None => TrafficPolicy::default(),
        },
        traffic_token: row.optional_text("traffic_token")?.map(Secret::stored),
        created_at: row.time("created_at_ms")?,
    })
}
