//! Ready-made plans are what they say, at every scale.

use loadtest_model::{
    Arrivals, Budgets, Load, Plan, TargetPlan, Work,
    preset::{BadPreset, all, preset},
};

fn stack() -> TargetPlan {
    TargetPlan { wrenn_dir: Some("stack".into()), ..TargetPlan::default() }
}

#[test]
fn every_preset_makes_a_good_plan_and_good_budgets() {
    for (name, about) in all() {
        for scale in [0.001, 0.1, 1.0, 3.0] {
            let preset = preset(name, scale, "hello").unwrap();
            assert_eq!((preset.name, preset.about), (*name, *about));
            let plan = preset.plan(stack());
            plan.check().unwrap_or_else(|error| panic!("{name} at {scale}: {error}"));
            assert_eq!(Plan::from_toml(&toml::to_string(&plan).unwrap()).unwrap(), plan);
            if !preset.budgets.all.is_empty() {
                let written = toml::to_string(&preset.budgets).unwrap();
                assert_eq!(Budgets::from_toml(&written).unwrap(), preset.budgets);
            }
        }
    }
}

#[test]
fn budgets_are_about_parts_that_there_are() {
    for (name, _) in all() {
        let preset = preset(name, 1.0, "hello").unwrap();
        for budget in &preset.budgets.all {
            let scenario = budget.part.trim_end_matches("/*");
            let known = preset.scenarios.iter().any(|known| known.name == scenario);
            assert!(known || budget.part == "*", "{name}: {}", budget.part);
        }
    }
}

#[test]
fn published_gates_hold_for_the_published_load_only() {
    for (name, count) in [
        ("knative-dataplane-probe", 2),
        ("knative-load-test", 4),
        ("knative-scale-from-zero-25", 3),
        ("computesdk-burst", 0),
    ] {
        assert_eq!(preset(name, 1.0, "hello").unwrap().budgets.all.len(), count, "{name}");
        assert_eq!(preset(name, 0.5, "hello").unwrap().budgets.all.len(), 0, "{name}");
    }
}

#[test]
fn scale_multiplies_rates_and_leaves_durations() {
    let at = |scale| {
        let preset = preset("knative-dataplane-probe", scale, "hello").unwrap();
        match &preset.scenarios[0].load {
            Some(Load::Open {
                arrivals: Arrivals::Constant { rate_per_s }, duration_ms, ..
            }) => (*rate_per_s, *duration_ms),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(at(1.0), (1000.0, 300_000));
    assert_eq!(at(0.02), (20.0, 300_000));
    assert_eq!(at(0.000_1), (1.0, 300_000));
    assert_eq!(at(2.0), (2000.0, 300_000));
}

#[test]
fn scale_multiplies_counts() {
    let count = |name: &str, scale| {
        let scenario = preset(name, scale, "hello").unwrap().scenarios.remove(0);
        match (scenario.load, scenario.work) {
            (Some(Load::Closed { requests: Some(requests), .. }), _) => requests,
            (Some(Load::Staggered { count, .. }), _) => u64::from(count),
            (None, Work::ScaleFromZero { functions, .. }) => functions.len() as u64,
            other => panic!("{other:?}"),
        }
    };
    for name in ["computesdk-sequential", "computesdk-staggered", "computesdk-burst"] {
        assert_eq!([1.0, 0.1, 0.001].map(|scale| count(name, scale)), [100, 10, 1], "{name}");
    }
    assert_eq!([1.0, 0.2, 0.01].map(|s| count("knative-scale-from-zero-25", s)), [25, 5, 1]);
}

#[test]
fn functions_are_numbered_if_there_are_several() {
    let functions = |name| match preset(name, 1.0, "shop").unwrap().scenarios.remove(0).work {
        Work::ScaleFromZero { functions, .. } => functions,
        other => panic!("{other:?}"),
    };
    assert_eq!(functions("knative-scale-from-zero-1"), ["shop"]);
    let five = ["shop-1", "shop-2", "shop-3", "shop-4", "shop-5"];
    assert_eq!(functions("knative-scale-from-zero-5"), five);
}

#[test]
fn the_command_can_be_another() {
    let preset = preset("computesdk-burst", 1.0, "hello").unwrap();
    let command = |preset: &loadtest_model::preset::Preset| match &preset.scenarios[0].work {
        Work::Lifecycle { command, file_bytes: 0, pause: false, .. } => command.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(command(&preset), "python3 --version");
    assert_eq!(command(&preset.with_command("node -v")), "node -v");
}

#[test]
fn what_is_no_preset_is_refused() {
    let error = preset("smokes", 1.0, "hello").unwrap_err().to_string();
    assert!(error.starts_with("`smokes` is no preset; expected one of knative-"), "{error}");
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY, 1001.0] {
        let refused = preset("smoke", scale, "hello");
        assert!(matches!(refused, Err(BadPreset::Scale(_))), "{scale}");
    }
}
