//! Whether `openapi.json` describes versions, invocations, traffic and domains field by field.

#![allow(clippy::unwrap_used, reason = "fixtures may fail loudly")]

use std::collections::BTreeSet;

use edge_api::{
    AddDomain, Capsule, CreateCapsule, DeployConfig, Domain, Function, FunctionTag,
    FunctionVersion, InvocationPolicy, Promote, SetTag, Sign, SignedUrl, TagWeight, TrafficPolicy,
    TxtRecord,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

fn schema(name: &str) -> Value {
    let description: Value = serde_json::from_str(edge_api::OPENAPI).unwrap();
    description["components"]["schemas"][name].clone()
}

/// Reads `json`, which leaves nothing out, and holds its fields against the description.
fn check<T: DeserializeOwned + Serialize>(name: &str, json: Value) {
    let whole: T = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(whole).unwrap(), json, "{name}");
    fields(&schema(name), name, &json);
}

fn fields(schema: &Value, name: &str, json: &Value) {
    let has: BTreeSet<&String> = json.as_object().unwrap().keys().collect();
    let described: BTreeSet<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(has, described, "{name}");
}

const ID: &str = "0000000000000000000000000";
const AT: &str = "2026-11-27T00:00:00Z";

fn whole_policy() -> Value {
    json!({
        "concurrency_max": 1, "host_concurrency_max": 1, "queue_max": 1, "queue_timeout_ms": 1,
        "request_bytes_max": 1, "response_bytes_max": 1,
        "rate": { "per_second": 1, "burst": 2 }, "client_rate": { "per_second": 1, "burst": 2 },
        "allow_ips": ["10.0.0.0/8"], "deny_ips": ["::/0"],
        "auth": [{ "kind": "key" }, { "kind": "signed_url" }, {
            "kind": "jwt", "jwks_url": "https://a.example/keys", "jwks": null, "issuer": "a",
            "audience": ["b"], "leeway_s": 1,
        }],
        "cors": {
            "origins": ["*"], "methods": ["PUT"], "headers": ["x-a"], "expose_headers": ["x-b"],
            "credentials": false, "max_age_s": 1,
        },
        "app_protocol": "h2c",
        "async": {
            "enabled": true, "pending_max": 1, "attempts_max": 1, "backoff_ms": 1,
            "result_ttl_s": 60, "webhook": "https://a.example/",
        },
        "cron": [{
            "name": "a", "schedule": "* * * * *", "timezone": "Europe/Berlin", "method": "GET",
            "path": "/", "headers": { "x-a": "b" }, "body": "c",
        }],
    })
}

fn whole_traffic() -> Value {
    json!({
        "private": true, "private_ports": [1], "rate": { "per_second": 1, "burst": 2 },
        "allow_ips": ["10.0.0.0/8"], "deny_ips": [], "h2c_ports": [2],
    })
}

#[test]
fn policies_have_the_fields_that_are_described() {
    let policy = whole_policy();
    serde_json::from_value::<InvocationPolicy>(policy.clone()).unwrap().check().unwrap();
    check::<InvocationPolicy>("InvocationPolicy", policy.clone());
    check::<TrafficPolicy>("TrafficPolicy", whole_traffic());
    fields(&schema("Rate"), "Rate", &policy["rate"]);
    fields(&schema("Cors"), "Cors", &policy["cors"]);
    fields(&schema("AsyncPolicy"), "AsyncPolicy", &policy["async"]);
    fields(&schema("Cron"), "Cron", &policy["cron"][0]);
    for (number, way) in policy["auth"].as_array().unwrap().iter().enumerate() {
        fields(&schema("Auth")["oneOf"][number], "Auth", way);
    }
}

#[test]
fn described_defaults_are_the_real_ones() {
    let default = serde_json::to_value(InvocationPolicy::default()).unwrap();
    for (name, real) in [
        ("InvocationPolicy", default.clone()),
        ("AsyncPolicy", default["async"].clone()),
        ("TrafficPolicy", serde_json::to_value(TrafficPolicy::default()).unwrap()),
    ] {
        for (field, described) in schema(name)["properties"].as_object().unwrap() {
            if described.get("$ref").is_none() {
                assert_eq!(described.get("default"), real.get(field), "{name}: {field}");
            }
        }
    }
}

#[test]
fn described_bounds_are_those_of_the_check() {
    let refused = |policy: Value| {
        serde_json::from_value::<InvocationPolicy>(policy).unwrap().check().is_err()
    };
    for (name, inside) in [("InvocationPolicy", ""), ("AsyncPolicy", "async"), ("Cors", "cors")] {
        for (field, described) in schema(name)["properties"].as_object().unwrap() {
            let bounds = (described["minimum"].as_u64(), described["maximum"].as_u64());
            let (Some(low), Some(high)) = bounds else { continue };
            let with = |value: u64| {
                let mut policy = whole_policy();
                let at = if inside.is_empty() { &mut policy } else { &mut policy[inside] };
                at[field] = value.into();
                policy
            };
            assert!(!refused(with(low)) && !refused(with(high)), "{name}: {field}");
            assert!(low == 0 || refused(with(low - 1)), "{name}: {field}");
            assert!(high >= u32::MAX.into() || refused(with(high + 1)), "{name}: {field}");
        }
    }
}

#[test]
fn versions_and_domains_have_the_fields_that_are_described() {
    let tag = json!({ "tag": "a", "version": 1, "weight": 2, "url": "https://a/" });
    check::<FunctionTag>("FunctionTag", tag);
    check::<FunctionVersion>(
        "FunctionVersion",
        json!({
            "version": 1, "current": true, "tags": ["a"], "template": format!("tpl_{ID}"),
            "snapshot": format!("snap_{ID}"), "port": 1, "start": "x", "ready_path": "/",
            "timeout_ms": 1, "internet": true, "created_at": AT,
        }),
    );
    check::<SetTag>("SetTag", json!({ "version": 1 }));
    check::<Promote>("Promote", json!({ "version": 1, "tag": "a" }));
    check::<TagWeight>("TagWeight", json!({ "tag": "a", "weight": 1 }));
    check::<Sign>("Sign", json!({ "method": "GET", "path": "/", "expires_s": 1 }));
    check::<SignedUrl>("SignedUrl", json!({ "url": "https://a/", "expires_at": AT }));
    check::<AddDomain>("AddDomain", json!({ "domain": "a.example" }));
    let record = json!({ "name": "a", "value": "b" });
    check::<TxtRecord>("TxtRecord", record.clone());
    check::<Domain>(
        "Domain",
        json!({
            "domain": "a.example", "function": "hello", "verified_at": AT, "record": record,
            "created_at": AT,
        }),
    );
}

#[test]
fn what_was_added_to_older_types_is_described() {
    for (name, field) in [
        ("Function", "tags"),
        ("DeployConfig", "tag"),
        ("DeployConfig", "promote"),
        ("DeployConfig", "invocation"),
        ("Capsule", "traffic"),
        ("Capsule", "traffic_token"),
        ("CreateCapsule", "traffic"),
    ] {
        assert!(schema(name)["properties"].get(field).is_some(), "{name}: {field}");
    }
    // An older edge's answers are read all the same.
    let capsule = json!({
        "id": format!("sb_{ID}"), "state": "running", "created_at": AT, "on_timeout": "kill",
        "internet": true, "metadata": {}, "generation": 1, "memory_mib": 1, "url_pattern": "x",
    });
    let capsule: Capsule = serde_json::from_value(capsule).unwrap();
    assert_eq!((capsule.traffic, capsule.traffic_token), (TrafficPolicy::default(), None));
    let function = json!({
        "id": format!("fn_{ID}"), "name": "a", "version": 1, "template": format!("tpl_{ID}"),
        "snapshot": format!("snap_{ID}"), "port": 1, "start": "x", "ready_path": "/",
        "timeout_ms": 1, "created_at": AT, "updated_at": AT, "url": "x", "pool": {},
    });
    assert_eq!(serde_json::from_value::<Function>(function).unwrap().tags, []);
    // And what a plain request says, an older edge understands.
    let deploy = DeployConfig::new("hello".parse().unwrap(), "./run");
    let deploy = serde_json::to_value(deploy).unwrap();
    assert!(deploy.get("promote").is_none() && deploy.get("tag").is_none(), "{deploy}");
    let create = serde_json::to_value(CreateCapsule::default()).unwrap();
    assert!(create.get("traffic").is_none(), "{create}");
}
