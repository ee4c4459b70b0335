//! Custom domains: who claims a name, and who has proved that it is theirs.

use jiff::Timestamp;
use pool_model::{FunctionId, TeamId};
use sqlx::{Row, sqlite::SqliteRow};

use crate::{Secret, Store, StoreError, row::Typed};

/// Most domains of one function.
pub const DOMAINS_MAX: i64 = 64;

/// A team's claim to a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainRecord {
    /// The domain, lower case.
    pub name: String,
    /// The function it is to lead to.
    pub function: FunctionId,
    /// Who claims it.
    pub team: TeamId,
    /// What its TXT record has to say.
    pub challenge: Secret,
    /// When that was found to be so.
    pub verified_at: Option<Timestamp>,
    /// When it was claimed.
    pub created_at: Timestamp,
}

impl Store {
    /// Records a claim. A claim of the same name for the same function stays as it is, and is what
    /// comes back.
    ///
    /// # Errors
    ///
    /// [`StoreError::DomainTaken`] if another team has proved that it owns the domain or this team
    /// claims it for another function; [`StoreError::TooManyDomains`]; [`StoreError::Query`],
    /// [`StoreError::Corrupt`].
    pub async fn add_domain(&self, domain: &DomainRecord) -> Result<DomainRecord, StoreError> {
        let mut tx = self.write().await?;
        let known = sqlx::query("SELECT * FROM domains WHERE name = $1")
            .bind(&domain.name)
            .fetch_all(&mut *tx)
            .await
            .map_err(StoreError::query("look a domain up"))?;
        for row in &known {
            let known = read(row)?;
            if known.team == domain.team && known.function == domain.function {
                return Ok(known);
            }
            if known.team == domain.team || known.verified_at.is_some() {
                return Err(StoreError::DomainTaken { name: domain.name.clone() });
            }
        }
        let count = sqlx::query("SELECT COUNT(*) AS n FROM domains WHERE function_id = $1")
            .bind(domain.function.to_string())
            .fetch_one(&mut *tx)
            .await
            .and_then(|row| row.try_get::<i64, _>("n"))
            .map_err(StoreError::query("count the domains"))?;
        if count >= DOMAINS_MAX {
            return Err(StoreError::TooManyDomains);
        }
        sqlx::query(
            "INSERT INTO domains (name, function_id, team_id, challenge, verified_at_ms, \
             created_at_ms) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&domain.name)
        .bind(domain.function.to_string())
        .bind(domain.team.to_string())
        .bind(domain.challenge.expose().to_string())
        .bind(domain.verified_at.map(|at| at.as_millisecond()))
        .bind(domain.created_at.as_millisecond())
        .execute(&mut *tx)
        .await
        .map_err(StoreError::query("record a domain"))?;
        tx.commit().await.map_err(StoreError::query("commit"))?;
        Ok(domain.clone())
    }

    /// The domains that are claimed for a function, oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn domains(&self, function: FunctionId) -> Result<Vec<DomainRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM domains WHERE function_id = $1 ORDER BY created_at_ms, name",
        )
        .bind(function.to_string())
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::query("list the domains"))?;
        rows.iter().map(read).collect()
    }

    /// Notes that a claim was proved. `None` if there is no such claim.
    ///
    /// # Errors
    ///
    /// [`StoreError::DomainTaken`] if another team proved it before; [`StoreError::Query`],
    /// [`StoreError::Corrupt`].
    pub async fn verify_domain(
        &self,
        function: FunctionId,
        name: &str,
        at: Timestamp,
    ) -> Result<Option<DomainRecord>, StoreError> {
        let row = sqlx::query(
            "UPDATE domains SET verified_at_ms = COALESCE(verified_at_ms, $3) \
             WHERE function_id = $1 AND name = $2 RETURNING *",
        )
        .bind(function.to_string())
        .bind(name)
        .bind(at.as_millisecond())
        .fetch_optional(&self.pool)
        .await;
        match row {
            Ok(row) => row.map(|row| read(&row)).transpose(),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                Err(StoreError::DomainTaken { name: name.to_owned() })
            }
            Err(source) => Err(StoreError::Query { action: "verify a domain", source }),
        }
    }

    /// Forgets a claim. False if there was none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn remove_domain(
        &self,
        function: FunctionId,
        name: &str,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM domains WHERE function_id = $1 AND name = $2")
            .bind(function.to_string())
            .bind(name)
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("forget a domain"))?;
        Ok(done.rows_affected() > 0)
    }

    /// The name of the function that a proved domain leads to. For the router.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn function_of_domain(&self, name: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query(
            "SELECT f.name AS name FROM domains d JOIN functions f ON f.id = d.function_id \
             WHERE d.name = $1 AND d.verified_at_ms IS NOT NULL",
        )
        .bind(name)
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::query("look a domain up"))?;
        row.map(|row| Typed(&row).text("name")).transpose()
    }

    /// Every domain that was proved, in the order of their names: what certificates are for.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn verified_domains(&self) -> Result<Vec<String>, StoreError> {
        let rows =
            sqlx::query("SELECT name FROM domains WHERE verified_at_ms IS NOT NULL ORDER BY name")
                .fetch_all(&self.pool)
                .await
                .map_err(StoreError::query("list the domains"))?;
        rows.iter().map(|row| Typed(row).text("name")).collect()
    }
}

fn read(row: &SqliteRow) -> Result<DomainRecord, StoreError> {
    let row = Typed(row);
    Ok(DomainRecord {
        name: row.text("name")?,
        function: row.parse("function_id")?,
        team: row.parse("team_id")?,
        challenge: Secret::stored(row.text("challenge")?),
        verified_at: row.optional_time("verified_at_ms")?,
        created_at: row.time("created_at_ms")?,
    })
}
