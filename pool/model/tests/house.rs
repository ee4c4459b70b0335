//! The rules of the house that no compiler checks: who may know whom, where `unsafe` lives, how
//! long a file is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// What each crate may depend on among ours (ARCHITECTURE.md). A crate that isn't listed has to be
/// added here first, with a reason that reads well in review.
const MAY_KNOW: &[(&str, &[&str])] = &[
    (
        "agent",
        &[
            "agent-api",
            "agent-slot",
            "agent-vmm",
            "envd-api",
            "pool",
            "pool-config",
            "pool-model",
            "pool-pager",
            "pool-remote",
            "pool-store",
        ],
    ),
    ("agent-api", &["pool-model"]),
    ("agent-slot", &["pool-model"]),
    ("agent-vmm", &["pool-model"]),
    (
        "edge",
        &[
            "agent-api",
            "edge-api",
            "edge-control",
            "edge-jobs",
            "edge-policy",
            "edge-proxy",
            "edge-quic",
            "edge-store",
            "edge-telemetry",
            "edge-tls",
            "pool-config",
            "pool-model",
        ],
    ),
    ("edge-api", &["pool-model"]),
    ("edge-cli", &["edge-api", "pool-config", "pool-model"]),
    (
        "edge-control",
        &["agent-api", "edge-api", "edge-jobs", "edge-policy", "edge-store", "pool-model"],
    ),
    ("edge-fields", &[]),
    ("edge-http1", &[]),
    ("edge-http2", &["edge-fields"]),
    ("edge-http3", &["edge-fields"]),
    ("edge-jobs", &["edge-policy", "edge-store", "pool-model"]),
    ("edge-policy", &["pool-model"]),
    (
        "edge-proxy",
        &[
            "edge-http1",
            "edge-http2",
            "edge-http3",
            "edge-policy",
            "edge-quic",
            "edge-telemetry",
            "edge-tls",
            "pool-model",
        ],
    ),
    ("edge-quic", &[]),
    ("edge-store", &["pool-model"]),
    ("edge-telemetry", &["pool-model"]),
    ("edge-testing", &[]),
    ("edge-tls", &[]),
    ("envd", &["envd-api", "pool-model"]),
    ("envd-api", &["pool-model"]),
    ("guest-init", &[]),
    ("images", &["pool-config", "pool-model"]),
    (
        "loadtest",
        &[
            "edge-api",
            "loadtest-chaos",
            "loadtest-model",
            "loadtest-report",
            "loadtest-server",
            "loadtest-wire",
            "pool-model",
        ],
    ),
    ("loadtest-chaos", &["loadtest-model"]),
    ("loadtest-model", &[]),
    ("loadtest-report", &["loadtest-model"]),
    ("loadtest-server", &[]),
    ("loadtest-wire", &["loadtest-model"]),
    ("pool", &["pool-model", "pool-store"]),
    ("pool-config", &["pool-model"]),
    ("pool-model", &[]),
    ("pool-pager", &["pool-config", "pool-model", "pool-remote", "pool-store"]),
    ("pool-remote", &["pool-model", "pool-store"]),
    ("pool-sim", &["pool"]),
    ("pool-store", &["pool-model"]),
    ("qemu-uffd", &[]),
];

/// What only these crates may use of the ecosystem.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("cargo_metadata", &["pool-model"]),
    ("clap", &["edge-cli", "envd", "loadtest", "pool-config", "pool-sim"]),
    ("object_store", &["pool-remote"]),
    (
        "quinn",
        &["edge-cli", "edge-http3", "edge-proxy", "edge-quic", "loadtest-server", "loadtest-wire"],
    ),
    ("sqlx", &["edge-store"]),
];

/// What these crates may not use: the words and the pool's logic are free of I/O.
const NEVER_IN: &[(&str, &[&str])] = &[
    ("pool-model", &["hyper", "libc", "nix", "tokio"]),
    ("pool", &["hyper", "libc", "nix", "quinn", "sqlx"]),
    ("edge-api", &["axum", "sqlx"]),
    ("loadtest-model", &["hyper", "libc", "nix", "tokio"]),
];

/// The modules that may hold `unsafe`, each with its argument at the top.
const UNSAFE_MODULES: &[&str] = &[
    "agent/slot/src/sys.rs",
    "agent/slot/tests/support/tap.rs",
    "agent/src/sys.rs",
    "agent/vmm/examples/capture_bench.rs",
    "agent/vmm/qemu-uffd/src/preload.rs",
    "agent/vmm/src/sys/mod.rs",
    "agent/vmm/src/sys/pagemap.rs",
    "agent/vmm/tests/machines/tap.rs",
    "envd/src/sys.rs",
    "images/init/src/sys.rs",
    "pool/pager/src/sys.rs",
];

/// What may lie at the top, hidden files aside.
const TOP: &[&str] = &[
    "ARCHITECTURE.md",
    "BENCHMARKS.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "agent",
    "clippy.toml",
    "deny.toml",
    "edge",
    "envd",
    "images",
    "loadtest",
    "migrations",
    "pool",
    "rustfmt.toml",
    "target",
];

/// Most lines of a file, its tests included.
const FILE_LINES_MAX: usize = 400;

/// Most lines of a `lib.rs`: docs, modules and re-exports.
const LIB_LINES_MAX: usize = 120;

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let members: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let table: BTreeMap<&str, &[&str]> = MAY_KNOW.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let Some(allowed) = table.get(package.name.as_str()) else {
            wrong.push(format!("{} is not in the table", package.name));
            continue;
        };
        // Tests may drive a neighbour's real parts.
        let linked = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        for dependency in linked.filter(|d| members.contains(d.name.as_str())) {
            if !allowed.contains(&dependency.name.as_str()) {
                wrong.push(format!("{} may not know {}", package.name, dependency.name));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn crates_of_the_ecosystem_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for package in &metadata().packages {
        let name = package.name.as_str();
        for dependency in &package.dependencies {
            let used = dependency.name.as_str();
            if ONLY_IN.iter().any(|(only, homes)| *only == used && !homes.contains(&name)) {
                wrong.push(format!("{name} may not use {used}"));
            }
            let linked = dependency.kind == DependencyKind::Normal;
            if linked && NEVER_IN.iter().any(|(c, never)| *c == name && never.contains(&used)) {
                wrong.push(format!("{name} may never use {used}"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_crate_has_the_lints_and_the_license_of_the_workspace() {
    let mut wrong = Vec::new();
    for package in &metadata().packages {
        let manifest = fs::read_to_string(&package.manifest_path).unwrap();
        for line in ["[lints]\nworkspace = true", "license.workspace = true"] {
            if !manifest.contains(line) {
                wrong.push(format!("{} lacks `{}`", package.manifest_path, line.escape_debug()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn unsafe_lives_in_its_named_modules() {
    // The workspace denies `unsafe_code`; only a module that allows it can hold any.
    let attribute = ["allow(", "unsafe_code"].concat();
    let wrong = sources().into_iter().filter(|(path, text)| {
        text.contains(&attribute) && !UNSAFE_MODULES.contains(&path.as_str())
    });
    assert_none(&wrong.map(|(path, _)| path).collect::<Vec<_>>());
}

#[test]
fn files_answer_one_question_and_say_which() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        let max = if path.ends_with("src/lib.rs") { LIB_LINES_MAX } else { FILE_LINES_MAX };
        if lines > max {
            wrong.push(format!("{path} has {lines} lines, {max} are allowed"));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{path} does not start with its module doc"));
        }
    }
    assert_none(&wrong);
}

#[test]
fn nothing_is_left_for_later_without_an_issue() {
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    let macros =
        [["todo", "!("].concat(), ["unimplemented", "!("].concat(), ["dbg", "!("].concat()];
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (number, line) in (1..).zip(text.lines()) {
            let unnumbered = |mark: &String| {
                line.split_once(mark.as_str()).is_some_and(|(_, rest)| !rest.starts_with("(#"))
            };
            let in_comment = line.trim_start().starts_with("//");
            let called = macros.iter().any(|name| line.contains(name.as_str()));
            if (in_comment && marks.iter().any(unnumbered)) || called {
                wrong.push(format!("{path}:{number}: {}", line.trim()));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn top_of_the_tree_holds_what_is_listed() {
    let names = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let wrong: Vec<String> =
        names.filter(|name| !name.starts_with('.') && !TOP.contains(&name.as_str())).collect();
    assert_none(&wrong);
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap_or_default()
}

fn metadata() -> Metadata {
    let mut command = MetadataCommand::new();
    command.no_deps().manifest_path(root().join("Cargo.toml"));
    command.other_options(["--offline".to_owned()]).exec().expect("cargo knows its workspace")
}

/// Every Rust file of ours, by its path from the top.
fn sources() -> Vec<(String, String)> {
    let top = root();
    let mut found = Vec::new();
    let mut open = vec![top.clone()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("the tree is readable").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let hidden = name.as_encoded_bytes().starts_with(b".");
            if path.is_dir() && !path.is_symlink() && !hidden && name != "target" {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                let below = path.strip_prefix(&top).expect("it was found below the top");
                found.push((below.display().to_string(), text));
            }
        }
    }
    assert!(found.len() > 50, "only {} files found in {}", found.len(), top.display());
    found
}
