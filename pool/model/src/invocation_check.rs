//! Which invocation and traffic policies are refused, and which field is to blame.

use std::collections::BTreeSet;

use crate::{
    AsyncPolicy, Auth, BadTuning, Cors, Cron, InvocationPolicy, JwtAuth, Rate, TagWeight,
    TrafficPolicy,
};

type Checked = Result<(), BadTuning>;

/// Most entries of a list of networks.
const NETWORKS_MAX: usize = 256;
/// Most ways to show that one may invoke.
const AUTHS_MAX: usize = 8;
/// Most entries of each list of a CORS policy, and of `audience`.
const WORDS_MAX: usize = 64;
/// Most bytes of one such entry, and of a path or URL.
const WORD_BYTES_MAX: usize = 2048;
/// Most bytes of a key set.
const JWKS_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a scheduled request's body.
const CRON_BODY_BYTES_MAX: usize = 64 << 10;
/// Most ports of one list.
const PORTS_MAX: usize = 256;
/// Longest that clocks may differ, seconds.
const LEEWAY_S_MAX: u64 = 600;

impl InvocationPolicy {
    /// Most requests that are made by the clock.
    pub const CRON_MAX: usize = 32;

    /// Refuses values out of range and contradictions. The syntax of schedules and key
    /// sets is not looked at.
    ///
    /// # Errors
    ///
    /// [`BadTuning`], naming the field and what was expected.
    pub fn check(&self) -> Checked {
        within("queue_max", self.queue_max.into(), 0, 100_000)?;
        within("queue_timeout_ms", self.queue_timeout_ms, 0, 600_000)?;
        rate("rate", self.rate)?;
        rate("client_rate", self.client_rate)?;
        count("allow_ips", self.allow_ips.len(), NETWORKS_MAX)?;
        count("deny_ips", self.deny_ips.len(), NETWORKS_MAX)?;
        count("auth", self.auth.len(), AUTHS_MAX)?;
        for (number, way) in self.auth.iter().enumerate() {
            if self.auth[..number].contains(way) {
                return bad("auth", "the same way stands there twice");
            }
            if let Auth::Jwt(jwt) = way {
                self::jwt(jwt)?;
            }
        }
        self.cors.as_ref().map_or(Ok(()), cors)?;
        asynchronous(&self.asynchronous)?;
        count("cron", self.cron.len(), Self::CRON_MAX)?;
        let mut names = BTreeSet::new();
        for entry in &self.cron {
            cron(entry)?;
            if !names.insert(entry.name.as_str()) {
                return bad("cron", format!("the name `{}` stands there twice", entry.name));
            }
        }
        Ok(())
    }
}

impl TrafficPolicy {
    /// Refuses values out of range.
    ///
    /// # Errors
    ///
    /// [`BadTuning`], naming the field and what was expected.
    pub fn check(&self) -> Checked {
        rate("rate", self.rate)?;
        count("private_ports", self.private_ports.len(), PORTS_MAX)?;
        count("h2c_ports", self.h2c_ports.len(), PORTS_MAX)?;
        count("allow_ips", self.allow_ips.len(), NETWORKS_MAX)?;
        count("deny_ips", self.deny_ips.len(), NETWORKS_MAX)
    }

    /// Whether any port asks for the traffic token.
    #[must_use]
    pub fn has_private(&self) -> bool {
        self.private || !self.private_ports.is_empty()
    }
}

impl TagWeight {
    /// Heaviest weight.
    pub const WEIGHT_MAX: u32 = 1000;

    /// Refuses a split with a weight out of range, a tag twice, or weights that are all 0. An empty
    /// one is good: the plain name then means the current version.
    ///
    /// # Errors
    ///
    /// [`BadTuning`], naming the field and what was expected.
    pub fn check_split(split: &[Self]) -> Checked {
        let mut tags = BTreeSet::new();
        for TagWeight { tag, weight } in split {
            within("weight", (*weight).into(), 0, Self::WEIGHT_MAX.into())?;
            if !tags.insert(tag) {
                return bad("tag", format!("`{tag}` stands there twice"));
            }
        }
        if !split.is_empty() && split.iter().all(|share| share.weight == 0) {
            return bad("weight", "one at least has to be over 0");
        }
        Ok(())
    }
}

fn bad<T>(field: &'static str, reason: impl Into<String>) -> Result<T, BadTuning> {
    Err(BadTuning { field, reason: reason.into() })
}

fn within(field: &'static str, value: u64, low: u64, high: u64) -> Checked {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    bad(field, format!("{value} is not {low} to {high}"))
}

fn count(field: &'static str, entries: usize, most: usize) -> Checked {
    if entries > most { bad(field, format!("over {most} entries")) } else { Ok(()) }
}

fn rate(field: &'static str, rate: Option<Rate>) -> Checked {
    let Some(Rate { per_second, burst }) = rate else { return Ok(()) };
    within(field, per_second.into(), 1, 1_000_000)?;
    within(field, burst.into(), 0, 1_000_000)
}

/// A list of texts, none empty, too long, or with what can't stand in a header.
fn words(field: &'static str, list: &[String]) -> Checked {
    count(field, list.len(), WORDS_MAX)?;
    list.iter().try_for_each(|word| self::word(field, word))
}

fn word(field: &'static str, word: &str) -> Checked {
    let printable = word.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if word.is_empty() || word.len() > WORD_BYTES_MAX || !printable {
        return bad(field, format!("expected 1 to {WORD_BYTES_MAX} printable ASCII characters"));
    }
    Ok(())
}

/// A method or a header's name (RFC 9110, 5.6.2).
fn token(field: &'static str, text: &str) -> Checked {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || text.len() > 256 || !text.bytes().all(good) {
        return bad(field, "expected a name of letters, digits and !#$%&'*+-.^_`|~");
    }
    Ok(())
}

/// An absolute URL: `https`, or `http` to a loopback host.
fn url(field: &'static str, url: &str) -> Checked {
    word(field, url)?;
    if url.contains([' ', '#']) {
        return bad(field, "expected a URL without blanks and without a fragment");
    }
    let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return bad(field, "expected an https URL"),
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return bad(field, "user and password may not stand in it");
    }
    let host = host_of(authority);
    if host.is_empty() {
        return bad(field, "expected a URL with a host");
    }
    if secure || is_loopback(host) {
        return Ok(());
    }
    bad(field, "http is for loopback hosts only: expected https")
}

/// The host of `host:port`, brackets of an IPv6 address taken off.
fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn jwt(jwt: &JwtAuth) -> Checked {
    match (&jwt.jwks, &jwt.jwks_url) {
        (Some(keys), None) => {
            if keys.len() > JWKS_BYTES_MAX {
                return bad("jwks", format!("over {JWKS_BYTES_MAX} bytes"));
            }
            if keys.trim().is_empty() {
                return bad("jwks", "expected a JSON object with a list `keys`");
            }
        }
        (None, Some(from)) => url("jwks_url", from)?,
        _ => return bad("jwt", "expected exactly one of `jwks` and `jwks_url`"),
    }
    jwt.issuer.as_ref().map_or(Ok(()), |issuer| word("issuer", issuer))?;
    words("audience", &jwt.audience)?;
    within("leeway_s", jwt.leeway_s.into(), 0, LEEWAY_S_MAX)
}

fn cors(cors: &Cors) -> Checked {
    words("origins", &cors.origins)?;
    if cors.origins.is_empty() {
        return bad("origins", "expected one at least");
    }
    if cors.credentials && cors.origins.iter().any(|origin| origin == "*") {
        return bad("credentials", "not together with the origin `*`");
    }
    for (field, list) in [
        ("methods", &cors.methods),
        ("headers", &cors.headers),
        ("expose_headers", &cors.expose_headers),
    ] {
        count(field, list.len(), WORDS_MAX)?;
        list.iter().try_for_each(|name| token(field, name))?;
    }
    within("max_age_s", cors.max_age_s.into(), 0, 86_400)
}

fn asynchronous(policy: &AsyncPolicy) -> Checked {
    within("pending_max", policy.pending_max.into(), 1, 100_000)?;
    within("attempts_max", policy.attempts_max.into(), 1, 20)?;
    within("backoff_ms", policy.backoff_ms, 1, 300_000)?;
    within("result_ttl_s", policy.result_ttl_s, 60, 2_592_000)?;
    policy.webhook.as_ref().map_or(Ok(()), |to| url("webhook", to))
}

fn cron(cron: &Cron) -> Checked {
    let label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if cron.name.is_empty() || cron.name.len() > 64 || !cron.name.bytes().all(label) {
        return bad("name", "expected 1 to 64 letters, digits, `-` and `_`");
    }
    word("schedule", &cron.schedule)?;
    cron.timezone.as_ref().map_or(Ok(()), |zone| word("timezone", zone))?;
    token("method", &cron.method)?;
    word("path", &cron.path)?;
    if !cron.path.starts_with('/') || cron.path.contains([' ', '#']) {
        return bad("path", "expected a path that starts with `/`, without blanks and `#`");
    }
    count("headers", cron.headers.len(), WORDS_MAX)?;
    for (name, value) in &cron.headers {
        token("headers", name)?;
        if !value.is_empty() {
            word("headers", value)?;
        }
    }
    if cron.body.as_ref().is_some_and(|body| body.len() > CRON_BODY_BYTES_MAX) {
        return bad("body", format!("over {CRON_BODY_BYTES_MAX} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The field that is to blame, or nothing.
    fn blamed(json: &str) -> &'static str {
        let policy: InvocationPolicy = serde_json::from_str(json).unwrap();
        policy.check().map_or_else(|bad| bad.field, |()| "")
    }

    #[test]
    fn numbers_out_of_range_and_lists_too_long_are_named() {
        assert_eq!(InvocationPolicy::default().check(), Ok(()));
        for (json, field) in [
            (r#"{"queue_max":100000}"#, ""),
            (r#"{"queue_max":100001}"#, "queue_max"),
            (r#"{"queue_timeout_ms":600001}"#, "queue_timeout_ms"),
            (r#"{"rate":{"per_second":0}}"#, "rate"),
            (r#"{"rate":{"per_second":1,"burst":1000001}}"#, "rate"),
            (r#"{"client_rate":{"per_second":1000001}}"#, "client_rate"),
            (r#"{"client_rate":{"per_second":1000000}}"#, ""),
            (r#"{"async":{"pending_max":0}}"#, "pending_max"),
            (r#"{"async":{"attempts_max":21}}"#, "attempts_max"),
            (r#"{"async":{"backoff_ms":0}}"#, "backoff_ms"),
            (r#"{"async":{"result_ttl_s":59}}"#, "result_ttl_s"),
            (r#"{"auth":[{"kind":"key"},{"kind":"key"}]}"#, "auth"),
        ] {
            assert_eq!(blamed(json), field, "{json}");
        }
        let net = "10.0.0.0/8".parse().unwrap();
        let long = InvocationPolicy { deny_ips: vec![net; 257], ..Default::default() };
        assert_eq!(long.check().unwrap_err().field, "deny_ips");
    }

    #[test]
    fn urls_are_https_unless_they_stay_on_this_host() {
        for (url, good) in [
            ("https://hooks.example.com/x?y=1", true),
            ("http://127.0.0.1:8080/x", true),
            ("http://[::1]:8080", true),
            ("http://app.localhost/", true),
            ("http://example.com/", false),
            ("http://127.0.0.1.example.com/", false),
            ("http://localhost@example.com/", false),
            ("https://user:word@example.com/", false),
            ("ftp://example.com/", false),
            ("https://", false),
            ("https:///x", false),
            ("https://a b/", false),
            ("/relative", false),
        ] {
            let json = serde_json::json!({ "async": { "webhook": url } }).to_string();
            assert_eq!(blamed(&json), if good { "" } else { "webhook" }, "{url}");
        }
    }

    #[test]
    fn a_token_check_has_one_source_of_keys() {
        for (jwt, field) in [
            (r#""jwks_url":"https://a.example/keys""#, ""),
            (r#""jwks":"{\"keys\":[{}]}""#, ""),
            (r#""issuer":"a""#, "jwt"),
            (r#""jwks":"{\"keys\":[{}]}","jwks_url":"https://a.example/keys""#, "jwt"),
            (r#""jwks":" ""#, "jwks"),
            (r#""jwks_url":"http://a.example/keys""#, "jwks_url"),
            (r#""jwks_url":"https://a.example/keys","leeway_s":601"#, "leeway_s"),
            (r#""jwks_url":"https://a.example/keys","audience":[""]"#, "audience"),
        ] {
            assert_eq!(blamed(&format!(r#"{{"auth":[{{"kind":"jwt",{jwt}}}]}}"#)), field, "{jwt}");
        }
    }

    #[test]
    fn cors_and_cron_are_checked_entry_by_entry() {
        for (cors, field) in [
            (r#"{"origins":["*"]}"#, ""),
            (r#"{"origins":["https://a.example"],"credentials":true}"#, ""),
            (r#"{"origins":["*"],"credentials":true}"#, "credentials"),
            (r#"{"origins":[]}"#, "origins"),
            (r#"{"origins":["*"],"methods":["GE T"]}"#, "methods"),
            (r#"{"origins":["*"],"expose_headers":[""]}"#, "expose_headers"),
            (r#"{"origins":["*"],"max_age_s":86401}"#, "max_age_s"),
        ] {
            assert_eq!(blamed(&format!(r#"{{"cors":{cors}}}"#)), field, "{cors}");
        }
        let cron = |more: &str| format!(r#"{{"name":"a","schedule":"* * * * *"{more}}}"#);
        for (entries, field) in [
            (cron(""), ""),
            (format!("{},{}", cron(""), cron("")), "cron"),
            (cron(r#","path":"x""#), "path"),
            (cron(r#","method":"A B""#), "method"),
            (cron(r#","headers":{"a b":"c"}"#), "headers"),
            (cron(r#","headers":{"a":"c\nd"}"#), "headers"),
            (r#"{"name":"","schedule":"x"}"#.to_owned(), "name"),
        ] {
            assert_eq!(blamed(&format!(r#"{{"cron":[{entries}]}}"#)), field, "{entries}");
        }
    }

    #[test]
    fn traffic_and_splits_have_their_bounds() {
        let private: TrafficPolicy = serde_json::from_str(r#"{"private_ports":[22]}"#).unwrap();
        assert!(private.check().is_ok() && private.has_private());
        assert!(!TrafficPolicy::default().has_private());
        let fast: TrafficPolicy = serde_json::from_str(r#"{"rate":{"per_second":0}}"#).unwrap();
        assert_eq!(fast.check().unwrap_err().field, "rate");
        let split = |shares: &[(&str, u32)]| {
            let share = |&(tag, weight): &(&str, u32)| TagWeight { tag: tag.to_owned(), weight };
            TagWeight::check_split(&shares.iter().map(share).collect::<Vec<_>>()).is_ok()
        };
        assert!(split(&[]) && split(&[("a", 1000), ("b", 0)]));
        assert!(!split(&[("a", 1001)]) && !split(&[("a", 1), ("a", 2)]) && !split(&[("a", 0)]));
    }
}
