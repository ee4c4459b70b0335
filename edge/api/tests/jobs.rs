//! Whether `openapi.json` describes invocations that nobody waits for, and schedules.

#![allow(clippy::unwrap_used, reason = "fixtures may fail loudly")]

use std::collections::BTreeSet;

use edge_api::{CronStatus, INVOCATIONS_DEFAULT, INVOCATIONS_MAX, Invocation};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

const AT: &str = "2026-11-27T00:00:00Z";

#[test]
fn types_of_jobs_have_the_fields_that_are_described() {
    let result = json!({ "headers": [["a", "b"]], "body": "AA==", "truncated": false });
    let webhook = json!({ "state": "failed", "attempts": 5, "error": "why" });
    fields("InvocationResult", &result);
    fields("WebhookStatus", &webhook);
    let job = json!({
        "id": "inv_0000000000000000000000000", "function": "hello", "tag": "beta",
        "source": "async", "state": "dead", "method": "POST", "path": "/", "attempts": 3,
        "attempts_max": 3, "next_attempt_at": AT, "status": 500, "error": "why",
        "result": result, "webhook": webhook, "created_at": AT, "started_at": AT,
        "finished_at": AT, "expires_at": AT,
    });
    check::<Invocation>("Invocation", &job);
    let cron = json!({
        "name": "a", "schedule": "* * * * *", "timezone": "UTC", "next_at": AT, "last_at": AT,
    });
    check::<CronStatus>("CronStatus", &cron);
}

#[test]
fn what_is_required_is_what_is_always_there() {
    let job = json!({
        "id": "inv_0000000000000000000000000", "function": "hello", "source": "cron",
        "state": "queued", "method": "POST", "path": "/", "attempts": 0, "attempts_max": 3,
        "created_at": AT,
    });
    required::<Invocation>("Invocation", &job);
    let cron = json!({ "name": "a", "schedule": "* * * * *", "timezone": "UTC" });
    required::<CronStatus>("CronStatus", &cron);
}

#[test]
fn the_described_limits_are_the_real_ones() {
    let description: Value = serde_json::from_str(edge_api::OPENAPI).unwrap();
    let list = &description["paths"]["/v1/functions/{name}/invocations"]["get"];
    let parameters = list["parameters"].as_array().unwrap();
    let limit = parameters.iter().find(|parameter| parameter["name"] == "limit").unwrap();
    assert_eq!(limit["schema"]["maximum"], INVOCATIONS_MAX);
    assert_eq!(limit["schema"]["default"], INVOCATIONS_DEFAULT);
}

fn schema(name: &str) -> Value {
    let description: Value = serde_json::from_str(edge_api::OPENAPI).unwrap();
    description["components"]["schemas"][name].clone()
}

/// Reads `json` and writes it again: the type has these fields, which are the described ones.
fn check<T: DeserializeOwned + Serialize>(name: &str, json: &Value) {
    let whole: T = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(&serde_json::to_value(whole).unwrap(), json, "{name}");
    fields(name, json);
}

fn fields(name: &str, json: &Value) {
    let has: BTreeSet<&String> = json.as_object().unwrap().keys().collect();
    let schema = schema(name);
    let described: BTreeSet<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(has, described, "{name}");
}

fn required<T: DeserializeOwned + Serialize>(name: &str, bare: &Value) {
    let read: T = serde_json::from_value(bare.clone()).unwrap();
    let has = serde_json::to_value(read).unwrap();
    let has: BTreeSet<&str> = has.as_object().unwrap().keys().map(String::as_str).collect();
    let schema = schema(name);
    let required = schema["required"].as_array().unwrap();
    let required: BTreeSet<&str> = required.iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(has, required, "{name}");
}
