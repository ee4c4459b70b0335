//! How does one order get from names to a certificate?
//!
//! Whatever was put up to prove the names (answers, DNS records) is taken down again, also when
//! the order fails, takes too long or is cut short by a shutdown.

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    AcmeConfig, Challenge,
    account::{Acme, acme, certificate_id},
};
use crate::{certs::Certs, config::TlsSource, entry::Entry, error::TlsError, x509::Facts};

/// What is ordered.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// What the certificate is kept as: a host name.
    pub(crate) id: String,
    /// The names on it.
    pub(crate) names: Vec<String>,
    /// Whether the hook proves them.
    pub(crate) by_dns: bool,
    /// The certificate that it replaces, if the authority wants to know (RFC 9773 section 5).
    pub(crate) replaces: Option<Facts>,
}

/// Something put up for the authority to see.
enum Shown {
    Http { token: String },
    Alpn { name: String },
    Dns { name: String, value: String },
}

/// Orders a certificate, stores it and takes it into service.
pub(crate) async fn order(
    certs: &Certs,
    client: &Acme,
    job: &Job,
    cancel: &CancellationToken,
) -> Result<(), TlsError> {
    let (TlsSource::Acme(config), Some(store)) = (&certs.config().source, certs.store()) else {
        return Err(TlsError::Config("acme is not the source".to_owned()));
    };
    let mut shown = Vec::new();
    let ordering = async {
        let account = client.account(config, &store.account()).await?;
        let run = Run { certs, config, job };
        run.steps(account, &mut shown).await
    };
    let outcome = tokio::select! {
        outcome = timeout(config.order_time, ordering) => {
            outcome.unwrap_or(Err(TlsError::Timeout("the order")))
        }
        () = cancel.cancelled() => Err(TlsError::Stopped),
    };
    for item in shown {
        take_down(certs, config, item).await;
    }
    let (key, chain) = outcome?;
    let place = format!("the authority's certificate for {}", job.id);
    let entry = Entry::from_pem(&job.id, "acme", (&chain, &key), &place)?;
    if let Some(missing) = job.names.iter().find(|name| !entry.facts.covers(name)) {
        let detail = format!("the certificate lacks {missing}");
        return Err(TlsError::Refused { names: job.names.join(", "), detail });
    }
    store.save(&job.id, &key, &chain)?;
    tracing::info!(id = job.id, not_after = %entry.facts.not_after, "got a certificate");
    certs.put(entry);
    Ok(())
}

struct Run<'a> {
    certs: &'a Certs,
    config: &'a AcmeConfig,
    job: &'a Job,
}

impl Run<'_> {
    /// The steps of RFC 8555 section 7.4; yields key and chain.
    async fn steps(
        &self,
        account: &Account,
        shown: &mut Vec<Shown>,
    ) -> Result<(String, String), TlsError> {
        let names: Vec<_> = self.job.names.iter().cloned().map(Identifier::Dns).collect();
        let mut new = NewOrder::new(&names);
        if let Some(id) = self.job.replaces.as_ref().and_then(certificate_id) {
            new = new.replaces(id);
        }
        let mut order = account.new_order(&new).await.map_err(acme("order"))?;
        self.prove(&mut order, shown).await?;
        let patience = RetryPolicy::new().timeout(self.config.order_time);
        match order.poll_ready(&patience).await {
            Ok(OrderStatus::Ready) => {}
            Ok(_) | Err(instant_acme::Error::Api(_)) => return Err(self.refusal(&mut order).await),
            Err(error) => return Err(acme("wait for validation")(error)),
        }
        let key = order.finalize().await.map_err(acme("finalize the order"))?;
        let chain = order.poll_certificate(&patience).await.map_err(acme("get the certificate"))?;
        Ok((key, chain))
    }

    /// Puts up the answers of all challenges, then says that they are there.
    async fn prove(&self, order: &mut Order, shown: &mut Vec<Shown>) -> Result<(), TlsError> {
        let kind = match self.config.challenge {
            _ if self.job.by_dns => ChallengeType::Dns01,
            Challenge::Http01 => ChallengeType::Http01,
            Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        };
        for ready in [false, true] {
            let mut authorizations = order.authorizations();
            while let Some(authorization) = authorizations.next().await {
                let mut authorization = authorization.map_err(acme("read an authorization"))?;
                if authorization.status == AuthorizationStatus::Valid {
                    continue; // proven by an earlier order
                }
                let name = authorization.identifier().identifier.clone();
                let Identifier::Dns(name) = name else { continue }; // we order nothing else
                let Some(mut challenge) = authorization.challenge(kind.clone()) else {
                    let detail = format!("{name} can't be proven by {kind:?}");
                    return Err(TlsError::Refused { names: self.job.names.join(", "), detail });
                };
                if ready {
                    challenge.set_ready().await.map_err(acme("answer a challenge"))?;
                } else {
                    let proof = challenge.key_authorization();
                    let digest = proof.digest();
                    let value = proof.dns_value();
                    let proof = (proof.as_str(), digest.as_ref(), value);
                    self.show(&name, &challenge.token, proof, shown).await?;
                }
            }
            if !ready
                && self.job.by_dns
                && let Some(hook) = &self.config.dns_hook
            {
                sleep(hook.settle).await;
            }
        }
        Ok(())
    }

    async fn show(
        &self,
        name: &str,
        token: &str,
        (proof, digest, value): (&str, &[u8], String),
        shown: &mut Vec<Shown>,
    ) -> Result<(), TlsError> {
        match (&self.config.dns_hook, self.config.challenge) {
            (Some(hook), _) if self.job.by_dns => {
                let name = format!("_acme-challenge.{name}");
                // Noted before it is there: half a hook's work is cleaned up, too.
                shown.push(Shown::Dns { name: name.clone(), value: value.clone() });
                hook.run("present", &name, &value).await
            }
            (_, Challenge::Http01) => {
                shown.push(Shown::Http { token: token.to_owned() });
                self.certs.http01().put(name, token, proof);
                Ok(())
            }
            (_, Challenge::TlsAlpn01) => {
                shown.push(Shown::Alpn { name: name.to_owned() });
                self.certs.alpn().put(name, digest)
            }
        }
    }

    /// Why the order didn't become ready: what the authority says of each challenge.
    async fn refusal(&self, order: &mut Order) -> TlsError {
        let mut details = Vec::new();
        if let Some(problem) = &order.state().error {
            details.push(problem.to_string());
        }
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let _ = authorization.refresh().await; // then the older state has to do
            let errors = authorization.challenges.iter().filter_map(|c| c.error.as_ref());
            details.extend(errors.map(ToString::to_string));
        }
        if details.is_empty() {
            details.push("without a reason".to_owned());
        }
        TlsError::Refused { names: self.job.names.join(", "), detail: details.join("; ") }
    }
}

async fn take_down(certs: &Certs, config: &AcmeConfig, item: Shown) {
    match item {
        Shown::Http { token } => certs.http01().remove(&token),
        Shown::Alpn { name } => certs.alpn().remove(&name),
        Shown::Dns { name, value } => {
            let Some(hook) = &config.dns_hook else { return };
            if let Err(error) = hook.run("cleanup", &name, &value).await {
                tracing::warn!(name, error = error.chain(), "a dns record may be left behind");
            }
        }
    }
}
