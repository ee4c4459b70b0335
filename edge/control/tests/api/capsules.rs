//! Capsules: their life, who sees them, and what becomes of lost ones.

use edge_api::{CreateCapsule, CreateSnapshot, SetTimeout};
use pool_model::{ErrorCode, OnTimeout, Port, SandboxId, SandboxState, TemplateId};

use crate::{agent::only_sandbox, edge::TestEdge};

#[tokio::test]
async fn a_capsule_lives_through_pause_resume_snapshot_and_delete() {
    let edge = TestEdge::start().await;
    let api = edge.client();
    let wish = CreateCapsule {
        template: Some("minimal-debian".to_owned()),
        timeout_s: Some(60),
        on_timeout: OnTimeout::Pause,
        metadata: [("purpose".to_owned(), "test".to_owned())].into(),
        internet: Some(false),
        ..Default::default()
    };
    let made = api.create_capsule(&wish).await.unwrap();
    assert_eq!(made.state, SandboxState::Running);
    assert_eq!(made.template, Some(TemplateId::DEFAULT));
    assert_eq!((made.on_timeout, made.internet), (OnTimeout::Pause, false));
    assert_eq!(made.metadata, wish.metadata);
    let expected = format!("https://8000-{}.wrenn.localhost:8443", made.id.label());
    assert_eq!(made.url(Port::try_from(8000).unwrap()), expected);
    assert_eq!(api.capsules().await.unwrap(), std::slice::from_ref(&made));

    let paused = api.pause(made.id).await.unwrap();
    assert_eq!((paused.state, paused.expires_at), (SandboxState::Paused, None));
    let resumed = api.resume(made.id).await.unwrap();
    assert_eq!(resumed.generation, made.generation.next());
    let extended = api.set_timeout(made.id, &SetTimeout { timeout_s: 7200 }).await.unwrap();
    assert!(extended.expires_at > made.expires_at);

    let name = Some("before".to_owned());
    let snapshot = api.snapshot(made.id, &CreateSnapshot { name }).await.unwrap();
    assert_eq!(api.snapshots().await.unwrap(), std::slice::from_ref(&snapshot));
    let wish = CreateCapsule { snapshot: Some(snapshot.id), ..Default::default() };
    let clone = api.create_capsule(&wish).await.unwrap();
    assert_eq!(clone.snapshot, Some(snapshot.id));

    let held = api.delete_snapshot(snapshot.id).await.unwrap_err();
    assert_eq!(held.code(), Some(ErrorCode::Conflict), "its clone is running on it");
    api.delete_capsule(clone.id).await.unwrap();
    api.delete_snapshot(snapshot.id).await.unwrap();
    let again = api.delete_snapshot(snapshot.id).await.unwrap_err();
    assert_eq!(again.code(), Some(ErrorCode::SnapshotNotFound));
    api.delete_capsule(made.id).await.unwrap();
    let again = api.delete_capsule(made.id).await.unwrap_err();
    assert_eq!(again.code(), Some(ErrorCode::SandboxNotFound));
    assert_eq!(edge.agent.counts(), (0, 0, 0));
}

#[tokio::test]
async fn another_team_sees_nothing_of_it() {
    let edge = TestEdge::start().await;
    let capsule = edge.client().create_capsule(&CreateCapsule::default()).await.unwrap();
    let snapshot = edge.client().snapshot(capsule.id, &CreateSnapshot::default()).await.unwrap();
    let other = edge.other_client();

    assert_eq!(other.capsules().await.unwrap(), []);
    for error in [
        other.capsule(capsule.id).await.unwrap_err(),
        other.pause(capsule.id).await.unwrap_err(),
        other.resume(capsule.id).await.unwrap_err(),
        other.snapshot(capsule.id, &CreateSnapshot::default()).await.unwrap_err(),
        other.set_timeout(capsule.id, &SetTimeout { timeout_s: 1 }).await.unwrap_err(),
        other.delete_capsule(capsule.id).await.unwrap_err(),
    ] {
        assert_eq!(error.code(), Some(ErrorCode::SandboxNotFound), "{error}");
    }
    let wish = CreateCapsule { snapshot: Some(snapshot.id), ..Default::default() };
    let error = other.create_capsule(&wish).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::SnapshotNotFound));
    let error = other.delete_snapshot(snapshot.id).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::SnapshotNotFound));
    assert_eq!(edge.agent.counts(), (1, 1, 0), "untouched");
}

#[tokio::test]
async fn a_capsule_that_cannot_be_made_leaves_no_record() {
    let edge = TestEdge::start().await;
    edge.agent.fail("create_sandbox", ErrorCode::NoCapacity);
    let error = edge.client().create_capsule(&CreateCapsule::default()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NoCapacity));
    edge.agent.heal();
    assert_eq!(edge.client().capsules().await.unwrap(), []);
    assert_eq!(edge.control.reconcile().await.unwrap(), Default::default(), "nothing to do");
}

#[tokio::test]
async fn a_capsule_that_ended_by_itself_is_forgotten_when_asked_for_and_by_the_reconciler() {
    let edge = TestEdge::start().await;
    let first = edge.client().create_capsule(&CreateCapsule::default()).await.unwrap();
    let second = edge.client().create_capsule(&CreateCapsule::default()).await.unwrap();
    assert!(routed(&edge, first.id).await);
    edge.agent.state().sandboxes.clear();

    let error = edge.client().capsule(first.id).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::SandboxNotFound));
    assert!(!routed(&edge, first.id).await, "nor routed to");
    assert!(routed(&edge, second.id).await);
    assert_eq!(edge.control.reconcile().await.unwrap().capsules, 1);
    assert!(!routed(&edge, second.id).await);
}

#[tokio::test]
async fn a_capsule_being_made_is_not_taken_for_a_lost_one() {
    let edge = TestEdge::start().await;
    edge.agent.hang("create_sandbox");
    let client = edge.client();
    let create =
        tokio::spawn(async move { client.create_capsule(&CreateCapsule::default()).await });
    edge.agent.called("create_sandbox").await;
    let id = only_sandbox(&edge.agent);
    let hidden = edge.agent.state().sandboxes.remove(&id.to_string()).unwrap();

    assert_eq!(edge.control.reconcile().await.unwrap().capsules, 0, "its record stays");
    edge.agent.state().sandboxes.insert(id.to_string(), hidden);
    assert_eq!(edge.client().capsule(id).await.unwrap().id, id);
    create.abort();
}

async fn routed(edge: &TestEdge, id: SandboxId) -> bool {
    edge.control.directory().sandbox(id).await.unwrap().is_some()
}
