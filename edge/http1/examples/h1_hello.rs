//! What does a request cost? A server of 1 KiB answers on one thread, ours or hyper's, for `wrk`.
//!
//! `h1_hello ours 8001` or `h1_hello hyper 8002`.

use std::{convert::Infallible, error::Error, sync::Arc};

use bytes::Bytes;
use edge_http1::server::{Config, Counters, serve};
use http::Response;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let ours = arguments.next().as_deref() != Some("hyper");
    let port: u16 = arguments.next().unwrap_or_else(|| "0".into()).parse()?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on {}", listener.local_addr()?);
    let answer = Bytes::from(vec![b'x'; 1024]);
    let shared = Arc::new((Config::default(), Counters::default()));
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (answer, shared) = (answer.clone(), Arc::clone(&shared));
        let respond = move || Response::new(Full::new(answer.clone()));
        if ours {
            connections.spawn(async move {
                let (config, counters) = &*shared;
                let service = |_| std::future::ready(respond());
                let drain = CancellationToken::new();
                let _ = serve(stream, Bytes::new(), config, counters, service, drain).await;
            });
        } else {
            connections.spawn(async move {
                let service = hyper::service::service_fn(|_| {
                    std::future::ready(Ok::<_, Infallible>(respond()))
                });
                let builder = hyper::server::conn::http1::Builder::new();
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
        while connections.try_join_next().is_some() {}
    }
}
