//! Does the running edge go on serving, and its successor give up cleanly, when a hand-over goes wrong?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_quic::Elder;
use edge_quic::handover::{Handover, HandoverError, Named, Parcel, TakeError, WireError, take};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

const PATIENCE: Duration = Duration::from_secs(30);

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("handover.sock");
    (directory, path)
}

fn parcel() -> Parcel {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let elder = Elder { generation: 6, sockets: vec!["/nowhere/6-0".into()] };
    Parcel {
        generation: 7,
        tcp: vec![Named { name: "https".into(), worker: 0, socket: tcp }],
        udp: vec![Named { name: "h3".into(), worker: 1, socket: udp }],
        pid_lock: None,
        secrets: vec![0, 1, 254, 255],
        elders: vec![elder],
    }
}

fn frame(text: &str) -> Vec<u8> {
    let mut frame = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[tokio::test]
async fn everything_in_the_parcel_arrives_and_both_sides_agree() {
    let (_directory, path) = place();
    let mut handover = Handover::listen(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let lock_path = path.with_extension("pid");
    let lock = File::create(&lock_path).unwrap();
    lock.try_lock().unwrap();
    let mut given = parcel();
    given.pid_lock = Some(lock.into());
    let ports =
        (given.tcp[0].socket.local_addr().unwrap(), given.udp[0].socket.local_addr().unwrap());
    let giving = async {
        let committed = handover.next().await.give(given).await.unwrap();
        committed.released().await.unwrap();
    };
    let taking = async {
        let taken = take(&path, PATIENCE).await.unwrap();
        taken.ready.ready().await.unwrap();
        taken.parcel
    };
    let ((), got) = tokio::join!(giving, taking);
    assert_eq!((got.generation, got.next_generation()), (7, 8));
    assert_eq!(got.secrets, [0, 1, 254, 255]);
    assert_eq!((got.elders[0].generation, got.elders.len()), (6, 1));
    assert_eq!((got.tcp[0].name.as_str(), got.udp[0].worker), ("https", 1));
    assert_eq!(got.tcp[0].socket.local_addr().unwrap(), ports.0);
    assert_eq!(got.udp[0].socket.local_addr().unwrap(), ports.1);
    let mut client = std::net::TcpStream::connect(ports.0).unwrap();
    got.tcp[0].socket.accept().unwrap().0.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    // The giver's copy of the lock is closed, ours still holds it.
    assert!(File::open(&lock_path).unwrap().try_lock().is_err());
    drop(got);
    File::open(&lock_path).unwrap().try_lock().unwrap();
}

#[tokio::test]
async fn nobody_there_is_told_from_somebody_who_does_not_answer() {
    let (_directory, path) = place();
    assert!(matches!(take(&path, PATIENCE).await, Err(TakeError::NobodyThere)));
    let silent = UnixListener::bind(&path).unwrap();
    let answer = take(&path, Duration::from_millis(50)).await;
    assert!(matches!(answer, Err(TakeError::TooLate)), "{answer:?}");
    drop(silent);
    assert!(path.exists());
    assert!(matches!(take(&path, PATIENCE).await, Err(TakeError::NobodyThere)));
}

#[tokio::test]
async fn bad_callers_are_sent_away_and_the_next_one_is_served() {
    let (_directory, path) = place();
    let mut handover = Handover::listen(&path).unwrap();
    let callers = tokio::task::spawn_blocking({
        let path = path.clone();
        move || {
            let call = |bytes: &[u8]| {
                let mut stream = UnixStream::connect(&path).unwrap();
                stream.write_all(bytes).unwrap();
                stream
            };
            drop(call(&frame(r#"{"kind":"hel"#)[..6]));
            let read_all = |mut stream: UnixStream| {
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer);
                answer
            };
            assert_eq!(read_all(call(&frame("nonsense"))), "");
            assert_eq!(read_all(call(&[0xff; 64])), "");
            assert_eq!(read_all(call(&frame(r#"{"kind":"ready"}"#))), "");
            let refused = read_all(call(&frame(r#"{"kind":"hello","speaks":[99]}"#)));
            assert!(refused.contains("refused"), "{refused}");
            // This one says nothing; it is sent away after a while.
            assert_eq!(read_all(call(b"")), "");
        }
    });
    let served = tokio::spawn(async move { handover.next().await.give(parcel()).await });
    callers.await.unwrap();
    let taken = take(&path, PATIENCE).await.unwrap();
    drop(taken);
    let given = served.await.unwrap();
    assert!(matches!(given, Err(HandoverError::Wire(WireError::Closed))), "{given:?}");
}

#[tokio::test]
async fn a_successor_that_never_gets_ready_is_given_up_and_must_not_serve() {
    let (_directory, path) = place();
    let mut handover = Handover::listen(&path).unwrap();
    let giving = async {
        let offer = handover.next().await.ready_within(Duration::from_millis(50));
        offer.give(parcel()).await
    };
    let (given, taken) = tokio::join!(giving, take(&path, PATIENCE));
    assert!(matches!(given, Err(HandoverError::TooLate(_))), "{given:?}");
    // Too late to be ready now: it hears that nobody waits for it.
    let ready = taken.unwrap().ready.ready().await;
    assert!(matches!(ready, Err(TakeError::Wire(WireError::Closed))), "{ready:?}");
}

#[tokio::test]
async fn a_committed_edge_that_goes_away_without_release_is_an_error() {
    let (_directory, path) = place();
    let mut handover = Handover::listen(&path).unwrap();
    let giving = async { drop(handover.next().await.give(parcel()).await.unwrap()) };
    let taking = async { take(&path, PATIENCE).await.unwrap().ready.ready().await };
    let ((), ready) = tokio::join!(giving, taking);
    assert!(matches!(ready, Err(TakeError::Wire(WireError::Closed))), "{ready:?}");
}

#[tokio::test]
async fn a_parcel_over_the_limits_is_not_sent() {
    let (_directory, path) = place();
    let mut handover = Handover::listen(&path).unwrap();
    let too_much = Parcel { secrets: vec![0; 200_000], ..parcel() };
    let giving = async { handover.next().await.give(too_much).await };
    let (given, taken) = tokio::join!(giving, take(&path, PATIENCE));
    assert!(matches!(given, Err(HandoverError::Wire(WireError::Secrets))), "{given:?}");
    assert!(matches!(taken, Err(TakeError::Wire(WireError::Closed))), "{taken:?}");
}

/// An edge that answers a hello with `bytes`, and then sends `fds` copies of a pipe's end.
fn impostor(path: &Path, bytes: Vec<u8>, fds: usize) -> std::thread::JoinHandle<io::PipeReader> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut len = [0; 4];
        stream.read_exact(&mut len).unwrap();
        stream.read_exact(&mut vec![0; u32::from_be_bytes(len) as usize]).unwrap();
        stream.write_all(&bytes).unwrap();
        let (reader, writer) = io::pipe().unwrap();
        if fds > 0 {
            let copies = vec![writer.as_raw_fd(); fds];
            let control = [ControlMessage::ScmRights(&copies)];
            let fd = stream.as_fd().as_raw_fd();
            sendmsg::<()>(fd, &[IoSlice::new(b"F")], &control, MsgFlags::empty(), None).unwrap();
        }
        reader
    })
}

fn manifest(udp: usize) -> String {
    let labels = vec![r#"{"name":"h3","worker":0}"#; udp].join(",");
    format!(
        r#"{{"kind":"parcel","generation":1,"tcp":[],"udp":[{labels}],"pid_lock":false,"secrets":"","elders":[]}}"#
    )
}

#[tokio::test]
async fn what_an_impostor_sends_is_an_error_and_no_descriptor_stays_open() {
    let wrong = [
        (frame("garbage"), 0),
        (frame(&manifest(1))[..20].to_vec(), 0),
        (frame(r#"{"kind":"ready"}"#), 0),
        (frame(r#"{"kind":"refused","reason":"no","version":9}"#), 0),
        (frame(&manifest(5000)), 0),
        // A pipe is not a socket; too many; more than one message may carry; too few.
        (frame(&manifest(1)), 1),
        (frame(&manifest(1)), 3),
        (frame(&manifest(1)), 200),
        (frame(&manifest(2)), 1),
    ];
    for (n, (bytes, fds)) in wrong.into_iter().enumerate() {
        let (_directory, path) = place();
        let impostor = impostor(&path, bytes, fds);
        let error = take(&path, PATIENCE).await.expect_err("an impostor was believed");
        let expected = match n {
            3 => matches!(error, TakeError::Refused { version: 9, .. }),
            _ => matches!(error, TakeError::Wire(_)),
        };
        assert!(expected, "case {n}: {error:?}");
        let mut reader = impostor.join().unwrap();
        // Ends only once every copy of the other end is closed.
        let end = tokio::task::spawn_blocking(move || reader.read(&mut [0; 1]).unwrap());
        assert_eq!(tokio::time::timeout(PATIENCE, end).await.unwrap().unwrap(), 0, "case {n}");
    }
}

#[tokio::test]
async fn the_one_who_listens_later_gets_the_name() {
    let (_directory, path) = place();
    let old = Handover::listen(&path).unwrap();
    let new = Handover::listen(&path).unwrap();
    drop(old);
    assert!(path.exists());
    drop(new);
    assert!(!path.exists());
}
