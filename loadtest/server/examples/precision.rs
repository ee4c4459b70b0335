//! How exact delays are: asked for, reported by the server, and seen by a simple client.
//!
//! The client is a blocking socket in a thread of its own. What it sees on top of what is reported
//! is the way there and back, and both sides' waking up.

use std::{
    error::Error,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use loadtest_server::{Server, ServerConfig};

/// Requests per delay.
const COUNT: usize = 200;

type BoxError = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let server = Server::start(ServerConfig { tls: None, ..ServerConfig::default() }).await?;
    let address = server.clear_address().ok_or("no address")?;
    tokio::task::spawn_blocking(move || measure(address)).await??;
    server.shutdown().await;
    Ok(())
}

fn measure(address: SocketAddr) -> Result<(), BoxError> {
    println!("asked ms   reported - asked us (p50 p99 max)   seen - reported us (p50 p99 max)");
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    for ms in [0, 1, 5, 20, 100] {
        let (mut late, mut around) = (Vec::new(), Vec::new());
        for _ in 0..COUNT {
            let begun = Instant::now();
            write!(stream, "GET /delay?ms={ms} HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
            let text = answer(&mut stream)?;
            let seen_us = begun.elapsed().as_secs_f64() * 1e6;
            let (_, rest) = text.split_once("delay;dur=").ok_or("no Server-Timing")?;
            let reported: f64 = rest.lines().next().unwrap_or_default().trim().parse()?;
            late.push(reported * 1e3 - f64::from(ms) * 1e3);
            around.push(seen_us - reported * 1e3);
        }
        println!("{ms:8}   {}   {}", figures(late), figures(around));
    }
    Ok(())
}

fn answer(stream: &mut TcpStream) -> Result<String, BoxError> {
    let (mut text, mut buffer) = (String::new(), [0; 1024]);
    while !text.ends_with("\r\n\r\nok\n") {
        let bytes = stream.read(&mut buffer)?;
        if bytes == 0 {
            return Err("the server closed the connection".into());
        }
        text.push_str(std::str::from_utf8(&buffer[..bytes])?);
    }
    Ok(text)
}

fn figures(mut values: Vec<f64>) -> String {
    values.sort_unstable_by(f64::total_cmp);
    let at = |percent: usize| values[(values.len() - 1) * percent / 100];
    format!("{:8.1} {:8.1} {:8.1}", at(50), at(99), at(100))
}
