//! Connections that don't come to be.

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use loadtest_wire::{CallError, Connection, Guard, Origin, Protocol, trusting};
use tokio::net::{TcpListener, UdpSocket};

use crate::server::{Identity, PATIENCE, echo_plain, echo_quic, echo_tls, listen, plain, secure};

async fn fails(origin: &Origin, protocol: Protocol) -> CallError {
    let opened = Connection::open_within(origin, protocol, PATIENCE).await;
    opened.map(drop).expect_err("a connection that cannot be")
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_refuses() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for protocol in [Protocol::H1, Protocol::H2] {
        let error = fails(&plain(address), protocol).await;
        assert_eq!(error.kind(), "connect", "{}", error.in_full());
        assert!(error.in_full().contains("refused"), "{}", error.in_full());
    }
}

#[tokio::test]
async fn strangers_are_not_called() {
    let guard = |explicit: &[&str], owned| {
        Guard::new(explicit.iter().map(|ip| ip.parse::<IpAddr>().unwrap()), owned)
    };
    let identity = Identity::new();
    for protocol in Protocol::ALL {
        for (address, guard) in [
            ("8.8.8.8:443", guard(&["8.8.8.8"], false)),
            ("10.0.0.1:443", guard(&[], false)),
            ("10.0.0.1:443", guard(&["10.0.0.2"], true)),
            ("0.0.0.0:443", guard(&["0.0.0.0"], true)),
        ] {
            // As if the name had changed its mind: what it leads to is what counts.
            let tls = Some(identity.client.clone());
            let origin =
                Origin::new("a.test", 443, tls, guard).connect_to(address.parse().unwrap());
            let error = fails(&origin, protocol).await;
            assert_eq!(error.kind(), "refused_address", "{address} by {protocol}");
        }
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_told() {
    // The label is longer than names may have.
    let origin = Origin::new(&format!("{}.invalid", "x".repeat(64)), 80, None, Guard::default());
    let error = fails(&origin, Protocol::H1).await;
    assert_eq!(error.kind(), "dns", "{}", error.in_full());
}

#[tokio::test]
async fn names_under_localhost_need_no_asking() {
    let address = echo_plain(false).await;
    let origin = Origin::new("any.thing.localhost", address.port(), None, Guard::default());
    let opened = Connection::open_within(&origin, Protocol::H1, PATIENCE).await.unwrap();
    assert!(opened.times.dns.is_none() && opened.times.connect.is_some());
}

#[tokio::test]
async fn a_server_has_to_agree_on_the_protocol() {
    let identity = Identity::new();
    for (speaks, asked) in
        [(&["h2"][..], Protocol::H1), (&["http/1.1"], Protocol::H2), (&[], Protocol::H2)]
    {
        let origin = secure(echo_tls(&identity, speaks).await, &identity);
        let error = fails(&origin, asked).await;
        assert_eq!(error.kind(), "alpn", "{asked} of {speaks:?}: {}", error.in_full());
    }
    let (address, _endpoint) = echo_quic(&identity, &["other"]).await;
    let error = fails(&secure(address, &identity), Protocol::H3).await;
    assert_eq!(error.kind(), "alpn", "{}", error.in_full());
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (served, trusted) = (Identity::new(), Identity::new());
    let tcp = echo_tls(&served, &["h2", "http/1.1"]).await;
    let (quic, _endpoint) = echo_quic(&served, &["h3"]).await;
    for protocol in Protocol::ALL {
        let address = if protocol == Protocol::H3 { quic } else { tcp };
        let error = fails(&secure(address, &trusted), protocol).await;
        assert_eq!(error.kind(), "tls", "{protocol}: {}", error.in_full());
    }
}

#[tokio::test]
async fn opening_has_a_deadline() {
    let identity = Identity::new();
    // One that listens and says nothing, by TCP and by QUIC.
    let tcp = listen(|stream| async move {
        tokio::time::sleep(PATIENCE * 10).await;
        drop(stream);
    })
    .await;
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let quic = udp.local_addr().unwrap();
    for protocol in Protocol::ALL {
        let address = if protocol == Protocol::H3 { quic } else { tcp };
        let origin = secure(address, &identity);
        let soon = Duration::from_millis(200);
        let error = Connection::open_within(&origin, protocol, soon).await.map(drop).unwrap_err();
        assert!(error.is_deadline() && error.kind() == "timeout", "{protocol}: {error}");
        assert!(error.to_string().contains("connecting"), "{error}");
    }
}

#[tokio::test]
async fn http3_needs_tls_and_http2_a_name_that_is_one() {
    let address = echo_plain(true).await;
    assert_eq!(fails(&plain(address), Protocol::H3).await.kind(), "failed");
    let odd = plain(address).with_authority("a b");
    assert_eq!(fails(&odd, Protocol::H2).await.kind(), "failed");
}

#[tokio::test]
async fn a_file_says_whom_to_trust() {
    let identity = Identity::new();
    let file = Scratch::holding(&identity.pem);
    let address = echo_tls(&identity, &["h2"]).await;
    let tls = Some(trusting(&file.0).unwrap());
    let origin = Origin::new("localhost", address.port(), tls, Guard::default());
    Connection::open_within(&origin, Protocol::H2, PATIENCE).await.unwrap();
    assert_eq!(trusting(&file.0.join("none")).unwrap_err().kind(), "failed");
}

/// A file that is removed when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn holding(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loadtest-wire-{}.pem", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
