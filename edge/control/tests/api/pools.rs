//! Pools: every setting reaches the agent and the record, every number comes back, and what can't be
//! is refused before anything changes.

use agent_api::v1;
use edge_api::{Breaker, PoolPatch, PoolPolicy, Prefetch, Reuse};
use http::{Method, StatusCode};
use pool_model::ErrorCode;
use serde_json::{Value, json};

use crate::edge::{TestEdge, code, hello};

#[tokio::test]
async fn every_setting_reaches_the_agent_and_survives_a_restart() {
    let mut edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    let body = json!({
        "min_warm": 1, "max_warm": 20, "idle_ttl_ms": 5000, "max_age_ms": 60000, "burst": 3,
        "refill_concurrency": 4, "prefetch": "full", "reuse": "sequential", "max_requests": 10,
        "memory_budget_mib": 2048,
        "schedule": [{ "days": ["mon", "sun"], "from": "08:00", "until": "18:30", "min_warm": 5 }],
    });
    let (status, answer) = edge.call(Method::PATCH, "/v1/pools/hello", &body.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    for (field, value) in body.as_object().unwrap() {
        assert_eq!(&answer[field], value, "{field}");
    }
    {
        let state = edge.agent.state();
        let policy = state.pools[&function.id.to_string()].policy.clone().into_option().unwrap();
        let schedule = policy.schedule[0].clone();
        let numbers = (policy.max_age_ms, policy.burst, policy.refill_concurrency);
        assert_eq!(numbers, (60_000, 3, 4));
        assert_eq!((policy.prefetch.as_str(), policy.reuse.as_str()), ("full", "sequential"));
        assert_eq!((policy.max_requests, policy.memory_budget_mib), (10, 2048));
        assert_eq!(policy.lease_max_ms, function.timeout_ms + 60_000);
        assert_eq!(schedule.days, ["mon", "sun"]);
        assert_eq!((schedule.from.as_str(), schedule.until.as_str()), ("08:00", "18:30"));
        assert_eq!(schedule.min_warm, 5);
    }
    // One field later the others are as they were, after a restart too.
    edge.kill().await;
    edge.restart();
    let patch = PoolPatch { burst: Some(0), schedule: Some(Vec::new()), ..Default::default() };
    let pool = edge.client().patch_pool(&function.name, &patch).await.unwrap();
    assert_eq!((pool.policy.burst, pool.policy.schedule.len()), (0, 0));
    assert_eq!((pool.policy.max_requests, pool.policy.prefetch), (10, Prefetch::Full));
    edge.control.reconcile().await.unwrap();
    let state = edge.agent.state();
    let synced = state.pools[&function.id.to_string()].policy.clone().into_option().unwrap();
    assert_eq!((synced.max_requests, synced.schedule.len()), (10, 0), "the reconciler says it too");
}

#[tokio::test]
async fn what_can_not_be_names_its_field_and_range_and_changes_nothing() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    let times: Vec<_> =
        (0..33).map(|_| json!({ "from": "01:00", "until": "02:00", "min_warm": 0 })).collect();
    let night = json!({ "from": "22:00", "until": "06:00", "min_warm": 9 });
    for (body, field, part) in [
        (json!({ "max_warm": 0 }), "max_warm", "1 to 1000"),
        (json!({ "min_warm": 9 }), "min_warm", "over max_warm 8"),
        (json!({ "idle_ttl_ms": 999 }), "idle_ttl_ms", "1000 to 86400000"),
        (json!({ "max_age_ms": 1 }), "max_age_ms", "1000 to 2592000000"),
        (json!({ "burst": 1001 }), "burst", "0 to 1000"),
        (json!({ "refill_concurrency": 257 }), "refill_concurrency", "0 to 256"),
        (json!({ "max_requests": 2 }), "max_requests", "sequential"),
        (json!({ "reuse": "sequential", "max_requests": 0 }), "max_requests", "1 to 1000000"),
        (json!({ "memory_budget_mib": (1_u64 << 30) + 1 }), "memory_budget_mib", "0 to"),
        (json!({ "schedule": times }), "schedule", "0 to 32"),
        (json!({ "schedule": [night] }), "schedule", "over max_warm"),
        (json!({ "schedule": [{ "from": "8:00" }] }), "schedule[0].from", "HH:MM"),
        (json!({ "reuse": "always" }), "reuse", "sequential"),
        (json!({ "prefetch": "some" }), "prefetch", "working_set"),
        (json!({ "min": 1 }), "min", "unknown field"),
    ] {
        let error = edge.refusal(Method::PATCH, "/v1/pools/hello", &body.to_string()).await;
        assert_eq!(error.code, "invalid_argument", "{body}");
        assert!(error.message.contains(&format!("`{field}`")), "{body}: {error:?}");
        assert!(error.message.contains(part), "{body}: {error:?}");
    }
    let pool = edge.client().pool(&function.name).await.unwrap();
    assert_eq!(pool.policy, PoolPolicy { min_warm: 2, ..PoolPolicy::default() });
}

#[tokio::test]
async fn the_agents_refusal_for_memory_comes_through_and_leaves_the_record() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    edge.agent.fail("set_pool", ErrorCode::OverBudget);
    let error = edge.refusal(Method::PATCH, "/v1/pools/hello", r#"{"min_warm":8}"#).await;
    assert_eq!(error.code, "over_budget");
    assert_eq!(error.message, "set_pool is told to fail", "the agent's own words");
    assert_eq!(edge.client().pool(&function.name).await.unwrap().policy.min_warm, 2);
    let mut config = hello();
    config.min_warm = Some(8);
    let error = edge.client().deploy(&config, &code()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::OverBudget), "{error}");
    assert_eq!(edge.client().function(&function.name).await.unwrap(), function);
}

#[tokio::test]
async fn a_deploy_tunes_its_pool_and_a_bad_one_is_not_built() {
    let edge = TestEdge::start().await;
    let mut config = hello();
    (config.reuse, config.max_requests) = (Some(Reuse::Sequential), Some(5));
    config.prefetch = Some(Prefetch::None);
    config.schedule =
        Some(serde_json::from_str(r#"[{"from":"08:00","until":"09:00","min_warm":12}]"#).unwrap());
    let function = edge.client().deploy(&config, &code()).await.unwrap();
    assert_eq!((function.pool.reuse, function.pool.max_requests), (Reuse::Sequential, 5));
    assert_eq!(function.pool.max_warm, 12, "room for the busiest time");
    // The next version keeps what it doesn't say, and is checked over that.
    let mut again = hello();
    again.max_requests = Some(7);
    let second = edge.client().deploy(&again, &code()).await.unwrap();
    assert_eq!((second.pool.max_requests, second.pool.prefetch), (7, Prefetch::None));
    assert_eq!(second.pool.schedule, function.pool.schedule);

    let built = edge.agent.state().created.len();
    let mut bad = hello();
    bad.max_warm = Some(11);
    let error = edge.client().deploy(&bad, &code()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InvalidArgument), "{error}");
    assert!(error.to_string().contains("`schedule`"), "{error}");
    let mut reserved = hello();
    reserved.name = "events".parse().unwrap();
    let error = edge.client().deploy(&reserved, &code()).await.unwrap_err();
    assert!(error.to_string().contains("reserved"), "{error}");
    assert_eq!(edge.agent.state().created.len(), built, "no machine was booted");
}

#[tokio::test]
async fn every_number_is_told_and_a_listing_is_brief() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    let stats = edge.client().pool(&function.name).await.unwrap().stats.unwrap();
    assert_eq!((stats.hit_rate, stats.breaker), (None, Breaker::Unknown), "no lease was seen yet");
    let histogram = v1::PoolHistogram {
        upper_us: vec![100, 1000],
        counts: vec![6, 2, 1],
        count: 9,
        sum_us: 5_000,
        ..Default::default()
    };
    edge.agent.state().stats = v1::PoolStats {
        hits: 9,
        misses: 3,
        target: 4,
        cap: 6,
        reused: 2,
        reaped_age: 1,
        evicted: 5,
        breaker: "open".into(),
        retry_in_ms: 800,
        lease_wait: histogram.clone().into(),
        restore: histogram.into(),
        steps: vec![v1::PoolRestoreStep {
            name: "vmm".into(),
            count: 3,
            p50_us: 1_500,
            p99_us: 9_000,
            ..Default::default()
        }],
        memory: v1::PoolMemory { promised_bytes: 1 << 30, base_bytes: 7, ..Default::default() }
            .into(),
        series: vec![v1::PoolSample { at_ms: 1_500, hits: 2, ..Default::default() }],
        sandbox_memory_mib: 256,
        ..Default::default()
    };
    let (_, whole) = edge.call(Method::GET, "/v1/pools/hello", "").await;
    let stats = serde_json::from_slice::<Value>(&whole).unwrap()["stats"].clone();
    assert_eq!((&stats["hit_rate"], &stats["breaker"]), (&json!(0.75), &json!("open")));
    assert_eq!(
        (&stats["target"], &stats["cap"], &stats["evicted"]),
        (&json!(4), &json!(6), &json!(5))
    );
    assert_eq!((&stats["reused"], &stats["reaped_age"]), (&json!(2), &json!(1)));
    assert_eq!(stats["lease_wait"]["counts"], json!([6, 2, 1]));
    assert_eq!(stats["restore"]["sum_us"], 5_000);
    let step = json!([{ "name": "vmm", "count": 3, "p50_ms": 1.5, "p99_ms": 9.0 }]);
    assert_eq!(stats["steps"], step);
    assert_eq!(stats["memory"]["promised_bytes"], 1 << 30);
    assert_eq!(stats["series"][0]["at"], "1970-01-01T00:00:01.5Z");
    assert_eq!((&stats["retry_in_ms"], &stats["sandbox_memory_mib"]), (&json!(800), &json!(256)));

    let (_, brief) = edge.call(Method::GET, "/v1/pools", "").await;
    let brief = serde_json::from_slice::<Value>(&brief).unwrap()["items"][0]["stats"].clone();
    for left_out in ["lease_wait", "restore", "series"] {
        assert!(brief.get(left_out).is_none(), "{left_out}");
    }
    assert_eq!((&brief["steps"], &brief["hit_rate"]), (&step, &json!(0.75)));
}

#[tokio::test]
async fn pools_are_warmed_and_drained_when_asked() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    let pool = edge.client().prewarm_pool(&function.name, 8).await.unwrap();
    assert_eq!((&pool.function, pool.stats.unwrap().warm), (&function.name, 2));
    {
        let state = edge.agent.state();
        let asked = &state.prewarmed[0];
        assert_eq!((&asked.function_id, asked.count), (&function.id.to_string(), 8));
    }
    assert_eq!(edge.client().drain_pool(&function.name).await.unwrap(), 2);
    assert_eq!(edge.client().drain_pool(&function.name).await.unwrap(), 0, "none is left");

    let (prewarm, drain) = ("/v1/pools/hello/prewarm", "/v1/pools/hello/drain");
    for (path, body, code, part) in [
        (prewarm, r#"{"count":0}"#, "invalid_argument", "1 to 8"),
        (prewarm, r#"{"count":9}"#, "invalid_argument", "`max_warm`"),
        (prewarm, "{}", "invalid_argument", "count"),
        (prewarm, r#"{"count":1,"wait":true}"#, "invalid_argument", "wait"),
        ("/v1/pools/none/prewarm", r#"{"count":1}"#, "function_not_found", "`none`"),
        ("/v1/pools/none/drain", "", "function_not_found", "`none`"),
    ] {
        let error = edge.refusal(Method::POST, path, body).await;
        assert_eq!(error.code, code, "{path} {body}");
        assert!(error.message.contains(part), "{path} {body}: {error:?}");
    }
    let unseen = edge.other_client().drain_pool(&function.name).await.unwrap_err();
    assert_eq!(unseen.code(), Some(ErrorCode::FunctionNotFound));
    edge.agent.fail("prewarm_pool", ErrorCode::OverBudget);
    assert_eq!(edge.refusal(Method::POST, prewarm, r#"{"count":1}"#).await.code, "over_budget");
    edge.agent.state().pools.clear();
    assert_eq!(edge.refusal(Method::POST, drain, "").await.code, "conflict", "not there yet");
    assert_eq!(edge.agent.state().prewarmed.len(), 1, "nothing else was asked for");
}
