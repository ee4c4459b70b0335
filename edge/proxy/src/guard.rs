//! What a request has to pass before it goes on: addresses, rates, credentials, places.

use std::{net::IpAddr, time::Duration};

use edge_policy::{
    Admission, AdmitKey, AdmitLimits, Authenticator, BreakerConfig, Breakers, ClientNet,
    Credential, Identity, Permit, RateKey, Rates, Refused, RequestHead, RetryBudgets,
    SigningSecret, TrafficDecision, TrafficToken, admit_traffic, allowed,
};
use http::{HeaderName, HeaderValue, Method, request::Parts, uri::PathAndQuery};
use pool_model::{Port, Rate, SandboxId};
use tokio::time::Instant;

use crate::{
    config::Limits,
    error::EdgeError,
    routes::{FunctionRoute, SandboxRoute},
};

/// Buckets of rate limits that are kept.
const RATE_KEYS_MAX: usize = 1 << 17;
/// How long a browser keeps a traffic token.
const TRAFFIC_COOKIE_AGE: Duration = Duration::from_secs(24 * 3600);
/// Share of a function's requests that may be tried again, percent.
const RETRY_PERCENT: u32 = 20;
/// Retries per second that any function may have.
const RETRIES_PER_SECOND: u32 = 10;
/// What E2B's clients call the traffic token.
const E2B_TRAFFIC_TOKEN: HeaderName = HeaderName::from_static("e2b-traffic-access-token");
/// What ours is called.
const TRAFFIC_TOKEN: HeaderName = HeaderName::from_static("x-wrenn-traffic-token");
/// Who the request's token speaks of, for the guest.
const SUBJECT: HeaderName = HeaderName::from_static("x-forwarded-user");

/// State of all limits, shared by all workers.
pub(crate) struct Guards {
    pub(crate) admission: Admission,
    pub(crate) breakers: Breakers,
    pub(crate) retries: RetryBudgets,
    rates: Rates,
    authenticator: Authenticator,
    team_rate: Option<Rate>,
    team_concurrency_max: u32,
}

/// What an admitted request is answered instead of being forwarded.
#[derive(Debug)]
pub(crate) enum Passed {
    /// It goes on, and holds these places until its end.
    On(Permit),
    /// The browser is given the traffic token as a cookie and sent to the URL without it.
    SetCookie { location: HeaderValue, cookie: HeaderValue },
}

impl Guards {
    pub(crate) fn new(limits: &Limits, authenticator: Authenticator) -> Self {
        let team_rate = (limits.team_requests_per_second > 0)
            .then_some(Rate { per_second: limits.team_requests_per_second, burst: 0 });
        Self {
            admission: Admission::new(),
            breakers: Breakers::new(BreakerConfig::default()),
            retries: RetryBudgets::new(RETRY_PERCENT, RETRIES_PER_SECOND),
            rates: Rates::new(RATE_KEYS_MAX),
            authenticator,
            team_rate,
            team_concurrency_max: limits.team_concurrency_max,
        }
    }

    /// Forgets what says nothing any more; for a schedule of a few seconds.
    pub(crate) fn sweep(&self) {
        self.rates.forget_idle(Instant::now().into_std());
    }

    /// Whether a function may be invoked by this request. What only the edge should see of the
    /// credentials is taken out of it.
    pub(crate) async fn function(
        &self,
        route: &FunctionRoute,
        client: IpAddr,
        parts: &mut Parts,
        keys: &dyn edge_policy::Keys,
        now: Instant,
    ) -> Result<(), EdgeError> {
        let policy = &*route.policy;
        if !allowed(&policy.allow_ips, &policy.deny_ips, client) {
            return Err(EdgeError::AddressRefused);
        }
        if policy.rate.is_some() {
            self.rate(RateKey::Function(route.function), policy.rate, now, "the function")?;
        }
        if policy.client_rate.is_some() {
            let key = RateKey::Client(route.function, ClientNet::of(client));
            self.rate(key, policy.client_rate, now, "this client")?;
        }
        self.rate(RateKey::Team(route.team), self.team_rate, now, "the team")?;
        if !policy.auth.is_empty() {
            // On the heap: requests that need no check would have room for it, too.
            Box::pin(self.authenticate(route, parts, keys)).await?;
        }
        Ok(())
    }

    async fn authenticate(
        &self,
        route: &FunctionRoute,
        parts: &mut Parts,
        keys: &dyn edge_policy::Keys,
    ) -> Result<(), EdgeError> {
        let signing = route.signing_secret.as_deref().map(SigningSecret::new);
        let head = RequestHead { method: &parts.method, uri: &parts.uri, headers: &parts.headers };
        let auths = &route.policy.auth;
        let checking = self.authenticator.check(auths, route.team, &head, keys, signing.as_ref());
        let identity = checking.await.map_err(|error| {
            let reason = pool_model::chain(&error);
            if error.is_unavailable() {
                EdgeError::Unchecked { reason }
            } else {
                EdgeError::Unauthorized { reason }
            }
        })?;
        apply(identity, parts);
        Ok(())
    }

    /// Waits for a place in a function's and its team's concurrency.
    pub(crate) async fn admit(
        &self,
        route: &FunctionRoute,
        now: Instant,
        deadline: Instant,
    ) -> Result<Permit, EdgeError> {
        let policy = &*route.policy;
        let limits = AdmitLimits {
            function_max: policy.concurrency_max,
            team_max: self.team_concurrency_max,
            queue_max: policy.queue_max,
        };
        let waited = Duration::from_millis(policy.queue_timeout_ms);
        let until = deadline.min(now + waited);
        let key = AdmitKey { function: route.function, team: route.team };
        self.admission.admit(key, limits, now, until).await.map_err(|refused| match refused {
            Refused::QueueFull { retry_after } => EdgeError::QueueFull { retry_after },
            Refused::QueueTimeout { retry_after } => {
                EdgeError::QueueTimeout { waited, retry_after }
            }
        })
    }

    /// Whether a sandbox's port may be reached by this request.
    pub(crate) fn sandbox(
        &self,
        route: &SandboxRoute,
        (sandbox, port): (SandboxId, Port),
        client: IpAddr,
        secure: bool,
        parts: &mut Parts,
    ) -> Result<Passed, EdgeError> {
        let traffic = &*route.traffic;
        if !allowed(&traffic.allow_ips, &traffic.deny_ips, client) {
            return Err(EdgeError::AddressRefused);
        }
        let now = Instant::now();
        if traffic.rate.is_some() {
            self.rate(RateKey::Sandbox(sandbox), traffic.rate, now, "the sandbox")?;
        }
        self.rate(RateKey::Team(route.team), self.team_rate, now, "the team")?;
        // The guest daemon's port has a token of its own.
        let private =
            (traffic.private && port != Port::ENVD) || traffic.private_ports.contains(&port);
        if !private {
            parts.headers.remove(TRAFFIC_TOKEN);
            parts.headers.remove(E2B_TRAFFIC_TOKEN);
            return Ok(Passed::On(Permit::default()));
        }
        private_port(route, secure, parts)
    }

    fn rate(
        &self,
        key: RateKey,
        rate: Option<Rate>,
        now: Instant,
        scope: &'static str,
    ) -> Result<(), EdgeError> {
        match self.rates.check(key, rate, now.into_std()) {
            Ok(_) => Ok(()),
            Err(limited) => Err(EdgeError::RateLimited { scope, retry_after: limited.retry_after }),
        }
    }
}

/// Takes out of a request what was only for the edge, and tells the guest who asks.
fn apply(identity: Identity, parts: &mut Parts) {
    parts.headers.remove(SUBJECT);
    match identity {
        Identity::Anonymous => {}
        Identity::Key { credential: Credential::ApiKeyHeader, .. } => {
            parts.headers.remove("x-api-key");
        }
        Identity::Key { credential: Credential::Bearer, .. } => {
            parts.headers.remove(http::header::AUTHORIZATION);
        }
        Identity::SignedUrl { path_and_query } => replace_path(parts, &path_and_query),
        Identity::Jwt(claims) => {
            let subject = claims.get("sub").and_then(serde_json::Value::as_str);
            let subject = subject.and_then(|text| HeaderValue::from_str(text).ok());
            if let Some(subject) = subject {
                parts.headers.insert(SUBJECT, subject);
            }
        }
    }
}

fn private_port(
    route: &SandboxRoute,
    secure: bool,
    parts: &mut Parts,
) -> Result<Passed, EdgeError> {
    let missing = || EdgeError::Unauthorized {
        reason: "this port is private: send the sandbox's traffic token in \
                 `x-wrenn-traffic-token`, or once as `?wrenn-traffic-token=`"
            .to_owned(),
    };
    if let Some(token) = parts.headers.remove(E2B_TRAFFIC_TOKEN)
        && !parts.headers.contains_key(TRAFFIC_TOKEN)
    {
        parts.headers.insert(TRAFFIC_TOKEN, token);
    }
    let token = route.traffic_token.as_deref().and_then(TrafficToken::new).ok_or_else(missing)?;
    let redirect = matches!(parts.method, Method::GET | Method::HEAD);
    let age = TRAFFIC_COOKIE_AGE;
    let decision = admit_traffic(&token, &parts.uri, &mut parts.headers, redirect, secure, age);
    match decision {
        TrafficDecision::Pass { path_and_query } => {
            if let Some(cleaned) = path_and_query {
                replace_path(parts, &cleaned);
            }
            Ok(Passed::On(Permit::default()))
        }
        TrafficDecision::SetCookie { location, cookie } => {
            Ok(Passed::SetCookie { location, cookie })
        }
        TrafficDecision::Refuse => Err(missing()),
    }
}

fn replace_path(parts: &mut Parts, cleaned: &str) {
    if let Ok(path) = cleaned.parse::<PathAndQuery>() {
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.path_and_query = Some(path);
        parts.uri = http::Uri::from_parts(uri).unwrap_or_default();
    }
}

impl std::fmt::Debug for Guards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guards").finish_non_exhaustive()
    }
}
