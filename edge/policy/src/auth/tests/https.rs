//! Are key sets taken over TLS, and only from servers whose certificate is trusted?

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs::default_provider,
    pki_types::PrivateKeyDer,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{tokens::Signer, *};

#[tokio::test]
async fn only_a_trusted_certificate_makes_a_key_set() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let trusting = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/jwks", listener.local_addr().unwrap().port());
    let signer = Signer::new("one");
    let (set, acceptor) = (signer.set(), TlsAcceptor::from(Arc::new(config)));
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 2048]).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", set.len());
            let _ = stream.write_all(format!("{head}{set}").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    let policy = [Auth::Jwt(JwtAuth { jwks_url: Some(url), ..JwtAuth::default() })];
    let token = format!("Bearer {}", signer.good());
    let fields = [("authorization", token.as_str())];
    let known = Known::default();
    let strict = ask(&authenticator(), &policy, "/", &fields, &known).await;
    assert_eq!(strict, Err(AuthError::Jwt(JwtError::KeySet(JwksError::Unreachable))));
    let trusted = authenticator();
    trusted.sets.fetcher.trust(trusting);
    let answer = ask(&trusted, &policy, "/", &fields, &known).await;
    server.abort();
    assert!(matches!(answer, Ok(Identity::Jwt(_))), "{answer:?}");
}
