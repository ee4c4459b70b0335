//! The binary's contract with who runs it: what it refuses, and how it says so.

use std::process::{Command, Output};

#[test]
fn without_a_command_nothing_is_built() {
    let output = images(&[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("wrenn-images build"), "{output:?}");
}

#[test]
fn unknown_flags_are_refused_before_anything_is_made() {
    let output = images(&["build", "--no-such-flag", "1"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("no-such-flag"), "{output:?}");
}

#[test]
fn a_missing_envd_is_named_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let root = dir.path().join("wrenn").display().to_string();
    let output = images(&["build", "--wrenn-dir", &root, "--envd", "/no/such/envd"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/no/such/envd"), "{output:?}");
    assert!(!dir.path().join("wrenn").exists());
}

fn images(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wrenn-images"));
    command.args(arguments).output().expect("the binary runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
