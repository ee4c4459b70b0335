//! Does the edge order a certificate over HTTP-01, serve it, and use it again after a restart?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

use crate::{
    edge::{Edge, HOST},
    tools::{Program, WAIT, free_port, run, script, until},
};

/// A certificate authority for tests, and a resolver for which every name is loopback.
struct Pebble {
    listen: SocketAddr,
    management: SocketAddr,
    dir: tempfile::TempDir,
    _dns: Program,
    process: Program,
}

impl Pebble {
    /// Validates names over HTTP at this address.
    fn start(http: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut dns = Program::spawn(script("dns.py").arg("0"));
        dns.until("listens");
        let dns_port = dns.so_far().0.split_whitespace().nth(2).unwrap().to_owned();
        run(script("authority.py").arg(dir.path())).ok();
        let (listen, management) = (free_port(), free_port());
        let at = |name: &str| dir.path().join(name);
        let config = serde_json::json!({ "pebble": {
            "listenAddress": listen.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": at("server.pem"), "privateKey": at("server.key"),
            "httpPort": http.port(), "tlsPort": free_port().port(),
            "ocspResponderURL": "", "externalAccountBindingRequired": false,
        }});
        fs::write(at("pebble.json"), config.to_string()).unwrap();
        let mut pebble = Command::new("pebble");
        pebble
            .arg("-config")
            .arg(at("pebble.json"))
            .args(["-dnsserver", &format!("127.0.0.1:{dns_port}")])
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0")]);
        let mut process = Program::spawn(&mut pebble);
        process.until("Listening on");
        let pebble = Self { listen, management, dir, _dns: dns, process };
        until("pebble", || std::net::TcpStream::connect(listen).ok());
        pebble
    }

    fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The root of what it signs, as a file.
    fn root(&self) -> PathBuf {
        let root = self.dir.path().join("root.pem");
        let url = format!("https://{}/roots/0", self.management);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--cacert"]).arg(self.ca_file());
        run(curl.arg("--output").arg(&root).arg(url)).ok();
        root
    }

    fn orders(&self) -> usize {
        let (out, err) = self.process.so_far();
        (out + &err).matches("Issued certificate").count()
    }
}

/// The answer's status and the serial of the certificate that came with it.
fn serial(edge: &Edge, root: &PathBuf) -> Option<String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "10", "--cacert"])
        .arg(root)
        .args(["--resolve", &format!("{HOST}:{}:127.0.0.1", edge.https.port())])
        .args(["--write-out", "%{stderr}%{certs}", &edge.url("/hello")]);
    let said = run(&mut curl);
    let served = said.status.success() && said.out.contains("<title>hello</title>");
    let serial = said.err.lines().find(|line| line.starts_with("Serial Number:"));
    served.then(|| serial.unwrap_or_else(|| panic!("{said:?}")).to_owned())
}

#[test]
fn certificate_is_ordered_served_and_used_after_a_restart() {
    let mut edge = Edge::prepare();
    let pebble = Pebble::start(edge.http);
    let directory = format!("https://{}/dir", pebble.listen);
    edge.add(&["--acme-directory", &directory, "--acme-terms-agreed", "true"]);
    edge.add(&["--acme-contact", "mailto:admin@example.com"]);
    edge.add(&["--acme-ca-file", pebble.ca_file().to_str().unwrap()]);
    edge.launch();
    let root = pebble.root();
    let first = until(&format!("a certificate ({WAIT:?})"), || serial(&edge, &root));
    assert!(edge.admin("/certificates").contains("acme"), "{}", edge.admin("/certificates"));
    let orders = pebble.orders();
    assert!(orders >= 1);

    edge.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(edge.ended().success());
    edge.launch();
    let second = until("the certificate again", || serial(&edge, &root));
    assert_eq!(second, first, "kept over the restart");
    assert_eq!(pebble.orders(), orders, "not ordered again");
}
