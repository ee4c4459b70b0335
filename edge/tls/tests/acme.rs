//! Are certificates got from an ACME authority that checks what it is told?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod support;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use edge_tls::{
    AcmeConfig, CertStatus, Certs, Challenge, DnsHook, ExternalAccount, OnDemand, TlsConfig,
    TlsSource,
};
use support::{
    PATIENCE, Running,
    advisor::Advisor,
    bind, client, connect,
    pebble::{EXTERNAL_KEY, Options, Pebble, count_files},
    until,
};
use tokio::net::TcpListener;

fn tls_config(acme: AcmeConfig) -> TlsConfig {
    let mut config = TlsConfig::new("edge.example.com", TlsSource::Acme(Box::new(acme)));
    config.reload_interval = Duration::from_millis(200);
    config
}

fn start(pebble: &mut Pebble, config: TlsConfig) -> Running {
    let certs = Certs::open(config).unwrap();
    Running::start(&certs, pebble.tls.take().unwrap(), pebble.http.take())
}

/// Waits for a certificate that a client accepts for `name`; returns the leaf.
async fn accepted(running: &Running, root: &str, name: &str) -> Vec<u8> {
    let client = Arc::new(client(root));
    let deadline = Instant::now() + PATIENCE;
    loop {
        match connect(&client, running.tls, name).await {
            Ok(seen) => return seen.leaf,
            Err(error) if Instant::now() > deadline => {
                panic!("no certificate for {name}: {error}; {:#?}", running.certs.status())
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Binds an address again that was just let go of.
async fn rebind(address: SocketAddr) -> TcpListener {
    until("the port", || async { TcpListener::bind(address).await.ok() }).await
}

async fn status_of(
    running: &Running,
    id: &str,
    wanted: impl Fn(&CertStatus) -> bool,
) -> CertStatus {
    until(&format!("the status of {id}"), || async {
        running.certs.status().into_iter().find(|status| status.id == id && wanted(status))
    })
    .await
}

#[tokio::test]
async fn http_challenge_yields_a_certificate_for_the_domain() {
    let mut pebble = Pebble::start(Options::default()).await;
    let (root, config) = (pebble.root().await, pebble.config());
    let running = start(&mut pebble, tls_config(config));
    for name in ["edge.example.com", "api.edge.example.com", "sandbox.edge.example.com"] {
        accepted(&running, &root, name).await;
    }
    let status = status_of(&running, "edge.example.com", |status| status.not_after.is_some()).await;
    assert_eq!((status.source, status.last_error), ("acme", None));
    assert!(status.next_attempt.unwrap() < status.not_after.unwrap());
    let store = pebble.store();
    for file in ["account.json", "certs/edge.example.com.pem"] {
        let mode = fs::metadata(store.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    running.stop().await;
}

#[tokio::test]
async fn tls_challenge_yields_a_certificate_and_other_clients_never_see_its_answer() {
    let mut pebble = Pebble::start(Options::default()).await;
    let root = pebble.root().await;
    let mut config = pebble.config();
    config.challenge = Challenge::TlsAlpn01;
    let running = start(&mut pebble, tls_config(config));
    accepted(&running, &root, "edge.example.com").await;
    let mut prober = client(&root);
    prober.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let late = connect(&Arc::new(prober), running.tls, "edge.example.com").await;
    assert!(late.is_err(), "nothing is pending, so the handshake fails");
    running.stop().await;
}

#[tokio::test]
async fn dns_challenge_yields_wildcards_and_leaves_no_records_behind() {
    let mut pebble = Pebble::start(Options::default()).await;
    let root = pebble.root().await;
    let mut config = pebble.config();
    config.dns_hook = Some(DnsHook::new(pebble.dns.hook()));
    let running = start(&mut pebble, tls_config(config));
    for name in ["edge.example.com", "8080-x.edge.example.com", "hello.fn.edge.example.com"] {
        accepted(&running, &root, name).await;
    }
    assert_eq!(count_files(&pebble.dns.records), 0, "records are taken down");
    running.stop().await;
}

#[tokio::test]
async fn refused_challenge_is_told_tried_again_and_got_over() {
    let mut pebble = Pebble::start(Options::default()).await;
    let (root, config) = (pebble.root().await, pebble.config());
    let http = pebble.http.take().unwrap();
    let certs = Certs::open(tls_config(config)).unwrap();
    // The plain listener belongs to somebody else at first.
    let other = tempfile::tempdir().unwrap();
    let source = TlsSource::LocalCa { dir: other.path().to_owned() };
    let stranger = Certs::open(TlsConfig::new("other.example.com", source)).unwrap();
    let address = http.local_addr().unwrap();
    let wrong = support::serve_http(&stranger, http);
    let running = Running::start(&certs, pebble.tls.take().unwrap(), None);
    let failed =
        |status: &CertStatus| status.last_error.as_ref().is_some_and(|error| error.contains("404"));
    let status = status_of(&running, "edge.example.com", failed).await;
    assert!(status.not_after.is_none() && status.next_attempt.is_some(), "{status:?}");
    let source = running.certs.status()[0].source;
    assert_eq!(source, "placeholder", "handshakes go on");
    drop(wrong);
    let _http = support::serve_http(&certs, rebind(address).await);
    accepted(&running, &root, "edge.example.com").await;
    status_of(&running, "edge.example.com", |status| status.last_error.is_none()).await;
    running.stop().await;
}

#[tokio::test]
async fn failing_hook_is_told_and_cleaned_up_after() {
    let mut pebble = Pebble::start(Options::default()).await;
    let mut config = pebble.config();
    let hook = pebble.path("failing-hook");
    let script = "#!/bin/sh\necho \"$1\" >> \"$0.log\"\necho no such zone >&2\nexit 1\n";
    edge_testing::program(&hook, script);
    config.dns_hook = Some(DnsHook::new(hook));
    let running = start(&mut pebble, tls_config(config));
    let failed = |status: &CertStatus| {
        status.last_error.as_ref().is_some_and(|error| error.contains("no such zone"))
    };
    status_of(&running, "edge.example.com", failed).await;
    running.stop().await;
    let log = fs::read_to_string(pebble.path("failing-hook.log")).unwrap();
    let count = |word: &str| log.lines().filter(|line| *line == word).count();
    assert!(count("present") > 0 && count("present") == count("cleanup"), "{log}");
}

#[tokio::test]
async fn authority_that_is_away_is_waited_for_and_needless_after_a_restart() {
    let mut pebble = Pebble::prepare(Options::default()).await;
    let config = pebble.config();
    let running = start(&mut pebble, tls_config(config.clone()));
    let failed = |status: &CertStatus| status.last_error.is_some();
    status_of(&running, "edge.example.com", failed).await;
    pebble.launch().await;
    let root = pebble.root().await;
    let first = accepted(&running, &root, "edge.example.com").await;
    running.stop().await;
    pebble.stop();
    let orders = fs::read_to_string(pebble.store().join("orders.json")).unwrap();
    pebble.tls = Some(bind().await);
    let running = start(&mut pebble, tls_config(config));
    let client = Arc::new(client(&root));
    let seen = connect(&client, running.tls, "edge.example.com").await.unwrap();
    assert_eq!(seen.leaf, first, "at once, from disk");
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.stop().await;
    let again = fs::read_to_string(pebble.store().join("orders.json")).unwrap();
    assert_eq!(again, orders, "nothing was ordered");
}

#[tokio::test]
async fn short_lived_certificate_is_renewed_under_open_connections() {
    let mut pebble = Pebble::start(Options { valid_seconds: Some(30), ..Options::default() }).await;
    let (root, config) = (pebble.root().await, pebble.config());
    let running = start(&mut pebble, tls_config(config));
    let first = accepted(&running, &root, "edge.example.com").await;
    let client = Arc::new(client(&root));
    let mut old = connect(&client, running.tls, "edge.example.com").await.unwrap();
    until(&format!("the renewal {:?}", running.certs.status()), || async {
        let seen = connect(&client, running.tls, "edge.example.com").await.ok()?;
        (!seen.leaf.is_empty() && seen.leaf != first && seen.leaf != old.leaf).then_some(())
    })
    .await;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    old.stream.write_all(b"still here").await.unwrap();
    let mut echo = [0; 10];
    old.stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"still here");
    running.stop().await;
}

#[tokio::test]
async fn authority_that_wants_an_early_renewal_gets_it() {
    let mut pebble = Pebble::start(Options::default()).await;
    let advisor = Advisor::start(&pebble).await;
    let (root, mut config) = (pebble.root().await, pebble.config());
    config.directory = advisor.directory.clone();
    let [tls, http] = [&pebble.tls, &pebble.http].map(|l| l.as_ref().unwrap().local_addr());
    let running = start(&mut pebble, tls_config(config.clone()));
    let first = accepted(&running, &root, "edge.example.com").await;
    running.stop().await;
    advisor.renew_now();
    pebble.tls = Some(rebind(tls.unwrap()).await);
    pebble.http = Some(rebind(http.unwrap()).await);
    let running = start(&mut pebble, tls_config(config));
    let trusting = Arc::new(client(&root));
    until("the early renewal", || async {
        let seen = connect(&trusting, running.tls, "edge.example.com").await.ok()?;
        (seen.leaf != first).then_some(())
    })
    .await;
    let asked = advisor.asked();
    assert!(asked.iter().all(|id| id.split('.').count() == 2) && !asked.is_empty(), "{asked:?}");
    running.stop().await;
}

/// Allows what begins with `good`, and notes what it was asked.
#[derive(Default)]
struct Good(Mutex<Vec<String>>);

#[async_trait]
impl OnDemand for Good {
    async fn allowed(&self, name: &str) -> bool {
        self.0.lock().unwrap().push(name.to_owned());
        name.starts_with("good")
    }
}

#[tokio::test]
async fn custom_domain_gets_one_certificate_if_it_is_allowed_and_none_if_not() {
    let mut pebble = Pebble::start(Options::default()).await;
    let (root, acme) = (pebble.root().await, pebble.config());
    let good = Arc::new(Good::default());
    let mut config = tls_config(acme);
    config.on_demand = Some(Arc::clone(&good) as _);
    let running = start(&mut pebble, config);
    accepted(&running, &root, "edge.example.com").await;
    let trusting = Arc::new(client(&root));
    for name in ["bad.example.org", "good.example.org"] {
        for _ in 0..20 {
            let refused = connect(&trusting, running.tls, name).await;
            if name.starts_with("bad") {
                assert!(refused.is_err(), "the default is not for {name}");
            }
        }
    }
    accepted(&running, &root, "good.example.org").await;
    status_of(&running, "good.example.org", |status| status.not_after.is_some()).await;
    let stored = fs::read_dir(pebble.store().join("certs")).unwrap().count();
    assert_eq!(stored, 2, "the domain's and the one allowed");
    let asked = good.0.lock().unwrap().clone();
    let count = |name: &str| asked.iter().filter(|asked| *asked == name).count();
    assert_eq!((count("bad.example.org"), count("good.example.org")), (1, 1), "{asked:?}");
    assert!(running.certs.status().iter().all(|status| status.id != "bad.example.org"));
    running.stop().await;
}

#[tokio::test]
async fn orders_beyond_the_cap_wait() {
    let mut pebble = Pebble::start(Options::default()).await;
    let (root, mut acme) = (pebble.root().await, pebble.config());
    acme.orders_per_hour = 1;
    acme.retry_max = Duration::from_secs(3600);
    let mut config = tls_config(acme);
    config.on_demand = Some(Arc::new(Good::default()));
    // The domain's own order is the first and the last of the hour.
    let running = start(&mut pebble, config);
    let client = Arc::new(client(&root));
    let late = status_of(&running, "good.example.org", |status| {
        let hour = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(50);
        status.next_attempt.is_some_and(|at| at > hour) && status.not_after.is_none()
    });
    let knock = async {
        loop {
            let _ = connect(&client, running.tls, "good.example.org").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! { _ = late => {}, () = knock => {} }
    running.stop().await;
}

#[tokio::test]
async fn account_is_bound_to_the_one_at_the_authority() {
    let options = Options { external_account: true, ..Options::default() };
    let mut pebble = Pebble::start(options).await;
    let (root, mut config) = (pebble.root().await, pebble.config());
    let (tls, http) = (pebble.tls.take().unwrap(), pebble.http.take());
    let (tls_address, http_address) = (tls.local_addr(), http.as_ref().unwrap().local_addr());
    let certs = Certs::open(tls_config(config.clone())).unwrap();
    let running = Running::start(&certs, tls, http);
    status_of(&running, "edge.example.com", |status| {
        status.last_error.as_ref().is_some_and(|error| error.contains("externalAccountRequired"))
    })
    .await;
    running.stop().await;
    let (tls, http) = (rebind(tls_address.unwrap()).await, rebind(http_address.unwrap()).await);
    let hmac_key = EXTERNAL_KEY.to_owned();
    config.external_account = Some(ExternalAccount { key_id: "kid-1".to_owned(), hmac_key });
    let certs = Certs::open(tls_config(config)).unwrap();
    let running = Running::start(&certs, tls, Some(http));
    accepted(&running, &root, "edge.example.com").await;
    running.stop().await;
}
