//! How does an authority say when to renew (RFC 9773)?
//!
//! Pebble as packaged does not, so this stands in front of its directory: it adds the one URL and
//! answers it; everything else goes to Pebble itself. Pebble does not reflect what an order
//! replaces either, so the client's way around that is seen, too.
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use jiff::{Timestamp, ToSpan as _};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::{bind, pebble::Pebble};

pub(crate) struct Advisor {
    pub(crate) directory: String,
    state: Arc<State>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct State {
    early: AtomicBool,
    asked: Mutex<Vec<String>>,
}

impl Advisor {
    pub(crate) async fn start(pebble: &Pebble) -> Self {
        let listener = bind().await;
        let base = format!("https://{}", listener.local_addr().unwrap());
        let mut directory = pebble.directory().await;
        directory["renewalInfo"] = format!("{base}/renewal").into();
        let chain = CertificateDer::pem_file_iter(pebble.path("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(pebble.path("server.key")).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { break };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let body = shared.answer(path, &directory);
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nretry-after: 21600\r\nconnection: close\r\n\
                     content-length: {length}\r\n\r\n{body}"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        let directory = format!("{base}/dir");
        Self { directory, state, _task: AbortOnDropHandle::new(task) }
    }

    /// From now on the first certificate that is asked about should have been renewed yesterday.
    pub(crate) fn renew_now(&self) {
        self.state.early.store(true, Ordering::SeqCst);
    }

    /// The certificates that were asked about.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().clone()
    }
}

impl State {
    fn answer(&self, path: &str, directory: &Value) -> String {
        let Some(id) = path.strip_prefix("/renewal/") else { return directory.to_string() };
        self.asked.lock().unwrap().push(id.to_owned());
        let now = Timestamp::now();
        let start = if self.early.swap(false, Ordering::SeqCst) {
            now - 48.hours()
        } else {
            now + (24 * 50).hours()
        };
        let window = serde_json::json!({ "start": start, "end": start + 24.hours() });
        serde_json::json!({ "suggestedWindow": window }).to_string()
    }
}
