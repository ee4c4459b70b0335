//! Whole lives, and what goes wrong in the middle of one.

use std::time::Duration;

use bytes::Bytes;

use super::{
    PATIENCE, access, guest, kind, life, lives, message, nonce,
    plane::{Call, Flaw, KEY, Plane},
    steps,
};
use crate::lifecycle::{Life, content, dialect};

/// Everything, in its order.
const STEPS: [&str; 12] = [
    "create",
    "exec",
    "interactive",
    "write",
    "read",
    "remember",
    "pause",
    "resume",
    "exec_after",
    "read_after",
    "kill",
    "",
];

#[tokio::test]
async fn whole_life_is_timed_step_by_step() {
    let plane = Plane::start(Flaw::None).await;
    let lives = lives(plane.address, KEY);
    let outcome = lives.live(&life(), &nonce("whole")).await;
    assert_eq!(outcome.failure, None);
    assert_eq!(steps(&outcome), STEPS[..11]);
    let of = |name| outcome.timings[STEPS.iter().position(|step| *step == name).unwrap()].1;
    assert_eq!(of("interactive"), of("create") + of("exec"));
    let checks: Vec<_> =
        outcome.checks.iter().map(|(name, wrong)| (*name, wrong.is_none())).collect();
    let good = ["command", "file", "memory", "file", "killed"].map(|name| (name, true));
    assert_eq!(checks, good);
    assert_eq!(outcome.bytes_sent, 100_000);
    assert!(outcome.bytes_received >= 200_006, "{}", outcome.bytes_received);
    assert_eq!(outcome.connections, 10);
    assert_eq!((plane.created(), plane.ids().await.len()), (1, 0));
    let left = lives.settle(PATIENCE).await;
    assert_eq!((left.orphans_total, left.unfinished), (0, 0), "{left:?}");
}

#[tokio::test]
async fn short_life_leaves_out_what_it_was_told_to() {
    let plane = Plane::start(Flaw::None).await;
    let life = Life { file_bytes: 0, pause: false, ..life() };
    let outcome = lives(plane.address, KEY).live(&life, &nonce("short")).await;
    assert_eq!(outcome.failure, None);
    assert_eq!(steps(&outcome), ["create", "exec", "interactive", "kill"]);
}

#[tokio::test]
async fn api_from_before_the_second_version_is_found_by_itself() {
    let plane = Plane::start(Flaw::Old).await;
    let lives = lives(plane.address, KEY);
    for number in 0..2 {
        let outcome = lives.live(&life(), &nonce(&format!("old-{number}"))).await;
        assert_eq!(outcome.failure, None);
    }
    assert!(plane.ids().await.is_empty());
}

#[tokio::test]
async fn pause_that_loses_memory_or_disk_is_told() {
    for (flaw, wanted) in [(Flaw::ColdBoot, "check_memory"), (Flaw::LosesFiles, "status_404")] {
        let plane = Plane::start(flaw).await;
        let outcome = lives(plane.address, KEY).live(&life(), &nonce(wanted)).await;
        assert_eq!(kind(&outcome), wanted, "{}", message(&outcome));
        assert!(message(&outcome).starts_with("sandbox i"), "{}", message(&outcome));
        assert_eq!(outcome.checks.last(), Some(&("killed", None)));
        assert!(plane.ids().await.is_empty());
    }
}

#[tokio::test]
async fn changed_file_is_told() {
    let plane = Plane::start(Flaw::ChangesFiles).await;
    let outcome = lives(plane.address, KEY).live(&life(), &nonce("changed")).await;
    assert_eq!(kind(&outcome), "check_file", "{}", message(&outcome));
    assert!(message(&outcome).contains("bytes instead of 100000"), "{}", message(&outcome));
}

#[tokio::test]
async fn command_that_fails_is_told_with_what_it_said() {
    let plane = Plane::start(Flaw::None).await;
    let life = Life { command: "echo no >&2; exit 3".to_owned(), ..life() };
    let outcome = lives(plane.address, KEY).live(&life, &nonce("exit")).await;
    assert_eq!(kind(&outcome), "check_command");
    assert!(message(&outcome).ends_with("ended with 3 instead of 0: no"), "{}", message(&outcome));
    assert!(plane.ids().await.is_empty());
}

#[tokio::test]
async fn input_reaches_a_command_that_writes_meanwhile() {
    let plane = Plane::start(Flaw::None).await;
    let api = dialect(access(plane.address, KEY));
    let sandbox = api.create(None, &nonce("input"), PATIENCE).await.unwrap();
    let input = content::file("input", 3 << 20);
    let end = api.exec(&sandbox, "cat", Some(input.clone())).await.unwrap();
    assert_eq!(end.code, 0);
    assert_eq!(content::difference(&input, &end.stdout), None);
    // One that doesn't want it all ends all the same.
    let end = api.exec(&sandbox, "head -c 1", Some(Bytes::from("x".repeat(1000)))).await.unwrap();
    assert_eq!((end.code, &end.stdout[..]), (0, &b"x"[..]));
    api.kill(&sandbox).await.unwrap();
}

#[tokio::test]
async fn life_past_its_deadline_is_killed() {
    let plane = Plane::start(Flaw::None).await;
    let lives = lives(plane.address, KEY);
    let timeout = Duration::from_secs(3);
    let life = Life { command: "sleep 600".to_owned(), timeout, ..life() };
    let outcome = lives.live(&life, &nonce("late")).await;
    assert_eq!(kind(&outcome), "timeout", "{}", message(&outcome));
    let left = lives.settle(PATIENCE).await;
    assert_eq!((left.orphans_total, left.unfinished), (0, 0), "{left:?}");
    assert_eq!(plane.ids().await, [""; 0]);
}

#[tokio::test]
async fn life_that_nobody_waits_for_is_killed() {
    let plane = Plane::start(Flaw::None).await;
    let lives = lives(plane.address, KEY);
    let life = Life { command: "sleep 600".to_owned(), ..life() };
    let nonce = nonce("dropped");
    let running = async {
        loop {
            if let [id] = &plane.ids().await[..]
                && !guest::processes_of(id).is_empty()
            {
                return id.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let id = tokio::select! {
        outcome = lives.live(&life, &nonce) => panic!("{outcome:?}"),
        id = running => id,
    };
    let left = lives.settle(PATIENCE).await;
    assert_eq!((left.orphans_total, left.unfinished), (0, 0), "{left:?}");
    assert_eq!(plane.ids().await, [""; 0]);
    assert!(guest::processes_of(&id).is_empty());
}

#[tokio::test]
async fn sandbox_that_is_only_just_being_made_is_killed_too() {
    let plane = Plane::start(Flaw::None).await;
    let lives = lives(plane.address, KEY);
    let (life, nonce) = (life(), nonce("unborn"));
    let created = async {
        while plane.created() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        outcome = lives.live(&life, &nonce) => panic!("{outcome:?}"),
        () = created => {}
    }
    let left = lives.settle(PATIENCE).await;
    assert_eq!((left.orphans_total, left.unfinished), (0, 0), "{left:?}");
    assert_eq!((plane.created(), plane.ids().await.len()), (1, 0));
}

#[tokio::test]
async fn create_whose_answer_is_lost_leaves_nothing() {
    let plane = Plane::start(Flaw::Hangs(Call::Create)).await;
    let lives = lives(plane.address, KEY);
    // Its create goes on for 30 s more; then its sandbox is looked for.
    let life = Life { timeout: Duration::from_secs(1), ..life() };
    let outcome = lives.live(&life, &nonce("unanswered")).await;
    assert_eq!(kind(&outcome), "timeout");
    assert_eq!(plane.created(), 1);
    let left = lives.settle(PATIENCE).await;
    assert_eq!((left.orphans_total, left.unfinished), (0, 0), "{left:?}");
    assert_eq!(plane.ids().await, [""; 0]);
}

#[tokio::test]
async fn failed_kill_is_a_failure_and_is_tried_again() {
    let flaw = Flaw::Answers(Call::Kill, 500, "{\"code\":500,\"message\":\"no\"}", 2);
    let plane = Plane::start(flaw).await;
    let lives = lives(plane.address, KEY);
    let life = Life { pause: false, ..life() };
    let outcome = lives.live(&life, &nonce("again")).await;
    assert_eq!(kind(&outcome), "status_500");
    assert!(message(&outcome).ends_with("kill: refused with status 500: no"), "{outcome:?}");
    assert!(matches!(outcome.checks.last(), Some(("killed", Some(_)))));
    let left = lives.settle(PATIENCE).await;
    assert_eq!(left.orphans_total, 0, "{left:?}");
    assert_eq!(plane.ids().await, [""; 0]);
}

#[tokio::test]
async fn sandbox_that_can_not_be_killed_is_named() {
    let flaw = Flaw::Answers(Call::Kill, 503, "busy", u32::MAX);
    let plane = Plane::start(flaw).await;
    let lives = lives(plane.address, KEY);
    let life = Life { pause: false, file_bytes: 0, ..life() };
    let outcome = lives.live(&life, &nonce("immortal")).await;
    assert_eq!(kind(&outcome), "status_503");
    let left = lives.settle(PATIENCE).await;
    let id = plane.ids().await.remove(0);
    assert_eq!((left.orphans_total, left.unfinished), (1, 0));
    assert!(left.orphans[0].contains(&id), "{left:?}");
    // It is told once.
    assert_eq!(lives.settle(PATIENCE).await.orphans_total, 0);
}
