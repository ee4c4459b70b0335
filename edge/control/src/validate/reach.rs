//! What may be said of how functions and sandboxes are reached.

use edge_api::{DeployConfig, FunctionName, SIGN_EXPIRES_S_MAX, Sign, TagName};
use edge_store::{ChangeError, LiveFunction, TAGS_MAX};
use pool_model::{Auth, InvocationPolicy, TrafficPolicy};

use super::{Checked, range, text};
use crate::{ApiError, Outside};

/// Longest path and query of a signed URL, bytes.
const SIGNED_PATH_BYTES_MAX: usize = 4096;

/// Tag and promotion of a deploy, beside what the function has already.
pub(crate) fn deploy_tag(config: &DeployConfig, present: Option<&LiveFunction>) -> Checked {
    if let Some(tag) = &config.tag {
        self::tag(&config.name, tag)?;
    }
    match (present, &config.tag) {
        (None, _) if !config.promote => Err(ChangeError::FirstIsCurrent.into()),
        (Some(_), None) if !config.promote => Err(ChangeError::Unreachable.into()),
        (Some(present), Some(tag))
            if present.tag(tag.as_str()).is_none() && present.tags.len() >= TAGS_MAX =>
        {
            Err(ChangeError::TooManyTags.into())
        }
        _ => Ok(()),
    }
}

/// Whether name and tag fit into one label of a host name.
pub(crate) fn tag(name: &FunctionName, tag: &TagName) -> Checked {
    match tag.label(name) {
        Some(_) => Ok(()),
        None => Err(ApiError::field("tag", format!("`{name}--{tag}` is over 63 bytes"))),
    }
}

pub(crate) fn invocation(policy: &InvocationPolicy, outside: &Outside) -> Checked {
    policy.check().map_err(|bad| ApiError::field(bad.field, bad.reason))?;
    for way in &policy.auth {
        if let Auth::Jwt(jwt) = way
            && let Some(keys) = &jwt.jwks
        {
            key_set(keys)?;
        }
    }
    for entry in &policy.cron {
        let Some(check) = outside.schedules else {
            return Err(ApiError::field("cron", "this installation has no clock"));
        };
        check(&entry.schedule, entry.timezone.as_deref())
            .map_err(|problem| ApiError::field("cron", format!("`{}`: {problem}", entry.name)))?;
    }
    Ok(())
}

/// A key set (RFC 7517, 5) with one key at least. What the keys are worth is seen when they are used.
fn key_set(keys: &str) -> Checked {
    #[derive(serde::Deserialize)]
    struct KeySet {
        keys: Vec<serde_json::Map<String, serde_json::Value>>,
    }
    match serde_json::from_str::<KeySet>(keys) {
        Ok(set) if !set.keys.is_empty() => Ok(()),
        Ok(_) => Err(ApiError::field("jwks", "it has no keys")),
        Err(problem) => Err(ApiError::field("jwks", problem)),
    }
}

pub(crate) fn traffic(policy: &TrafficPolicy) -> Checked {
    policy.check().map_err(|bad| ApiError::field(bad.field, bad.reason))
}

pub(crate) fn sign(wish: &Sign) -> Checked {
    range("expires_s", wish.expires_s, 1..=SIGN_EXPIRES_S_MAX)?;
    text("path", &wish.path, SIGNED_PATH_BYTES_MAX)?;
    if !wish.path.starts_with('/') || wish.path.parse::<http::uri::PathAndQuery>().is_err() {
        return Err(ApiError::field("path", "expected a path that starts with `/`"));
    }
    match &wish.method {
        Some(method) if method.parse::<http::Method>().is_err() => {
            Err(ApiError::field("method", "expected a method, e.g. `GET`"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(checked: Checked) -> String {
        let text = checked.unwrap_err().to_string();
        text.split('`').nth(1).unwrap().to_owned()
    }

    #[test]
    fn a_version_needs_a_way_to_it() {
        let new = DeployConfig::new("hello".parse().unwrap(), "./run");
        assert!(deploy_tag(&new, None).is_ok());
        let hidden = DeployConfig { promote: false, ..new.clone() };
        assert_eq!(field_of(deploy_tag(&hidden, None)), "promote");
        let long = DeployConfig {
            name: "n".repeat(40).parse().unwrap(),
            tag: Some("t".repeat(30).parse().unwrap()),
            ..new
        };
        assert_eq!(field_of(deploy_tag(&long, None)), "tag");
    }

    #[test]
    fn schedules_and_key_sets_are_read() {
        fn check(schedule: &str, _: Option<&str>) -> Result<(), String> {
            if schedule == "bad" { Err("four fields are missing".to_owned()) } else { Ok(()) }
        }
        let read = |json: &str| serde_json::from_str::<InvocationPolicy>(json).unwrap();
        let outside = Outside { schedules: Some(check), ..Outside::default() };
        let good = read(r#"{"cron":[{"name":"a","schedule":"* * * * *"}]}"#);
        assert!(invocation(&good, &outside).is_ok());
        assert_eq!(field_of(invocation(&good, &Outside::default())), "cron");
        let bad = read(r#"{"cron":[{"name":"a","schedule":"bad"}]}"#);
        assert_eq!(field_of(invocation(&bad, &outside)), "cron");
        for keys in ["x", "{}", r#"{"keys":[]}"#, r#"{"keys":[1]}"#] {
            let jwt = serde_json::json!({ "auth": [{ "kind": "jwt", "jwks": keys }] });
            assert_eq!(field_of(invocation(&read(&jwt.to_string()), &outside)), "jwks", "{keys}");
        }
    }

    #[test]
    fn a_url_to_sign_has_a_path_a_method_and_an_end() {
        let good = Sign { method: None, path: "/a?b=c".to_owned(), expires_s: 60 };
        assert!(sign(&good).is_ok());
        for (bad, field) in [
            (Sign { path: "a".to_owned(), ..good.clone() }, "path"),
            (Sign { path: "/a b".to_owned(), ..good.clone() }, "path"),
            (Sign { method: Some("G T".to_owned()), ..good.clone() }, "method"),
            (Sign { expires_s: 0, ..good.clone() }, "expires_s"),
            (Sign { expires_s: SIGN_EXPIRES_S_MAX + 1, ..good }, "expires_s"),
        ] {
            assert_eq!(field_of(sign(&bad)), field, "{bad:?}");
        }
    }
}
