//! Commands in capsules, followed line by line.

use agent_api::v1::{self, __buffa::oneof::exec_event::Event};
use edge_api::{CreateCapsule, ExecEvent, ExecRequest};
use pool_model::{ErrorCode, SandboxId};

use crate::edge::TestEdge;

#[tokio::test]
async fn output_comes_whole_and_in_order_whatever_its_bytes() {
    let edge = TestEdge::start().await;
    let capsule = edge.client().create_capsule(&CreateCapsule::default()).await.unwrap();
    let exited = v1::exec_event::Exited { code: 3, ..Default::default() };
    edge.agent.state().output = vec![
        Event::Stdout(b"hello\n".to_vec()),
        Event::Stderr(vec![0xff, 0x00, 0x80]),
        exited.into(),
    ];
    let request = ExecRequest {
        cmd: Some("./run".to_owned()),
        stdin: Some("in".to_owned()),
        ..Default::default()
    };
    let mut events = edge.client().exec(capsule.id, &request).await.unwrap();
    assert_eq!(events.next().await.unwrap(), Some(ExecEvent::Start { pid: 42 }));
    let Some(ExecEvent::Stdout(out)) = events.next().await.unwrap() else { panic!() };
    assert_eq!(out.data, "hello\n", "readable as it is");
    let Some(ExecEvent::Stderr(err)) = events.next().await.unwrap() else { panic!() };
    assert_eq!(err.into_bytes().unwrap(), [0xff, 0x00, 0x80]);
    let end = Some(ExecEvent::Exit { code: 3, signal: None });
    assert_eq!(events.next().await.unwrap(), end);
    assert_eq!(events.next().await.unwrap(), None);

    let asked = edge.agent.state().execs[0].clone();
    assert_eq!((asked.command.as_str(), asked.stdin.as_slice()), ("./run", &b"in"[..]));
    assert_eq!(asked.timeout_ms, 60_000);
}

#[tokio::test]
async fn a_command_in_the_background_answers_with_its_pid_only() {
    let edge = TestEdge::start().await;
    let capsule = edge.client().create_capsule(&CreateCapsule::default()).await.unwrap();
    let request = ExecRequest {
        args: Some(vec!["sleep".to_owned(), "1000".to_owned()]),
        background: true,
        ..Default::default()
    };
    let mut events = edge.client().exec(capsule.id, &request).await.unwrap();
    assert_eq!(events.next().await.unwrap(), Some(ExecEvent::Start { pid: 42 }));
    assert_eq!(events.next().await.unwrap(), None);
    assert_eq!(edge.agent.state().execs[0].timeout_ms, 0, "as long as the capsule");
}

#[tokio::test]
async fn what_cannot_start_is_an_error_and_no_stream() {
    let edge = TestEdge::start().await;
    let request = ExecRequest { cmd: Some("true".to_owned()), ..Default::default() };
    let nobody = SandboxId::from_u128(1);
    let error = edge.client().exec(nobody, &request).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::SandboxNotFound));

    let capsule = edge.client().create_capsule(&CreateCapsule::default()).await.unwrap();
    edge.agent.fail("exec", ErrorCode::GuestUnresponsive);
    let error = edge.client().exec(capsule.id, &request).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::GuestUnresponsive));
}
