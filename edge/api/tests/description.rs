//! Whether `openapi.json` describes the pools' types field by field.

#![allow(clippy::unwrap_used, reason = "fixtures may fail loudly")]

use std::collections::BTreeSet;

use edge_api::{
    Drained, PoolEnd, PoolHistogram, PoolInfo, PoolMemory, PoolPatch, PoolPolicy, PoolSample,
    PoolStats, PoolTrouble, Prewarm, RestoreStep, Schedule,
};
use serde::Serialize;
use serde_json::Value;

#[test]
fn types_of_pools_have_the_fields_that_are_described() {
    let (policy, stats) = (whole_policy(), whole_stats());
    check("PoolPolicy", &policy);
    check("PoolPatch", &PoolPatch::whole(policy.clone()));
    check("PoolSchedule", &policy.schedule[0]);
    check("PoolStats", &stats);
    check("PoolMemory", &stats.memory);
    check("PoolRestoreStep", &stats.steps[0]);
    check("PoolHistogram", &stats.restore);
    check("PoolSample", &stats.series[0]);
    let function: edge_api::FunctionName = "hello".parse().unwrap();
    check("PoolInfo", &PoolInfo { function: function.clone(), policy, stats: Some(stats) });
    check("Prewarm", &Prewarm { count: 1 });
    check("Drained", &Drained { drained: 1 });
    check("PoolEnd", &PoolEnd { function });
    check("PoolTrouble", &PoolTrouble { code: String::new(), message: String::new() });
}

#[test]
fn what_is_required_is_always_there_and_defaults_are_the_real_ones() {
    let bare = serde_json::to_value(PoolStats::default()).unwrap();
    for field in schema("PoolStats")["required"].as_array().unwrap() {
        assert!(bare.get(field.as_str().unwrap()).is_some(), "{field}");
    }
    let default = serde_json::to_value(PoolPolicy::default()).unwrap();
    for (field, described) in schema("PoolPolicy")["properties"].as_object().unwrap() {
        assert_eq!(described["default"], default[field], "{field}");
    }
}

#[test]
fn a_deploy_can_say_all_that_a_patch_can_in_the_same_words() {
    let deploy = schema("DeployConfig");
    for (field, described) in schema("PoolPatch")["properties"].as_object().unwrap() {
        assert_eq!(&deploy["properties"][field], described, "{field}");
    }
}

#[test]
fn described_bounds_are_those_of_the_check() {
    for (field, described) in schema("PoolPolicy")["properties"].as_object().unwrap() {
        let Some(maximum) = described["maximum"].as_u64() else { continue };
        let refused = |value: u64| {
            let mut json = serde_json::to_value(PoolPolicy::default()).unwrap();
            json["max_warm"] = 1000.into();
            json["reuse"] = "sequential".into();
            json[field] = value.into();
            serde_json::from_value::<PoolPolicy>(json).unwrap().check().is_err()
        };
        assert!(!refused(maximum) && refused(maximum + 1), "{field}: {maximum}");
        let minimum = described["minimum"].as_u64().unwrap();
        assert!(field == "max_warm" || !refused(minimum), "{field}: {minimum}");
        assert!(minimum == 0 || refused(minimum - 1), "{field}: {minimum}");
    }
}

fn check<T: Serialize>(name: &str, value: &T) {
    let value = serde_json::to_value(value).unwrap();
    let has: BTreeSet<&String> = value.as_object().unwrap().keys().collect();
    let schema = schema(name);
    let described: BTreeSet<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(has, described, "{name}");
}

fn schema(name: &str) -> Value {
    let description: Value = serde_json::from_str(edge_api::OPENAPI).unwrap();
    description["components"]["schemas"][name].clone()
}

fn whole_policy() -> PoolPolicy {
    let text = r#"[{"days":["mon"],"from":"08:00","until":"18:00","min_warm":1}]"#;
    let schedule: Vec<Schedule> = serde_json::from_str(text).unwrap();
    PoolPolicy { schedule, ..PoolPolicy::default() }
}

/// Numbers with nothing left out.
fn whole_stats() -> PoolStats {
    let sample = r#"{"at":"2026-11-26T00:00:00Z","warm":1,"restoring":0,"leased":0,"target":1,
                     "hits":0,"misses":0,"refused":0}"#;
    let sample: PoolSample = serde_json::from_str(sample).unwrap();
    PoolStats {
        last_error: Some("why".to_owned()),
        memory: Some(PoolMemory::default()),
        steps: vec![RestoreStep::default()],
        lease_wait: Some(PoolHistogram::default()),
        restore: Some(PoolHistogram::default()),
        series: vec![sample],
        ..PoolStats::default()
    }
}
