//! What do clients see of certificates and tickets?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use edge_tls::{CertStatus, Certs, OnDemand, TicketSecret, TlsConfig, TlsSource};
use rcgen::{CertificateParams, date_time_ymd};
use rustls::{ClientConfig, HandshakeKind, NamedGroup};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use support::{Ca, Running, bind, client, connect, roots, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn files(pairs: &[&(PathBuf, PathBuf)]) -> TlsConfig {
    let pairs = pairs.iter().map(|&pair| pair.clone()).collect();
    let mut config = TlsConfig::new("example.com", TlsSource::Files { pairs });
    config.reload_interval = Duration::from_millis(100);
    config
}

async fn run(config: TlsConfig) -> Running {
    Running::start(&Certs::open(config).unwrap(), bind().await, None)
}

const ALL: &[&str] = &["example.com", "*.example.com", "*.fn.example.com"];

#[tokio::test]
async fn name_picks_the_certificate_and_unknown_ones_get_the_default() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new());
    let wild = ca.write(dir.path(), "wild", ALL);
    let other = ca.write(dir.path(), "other", &["shop.example.org"]);
    let running = run(files(&[&wild, &other])).await;
    let trusting = Arc::new(client(&ca.pem));
    for name in ["example.com", "a.example.com", "A.FN.Example.Com", "shop.example.org"] {
        connect(&trusting, running.tls, name).await.unwrap();
    }
    let error = connect(&trusting, running.tls, "unknown.example.net").await.err().unwrap();
    assert!(error.to_string().contains("not valid for name"), "the default came: {error}");
    assert!(running.certs.status().iter().all(|status| status.warnings.is_empty()));
    running.stop().await;
}

#[tokio::test]
async fn hybrid_key_exchange_is_chosen_where_the_client_has_it() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new());
    let running = run(files(&[&ca.write(dir.path(), "a", ALL)])).await;
    let seen = |groups| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups = groups;
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots(&ca.pem))
            .with_no_client_auth();
        let tls = running.tls;
        async move { connect(&Arc::new(config), tls, "example.com").await.unwrap().group }
    };
    use rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
    assert_eq!(seen(vec![X25519MLKEM768]).await, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(seen(vec![X25519MLKEM768, X25519]).await, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(seen(vec![X25519, SECP256R1]).await, Some(NamedGroup::X25519), "old clients work");
    running.stop().await;
}

#[tokio::test]
async fn changed_files_are_seen_by_new_handshakes_and_old_connections_go_on() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new());
    let pair = ca.write(dir.path(), "a", ALL);
    let running = run(files(&[&pair])).await;
    let trusting = Arc::new(client(&ca.pem));
    let mut old = connect(&trusting, running.tls, "example.com").await.unwrap();
    ca.write(dir.path(), "a", ALL);
    until("the new certificate", || async {
        let seen = connect(&Arc::new(client(&ca.pem)), running.tls, "example.com").await.ok()?;
        (seen.leaf != old.leaf).then_some(())
    })
    .await;
    old.stream.write_all(b"still here").await.unwrap();
    let mut echo = [0; 10];
    old.stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"still here");
    running.stop().await;
}

#[tokio::test]
async fn bad_pair_is_refused_named_and_got_over_while_the_old_one_serves() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new());
    let (good, bad) = (ca.write(dir.path(), "a", ALL), ca.write(dir.path(), "b", &["b.org"]));
    let running = run(files(&[&good, &bad])).await;
    let trusting = Arc::new(client(&ca.pem));
    let (cert, key) = ca.sign(&["b.org"]);
    fs::write(&bad.0, &cert).unwrap(); // the key is still the old one
    let status = |wanted: fn(&CertStatus) -> bool| {
        let certs = Arc::clone(&running.certs);
        until("the status of b", move || {
            let status = certs.status().into_iter().find(|status| status.id.ends_with("b.pem"));
            async move { status.filter(wanted) }
        })
    };
    let told = status(|status| status.last_error.is_some()).await.last_error.unwrap();
    assert!(told.contains("b.pem") && told.contains("b.key"), "{told}");
    assert!(running.certs.reload().unwrap_err().to_string().contains("b.pem"));
    connect(&trusting, running.tls, "b.org").await.unwrap();
    fs::write(&bad.1, key).unwrap();
    status(|status| status.last_error.is_none()).await;
    let seen = connect(&trusting, running.tls, "b.org").await.unwrap();
    let expected = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    assert_eq!(seen.leaf, expected.to_vec());
    running.stop().await;
}

#[tokio::test]
async fn odd_certificates_are_warned_about_by_name() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new());
    let pair = ca.write(dir.path(), "a", &["example.com"]);
    let mut params = CertificateParams::new(vec!["old.org".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2020, 1, 1);
    let (cert, key) = ca.sign_params(params);
    let old = (dir.path().join("old.pem"), dir.path().join("old.key"));
    fs::write(&old.0, cert).unwrap();
    fs::write(&old.1, key).unwrap();
    fs::set_permissions(&old.1, fs::Permissions::from_mode(0o644)).unwrap();
    let status = Certs::open(files(&[&pair, &old])).unwrap().status();
    let first = status[0].warnings.join("; ");
    assert!(first.contains("*.example.com, *.fn.example.com"), "{first}");
    let second = status[1].warnings.join("; ");
    assert!(second.contains("old.org expired") && second.contains("0644"), "{second}");
    assert_eq!(status[1].not_after.unwrap().to_string(), "2020-01-01T00:00:00Z");
}

#[test]
fn missing_files_are_named() {
    let missing = PathBuf::from("/nonexistent/cert.pem");
    let error = Certs::open(files(&[&(missing.clone(), missing)])).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/cert.pem"), "{error}");
}

/// The kinds of a first and a second handshake, with the same client at two edges.
async fn two_edges(secrets: [Option<TicketSecret>; 2], tls12: bool) -> HandshakeKind {
    let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new());
    let pair = ca.write(dir.path(), "a", ALL);
    let version = if tls12 { &rustls::version::TLS12 } else { &rustls::version::TLS13 };
    let config = ClientConfig::builder_with_protocol_versions(&[version])
        .with_root_certificates(roots(&ca.pem))
        .with_no_client_auth();
    let trusting = Arc::new(config);
    let mut kinds = Vec::new();
    for secret in secrets {
        let mut config = files(&[&pair]);
        config.tickets = secret;
        let running = run(config).await;
        let seen = connect(&trusting, running.tls, "example.com").await.unwrap();
        kinds.push(seen.kind);
        drop(seen);
        running.stop().await;
    }
    assert_ne!(kinds[0], HandshakeKind::Resumed);
    kinds[1]
}

#[tokio::test]
async fn session_is_resumed_at_another_edge_with_the_same_secret_only() {
    let secret = |byte| Some(TicketSecret::new([byte; 32]));
    for tls12 in [false, true] {
        let same = two_edges([secret(1), secret(1)], tls12).await;
        assert_eq!(same, HandshakeKind::Resumed, "tls 1.2: {tls12}");
        assert_ne!(two_edges([secret(1), secret(2)], tls12).await, HandshakeKind::Resumed);
        assert_ne!(two_edges([None, None], tls12).await, HandshakeKind::Resumed);
    }
}

#[test]
fn protocols_are_offered_as_they_are_served_and_early_data_is_not() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new());
    let certs = Certs::open(files(&[&ca.write(dir.path(), "a", ALL)])).unwrap();
    let (tcp, quic) = (certs.tcp_config().unwrap(), certs.quic_config().unwrap());
    assert_eq!(tcp.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
    assert_eq!(quic.alpn_protocols, [b"h3"]);
    assert_eq!((tcp.max_early_data_size, quic.max_early_data_size), (0, 0));
}

struct Shops;

#[async_trait]
impl OnDemand for Shops {
    async fn allowed(&self, name: &str) -> bool {
        name.ends_with(".shop.org")
    }
}

#[tokio::test]
async fn local_authority_certifies_verified_custom_domains_and_forgets_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let source = TlsSource::LocalCa { dir: dir.path().to_owned() };
    let mut config = TlsConfig::new("example.com", source);
    config.on_demand = Some(Arc::new(Shops));
    config.certificates_max = 3;
    let running = run(config).await;
    let ca = fs::read_to_string(dir.path().join("ca.pem")).unwrap();
    let trusting = Arc::new(client(&ca));
    for name in ["example.com", "a.example.com", "a.fn.example.com", "localhost"] {
        connect(&trusting, running.tls, name).await.unwrap();
    }
    for name in ["one.shop.org", "two.shop.org", "three.shop.org"] {
        let first = connect(&trusting, running.tls, name).await;
        assert!(first.is_err(), "the first client gets the default at once");
        until(name, || async { connect(&trusting, running.tls, name).await.ok() }).await;
    }
    assert!(connect(&trusting, running.tls, "a.evil.org").await.is_err());
    for name in ["ca.pem", "ca.key"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    running.certs.reload().unwrap();
    let ca = fs::read_to_string(dir.path().join("ca.pem")).unwrap();
    let trusting = Arc::new(client(&ca));
    for name in ["example.com", "two.shop.org", "three.shop.org"] {
        connect(&trusting, running.tls, name).await.unwrap(); // the new authority signed all again
    }
    let ids: Vec<_> = running.certs.status().into_iter().map(|status| status.id).collect();
    assert_eq!(ids, ["example.com", "two.shop.org", "three.shop.org"]);
    running.stop().await;
}
