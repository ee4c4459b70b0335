//! Sends as many requests as one core can, to compare with `wrk` and `h2load`.
//!
//! ```text
//! taskset -c 1 throughput --url http://127.0.0.1:8080/ --protocol h1 --connections 64 --seconds 5
//! ```
//!
//! `--streams` is how many requests each connection has under way (h2, h3). In the clear, or over
//! TLS with `--ca-file`. Prints requests per second, and how many failed.

use std::{
    net::IpAddr,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use http::Uri;
use loadtest_wire::{CallError, Connection, Guard, Origin, Protocol, Request, trusting};

struct Asked {
    origin: Origin,
    path: String,
    protocol: Protocol,
    connections: usize,
    streams: usize,
    seconds: u64,
}

fn main() -> ExitCode {
    match asked().and_then(|asked| run(&asked)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("throughput: {error}");
            ExitCode::FAILURE
        }
    }
}

fn asked() -> Result<Asked, String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let given =
        |flag: &str| args.chunks_exact(2).find(|pair| pair[0] == flag).map(|pair| pair[1].as_str());
    let number = |flag: &str, otherwise: u64| {
        given(flag).map_or(Ok(otherwise), |text| text.parse()).map_err(|e| format!("{flag}: {e}"))
    };
    let url: Uri = given("--url").ok_or("--url is missing")?.parse().map_err(|e| format!("{e}"))?;
    let host = url.host().ok_or("--url names no host")?;
    let secure = url.scheme_str() == Some("https");
    let ca_file = given("--ca-file").map(Path::new);
    let tls = match (secure, ca_file) {
        (true, Some(file)) => Some(trusting(file).map_err(|error| error.in_full())?),
        (true, None) => return Err("https needs --ca-file".to_owned()),
        (false, _) => None,
    };
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let explicit: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let whole = |flag, otherwise| {
        usize::try_from(number(flag, otherwise)?).map_err(|error| format!("{flag}: {error}"))
    };
    Ok(Asked {
        origin: Origin::new(host, port, tls, Guard::new(explicit, false)),
        path: url.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        protocol: given("--protocol").unwrap_or("h1").parse().map_err(|e| format!("{e}"))?,
        connections: whole("--connections", 64)?,
        streams: whole("--streams", 1)?,
        seconds: number("--seconds", 5)?.max(1),
    })
}

fn run(asked: &Asked) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut handles = Vec::new();
        for _ in 0..asked.connections {
            let opened = Connection::open(&asked.origin, asked.protocol).await;
            let first = opened.map_err(|error| error.in_full())?.connection;
            for _ in 1..asked.streams {
                handles.push(first.handle().ok_or("h1 has one stream per connection")?);
            }
            handles.push(first);
        }
        let began = Instant::now();
        let until = began + Duration::from_secs(asked.seconds);
        let workers: Vec<_> = handles
            .into_iter()
            .map(|handle| tokio::spawn(work(handle, Request::get(asked.path.clone()), until)))
            .collect();
        let (mut done, mut failed) = (0_u64, None);
        for worker in workers {
            let (sent, error) = worker.await.map_err(|error| error.to_string())?;
            done += sent;
            failed = failed.or(error);
        }
        let rate = u128::from(done) * 1000 / began.elapsed().as_millis().max(1);
        println!("{} {rate} requests/s ({done} in all)", asked.protocol.short());
        failed.map_or(Ok(()), |error| Err(format!("a worker stopped: {}", error.in_full())))
    })
}

async fn work(
    mut connection: Connection,
    request: Request,
    until: Instant,
) -> (u64, Option<CallError>) {
    let mut done = 0;
    while Instant::now() < until {
        match connection.exchange(&request, &mut |_: &[u8]| {}).await {
            Ok(answer) if answer.status.is_success() => done += 1,
            Ok(answer) => {
                return (done, Some(CallError::at("succeed")(answer.status.to_string())));
            }
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
}
