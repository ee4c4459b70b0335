//! Whom to test, by flags.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use loadtest_model::{Protocol, TargetPlan};

/// Whom to test and how, whatever the scenario.
#[derive(Debug, Args)]
#[command(next_help_heading = "Target")]
pub(crate) struct TargetArgs {
    /// The directory of a running Wrenn stack
    #[arg(long, env = "WRENN_DIR", default_value = ".wrenn", value_name = "DIR")]
    wrenn_dir: PathBuf,
    /// The address of any HTTP server or API, instead of a stack
    #[arg(long)]
    url: Option<String>,
    /// Connect here whatever the URL's name resolves to
    #[arg(long, value_name = "ADDRESS:PORT")]
    connect: Option<SocketAddr>,
    /// Certificates to trust; the system's if absent
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The file of an API key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// What sandboxes' host names end with, if not the URL's host without its first label
    #[arg(long)]
    domain: Option<String>,
    /// A header of every request (not for secrets: it is in the report)
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// I own the target, though its address is public
    #[arg(long)]
    i_own_this_target: bool,
    /// Versions of HTTP: h1, h2, h3, several by commas, or `all`
    #[arg(long, value_name = "PROTOCOLS", value_parser = protocols)]
    protocol: Option<Protocols>,
    /// Take turns between the protocols this many times
    #[arg(long)]
    pub(crate) rounds: Option<u32>,
    /// Where chance comes from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Threads that send requests
    #[arg(long, default_value_t = 1)]
    pub(crate) workers: u32,
    /// Sent before and not counted, e.g. `2s`
    #[arg(long, value_name = "TIME", value_parser = duration)]
    warmup: Option<Duration>,
}

/// Protocols, as clap needs them: one value.
#[derive(Debug, Clone)]
struct Protocols(Vec<Protocol>);

impl TargetArgs {
    /// The plan's target.
    pub(crate) fn plan(&self) -> TargetPlan {
        TargetPlan {
            wrenn_dir: self.stack().map(std::path::Path::to_owned),
            url: self.url.clone(),
            connect: self.connect,
            ca_file: self.ca_file.clone(),
            key_file: self.key_file.clone(),
            domain: self.domain.clone(),
            headers: self.headers.iter().cloned().collect(),
            i_own_this_target: self.i_own_this_target,
        }
    }

    /// The stack's directory, if the target is a stack.
    pub(crate) fn stack(&self) -> Option<&std::path::Path> {
        self.url.is_none().then_some(&self.wrenn_dir)
    }

    /// The protocols that were asked for, or others.
    pub(crate) fn protocols(&self, otherwise: &[Protocol]) -> Vec<Protocol> {
        self.protocol.as_ref().map_or_else(|| otherwise.to_vec(), |asked| asked.0.clone())
    }

    /// The warm-up, if one was asked for.
    pub(crate) fn warmup_ms(&self) -> Option<u64> {
        self.warmup.map(milliseconds)
    }
}

/// Whole milliseconds, at least one for what isn't nothing.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Reads `10s`, `1m 30s`, `250ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = |why: String| format!("{why}; expected a time such as `250ms`, `10s`, `2m`");
    let time: jiff::SignedDuration = text.parse().map_err(|error| wrong(format!("{error}")))?;
    Duration::try_from(time).map_err(|_| wrong("it is negative".to_owned()))
}

fn protocols(text: &str) -> Result<Protocols, String> {
    if text == "all" {
        return Ok(Protocols(Protocol::ALL.to_vec()));
    }
    let each = text.split(',').map(|word| word.trim().parse::<Protocol>());
    each.collect::<Result<_, _>>().map(Protocols).map_err(|error| error.to_string())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected `name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for wrong in ["10", "-1s", "soon"] {
            assert!(duration(wrong).unwrap_err().contains("expected a time"), "{wrong}");
        }
    }

    #[test]
    fn protocols_are_named_shortly() {
        assert_eq!(protocols("h1, h3").unwrap().0, [Protocol::H1, Protocol::H3]);
        assert_eq!(protocols("all").unwrap().0, Protocol::ALL);
        assert!(protocols("http2").unwrap_err().contains("expected h1, h2 or h3"));
    }
}
