//! What is remembered of one request.

use std::net::SocketAddr;

use pool_model::{RequestId, SandboxId, TeamId};

use crate::trace::TraceContext;

/// The protocol a request came by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2.
    H2,
    /// HTTP/3.
    H3,
}

impl Protocol {
    /// `h1`, `h2` or `h3`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::H3 => "h3",
        }
    }

    pub(crate) const ALL: [Self; 3] = [Self::H1, Self::H2, Self::H3];
}

/// What a request was for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Nothing that is served.
    #[default]
    None,
    /// The API.
    Api,
    /// A function.
    Function,
    /// A function, by a custom domain.
    Domain,
    /// A port of a sandbox.
    Sandbox,
}

impl RouteKind {
    /// The word in logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Api => "api",
            Self::Function => "function",
            Self::Domain => "domain",
            Self::Sandbox => "sandbox",
        }
    }

    pub(crate) const ALL: [Self; 5] =
        [Self::None, Self::Api, Self::Function, Self::Domain, Self::Sandbox];
}

/// Who made an answer that is an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ErrorSource {
    /// There is no error, or it is the guest's own answer.
    #[default]
    None,
    /// The client broke a rule or a limit.
    Client,
    /// The edge.
    Edge,
    /// The agent.
    Agent,
    /// The guest broke off.
    Guest,
}

impl ErrorSource {
    /// The word in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => "client",
            Self::Edge => "edge",
            Self::Agent => "agent",
            Self::Guest => "guest",
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Its answer was sent to the end.
    Complete,
    /// It broke off, or the client went away.
    #[default]
    Aborted,
}

/// What is remembered of one request. Times in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct RequestRecord {
    /// Its id.
    pub id: RecordId,
    /// When it came, nanoseconds of Unix time.
    pub at_ns: u64,
    /// The client.
    pub client: Option<SocketAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// Whether it came encrypted.
    pub tls: bool,
    /// The method.
    pub method: http::Method,
    /// The authority, at most 256 bytes.
    pub host: String,
    /// The path without the query, at most 512 bytes.
    pub path: Box<str>,
    /// What it was for.
    pub route: RouteKind,
    /// The function's name.
    pub function: Option<std::sync::Arc<str>>,
    /// Its tag.
    pub tag: Option<Box<str>>,
    /// Its version; 0: none.
    pub version: u32,
    /// Whose the target is.
    pub team: Option<TeamId>,
    /// The sandbox that answered, or was to.
    pub sandbox: Option<SandboxId>,
    /// Its port; 0: none.
    pub port: u16,
    /// The agent.
    pub upstream: Option<SocketAddr>,
    /// The status; 0: none was sent.
    pub status: u16,
    /// The code of an error made by edge or agent.
    pub code: &'static str,
    /// Who made it.
    pub error_source: ErrorSource,
    /// Whether the answer was sent to its end.
    pub outcome: Outcome,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From the request's head to its being sent on.
    pub route_ms: f32,
    /// Waited for a lease, as the agent says.
    pub lease_ms: Option<f32>,
    /// The restore of the sandbox, as the agent says.
    pub restore_ms: Option<f32>,
    /// The guest's time to its answer's head, as the agent says.
    pub upstream_ms: Option<f32>,
    /// To the answer's head; 0: there was none.
    pub head_ms: f32,
    /// To the answer's end.
    pub total_ms: f32,
    /// Further attempts at other agents.
    pub retries: u8,
    /// Interim answers that were passed on.
    pub interims: u32,
    /// Whether a kept upstream connection was used.
    pub reused: bool,
    /// The client's own words about itself, at most 200 bytes.
    pub user_agent: Box<str>,
    /// Its trace.
    pub trace: Option<TraceContext>,
}

/// A request's id; all zeros by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordId(pub RequestId);

impl Default for RecordId {
    fn default() -> Self {
        Self(RequestId::from_u128(0))
    }
}

/// Most bytes of a host that are kept.
const HOST_MAX: usize = 256;
/// Most bytes of a path that are kept.
const PATH_MAX: usize = 512;
/// Most bytes of a user agent that are kept.
const USER_AGENT_MAX: usize = 200;

/// Cuts text at a character's end.
pub(crate) fn bounded(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl RequestRecord {
    /// Sets the host, cut to 256 bytes (a name has 253 at most, RFC 1035 2.3.4).
    pub fn set_host(&mut self, host: &str) {
        self.host = bounded(host, HOST_MAX).to_owned();
    }

    /// Sets the path, cut to 512 bytes.
    pub fn set_path(&mut self, path: &str) {
        self.path = bounded(path, PATH_MAX).into();
    }

    /// Sets the user agent, cut to 200 bytes.
    pub fn set_user_agent(&mut self, text: &str) {
        self.user_agent = bounded(text, USER_AGENT_MAX).into();
    }

    /// Cuts what was set past the setters.
    pub(crate) fn bound(&mut self) {
        let host = bounded(&self.host, HOST_MAX).len();
        self.host.truncate(host);
        if self.path.len() > PATH_MAX {
            self.path = bounded(&self.path, PATH_MAX).into();
        }
        if self.user_agent.len() > USER_AGENT_MAX {
            self.user_agent = bounded(&self.user_agent, USER_AGENT_MAX).into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_with_all_its_text_stays_below_what_the_crate_promises() {
        let text = HOST_MAX + PATH_MAX + USER_AGENT_MAX;
        assert_eq!(text, 968);
        assert!(size_of::<RequestRecord>() + text < 1536, "{}", size_of::<RequestRecord>());
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(bounded("abc", 3), "abc");
        assert_eq!(bounded("abä", 3), "ab");
        assert_eq!(bounded("ä", 0), "");
    }

    #[test]
    fn what_a_client_chooses_is_bounded_set_by_setters_or_past_them() {
        let mut set = RequestRecord::default();
        let long = "ä".repeat(1000);
        set.set_host(&long);
        set.set_path(&long);
        set.set_user_agent(&long);
        let mut past = RequestRecord {
            host: long.clone(),
            path: long.clone().into(),
            user_agent: long.into(),
            ..RequestRecord::default()
        };
        past.bound();
        for record in [&set, &past] {
            let bytes = (record.host.len(), record.path.len(), record.user_agent.len());
            assert_eq!(bytes, (256, 512, 200));
        }
    }
}
