//! Finds and makes what works need: functions, sandboxes, pools, APIs.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use edge_api::{Client, FunctionName};
use http::{HeaderMap, Method};
use loadtest_model::{Dialect, Plan, Scenario, Share, Stream, Work};
use loadtest_wire::Origin;

use super::{
    Kind, Ready, check, clear_guests,
    guest::Guests,
    request::{Call, Expect, Peer},
    stream::Feed,
};
use crate::{
    error::RunError,
    lifecycle::{self, Access, E2bAccess, Life, Lives, Reach},
    paced::Paced,
    target::Target,
};

/// Makes a scenario ready.
///
/// # Errors
///
/// [`RunError`] naming the scenario; what had been made is gone again.
pub(crate) async fn prepare(
    scenario: &Scenario,
    target: &Target,
    plan: &Plan,
) -> Result<Ready, RunError> {
    let limit = Duration::from_millis(scenario.timeout_ms);
    let mut maker = Maker {
        target,
        plan,
        streams_max: scenario.streams_per_connection,
        limit,
        guests: Vec::new(),
    };
    let made = maker.ready(&scenario.work).await;
    let failed = |reason| RunError::Prepare { scenario: scenario.name.clone(), reason };
    match made {
        Ok(ready) => Ok(Ready { guests: maker.guests, ..ready }),
        Err(error) => {
            let left = clear_guests(&maker.guests).await;
            Err(failed(left.err().map_or_else(|| error.clone(), |left| format!("{error}; {left}"))))
        }
    }
}

/// Makes works ready.
struct Maker<'a> {
    target: &'a Target,
    plan: &'a Plan,
    streams_max: u32,
    limit: Duration,
    guests: Vec<Guests>,
}

impl Maker<'_> {
    async fn ready(&mut self, work: &Work) -> Result<Ready, String> {
        let mut pool = None;
        let mut paced = None;
        let mut choices = Vec::new();
        match work {
            Work::Mix { of } => {
                for Share { weight, work } in of {
                    choices.push((*weight, self.kind(work).await?));
                }
            }
            Work::Pool { function, .. } => {
                choices.push((1.0, Kind::Call(Arc::new(self.invoke(function, true, true).await?))));
                pool = Some(self.pool_of(function)?);
                paced = Some(Paced::pool(work, self.stack()?).await?);
            }
            Work::ScaleFromZero { functions, .. } => {
                let mut peers = Vec::new();
                for function in functions {
                    let call = self.invoke(function, true, true).await?;
                    peers.extend(call.peers.iter().cloned());
                }
                let call = self.call(peers, |call| {
                    call.expect.distinct = Some(Arc::default());
                });
                choices.push((1.0, Kind::Call(Arc::new(call))));
                paced = Some(Paced::zero(work, self.stack()?).await?);
            }
            work => {
                if let Work::Invoke { function, .. } = work
                    && self.target.stack.is_some()
                {
                    pool = Some(self.pool_of(function)?);
                }
                choices.push((1.0, self.kind(work).await?));
            }
        }
        Ok(Ready { choices, paced, pool, guests: Vec::new() })
    }

    async fn kind(&mut self, work: &Work) -> Result<Kind, String> {
        Ok(match work {
            Work::Http { .. } => Kind::Call(Arc::new(self.http(work)?)),
            Work::Invoke { function, path, method, body_bytes, nonce, distinct } => {
                let mut call = self.invoke(function, *nonce, *distinct).await?;
                call.path = path.clone();
                call.method = method_of(method)?;
                call.body = check::pattern(*body_bytes).into();
                Kind::Call(Arc::new(call))
            }
            Work::Proxy { response_bytes, request_bytes, keep_alive, sandboxes } => {
                let made = Guests::create(self.stack()?, *sandboxes).await;
                let (guests, peers) = made?;
                self.guests.push(guests);
                let call = self.call(peers, |call| {
                    call.path = format!("/?n={response_bytes}");
                    call.body = check::pattern(*request_bytes).into();
                    call.keep_alive = *keep_alive;
                    call.expect.pattern = Some(*response_bytes as u64);
                    if *request_bytes > 0 {
                        call.method = Method::POST;
                    }
                });
                Kind::Call(Arc::new(call))
            }
            Work::Ws(stream) => Kind::WebSocket(Arc::new(self.feed(stream).await?)),
            Work::Sse(stream) => Kind::Events(Arc::new(self.feed(stream).await?)),
            Work::Lifecycle { dialect, template, command, file_bytes, pause } => {
                let life = Life {
                    template: template.clone(),
                    command: command.clone(),
                    file_bytes: *file_bytes,
                    pause: *pause,
                    timeout: self.limit,
                };
                Kind::Life(Arc::new(life), self.lives(*dialect).await?)
            }
            Work::Mix { .. } | Work::Pool { .. } | Work::ScaleFromZero { .. } => {
                return Err(format!("`{}` can't be part of another work", work.kind()));
            }
        })
    }

    fn http(&self, work: &Work) -> Result<Call, String> {
        let Work::Http {
            path,
            method,
            body_bytes,
            keep_alive,
            expect_status,
            expect_sha256,
            expect_text,
            nonce,
        } = work
        else {
            return Err("no request to make".to_owned());
        };
        let address = self.target.address("http").map_err(|error| error.to_string())?;
        let peer = Peer { origin: address.origin.clone(), token: None };
        let method = method_of(method)?;
        Ok(self.call(vec![peer], |call| {
            call.method = method;
            call.path = path.clone();
            call.body = check::pattern(*body_bytes).into();
            call.keep_alive = *keep_alive;
            call.expect.status = *expect_status;
            call.expect.sha256 = expect_sha256.clone();
            call.expect.text = expect_text.clone();
            call.expect.nonce = *nonce;
        }))
    }

    async fn invoke(&self, function: &str, nonce: bool, distinct: bool) -> Result<Call, String> {
        let origin = self.function(function).await?;
        Ok(self.call(vec![Peer { origin, token: None }], |call| {
            call.expect.nonce = nonce;
            call.expect.distinct = distinct.then(Arc::default);
        }))
    }

    /// A call with nothing special about it.
    fn call(&self, peers: Vec<Peer>, set: impl FnOnce(&mut Call)) -> Call {
        let mut call = Call {
            peers,
            method: Method::GET,
            path: "/".to_owned(),
            headers: self.target.headers.clone(),
            body: Bytes::new(),
            keep_alive: true,
            streams_max: self.streams_max,
            limit: self.limit,
            expect: Expect::default(),
        };
        set(&mut call);
        call
    }

    async fn feed(&self, stream: &Stream) -> Result<Feed, String> {
        let origin = match &stream.function {
            Some(function) => self.function(function).await?,
            None => {
                let address = self.target.address("a stream without a function");
                address.map_err(|error| error.to_string())?.origin.clone()
            }
        };
        let headers: HeaderMap = self.target.headers.clone();
        let (streams_max, limit) = (self.streams_max, self.limit);
        Ok(Feed { origin, headers, stream: stream.clone(), streams_max, limit })
    }

    /// Where a function is, after asking whether it is there.
    async fn function(&self, function: &str) -> Result<Origin, String> {
        let stack = self.stack()?;
        let name: FunctionName =
            function.parse().map_err(|error| format!("function `{function}`: {error}"))?;
        let found = stack.api().function(&name).await;
        found.map_err(|error| format!("function `{function}`: {}", crate::chain(&error)))?;
        Ok(stack.origin(&stack.function_host(function)))
    }

    fn pool_of(&self, function: &str) -> Result<(Client, FunctionName), String> {
        let name = function.parse().map_err(|error| format!("function `{function}`: {error}"))?;
        Ok((self.stack()?.api().clone(), name))
    }

    /// Lives over the API that the target is, or has.
    async fn lives(&self, dialect: Dialect) -> Result<Lives, String> {
        let access = match (dialect, &self.target.stack) {
            (Dialect::V1, Some(stack)) => Access::V1(stack.api().clone()),
            (Dialect::V1, None) => {
                let address = self.target.address("a lifecycle").map_err(|e| e.to_string())?;
                let api = address.api(self.target.key()?).await;
                Access::V1(api.map_err(|error| error.to_string())?)
            }
            (Dialect::E2b, _) => Access::E2b(self.e2b()?),
        };
        Ok(Lives::new(lifecycle::dialect(access)))
    }

    fn e2b(&self) -> Result<E2bAccess, String> {
        let address = self.target.address("dialect e2b").map_err(|error| error.to_string())?;
        let sandboxes = match &self.target.domain {
            Some(domain) => Reach::Names {
                domain: domain.clone(),
                port: address.origin.port(),
                tls: address.tls.clone(),
                connect: self.plan.target.connect,
                guard: address.guard.clone(),
            },
            // An address without a name: headers say which sandbox is meant.
            None => Reach::Headers(address.origin.clone()),
        };
        let key = self.target.key()?.to_owned();
        Ok(E2bAccess { api: address.origin.clone(), key, sandboxes })
    }

    fn stack(&self) -> Result<&crate::Stack, String> {
        self.target.stack("this work").map_err(|error| error.to_string())
    }
}

fn method_of(method: &str) -> Result<Method, String> {
    method.parse().map_err(|_| format!("`{method}` is no HTTP method"))
}
