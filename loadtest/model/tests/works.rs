//! Works are refused by the place of what is wrong, or of what the target doesn't have.

use loadtest_model::{BadPlan, Plan};

const STACK: &str = "wrenn_dir = \"stack\"";
const URL: &str = "url = \"http://127.0.0.1:8080\"";
const WITH_KEY: &str = "url = \"http://127.0.0.1:8080\", key_file = \"key\"";

/// A plan of one scenario.
fn plan(target: &str, work: &str) -> Result<Plan, BadPlan> {
    let paced = work.contains("kind = \"pool\"") || work.contains("kind = \"scale-from-zero\"");
    // In a mix they are refused for being there.
    let load = if paced && !work.contains("kind = \"mix\"") {
        ""
    } else {
        "load = { kind = \"closed\", concurrency = 1, requests = 1 }"
    };
    Plan::from_toml(&format!(
        "name = \"one\"\ntarget = {{ {target} }}\n\
         [[scenario]]\nname = \"s\"\nwork = {{ {work} }}\n{load}\n"
    ))
}

#[track_caller]
fn assert_refused(found: Result<Plan, BadPlan>, expected: &str) {
    match found {
        Err(BadPlan::Value { at, reason }) => {
            let message = format!("{at}: {reason}");
            let expected = format!("scenario[0].work{expected}");
            assert!(message.starts_with(&expected), "{message}\nnot {expected}");
            assert!(reason.contains("; expected "), "{message}");
        }
        other => panic!("{other:?}\nnot {expected}"),
    }
}

#[test]
fn works_are_refused_by_the_place_of_a_bad_value() {
    for (work, expected) in [
        ("kind = \"http\", path = \"x\"", ".path: \"x\"; expected a path that begins with `/`"),
        ("kind = \"http\", path = \"/a b\"", ".path: \"/a b\"; expected"),
        ("kind = \"http\", path = \"/#a\"", ".path: \"/#a\"; expected"),
        ("kind = \"http\", method = \"GE T\"", ".method: \"GE T\"; expected an HTTP method"),
        ("kind = \"http\", method = \"\"", ".method: \"\"; expected an HTTP method"),
        ("kind = \"http\", method = \"CONNECT\"", ".method: \"CONNECT\"; expected an HTTP method"),
        (
            "kind = \"http\", body_bytes = 1073741825",
            ".body_bytes: 1073741825; expected 0 to 1073741824",
        ),
        ("kind = \"http\", expect_status = 600", ".expect_status: 600; expected 200 to 599"),
        (
            "kind = \"http\", expect_sha256 = \"ab\"",
            ".expect_sha256: \"ab\"; expected 64 hexadecimal",
        ),
        ("kind = \"http\", expect_text = \"\"", ".expect_text: \"\"; expected a text"),
        (
            "kind = \"invoke\", function = \"Hello\"",
            ".function: \"Hello\"; expected 1 to 63 of a-z",
        ),
        ("kind = \"invoke\", function = \"\"", ".function: \"\"; expected 1 to 63 of a-z"),
        ("kind = \"invoke\", function = \"-a\"", ".function: \"-a\"; expected"),
        ("kind = \"invoke\", function = \"a--b\"", ".function: \"a--b\"; expected"),
        ("kind = \"invoke\", function = \"a\", path = \"\"", ".path: \"\"; expected"),
        ("kind = \"proxy\", response_bytes = 1073741825", ".response_bytes: 1073741825; expected"),
        ("kind = \"proxy\", request_bytes = 1073741825", ".request_bytes: 1073741825; expected"),
        ("kind = \"proxy\", sandboxes = 0", ".sandboxes: 0; expected 1 to 1000"),
        ("kind = \"ws\", path = \"ws\"", ".path: \"ws\"; expected"),
        ("kind = \"ws\", path = \"/\", messages = 0", ".messages: 0; expected 1 to 1000000"),
        ("kind = \"ws\", path = \"/\", function = \"A\"", ".function: \"A\"; expected"),
        (
            "kind = \"sse\", path = \"/\", delay_ms = 3600001",
            ".delay_ms: 3600001; expected 0 to 3600000",
        ),
        (
            "kind = \"ws\", path = \"/\", message_bytes = 1073741825",
            ".message_bytes: 1073741825; expected",
        ),
        ("kind = \"lifecycle\", command = \" \"", ".command: \" \"; expected a command"),
        ("kind = \"lifecycle\", template = \"\"", ".template: \"\"; expected a template"),
        ("kind = \"lifecycle\", file_bytes = 1073741825", ".file_bytes: 1073741825; expected"),
        ("kind = \"pool\", function = \"a\", warm = 0, burst = 1", ".warm: 0; expected 1 to 10000"),
        (
            "kind = \"pool\", function = \"a\", warm = 1, burst = 0",
            ".burst: 0; expected 1 to 20000",
        ),
        ("kind = \"pool\", function = \"A\", warm = 1, burst = 1", ".function: \"A\"; expected"),
        (
            "kind = \"pool\", function = \"a\", warm = 1, burst = 1, rounds = 101",
            ".rounds: 101; expected",
        ),
        ("kind = \"scale-from-zero\", functions = []", ".functions: 0; expected 1 to 1000"),
        (
            "kind = \"scale-from-zero\", functions = [\"a\", \"B\"]",
            ".functions[1]: \"B\"; expected",
        ),
        (
            "kind = \"scale-from-zero\", functions = [\"a\", \"a\"]",
            ".functions[1]: \"a\"; expected each",
        ),
        (
            "kind = \"scale-from-zero\", functions = [\"a\"], rounds = 0",
            ".rounds: 0; expected 1 to 100",
        ),
    ] {
        assert_refused(plan(STACK, work), expected);
    }
}

#[test]
fn mixes_are_refused_by_the_place_of_a_bad_share() {
    assert_refused(plan(STACK, "kind = \"mix\", of = []"), ".of: 0; expected 1 to 100");
    for (share, expected) in [
        ("weight = 0, work = { kind = \"proxy\" }", ".weight: 0; expected a number above 0"),
        ("weight = nan, work = { kind = \"proxy\" }", ".weight: NaN; expected a number above 0"),
        (
            "weight = 1, work = { kind = \"mix\", of = [] }",
            ".work: mix; expected a work that is one",
        ),
        (
            "weight = 1, work = { kind = \"pool\", function = \"a\", warm = 1, burst = 1 }",
            ".work: pool; expected a work that is one",
        ),
        (
            "weight = 1, work = { kind = \"scale-from-zero\", functions = [\"a\"] }",
            ".work: scale-from-zero; expected a work that is one",
        ),
        (
            "weight = 1, work = { kind = \"http\", path = \"\" }",
            ".work.path: \"\"; expected a path",
        ),
    ] {
        let good = "{ weight = 1, work = { kind = \"http\" } }";
        let work = format!("kind = \"mix\", of = [{good}, {{ {share} }}]");
        assert_refused(plan(STACK, &work), &format!(".of[1]{expected}"));
    }
}

#[test]
fn what_needs_a_stack_is_not_asked_of_an_address() {
    let stack = " without a stack; expected target.wrenn_dir";
    for (kind, work) in [
        ("invoke", "kind = \"invoke\", function = \"a\""),
        ("proxy", "kind = \"proxy\""),
        ("pool", "kind = \"pool\", function = \"a\", warm = 1, burst = 1"),
        ("scale-from-zero", "kind = \"scale-from-zero\", functions = [\"a\"]"),
        ("ws", "kind = \"ws\", function = \"a\", path = \"/\""),
        ("sse", "kind = \"sse\", function = \"a\", path = \"/\""),
    ] {
        plan(STACK, work).unwrap();
        assert_refused(plan(URL, work), &format!(": {kind}{stack}"));
    }
    let mix = "kind = \"mix\", of = [{ weight = 1, work = { kind = \"proxy\" } }]";
    assert_refused(plan(URL, mix), &format!(".of[0].work: proxy{stack}"));
    for work in ["kind = \"http\"", "kind = \"ws\", path = \"/\"", "kind = \"sse\", path = \"/\""] {
        plan(URL, work).unwrap();
    }
}

#[test]
fn sandboxes_of_an_address_need_a_key() {
    let without = ": lifecycle without a key; expected target.key_file beside target.url";
    assert_refused(plan(URL, "kind = \"lifecycle\""), without);
    plan(WITH_KEY, "kind = \"lifecycle\"").unwrap();
    plan(STACK, "kind = \"lifecycle\"").unwrap();
    plan(URL, "kind = \"lifecycle\", dialect = \"e2b\"").unwrap();
}
