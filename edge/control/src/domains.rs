//! Custom domains: claiming one, proving that it is one's own, giving it up.

use std::sync::Arc;

use edge_api::{AddDomain, Domain, FunctionName, TxtRecord};
use edge_store::{DomainRecord, Secret};
use pool_model::{ErrorCode, TeamId};

use crate::{ApiError, Control, control::now};

/// Most bytes of a domain: the challenge's name has to fit too (RFC 1035, 2.3.4).
const DOMAIN_BYTES_MAX: usize = 253 - CHALLENGE_LABEL.len() - 1;
const CHALLENGE_LABEL: &str = "_wrenn-challenge";
const CHALLENGE_KEY: &str = "wrenn-verify=";
/// Most texts found in place of the right one that are told.
const TOLD_MAX: usize = 3;

impl Control {
    /// Claims a domain for a team's function.
    pub(crate) async fn add_domain(
        &self,
        team: TeamId,
        name: &FunctionName,
        AddDomain { domain }: AddDomain,
    ) -> Result<Domain, ApiError> {
        let domain = checked(&domain, &self.public().domain)?;
        let function = self.owned_function(team, name.as_str()).await?;
        let record = DomainRecord {
            name: domain,
            function: function.id,
            team,
            challenge: Secret::generate(),
            verified_at: None,
            created_at: now(),
        };
        Ok(told(self.store().add_domain(&record).await?, name))
    }

    /// A team's function's domains.
    pub(crate) async fn domains(
        &self,
        team: TeamId,
        name: &FunctionName,
    ) -> Result<Vec<Domain>, ApiError> {
        let function = self.owned_function(team, name.as_str()).await?;
        let found = self.store().domains(function.id).await?;
        Ok(found.into_iter().map(|record| told(record, name)).collect())
    }

    /// Looks for the record that proves a claim; the domain leads to the function from then on.
    pub(crate) async fn verify_domain(
        self: &Arc<Self>,
        team: TeamId,
        name: &FunctionName,
        domain: &str,
    ) -> Result<Domain, ApiError> {
        let record = self.claim(team, name, domain).await?;
        if record.verified_at.is_some() {
            return Ok(told(record, name));
        }
        let Ok(_place) = self.lookups.try_acquire() else {
            let why = "too many domains are being verified; try again later";
            return Err(ApiError::new(ErrorCode::NoCapacity, why));
        };
        let wanted = txt_record(&record);
        let found = self.outside.txt.txt(&wanted.name).await.map_err(|error| {
            let why = format!("the TXT record {} could not be looked up: {error}", wanted.name);
            ApiError::new(ErrorCode::DomainUnverified, why).with_source(error)
        })?;
        if !found.contains(&wanted.value) {
            return Err(unverified(&wanted, &found));
        }
        let (control, function) = (Arc::clone(self), record.function);
        let (name, domain) = (name.clone(), record.name);
        self.to_the_end(async move {
            let verified = control.store().verify_domain(function, &domain, now()).await;
            control.directory().forget_domain(&domain);
            verified?.map(|record| told(record, &name)).ok_or_else(|| no_domain(&domain))
        })
        .await
    }

    /// Gives a domain of a team's function up.
    pub(crate) async fn remove_domain(
        self: &Arc<Self>,
        team: TeamId,
        name: &FunctionName,
        domain: &str,
    ) -> Result<(), ApiError> {
        let record = self.claim(team, name, domain).await?;
        let control = Arc::clone(self);
        self.to_the_end(async move {
            let removed = control.store().remove_domain(record.function, &record.name).await;
            control.directory().forget_domain(&record.name);
            if removed? { Ok(()) } else { Err(no_domain(&record.name)) }
        })
        .await
    }

    async fn claim(
        &self,
        team: TeamId,
        name: &FunctionName,
        domain: &str,
    ) -> Result<DomainRecord, ApiError> {
        let function = self.owned_function(team, name.as_str()).await?;
        let domain = domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase();
        let claims = self.store().domains(function.id).await?;
        claims.into_iter().find(|claim| claim.name == domain).ok_or_else(|| no_domain(&domain))
    }
}

/// The domain in lower case, if it may be claimed on an installation of the domain `own`.
fn checked(domain: &str, own: &str) -> Result<String, ApiError> {
    let refused = |why: &str| Err(ApiError::field("domain", why));
    let domain = domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase();
    if domain.len() > DOMAIN_BYTES_MAX {
        return refused(&format!("over {DOMAIN_BYTES_MAX} bytes"));
    }
    let byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(byte)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !domain.split('.').all(label) {
        return refused("expected labels of letters, digits and `-`; other alphabets as `xn--…`");
    }
    let Some((_, last)) = domain.rsplit_once('.') else {
        return refused("expected two labels at least");
    };
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return refused("an address is no domain");
    }
    let own = own.strip_suffix('.').unwrap_or(own).to_ascii_lowercase();
    let below =
        domain.strip_suffix(&own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if below {
        return refused(&format!("names under {own} are this installation's own"));
    }
    Ok(domain)
}

fn txt_record(record: &DomainRecord) -> TxtRecord {
    TxtRecord {
        name: format!("{CHALLENGE_LABEL}.{}", record.name),
        value: format!("{CHALLENGE_KEY}{}", record.challenge.expose()),
    }
}

fn told(record: DomainRecord, function: &FunctionName) -> Domain {
    Domain {
        record: txt_record(&record),
        domain: record.name,
        function: function.clone(),
        verified_at: record.verified_at,
        created_at: record.created_at,
    }
}

fn unverified(wanted: &TxtRecord, found: &[String]) -> ApiError {
    let mut why = format!("the TXT record {} does not say `{}`", wanted.name, wanted.value);
    if found.is_empty() {
        why.push_str("; there is none");
    } else {
        let shown = found.iter().take(TOLD_MAX);
        let shown = shown.map(|text| format!("`{}`", text.chars().take(100).collect::<String>()));
        why.push_str(&format!("; it says {}", shown.collect::<Vec<_>>().join(", ")));
    }
    ApiError::new(ErrorCode::DomainUnverified, why)
}

fn no_domain(domain: &str) -> ApiError {
    let shown: String = domain.chars().take(253).collect();
    ApiError::new(ErrorCode::DomainNotFound, format!("the function has no domain `{shown}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_others_can_be_claimed() {
        let own = "Wrenn.Example.com";
        for (domain, expected) in [
            ("Shop.Example.ORG.", "shop.example.org"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("example.com", "example.com"),
            ("notwrenn.example.com", "notwrenn.example.com"),
        ] {
            assert_eq!(checked(domain, own).unwrap(), expected);
        }
        let long = ["a"; 120].join(".");
        for bad in [
            "",
            ".",
            "localhost",
            "a..b",
            "bücher.example",
            "a_b.example",
            "-a.example",
            "a-.example",
            "*.example.org",
            "a.example:443",
            "127.0.0.1",
            "::1",
            "a.1",
            "wrenn.example.com",
            "x.wrenn.example.com.",
            &"a".repeat(64),
            &long,
        ] {
            let refused = checked(bad, own).unwrap_err();
            assert_eq!(refused.code(), ErrorCode::InvalidArgument, "{bad}");
        }
    }
}
