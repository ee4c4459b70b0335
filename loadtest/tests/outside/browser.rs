//! Does a browser show a page that comes by HTTP/3, and by HTTP/2?
use std::process::Command;

use crate::{
    edge::{Edge, HOST},
    python::client,
    tools::run,
};

#[test]
fn chromium_shows_a_page_over_http3() {
    assert_eq!(protocol(&Edge::start(), true), "h3");
}

#[test]
fn chromium_shows_a_page_over_http2() {
    assert_eq!(protocol(&Edge::start(), false), "h2");
}

/// The protocol that the page in Chromium says it came by.
fn protocol(edge: &Edge, quic: bool) -> String {
    let key = run(&mut client(edge, "libraries.py", "key_hash")).ok();
    let mut chromium = Command::new("chromium");
    chromium
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-proxy-server", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--virtual-time-budget=3000"])
        .arg(format!("--user-data-dir={}", edge.path("chromium").display()))
        .arg(format!("--host-resolver-rules=MAP {HOST} 127.0.0.1"))
        .arg(format!("--ignore-certificate-errors-spki-list={}", key.trim()));
    if quic {
        chromium.arg(format!("--origin-to-force-quic-on={HOST}:{}", edge.https.port()));
    } else {
        chromium.arg("--disable-quic");
    }
    let said = run(chromium.args(["--dump-dom", &edge.url("/hello")]));
    let page = said.out.split_once("came by ").and_then(|(_, rest)| rest.split_once('<'));
    page.map_or_else(|| panic!("{said:?}"), |(protocol, _)| protocol.to_owned())
}
