//! The tests' control plane against E2B's own client, so that a mistake in the one is not hidden
//! by the same mistake in the other.

use std::process::Stdio;

use super::{
    PATIENCE,
    plane::{Flaw, KEY, Plane},
};

/// What a life does, as users of the client write it.
const SCRIPT: &str = r#"
from e2b import Sandbox
sandbox = Sandbox.create(timeout=60, metadata={"loadtest": "sdk"})
ran = sandbox.commands.run("echo ready")
assert (ran.exit_code, ran.stdout) == (0, "ready\n"), ran
path = f"/tmp/loadtest-sdk-{sandbox.sandbox_id}"
sandbox.files.write(path, b"\x00\xff some bytes")
assert sandbox.files.read(path, format="bytes") == b"\x00\xff some bytes"
assert sandbox.commands.run(f"rm {path}").exit_code == 0
sleeper = sandbox.commands.run("sleep 600", background=True)
sandbox.pause()
again = Sandbox.connect(sandbox.sandbox_id, timeout=60)
assert again.sandbox_id == sandbox.sandbox_id
assert again.commands.run(f"kill -0 {sleeper.pid} && echo there").stdout == "there\n"
assert sandbox.commands.run("echo still").stdout == "still\n"
assert sandbox.kill() and not sandbox.kill()
print("done")
"#;

#[tokio::test]
#[ignore = "needs E2B's client: E2B_PYTHON=<a python that has `e2b`>"]
async fn control_plane_of_the_tests_is_good_enough_for_the_official_client() {
    let plane = Plane::start(Flaw::None).await;
    let url = format!("http://{}", plane.address);
    let python = std::env::var("E2B_PYTHON").expect("E2B_PYTHON is set");
    let script = tokio::process::Command::new(python)
        .args(["-c", SCRIPT])
        .env("E2B_API_KEY", KEY)
        .env("E2B_API_URL", &url)
        .env("E2B_SANDBOX_URL", &url)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, script).await.unwrap().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.trim() == "done", "{out}{err}");
    assert!(plane.ids().await.is_empty());
}
