//! Which bucket, reached how: the settings of an object store and the credentials for it.

use std::{fmt, time::Duration};

/// Attempts per request.
pub const DEFAULT_ATTEMPTS: u32 = 4;
/// How long one attempt may take.
pub const DEFAULT_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole call may take, its retries included.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(20);
/// Requests in flight for one transfer.
pub const DEFAULT_PARALLEL: usize = 8;

/// Bounds of a bucket's name. Source: S3's naming rules.
const BUCKET_CHARS: std::ops::RangeInclusive<usize> = 3..=63;

/// Where snapshots are kept and how patiently they are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteConfig {
    /// `s3://bucket/prefix`; the prefix may be empty.
    pub url: String,
    /// `http(s)://host:port` of anything but AWS.
    pub endpoint: Option<String>,
    /// The region that requests are signed for; servers other than AWS mostly ignore it.
    pub region: String,
    /// Whether an `http://` endpoint is acceptable: content can be read on the way.
    pub allow_http: bool,
    /// Attempts per request, at least 1.
    pub attempts: u32,
    /// How long one attempt may take; a transfer of megabytes gets a second more for each.
    pub attempt_timeout: Duration,
    /// How long a whole call may take, for a range of less than 1 MiB; likewise more for more.
    pub deadline: Duration,
    /// Requests in flight for one transfer, at least 1.
    pub parallel: usize,
}

/// A setting that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct ConfigError {
    /// Name of the setting: a field of [`RemoteConfig`] or an environment variable.
    pub setting: &'static str,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

impl ConfigError {
    fn new(setting: &'static str, reason: impl Into<String>) -> Self {
        Self { setting, reason: reason.into() }
    }
}

impl RemoteConfig {
    /// Checks the settings that say where, and takes the defaults for the rest.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the setting and what it should look like.
    pub fn parse(
        url: &str,
        endpoint: Option<&str>,
        region: &str,
        allow_http: bool,
    ) -> Result<Self, ConfigError> {
        let config = Self {
            url: url.to_owned(),
            endpoint: endpoint.map(str::to_owned),
            region: region.to_owned(),
            allow_http,
            attempts: DEFAULT_ATTEMPTS,
            attempt_timeout: DEFAULT_ATTEMPT_TIMEOUT,
            deadline: DEFAULT_DEADLINE,
            parallel: DEFAULT_PARALLEL,
        };
        config.check()?;
        Ok(config)
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// As [`RemoteConfig::parse`].
    pub fn check(&self) -> Result<(), ConfigError> {
        self.location()?;
        if self.region.is_empty() {
            return Err(ConfigError::new(
                "region",
                "is empty; a server without any takes us-east-1",
            ));
        }
        if let Some(endpoint) = &self.endpoint {
            check_endpoint(endpoint, self.allow_http)?;
        }
        for (setting, zero) in [
            ("attempts", self.attempts == 0),
            ("attempt_timeout", self.attempt_timeout.is_zero()),
            ("deadline", self.deadline.is_zero()),
            ("parallel", self.parallel == 0),
        ] {
            if zero {
                return Err(ConfigError::new(setting, "is 0, nothing would ever be asked for"));
            }
        }
        Ok(())
    }

    /// Bucket and prefix of the URL; the prefix without slashes around it.
    pub(crate) fn location(&self) -> Result<(&str, &str), ConfigError> {
        let refuse = |reason: &str| ConfigError::new("url", format!("{:?} {reason}", self.url));
        let rest = self
            .url
            .strip_prefix("s3://")
            .ok_or_else(|| refuse("does not look like s3://bucket/prefix"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if !BUCKET_CHARS.contains(&bucket.len()) || !bucket.chars().all(plain) {
            return Err(refuse("names no bucket: 3 to 63 of a-z, 0-9, - and ."));
        }
        let prefix = prefix.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.chars().all(plain);
        if !prefix.is_empty() && !prefix.split('/').all(segment) {
            return Err(refuse("has a prefix with something else than A-Z, a-z, 0-9, -, _ and ."));
        }
        Ok((bucket, prefix))
    }
}

fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<(), ConfigError> {
    let refuse = |reason: &str| ConfigError::new("endpoint", format!("{endpoint:?} {reason}"));
    let (scheme, host) =
        endpoint.split_once("://").ok_or_else(|| refuse("does not look like https://host:port"))?;
    match scheme {
        "https" => {}
        "http" if allow_http => {}
        "http" => return Err(refuse("is not encrypted: use https, or set allow_http")),
        _ => return Err(refuse("has a scheme other than http and https")),
    }
    let host = host.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) {
        return Err(refuse("should be a scheme, a host and perhaps a port, nothing else"));
    }
    Ok(())
}

/// What proves to the object store who asks. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
    /// `AWS_SESSION_TOKEN`, for temporary credentials.
    pub session_token: Option<String>,
}

impl Credentials {
    /// Takes them from the process's environment.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the variable that is missing or empty.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let present = |name: &'static str| get(name).filter(|value| !value.is_empty());
        let needed = |name| {
            present(name).ok_or_else(|| ConfigError::new(name, "is not set in the environment"))
        };
        Ok(Self {
            access_key_id: needed("AWS_ACCESS_KEY_ID")?,
            secret_access_key: needed("AWS_SECRET_ACCESS_KEY")?,
            session_token: present("AWS_SESSION_TOKEN"),
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str, endpoint: Option<&str>) -> Result<RemoteConfig, ConfigError> {
        RemoteConfig::parse(url, endpoint, "us-east-1", false)
    }

    #[test]
    fn bucket_and_prefix_are_told_apart() {
        for (url, bucket, prefix) in [
            ("s3://wrenn-snapshots", "wrenn-snapshots", ""),
            ("s3://wrenn-snapshots/", "wrenn-snapshots", ""),
            ("s3://b.1/eu/prod_1/", "b.1", "eu/prod_1"),
        ] {
            let config = parse(url, None).unwrap();
            assert_eq!(config.location(), Ok((bucket, prefix)), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let long = format!("s3://{}", "b".repeat(64));
        for url in ["", "wrenn", "http://b/x", "s3://", "s3://B", "s3://ab", &long, "s3://abc/x//y"]
        {
            assert_eq!(parse(url, None).unwrap_err().setting, "url", "{url}");
        }
        assert_eq!(parse("s3://abc/..", None).unwrap_err().setting, "url");
        for endpoint in ["host:9000", "ftp://host", "http://host", "https://", "https://me@host"] {
            let error = parse("s3://abc", Some(endpoint)).unwrap_err();
            assert_eq!(error.setting, "endpoint", "{endpoint}");
        }
        let error = RemoteConfig::parse("s3://abc", None, "", false).unwrap_err();
        assert_eq!(error.setting, "region");
        let idle = RemoteConfig { attempts: 0, ..parse("s3://abc", None).unwrap() };
        assert_eq!(idle.check().unwrap_err().setting, "attempts");
    }

    #[test]
    fn plain_http_needs_to_be_allowed() {
        assert!(RemoteConfig::parse("s3://abc", Some("http://h:1"), "r", true).is_ok());
        let error = parse("s3://abc", Some("http://h:1")).unwrap_err();
        assert!(error.to_string().contains("allow_http"), "{error}");
    }

    #[test]
    fn credentials_are_complete_or_refused_and_never_printed() {
        let all = |name: &str| Some(format!("value-of-{name}"));
        let credentials = Credentials::from_variables(all).unwrap();
        assert!(credentials.session_token.is_some());
        assert!(!format!("{credentials:?}").contains("value-of"));
        let error = Credentials::from_variables(|name| {
            all(name).map(|v| if name == "AWS_SECRET_ACCESS_KEY" { String::new() } else { v })
        });
        assert_eq!(error.unwrap_err().setting, "AWS_SECRET_ACCESS_KEY");
    }
}
