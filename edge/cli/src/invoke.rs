//! `wrenn invoke`: requests to a function over HTTP/1.1, HTTP/2 or HTTP/3.

mod quic;
mod tcp;

use std::{fs, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    args::{HttpVersion, InvokeArgs},
    connection::Connection,
    failure::Failure,
    output::Out,
};

/// Longest time to open a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Most bytes of an answer that are kept for `--json`.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Where a function is.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) url: Uri,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

/// The head of an answer.
#[derive(Debug)]
struct Head {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
}

/// Takes the body's pieces as they come.
type Sink<'a> = dyn FnMut(&Bytes) -> Result<(), Failure> + Send + 'a;

/// One open connection, whatever its protocol.
enum Sender {
    Tcp(tcp::Sender),
    Quic(Box<quic::Sender>),
}

/// One invocation, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Invocation<'a> {
    status: u16,
    http: &'static str,
    sandbox: Option<&'a str>,
    server_timing: Option<&'a str>,
    elapsed_ms: f64,
    headers: Vec<(&'a str, String)>,
    body: String,
}

/// Sends the requests; the exit status says whether all were answered below 400.
pub(crate) async fn run(
    connection: &Connection,
    args: &InvokeArgs,
    out: &Out,
) -> Result<ExitCode, Failure> {
    let target = target(connection, args).await?;
    let body = body(args)?;
    let mut sender = None;
    let mut all_fine = true;
    for _ in 0..args.repeat {
        let request = request(&target, args, body.clone())?;
        let deadline = Duration::from_millis(args.timeout_ms);
        let work = one(&mut sender, &target, args.http, request, out);
        let Ok(done) = tokio::time::timeout(deadline, work).await else {
            return Err(Failure::Gave(format!("no whole answer within {} ms", args.timeout_ms)));
        };
        all_fine &= done?.as_u16() < 400;
    }
    Ok(if all_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn one(
    sender: &mut Option<Sender>,
    target: &Target,
    version: HttpVersion,
    request: Request<Bytes>,
    out: &Out,
) -> Result<StatusCode, Failure> {
    let since = Instant::now();
    if !sender.as_mut().is_some_and(Sender::is_open) {
        *sender = Some(Sender::open(target, version).await?);
    }
    let sender = sender.as_mut().ok_or_else(|| Failure::Gave("no connection".to_owned()))?;
    let mut kept = Vec::new();
    let mut sink = |piece: &Bytes| {
        if !out.is_json() {
            return out.bytes(piece);
        }
        let room = KEPT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&piece[..piece.len().min(room)]);
        Ok(())
    };
    let head = sender.send(request, &mut sink).await?;
    let elapsed_ms = since.elapsed().as_secs_f64() * 1000.0;
    report(&head, &kept, elapsed_ms, out)?;
    Ok(head.status)
}

fn report(head: &Head, body: &[u8], elapsed_ms: f64, out: &Out) -> Result<(), Failure> {
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let http = match head.version {
        Version::HTTP_3 => "3",
        Version::HTTP_2 => "2",
        _ => "1.1",
    };
    let (sandbox, server_timing) = (text("x-wrenn-sandbox"), text("server-timing"));
    if !out.is_json() {
        out.note(&format!(
            "\nHTTP/{http} {} in {elapsed_ms:.1} ms, sandbox {} ({})",
            head.status,
            sandbox.unwrap_or("-"),
            server_timing.unwrap_or("no timing")
        ));
        return Ok(());
    }
    let lossy = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let invocation = Invocation {
        status: head.status.as_u16(),
        http,
        sandbox,
        server_timing,
        elapsed_ms,
        headers: head.headers.iter().map(|(k, v)| (k.as_str(), lossy(v))).collect(),
        body: String::from_utf8_lossy(body).into_owned(),
    };
    out.result(&invocation, |_| String::new())
}

impl Sender {
    async fn open(target: &Target, version: HttpVersion) -> Result<Self, Failure> {
        let open = async {
            let address = resolve(&target.host, target.port).await?;
            Ok(match version {
                HttpVersion::H3 => Self::Quic(Box::new(quic::open(target, address).await?)),
                other => Self::Tcp(tcp::open(target, address, other == HttpVersion::H2).await?),
            })
        };
        let waited = tokio::time::timeout(CONNECT_DEADLINE, open).await;
        waited.unwrap_or_else(|_| {
            let to = format!("{}:{}", target.host, target.port);
            Err(Failure::Gave(format!("no connection to {to} within {CONNECT_DEADLINE:?}")))
        })
    }

    fn is_open(&mut self) -> bool {
        match self {
            Self::Tcp(sender) => sender.is_open(),
            Self::Quic(sender) => sender.is_open(),
        }
    }

    async fn send(
        &mut self,
        request: Request<Bytes>,
        sink: &mut Sink<'_>,
    ) -> Result<Head, Failure> {
        match self {
            Self::Tcp(sender) => sender.send(request, sink).await,
            Self::Quic(sender) => sender.send(request, sink).await,
        }
    }
}

/// Beside a developer stack the address is known; elsewhere the API is asked for it.
async fn target(connection: &Connection, args: &InvokeArgs) -> Result<Target, Failure> {
    let url = match &connection.dev {
        Some(dev) => format!("https://{}.fn.{}:{}", args.name, dev.domain, dev.https_port),
        None => connection.client.function(&args.name).await?.url,
    };
    let bad = |reason: &str| Failure::Gave(format!("`{url}` can't be called: {reason}"));
    let parsed: Uri = url.parse().map_err(|_| bad("it is no URL"))?;
    let host = parsed.host().ok_or_else(|| bad("it names no host"))?.to_owned();
    let secure = parsed.scheme_str() == Some("https");
    let tls = if secure { connection.tls.clone() } else { None };
    if secure && tls.is_none() {
        return Err(Failure::Usage(format!("{url} needs --ca-file (or WRENN_CA_FILE)")));
    }
    if !secure && args.http != HttpVersion::H1 {
        return Err(Failure::Usage(format!("{url} is not secure: only --http 1.1 works there")));
    }
    let port = parsed.port_u16().unwrap_or(if secure { 443 } else { 80 });
    Ok(Target { url: parsed, host, port, tls })
}

/// Names below `.localhost` are loopback, whatever a resolver thinks (RFC 6761).
async fn resolve(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let unknown = |e| Failure::local(format!("resolve {host}"), e);
    let mut found = tokio::net::lookup_host((host, port)).await.map_err(unknown)?;
    found.next().ok_or_else(|| Failure::Gave(format!("{host} has no address")))
}

fn body(args: &InvokeArgs) -> Result<Bytes, Failure> {
    Ok(match args.data.as_deref() {
        None => Bytes::new(),
        Some(data) => match data.strip_prefix('@') {
            None => Bytes::from(data.to_owned()),
            Some(path) => {
                let read = fs::read(path).map_err(Failure::file("read", path.as_ref()))?;
                Bytes::from(read)
            }
        },
    })
}

fn request(target: &Target, args: &InvokeArgs, body: Bytes) -> Result<Request<Bytes>, Failure> {
    let fallback = if args.data.is_some() { Method::POST } else { Method::GET };
    let base = target.url.to_string();
    let uri = format!("{}/{}", base.trim_end_matches('/'), args.path.trim_start_matches('/'));
    let mut request = Request::builder().method(args.method.clone().unwrap_or(fallback)).uri(uri);
    for (name, value) in &args.headers {
        request = request.header(name, value);
    }
    if args.data.is_some() {
        request = request.header(http::header::CONTENT_LENGTH, body.len());
    }
    request.body(body).map_err(|e| Failure::Usage(format!("the request can't be made: {e}")))
}
