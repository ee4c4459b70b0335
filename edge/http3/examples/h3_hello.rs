//! A server that answers 1 KiB to everything, for profiles: `h3_hello 127.0.0.1:4433`.

use std::{convert::Infallible, env, error::Error, sync::Arc};

use bytes::Bytes;
use edge_http3::{Config, RecvBody};
use http::{Request, Response};
use http_body_util::Full;
use quinn::crypto::rustls::QuicServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:4433".into()).parse()?;
    let endpoint = quinn::Endpoint::server(tls()?, address)?;
    let config = Arc::new(Config::default());
    let body = Bytes::from(vec![b'x'; 1024]);
    while let Some(incoming) = endpoint.accept().await {
        let (config, body) = (Arc::clone(&config), body.clone());
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let service = move |_: Request<RecvBody>| {
                let body = Full::<Bytes>::new(body.clone());
                async move { Response::new(http_body_util::BodyExt::map_err(body, never)) }
            };
            let ended = edge_http3::serve(connection, config, service, std::future::pending());
            if let Err(error) = ended.await {
                tracing::debug!(error = &error as &dyn Error, "connection ended early");
            }
        });
    }
    Ok(())
}

fn never(never: Infallible) -> edge_http3::BoxError {
    match never {}
}

fn tls() -> Result<quinn::ServerConfig, Box<dyn Error>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    tls.alpn_protocols = vec![b"h3".to_vec()];
    Ok(quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?)))
}
