//! Plans are read, and refused by the place of what is wrong.

use std::{fs, path::Path};

use loadtest_model::{BadPlan, Fault, Load, Plan, Work};

/// A good plan, of which each test makes one bad value.
const GOOD: &str = r#"
name = "good"
protocols = ["h1", "h2"]
[target]
DIR
[[scenario]]
name = "invoke"
work = { kind = "invoke", function = "hello" }
load = { kind = "closed", concurrency = 4, requests = 10 }
[[scenario]]
name = "pool"
work = { kind = "pool", function = "hello", warm = 2, burst = 4 }
[[scenario]]
name = "open"
work = { kind = "invoke", function = "hello" }
[scenario.load]
kind = "open"
arrivals = { kind = "bursty", rate_per_s = 10, factor = 3, burst_ms = 100, share = 0.25 }
duration_ms = 1000
[[slow_proxy]]
name = "store"
listen = "127.0.0.1:9100"
upstream = "127.0.0.1:9000"
[[chaos]]
at_ms = 100
every_ms = 500
fault = { kind = "slow", proxy = "store", delay_ms = 10, for_ms = 100 }
"#;

/// The good plan with one text in place of another.
fn with(old: &str, new: &str) -> Result<Plan, BadPlan> {
    let good = GOOD.replace("DIR", "wrenn_dir = \"stack\"");
    assert!(old.is_empty() || good.contains(old), "nothing to replace: {old}");
    Plan::from_toml(&good.replacen(old, new, 1))
}

/// A plan of one scenario, for a stack or for an address.
fn one(target: &str, work: &str, load: &str) -> Result<Plan, BadPlan> {
    Plan::from_toml(&format!(
        "name = \"one\"\ntarget = {{ {target} }}\n[[scenario]]\nname = \"s\"\nwork = {{ {work} }}\n{load}\n"
    ))
}

const STACK: &str = "wrenn_dir = \"stack\"";
const LOAD: &str = "load = { kind = \"closed\", concurrency = 1, requests = 1 }";

#[track_caller]
fn assert_refused(found: Result<Plan, BadPlan>, expected: &str) {
    match found {
        Err(BadPlan::Value { at, reason }) => {
            let message = format!("{at}: {reason}");
            assert!(message.starts_with(expected), "{message}\nnot {expected}");
            assert!(reason.contains("; expected "), "{message}");
        }
        other => panic!("{other:?}\nnot {expected}"),
    }
}

#[test]
fn example_plans_are_good_and_can_be_written_again() {
    let mut kinds = Vec::new();
    let plans = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    for entry in fs::read_dir(plans).unwrap() {
        let path = entry.unwrap().path();
        let plan = Plan::from_toml(&fs::read_to_string(&path).unwrap());
        let plan = plan.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let written = toml::to_string(&plan).unwrap();
        assert_eq!(Plan::from_toml(&written).unwrap(), plan, "{written}");
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan, "{json}");
        for scenario in &plan.scenarios {
            kinds.push(scenario.work.kind());
            kinds.extend(scenario.load.as_ref().map(|load| match load {
                Load::Open { .. } => "open",
                Load::Closed { .. } => "closed",
                Load::Staggered { .. } => "staggered",
            }));
        }
        kinds.extend(plan.chaos.iter().map(|chaos| match chaos.fault {
            Fault::Kill { .. } => "kill",
            Fault::Pause { .. } => "pause",
            Fault::DiskFull { .. } => "disk-full",
            Fault::Slow { .. } => "slow",
        }));
    }
    kinds.sort_unstable();
    kinds.dedup();
    let expected = "closed disk-full http invoke kill lifecycle mix open pause pool proxy \
                    scale-from-zero slow sse staggered ws";
    assert_eq!(kinds.join(" "), expected, "an example of each");
}

#[test]
fn absent_values_have_defaults() {
    let plan = one(STACK, "kind = \"invoke\", function = \"hello\"", LOAD).unwrap();
    assert_eq!((plan.rounds, plan.seed, plan.workers, plan.warmup_ms), (1, 1, 1, 0));
    assert_eq!(plan.scenarios[0].timeout_ms, 60_000);
    assert!(
        matches!(&plan.scenarios[0].work, Work::Invoke { path, distinct: true, .. } if path == "/")
    );
}

#[test]
fn what_is_no_plan_is_refused_where_it_stands() {
    for (old, new, part) in [
        ("concurrency = 4", "concurrency = 4, more = 1", "more"),
        ("kind = \"closed\"", "kind = \"close\"", "close"),
        ("[\"h1\", \"h2\"]", "[\"h4\"]", "h4"),
        ("name = \"good\"", "name = ", "line 2"),
    ] {
        let found = with(old, new);
        let Err(BadPlan::Syntax(why)) = &found else { panic!("{found:?}") };
        assert!(why.contains(part), "{why}");
    }
}

#[test]
fn plans_are_refused_by_the_place_of_a_bad_value() {
    for (old, new, expected) in [
        ("name = \"good\"", "name = \"\"", "name: \"\"; expected 1 to 200 characters"),
        ("name = \"good\"", "name = \"a\\nb\"", "name: \"a\\nb\"; expected 1 to 200"),
        ("[\"h1\", \"h2\"]", "[]", "protocols: none; expected at least one"),
        (
            "[\"h1\", \"h2\"]",
            "[\"h2\", \"h1\", \"h2\"]",
            "protocols[2]: h2; expected each only once",
        ),
        ("name = \"good\"", "name = \"good\"\nrounds = 0", "rounds: 0; expected 1 to 100"),
        ("name = \"good\"", "name = \"good\"\nrounds = 101", "rounds: 101; expected 1 to 100"),
        ("name = \"good\"", "name = \"good\"\nworkers = 65", "workers: 65; expected 1 to 64"),
        (
            "name = \"good\"",
            "name = \"good\"\nwarmup_ms = 86400001",
            "warmup_ms: 86400001; expected",
        ),
        (
            "name = \"pool\"",
            "name = \"invoke\"",
            "scenario[1].name: \"invoke\"; expected a name that",
        ),
        (
            "name = \"pool\"",
            "name = \"a/b\"",
            "scenario[1].name: \"a/b\"; expected 1 to 64 letters",
        ),
        ("name = \"pool\"", "name = \"\"", "scenario[1].name: \"\"; expected 1 to 64 letters"),
        (
            "name = \"pool\"",
            "name = \"p\"\ntimeout_ms = 0",
            "scenario[1].timeout_ms: 0; expected 1 to 3600000",
        ),
        (
            "name = \"pool\"",
            "name = \"p\"\nstreams_per_connection = 0",
            "scenario[1].streams_per_connection: 0; expected 1 to 1000",
        ),
    ] {
        assert_refused(with(old, new), expected);
    }
    let empty = "name = \"x\"\nscenario = []\ntarget.wrenn_dir = \"stack\"";
    assert_refused(Plan::from_toml(empty), "scenario: 0; expected 1 to 1000");
}

#[test]
fn loads_are_refused_by_the_place_of_a_bad_value() {
    for (old, new, expected) in [
        (
            "concurrency = 4",
            "concurrency = 0",
            "scenario[0].load.concurrency: 0; expected 1 to 20000",
        ),
        ("concurrency = 4", "concurrency = 20001", "scenario[0].load.concurrency: 20001; expected"),
        ("requests = 10", "requests = 0", "scenario[0].load.requests: 0; expected 1 to"),
        (", requests = 10", "", "scenario[0].load: no end; expected duration_ms or requests"),
        (
            "requests = 10",
            "requests = 10, duration_ms = 10",
            "scenario[0].load: two ends; expected one of",
        ),
        (
            "requests = 10",
            "duration_ms = 0",
            "scenario[0].load.duration_ms: 0; expected 1 to 86400000",
        ),
        (
            "kind = \"closed\", concurrency = 4, requests = 10",
            "kind = \"staggered\", count = 0, delay_ms = 0",
            "scenario[0].load.count: 0; expected 1 to 20000",
        ),
        (
            "kind = \"closed\", concurrency = 4, requests = 10",
            "kind = \"staggered\", count = 20000, delay_ms = 10000",
            "scenario[0].load.delay_ms: 10000; expected 0 to 4320",
        ),
        ("load = {", "timeout_ms = 5 #", "scenario[0].load: none; expected a load, as invoke has"),
        (
            "warm = 2, burst = 4 }",
            &format!("warm = 2, burst = 4 }}\n{LOAD}"),
            "scenario[1].load: a load; expected none, as pool paces itself",
        ),
        (
            "rate_per_s = 10",
            "rate_per_s = -3",
            "scenario[2].load.arrivals.rate_per_s: -3; expected a number above 0 and at most 1000000",
        ),
        (
            "factor = 3",
            "factor = 0.5",
            "scenario[2].load.arrivals.factor: 0.5; expected a number above 1",
        ),
        ("share = 0.25", "share = 0.4", "scenario[2].load.arrivals.share: 0.4; expected at most"),
        (
            "duration_ms = 1000",
            "duration_ms = 86400001",
            "scenario[2].load.duration_ms: 86400001; expected",
        ),
        (
            "duration_ms = 1000",
            "duration_ms = 1000\nmax_in_flight = 0",
            "scenario[2].load.max_in_flight: 0; expected 1 to 20000",
        ),
    ] {
        assert_refused(with(old, new), expected);
    }
}

#[test]
fn disturbances_are_refused_by_the_place_of_a_bad_value() {
    with("", "").unwrap();
    let slow = "kind = \"slow\", proxy = \"store\", delay_ms = 10, for_ms = 100";
    for (old, new, expected) in [
        (
            "proxy = \"store\"",
            "proxy = \"stor\"",
            "chaos[0].fault.proxy: \"stor\"; expected the name of a",
        ),
        ("for_ms = 100", "for_ms = 0", "chaos[0].fault.for_ms: 0; expected 1 to 86400000"),
        ("delay_ms = 10,", "delay_ms = 0,", "chaos[0].fault: nothing slow; expected delay_ms"),
        ("delay_ms = 10,", "bytes_per_s = 0,", "chaos[0].fault.bytes_per_s: 0; expected 1 to"),
        (
            "every_ms = 500",
            "every_ms = 100",
            "chaos[0].every_ms: 100; expected more than its fault's",
        ),
        ("every_ms = 500", "every_ms = 0", "chaos[0].every_ms: 0; expected 1 to"),
        ("at_ms = 100", "at_ms = 86400001", "chaos[0].at_ms: 86400001; expected 0 to"),
        (
            slow,
            "kind = \"kill\", pid_file = \"\"",
            "chaos[0].fault.pid_file: \"\"; expected a path",
        ),
        (
            slow,
            "kind = \"disk-full\", dir = \"d\", leave_kib = 67108865, for_ms = 1",
            "chaos[0].fault.leave_kib: 67108865; expected 0 to 67108864",
        ),
        (
            "127.0.0.1:9100",
            "0.0.0.0:9100",
            "slow_proxy[0].listen: 0.0.0.0:9100; expected an address of",
        ),
        ("127.0.0.1:9000", "127.0.0.1:9100", "slow_proxy[0].upstream: 127.0.0.1:9100; expected"),
        (
            "[[chaos]]",
            "[[slow_proxy]]\nname = \"store\"\nlisten = \"[::1]:1\"\nupstream = \"[::1]:2\"\n[[chaos]]",
            "slow_proxy[1].name: \"store\"; expected a name that no other has",
        ),
        (
            "[[chaos]]",
            "[[slow_proxy]]\nname = \"db\"\nlisten = \"127.0.0.1:9100\"\nupstream = \"[::1]:2\"\n[[chaos]]",
            "slow_proxy[1].listen: 127.0.0.1:9100; expected an address that no other has",
        ),
    ] {
        assert_refused(with(old, new), expected);
    }
}

#[test]
fn targets_are_refused_by_the_place_of_a_bad_value() {
    let url = "target.url: ";
    for (target, expected) in [
        ("", "target: none; expected wrenn_dir or url"),
        ("wrenn_dir = \"s\", url = \"http://h\"", "target: two; expected one of wrenn_dir and url"),
        ("wrenn_dir = \"\"", "target.wrenn_dir: \"\"; expected a path"),
        ("url = \"127.0.0.1:8080\"", url),
        ("url = \"ftp://h\"", url),
        ("url = \"http://\"", url),
        ("url = \"http://:80\"", url),
        ("url = \"http://user:word@h/\"", url),
        ("url = \"http://h/?q\"", url),
        ("url = \"http://h /\"", url),
        ("url = \"http://h\", domain = \"a/b\"", "target.domain: \"a/b\"; expected a host name"),
        ("url = \"http://h\", key_file = \"\"", "target.key_file: \"\"; expected a path"),
        (
            "url = \"http://h\", headers = { \"a b\" = \"c\" }",
            "target.headers.\"a b\": its name; expected",
        ),
        (
            "url = \"http://h\", headers = { a = \"b\\nc\" }",
            "target.headers.\"a\": \"b\\nc\"; expected visible",
        ),
        (
            "url = \"http://h\", headers = { Authorization = \"Bearer x\" }",
            "target.headers.\"Authorization\": a secret; expected none",
        ),
    ] {
        assert_refused(one(target, "kind = \"http\"", LOAD), expected);
    }
    for good in ["http://h", "https://h:8443/base/", "http://[::1]:80"] {
        one(&format!("url = \"{good}\""), "kind = \"http\"", LOAD).unwrap();
    }
}
