//! Starting, following, feeding and ending processes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use envd_api::{EnvdError, ProcessEvent, Signal, Start, Stdin};
use futures::StreamExt as _;
use tokio::time::timeout;

use crate::fixture::{PATIENCE, TestGuest, eventually, init, is_alive, shell};

#[tokio::test]
async fn output_streams_in_order_between_start_and_end() {
    let guest = TestGuest::start().await;
    let mut stream =
        guest.client.start(&shell("echo one; sleep 0.1; echo two >&2; exit 3")).await.unwrap();
    assert!(stream.pid() > 0);
    let mut seen = Vec::new();
    while let Some(event) = timeout(PATIENCE, stream.next()).await.unwrap() {
        seen.push(event.unwrap());
    }
    let [ProcessEvent::Stdout(one), ProcessEvent::Stderr(two), ProcessEvent::Ended(end)] =
        &seen[..]
    else {
        panic!("{seen:?}");
    };
    assert_eq!((&one[..], &two[..]), (&b"one\n"[..], &b"two\n"[..]));
    assert_eq!((end.exit_code, end.exited, &end.status[..]), (3, true, "exit status 3"));
}

#[tokio::test]
async fn large_output_arrives_whole() {
    let guest = TestGuest::start().await;
    let stream = guest.client.start(&shell("head -c 5000000 /dev/zero; echo -n end")).await;
    let output = stream.unwrap().output(8 << 20).await.unwrap();
    assert_eq!(output.stdout.len(), 5_000_003);
    assert!(output.stdout.ends_with(b"end") && !output.truncated);
}

#[tokio::test]
async fn process_runs_as_the_user_with_the_sandboxs_environment_in_its_home() {
    let guest = TestGuest::start().await;
    let mut init = init("box", 1);
    init.env_vars.extend([("A".into(), "init".into()), ("B".into(), "init".into())]);
    guest.client.init(&init).await.unwrap();
    let mut start = shell("pwd; id -u; id -G; env | sort; cat /proc/self/oom_score_adj; umask");
    start.envs.insert("B".into(), "call".into());
    let output = guest.run(&start).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let home = guest.home.display().to_string();
    assert!(text.starts_with(&format!("{home}\n61234\n61234 61235\n")), "{text}");
    assert!(text.ends_with("100\n0022\n"), "{text}");
    for line in ["A=init", "B=call", "E2B_SANDBOX=true", "E2B_SANDBOX_ID=box", "USER=user"] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    assert!(text.contains(&format!("HOME={home}\n")));
    assert!(!text.contains("CARGO"), "the daemon's own environment stays its own: {text}");
    // In a session of its own, led by itself.
    let stat = guest.shell("cut -d' ' -f1,5,6 /proc/$$/stat").await.stdout;
    let ids: Vec<String> =
        String::from_utf8(stat).unwrap().split_whitespace().map(str::to_owned).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn named_user_acts_and_root_lives_in_its_own_home() {
    let guest = TestGuest::start().await;
    let start = Start { user: Some("root".into()), ..shell("id -u; echo $HOME; pwd") };
    assert_eq!(guest.run(&start).await.stdout, b"0\n/root\n/root\n");
    let unknown = Start { user: Some("nobody-here".into()), ..shell("true") };
    let error = guest.client.start(&unknown).await.unwrap_err();
    let EnvdError::Refused { code, message, status: 401, .. } = &error else { panic!("{error}") };
    assert_eq!((&code[..], &message[..]), ("unauthenticated", "invalid username: 'nobody-here'"));
}

#[tokio::test]
async fn what_cannot_start_is_an_invalid_argument_that_says_why() {
    let guest = TestGuest::start().await;
    let cases = [
        (Start::new("/no/such/program", [""; 0]), "can't run '/no/such/program'"),
        (Start::new("no-such-program", [""; 0]), "can't run 'no-such-program'"),
        (Start { cwd: Some("/no/dir".into()), ..shell("true") }, "cwd '/no/dir' does not exist"),
        // The user may not enter it, though the daemon may.
        (Start { cwd: Some("/proc/1/fd".into()), ..shell("true") }, "can't enter cwd '/proc/1/fd'"),
        (Start { cwd: Some("~root".into()), ..shell("true") }, "another user's home"),
        (Start { envs: [("A=B".into(), String::new())].into(), ..shell("true") }, "'A=B'"),
    ];
    for (start, words) in cases {
        let error = guest.client.start(&start).await.unwrap_err();
        assert_eq!(error.code(), Some("invalid_argument"), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(guest.client.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn directory_is_the_calls_or_the_default_or_the_home() {
    let guest = TestGuest::start().await;
    guest.shell("mkdir sub").await;
    let sub = Start { cwd: Some("sub".into()), ..shell("pwd") };
    assert_eq!(guest.run(&sub).await.stdout, format!("{}\n", guest.path("sub")).as_bytes());
    let mut init = init("box", 1);
    init.default_workdir = Some("/usr".into());
    guest.client.init(&init).await.unwrap();
    assert_eq!(guest.shell("pwd").await.stdout, b"/usr\n");
}

#[tokio::test]
async fn input_reaches_the_process_until_it_is_closed() {
    let guest = TestGuest::start().await;
    let given = Start { stdin: Stdin::Bytes(Bytes::from(vec![b'x'; 3 << 20])), ..shell("wc -c") };
    assert_eq!(guest.run(&given).await.stdout, b"3145728\n");
    let stream = guest.client.start(&Start { stdin: Stdin::Open, ..shell("cat") }).await.unwrap();
    let pid = stream.pid();
    guest.client.send_stdin(pid, b"hello ").await.unwrap();
    guest.client.send_stdin(pid, b"there").await.unwrap();
    guest.client.close_stdin(pid).await.unwrap();
    assert_eq!(stream.output(100).await.unwrap().stdout, b"hello there");
    // Without one, it reads an end at once and can't be fed.
    let stream = guest.client.start(&shell("cat; sleep 5")).await.unwrap();
    let error = guest.client.send_stdin(stream.pid(), b"x").await.unwrap_err();
    assert_eq!(error.code(), Some("internal"), "{error}");
    guest.client.signal(stream.pid(), Signal::Kill).await.unwrap();
}

#[tokio::test]
async fn signal_ends_the_stream_even_when_children_hold_the_pipes() {
    let guest = TestGuest::start().await;
    for (signal, words) in [(Signal::Term, "signal: terminated"), (Signal::Kill, "signal: killed")]
    {
        let stream = guest.client.start(&shell("echo up; sleep 30 & wait")).await.unwrap();
        let pid = stream.pid();
        let started = Instant::now();
        tokio::time::sleep(Duration::from_millis(100)).await;
        guest.client.signal(pid, signal).await.unwrap();
        let output = stream.output(100).await.unwrap();
        assert_eq!((output.end.exit_code, output.end.exited), (-1, false));
        assert_eq!((&output.end.status[..], &output.stdout[..]), (words, &b"up\n"[..]));
        assert!(started.elapsed() < Duration::from_secs(5));
        let error = guest.client.signal(pid, signal).await.unwrap_err();
        assert_eq!(error.code(), Some("not_found"), "{error}");
    }
}

#[tokio::test]
async fn timeout_ends_the_process_and_its_children_in_the_guest() {
    let guest = TestGuest::start().await;
    let start = Start {
        timeout: Some(Duration::from_millis(400)),
        ..shell("sleep 30 & echo $!; wait; echo not reached")
    };
    let mut stream = guest.client.start(&start).await.unwrap();
    let pid = stream.pid();
    let Some(Ok(ProcessEvent::Stdout(child))) = stream.next().await else { panic!("no output") };
    let child: u32 = std::str::from_utf8(&child).unwrap().trim().parse().unwrap();
    let error = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, EnvdError::Timeout { .. }), "{error}");
    eventually("both are gone", || !is_alive(pid) && !is_alive(child)).await;
}

#[tokio::test]
async fn client_that_leaves_ends_nothing() {
    let guest = TestGuest::start().await;
    let line = "for i in 1 2 3 4 5 6; do sleep 0.1; head -c 300000 /dev/zero; done; touch done";
    let stream = guest.client.start(&shell(line)).await.unwrap();
    let pid = stream.pid();
    drop(stream);
    assert_eq!(guest.client.list().await.unwrap()[0].pid, pid);
    eventually("it ran to its end", || guest.home.join("done").exists()).await;
}

#[tokio::test]
async fn list_shows_what_runs_with_its_name_and_config() {
    let guest = TestGuest::start().await;
    assert!(guest.client.list().await.unwrap().is_empty());
    let start = Start { tag: Some("web".into()), ..Start::new("sleep", ["30"]) };
    let first = guest.client.start(&start).await.unwrap();
    let second = guest.client.start(&Start::new("sleep", ["31"])).await.unwrap();
    let listed = guest.client.list().await.unwrap();
    assert_eq!(listed.iter().map(|p| p.pid).collect::<Vec<_>>(), [first.pid(), second.pid()]);
    assert_eq!((listed[0].tag.as_deref(), &listed[0].cmd[..]), (Some("web"), "sleep"));
    assert_eq!(listed[1].args, ["31"]);
    for pid in [first.pid(), second.pid()] {
        guest.client.signal(pid, Signal::Kill).await.unwrap();
    }
    assert!(first.output(0).await.is_ok() && second.output(0).await.is_ok());
    assert!(guest.client.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn processes_live_in_the_user_cgroup() {
    let guest = TestGuest::start().await;
    let stream = guest.client.start(&Start::new("sleep", ["30"])).await.unwrap();
    let procs = guest.cgroup.read("cgroup.procs");
    assert_eq!(procs.trim(), stream.pid().to_string());
}
