//! What a sandbox may not reach: its host.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::ensure;
use edge_api::CreateCapsule;
use nix::ifaddrs::getifaddrs;

use crate::{guest::Sandbox, teststack::TestStack};

/// Prints each `address:port` of its arguments that takes a connection.
const PROBE: &str = r#"
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def probe(target):
    address, port = target.split(":")
    try:
        socket.create_connection((address, int(port)), 2).close()
        return target
    except OSError:
        return None
with ThreadPoolExecutor(16) as pool:
    print(*filter(None, pool.map(probe, sys.argv[1:])))
"#;

pub(crate) async fn sandbox_reaches_no_listener_of_its_host(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    // One listener on every address of the host, for the guest to find.
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    listener.set_nonblocking(true)?;
    let open = listener.local_addr()?.port();
    let dev = stack.dev()?;
    for internet in [false, true] {
        let asked = CreateCapsule { internet: Some(internet), ..Default::default() };
        let sandbox = Sandbox::create(&stack, &asked).await?;
        // With the slot's own link, which exists only now.
        let mut targets = Vec::new();
        for address in addresses()? {
            for port in [open, dev.http_port, dev.https_port] {
                targets.push(format!("{address}:{port}"));
            }
        }
        // Its own server shows that the probe can find one.
        let port = 8000;
        sandbox.serve_home(port).await?;
        let own = format!("127.0.0.1:{port}");
        let line = format!("python3 -c '{PROBE}' {own} {}", targets.join(" "));
        let reached = sandbox.run(&line).await?;
        ensure!(reached == own, "internet {internet}: it reaches {reached}");
        sandbox.delete().await?;
    }
    std::thread::sleep(Duration::from_millis(50));
    let accepted = listener.accept();
    ensure!(accepted.is_err(), "the host's listener was reached: {accepted:?}");
    Ok(())
}

/// The guest's gateway and every IPv4 address of the host but loopback.
fn addresses() -> anyhow::Result<Vec<Ipv4Addr>> {
    let mut addresses = vec![Ipv4Addr::new(172, 16, 0, 1)];
    for interface in getifaddrs()? {
        let address = interface.address.as_ref().and_then(|address| address.as_sockaddr_in());
        let address = address.map(|address| address.ip());
        addresses.extend(address.filter(|address| !address.is_loopback()));
    }
    Ok(addresses)
}
