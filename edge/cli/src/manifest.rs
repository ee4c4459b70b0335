//! `wrenn.toml`: how the function in a directory is deployed.

use std::{fs, path::Path};

use edge_api::DeployConfig;
use toml::{Table, Value};

use crate::{args::DeployArgs, failure::Failure};

/// The file's name.
pub(crate) const FILE: &str = "wrenn.toml";

/// What is deployed and what is left out of the archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// What the API gets.
    pub(crate) config: DeployConfig,
    /// Patterns of what is left out.
    pub(crate) exclude: Vec<String>,
}

/// Reads the directory's `wrenn.toml` (it may be absent) and lays the flags over it.
pub(crate) fn read(args: &DeployArgs) -> Result<Manifest, Failure> {
    let path = args.dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && args.dir.is_dir() => String::new(),
        Err(e) => return Err(Failure::file("read", &path)(e)),
    };
    merge(&text, &path, args)
}

fn merge(text: &str, path: &Path, args: &DeployArgs) -> Result<Manifest, Failure> {
    let wrong = |reason: &str| {
        Failure::Usage(format!("{} and the flags: {}", path.display(), reason.trim_end()))
    };
    let mut table: Table = text.parse().map_err(|e: toml::de::Error| wrong(&e.to_string()))?;
    let exclude = match table.remove("exclude") {
        Some(list) => list.try_into().map_err(|_| wrong("exclude: expected a list of texts"))?,
        None => Vec::new(),
    };
    let texts = [
        ("name", args.name.as_ref().map(ToString::to_string)),
        ("template", args.template.clone()),
        ("start", args.start.clone()),
        ("ready_path", args.ready_path.clone()),
        ("tag", args.tag.as_ref().map(ToString::to_string)),
    ];
    let numbers = [
        ("port", args.port.map(|port| i64::from(port.get()))),
        ("ready_timeout_ms", args.ready_timeout_ms.and_then(|ms| i64::try_from(ms).ok())),
        ("memory_mib", args.memory_mib.map(i64::from)),
        ("min_warm", args.min_warm.map(i64::from)),
        ("max_warm", args.max_warm.map(i64::from)),
    ];
    let texts = texts.into_iter().filter_map(|(key, text)| Some((key, Value::from(text?))));
    let numbers = numbers.into_iter().filter_map(|(key, n)| Some((key, Value::from(n?))));
    for (key, value) in texts.chain(numbers) {
        table.insert(key.to_owned(), value);
    }
    if args.no_promote {
        table.insert("promote".to_owned(), Value::from(false));
    }
    let mut config: DeployConfig = table.try_into().map_err(|e| wrong(&e.to_string()))?;
    config.env.extend(args.env.iter().cloned());
    Ok(Manifest { config, exclude })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn merged(text: &str, flags: &[&str]) -> Result<Manifest, String> {
        let cli = Cli::try_parse_from(["wrenn", "deploy", "."].iter().chain(flags)).unwrap();
        let Command::Deploy(args) = cli.command else { panic!("deploy expected") };
        merge(text, Path::new(FILE), &args).map_err(|failure| failure.to_string())
    }

    const HELLO: &str = "name = 'hello'\nstart = 'python3 main.py'\nport = 8000\n\
                         exclude = ['*.md']\n[env]\nA = '1'\n";

    #[test]
    fn file_alone_is_enough() {
        let manifest = merged(HELLO, &[]).unwrap();
        assert_eq!(manifest.config.name.as_str(), "hello");
        assert_eq!(manifest.config.port.get(), 8000);
        assert_eq!(manifest.config.env["A"], "1");
        assert_eq!(manifest.exclude, ["*.md"]);
    }

    #[test]
    fn flags_win_over_the_file() {
        let flags = ["--name=hi", "--port=9", "--min-warm=3", "--env=A=2", "--env=B=3"];
        let config = merged(HELLO, &flags).unwrap().config;
        assert_eq!((config.name.as_str(), config.port.get()), ("hi", 9));
        assert_eq!(config.min_warm, Some(3));
        assert_eq!((config.env["A"].as_str(), config.env["B"].as_str()), ("2", "3"));
    }

    #[test]
    fn all_that_a_pool_aims_for_can_be_in_the_file() {
        let text = "name = 'hello'\nstart = 'x'\nmax_warm = 20\nidle_ttl_ms = 5000\n\
                    max_age_ms = 60000\nburst = 2\nrefill_concurrency = 4\nprefetch = 'full'\n\
                    reuse = 'sequential'\nmax_requests = 10\nmemory_budget_mib = 4096\n\
                    [[schedule]]\ndays = ['mon', 'fri']\nfrom = '08:00'\nuntil = '18:00'\n\
                    min_warm = 5\n";
        let patch = merged(text, &["--min-warm=1"]).unwrap().config.pool_patch();
        let expected = serde_json::json!({
            "min_warm": 1, "max_warm": 20, "idle_ttl_ms": 5000, "max_age_ms": 60000, "burst": 2,
            "refill_concurrency": 4, "prefetch": "full", "reuse": "sequential",
            "max_requests": 10, "memory_budget_mib": 4096,
            "schedule": [
                { "days": ["mon", "fri"], "from": "08:00", "until": "18:00", "min_warm": 5 },
            ],
        });
        assert_eq!(serde_json::to_value(patch).unwrap(), expected);
        for (line, part) in [
            ("reuse = 'always'", "always"),
            ("prefetch = 1", "prefetch"),
            ("schedule = [{ from = '8:00', until = '9:00', min_warm = 1 }]", "HH:MM"),
            ("schedule = [{ from = '08:00', until = '09:00', warm = 1 }]", "warm"),
        ] {
            let wrong = merged(&format!("name='a'\nstart='b'\n{line}"), &[]).unwrap_err();
            assert!(wrong.contains(part), "{line}: {wrong}");
        }
    }

    #[test]
    fn versions_and_invocations_can_be_in_the_file_and_flags_win() {
        let text = "name = 'hello'\nstart = 'x'\ntag = 'canary'\npromote = false\n\
                    [invocation]\nqueue_max = 5\nauth = [{ kind = 'key' }]\n\
                    [invocation.async]\nenabled = true\n\
                    [[invocation.cron]]\nname = 'a'\nschedule = '* * * * *'\n";
        let config = merged(text, &[]).unwrap().config;
        assert_eq!((config.tag.unwrap().as_str(), config.promote), ("canary", false));
        let invocation = config.invocation.unwrap();
        assert_eq!((invocation.queue_max, invocation.auth.len()), (5, 1));
        assert!(invocation.asynchronous.enabled && invocation.cron[0].path == "/");
        let config = merged(HELLO, &["--tag=b", "--no-promote"]).unwrap().config;
        assert_eq!((config.tag.unwrap().as_str(), config.promote), ("b", false));
        let config = merged(HELLO, &[]).unwrap().config;
        assert_eq!((config.tag, config.promote, config.invocation), (None, true, None));
        for (line, part) in [("tag = 'A'", "`A`"), ("invocation = { queues = 1 }", "queues")] {
            let wrong = merged(&format!("name='a'\nstart='b'\n{line}"), &[]).unwrap_err();
            assert!(wrong.contains(part), "{line}: {wrong}");
        }
    }

    #[test]
    fn unknown_keys_missing_keys_and_bad_values_are_named() {
        assert!(merged("name='a'\nstart='b'\nprot=1", &[]).unwrap_err().contains("prot"));
        assert!(merged("name='a'", &[]).unwrap_err().contains("start"));
        assert!(merged("name='A b'\nstart='b'", &[]).unwrap_err().contains("A b"));
        assert!(merged("name='a'\nstart='b'\nexclude=1", &[]).unwrap_err().contains("exclude"));
        assert!(merged("name=", &[]).is_err());
    }
}
