//! What if the server of a key set is down, slow, huge, lying or leading astray?

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::AbortHandle;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{tokens::Signer, *};

/// Answers every request with the same bytes, as they are.
struct Server {
    at: SocketAddr,
    answer: Arc<Mutex<Option<String>>>,
    hits: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(answer: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (answer, hits) = (Arc::new(Mutex::new(answer)), Arc::new(AtomicUsize::new(0)));
        let (answers, count) = (Arc::clone(&answer), Arc::clone(&hits));
        let serve = async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut head = [0; 2048];
                let _ = stream.read(&mut head).await;
                let answer = answers.lock().unwrap().clone();
                // No answer means a slow one: the connection stays open for a while.
                match answer {
                    Some(text) => drop(stream.write_all(text.as_bytes()).await),
                    None => tokio::time::sleep(Duration::from_secs(60)).await,
                }
            }
        };
        Self { at, answer, hits, task: tokio::spawn(serve).abort_handle() }
    }

    fn say(&self, answer: String) {
        *self.answer.lock().unwrap() = Some(answer);
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    fn policy(&self) -> Vec<Auth> {
        at(&format!("http://{}/jwks", self.at))
    }
}

fn at(url: &str) -> Vec<Auth> {
    vec![Auth::Jwt(JwtAuth { jwks_url: Some(url.to_owned()), ..JwtAuth::default() })]
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}

async fn show(auth: &Authenticator, policy: &[Auth], token: &str) -> Result<Identity, AuthError> {
    let value = format!("Bearer {token}");
    ask(auth, policy, "/", &[("authorization", &value)], &Known::default()).await
}

async fn failure(auth: &Authenticator, policy: &[Auth], token: &str) -> JwksError {
    match show(auth, policy, token).await {
        Err(AuthError::Jwt(JwtError::KeySet(error))) => error,
        other => panic!("expected no key set, got {other:?}"),
    }
}

#[tokio::test]
async fn one_fetch_serves_many_and_an_unknown_key_causes_one_more() {
    let (one, two) = (Signer::new("one"), Signer::new("two"));
    let server = Server::start(Some(ok(&one.set()))).await;
    let (auth, policy) = (Arc::new(authenticator()), server.policy());
    let calls = (0..20).map(|_| {
        let (auth, policy, token) = (Arc::clone(&auth), policy.clone(), one.good());
        tokio::spawn(async move { show(&auth, &policy, &token).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(matches!(call.await.unwrap(), Ok(Identity::Jwt(_))));
    }
    assert_eq!(server.hits(), 1);
    server.say(ok(&two.set()));
    assert!(show(&auth, &policy, &two.good()).await.is_ok(), "the set was turned over");
    for _ in 0..5 {
        let answer = show(&auth, &policy, &one.good()).await;
        assert_eq!(answer, Err(AuthError::Jwt(JwtError::UnknownKey)));
    }
    assert_eq!(server.hits(), 2, "one fetch a minute for keys nobody knows");
}

#[tokio::test]
async fn huge_broken_and_failing_answers_are_no_key_set() {
    let token = Signer::new("one").good();
    let redirect = |to: &str| {
        format!(
            "HTTP/1.1 302 Found\r\nconnection: close\r\ncontent-length: 0\r\nlocation: {to}\r\n\r\n"
        )
    };
    for (answer, want) in [
        (ok(&" ".repeat(9000)), JwksError::TooLarge),
        (ok("{\"keys\": 1}"), JwksError::BadAnswer),
        (
            "HTTP/1.1 500 Oh\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
            JwksError::BadAnswer,
        ),
        ("what?\r\n\r\n".to_owned(), JwksError::Unreachable),
        (redirect("/again"), JwksError::BadAnswer),
        (redirect("http://example.com/"), JwksError::Forbidden),
        (redirect("ftp://127.0.0.1/"), JwksError::Forbidden),
    ] {
        let server = Server::start(Some(answer)).await;
        assert_eq!(failure(&authenticator(), &server.policy(), &token).await, want);
        assert!(server.hits() <= 4, "redirects are bounded");
    }
}

#[tokio::test]
async fn slow_and_absent_servers_end_in_time_and_are_left_alone_for_a_while() {
    let token = Signer::new("one").good();
    let slow = Server::start(None).await;
    let timeout = Duration::from_millis(200);
    let config = JwksConfig { allow_private: true, timeout, bytes_max: 8192 };
    let auth = Authenticator::new(config);
    for _ in 0..10 {
        assert_eq!(failure(&auth, &slow.policy(), &token).await, JwksError::Unreachable);
    }
    assert_eq!(slow.hits(), 1);
    let gone = Server::start(None).await.policy();
    assert_eq!(failure(&auth, &gone, &token).await, JwksError::Unreachable);
}

#[tokio::test]
async fn private_addresses_and_plain_http_are_refused() {
    let token = Signer::new("one").good();
    let server = Server::start(Some(ok(&Signer::new("one").set()))).await;
    let public = Authenticator::new(JwksConfig::default());
    let port = server.at.port();
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("https://[::1]:{port}/"),
        format!("https://[::ffff:127.0.0.1]:{port}/"),
        format!("https://localhost:{port}/"),
        "https://169.254.169.254/latest".to_owned(),
    ] {
        assert_eq!(failure(&public, &at(&url), &token).await, JwksError::Forbidden, "{url}");
    }
    assert_eq!(server.hits(), 0);
    let open = authenticator();
    assert_eq!(failure(&open, &at("http://10.0.0.1/"), &token).await, JwksError::Forbidden);
}

#[tokio::test]
async fn stale_keys_are_served_while_fetching_fails() {
    let one = Signer::new("one");
    let server = Server::start(Some(ok(&one.set()))).await;
    let (auth, policy) = (authenticator(), server.policy());
    assert!(show(&auth, &policy, &one.good()).await.is_ok());
    server.say("HTTP/1.1 500 Oh\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned());
    auth.sets.expire_all();
    assert!(show(&auth, &policy, &one.good()).await.is_ok());
    assert!(show(&auth, &policy, &one.good()).await.is_ok());
    assert_eq!(server.hits(), 2, "a failed fetch is not tried again at once");
}
