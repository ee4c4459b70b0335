//! What a screen shows while a test runs.

use loadtest_model::{Protocol, Summary};

use super::*;

fn progress() -> Progress {
    Progress {
        part: 2,
        parts: 6,
        scenario: "invoke".to_owned(),
        protocol: Some(Protocol::H2),
        phase: Phase::Measuring,
        elapsed_s: 31.0,
        length_s: Some(60.0),
        rate: 198.3,
        asked_rate: Some(200.0),
        succeeded: 6132,
        failed: 3,
        worst_error: Some("timeout".to_owned()),
        in_flight: 12,
        latency: Summary {
            count: 198,
            p50_ms: 4.12,
            p90_ms: 7.4,
            p99_ms: 21.3,
            max_ms: 48.0,
            ..Summary::default()
        },
        pool: Some(PoolLevel { warm: 6, restoring: 2, leased: 4 }),
        disturbance: Some("killed the agent".to_owned()),
    }
}

/// Without colours and movements.
fn bare(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            let _ = chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            out.push(c);
        }
    }
    out
}

#[test]
fn a_terminal_shows_everything_that_matters() {
    let shown = bare(&Live::for_terminal(100).show(&progress()));
    for wanted in [
        "invoke over HTTP/2",
        "part 2 of 6",
        "measuring",
        "31 s of 60 s",
        "198/s of 200/s asked",
        "p50 4.12 ms",
        "p99 21.3 ms",
        "12 in flight",
        "3 failed (0.049 %), mostly timeout",
        "restoring ████░░░░░░░░ 2",
        "killed the agent",
    ] {
        assert!(shown.contains(wanted), "{wanted} in\n{shown}");
    }
}

#[test]
fn each_moment_replaces_the_one_before() {
    let mut live = Live::for_terminal(80);
    assert!(!live.show(&progress()).contains("\x1b[J"), "nothing is there to be removed");
    let lines = live.show(&Progress::default()).matches("\x1b[7A\r\x1b[J").count();
    assert_eq!(lines, 1, "seven lines were drawn before");
    assert!(live.show(&progress()).starts_with("\x1b[5A\r\x1b[J"));
    assert_eq!(live.clear(), "\x1b[7A\r\x1b[J");
    assert_eq!(live.clear(), "");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let wide = Progress {
        scenario: "sehr lang ".repeat(30),
        worst_error: Some("漢字".repeat(90)),
        disturbance: Some("x\x1b[2J\n".repeat(90)),
        ..progress()
    };
    for width in [0, 21, 40, 80, 300] {
        let mut live = Live::for_terminal(width);
        let shown = live.show(&wide);
        assert!(!shown.contains("\x1b[2J"), "a target can't clear the screen");
        let shown = bare(&shown);
        assert_eq!(shown.lines().count(), 7, "{shown}");
        for line in shown.lines() {
            assert!(line.chars().count() < width.max(WIDTH_MIN + 1), "{width}: {line}");
            assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        }
    }
}

#[test]
fn a_log_gets_one_line_without_escapes() {
    let mut live = Live::plain();
    for progress in [progress(), Progress::default()] {
        let shown = live.show(&progress);
        assert_eq!(shown.matches('\n').count(), 1, "{shown}");
        assert!(!shown.contains('\x1b'));
    }
    let bad = Progress { disturbance: Some("a\nb\x1b[2J".to_owned()), ..progress() };
    assert!(live.show(&bad).ends_with("disturbed: a b [2J\n"));
}

#[test]
fn figures_that_are_none_are_not_shown() {
    let odd = Progress {
        elapsed_s: f64::NAN,
        length_s: Some(0.0),
        rate: f64::INFINITY,
        ..Progress::default()
    };
    for mut live in [Live::for_terminal(80), Live::plain()] {
        let shown = live.show(&odd);
        assert!(!shown.contains("NaN") && !shown.contains("inf"), "{shown}");
    }
}
