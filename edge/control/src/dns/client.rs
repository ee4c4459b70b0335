//! Sends the question to name servers, one after the other, and waits for the answer, not for long.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{
    LookupError, TxtLookup,
    wire::{self, Answer, NoAnswer},
};

/// Where this system says which servers to ask.
const SYSTEM_FILE: &str = "/etc/resolv.conf";
/// Most servers that are asked, as the C library does.
const SERVERS_MAX: usize = 3;
/// How often all servers are asked.
const ROUNDS: usize = 2;
/// Longest wait for one server's answer over UDP, and over TCP.
const WAIT: Duration = Duration::from_secs(2);
/// Most bytes of an answer over UDP that is read (RFC 1035, 4.2.1 has 512; more is taken).
const UDP_BYTES_MAX: usize = 4096;
/// The port of the domain name system.
const PORT: u16 = 53;

/// Asks name servers over UDP, and over TCP what doesn't fit. Remembers nothing.
#[derive(Debug, Clone)]
pub struct Resolver(Servers);

#[derive(Debug, Clone)]
enum Servers {
    /// Read from this file each time.
    File(PathBuf),
    Fixed(Vec<SocketAddr>),
}

impl Resolver {
    /// Asks the servers of `/etc/resolv.conf`.
    #[must_use]
    pub fn system() -> Self {
        Self(Servers::File(SYSTEM_FILE.into()))
    }

    /// Asks these servers, the first three of them.
    #[must_use]
    pub fn new(mut servers: Vec<SocketAddr>) -> Self {
        servers.truncate(SERVERS_MAX);
        Self(Servers::Fixed(servers))
    }
}

#[async_trait]
impl TxtLookup for Resolver {
    async fn txt(&self, name: &str) -> Result<Vec<String>, LookupError> {
        let servers = match &self.0 {
            Servers::Fixed(servers) => servers.clone(),
            Servers::File(path) => of_file(path).await.map_err(LookupError::Config)?,
        };
        let mut last = LookupError::NoServer;
        for server in std::iter::repeat_n(servers, ROUNDS).flatten() {
            match ask(server, name).await {
                Ok(Answer::Texts(texts)) => return Ok(texts),
                Ok(Answer::Truncated) => last = failed(server, "the answer is cut"),
                Ok(Answer::Failed(code)) => last = failed(server, format!("answer code {code}")),
                Err(Trouble::BadName) => {
                    let name = name.chars().take(300).collect();
                    return Err(LookupError::BadName { name });
                }
                Err(trouble) => last = failed(server, trouble.to_string()),
            }
        }
        Err(last)
    }
}

fn failed(server: SocketAddr, reason: impl Into<String>) -> LookupError {
    LookupError::Failed { server, reason: reason.into() }
}

/// Why one server did not answer.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("it cannot be a name")]
    BadName,
    #[error("no answer within {} s", WAIT.as_secs())]
    Silent,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    NoAnswer(#[from] NoAnswer),
}

async fn ask(server: SocketAddr, name: &str) -> Result<Answer, Trouble> {
    let id: u16 = rand::random();
    let question = wire::question(id, name).ok_or(Trouble::BadName)?;
    let udp = over_udp(server, &question, id, name);
    match timeout(WAIT, udp).await.map_err(|_| Trouble::Silent)?? {
        Answer::Truncated => {
            let tcp = over_tcp(server, &question, id, name);
            timeout(WAIT, tcp).await.map_err(|_| Trouble::Silent)?
        }
        answer => Ok(answer),
    }
}

/// From a port that the kernel chooses at random; a connected socket hears its server only.
async fn over_udp(
    server: SocketAddr,
    question: &[u8],
    id: u16,
    name: &str,
) -> Result<Answer, Trouble> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; UDP_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match wire::answer(&buffer[..length], id, name) {
            Err(NoAnswer::NotOurs) => {} // forged or late: the true one may still come
            answer => return Ok(answer?),
        }
    }
}

async fn over_tcp(
    server: SocketAddr,
    question: &[u8],
    id: u16,
    name: &str,
) -> Result<Answer, Trouble> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(|_| Trouble::BadName)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(question);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    Ok(wire::answer(&answer, id, name)?)
}

async fn of_file(path: &Path) -> io::Result<Vec<SocketAddr>> {
    let text = tokio::fs::read_to_string(path).await?;
    Ok(servers_of(&text))
}

/// The servers that a `resolv.conf` names; what can't be read is passed over.
fn servers_of(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        Some(SocketAddr::new(address.parse().ok()?, PORT))
    };
    text.lines().filter_map(server).take(SERVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_servers_are_read_from_its_file() {
        let text = "# nameserver 9.9.9.9\nsearch example.org\nnameserver 127.0.0.53\n\
                    nameserver fe80::1%eth0\nnameserver ::1 # x\nnameserver\nnameserver 1.1.1.1\n\
                    nameserver 8.8.8.8\n";
        let expected = ["127.0.0.53:53", "[::1]:53", "1.1.1.1:53"];
        assert_eq!(servers_of(text), expected.map(|server| server.parse().unwrap()));
        assert_eq!(servers_of(""), []);
    }

    #[tokio::test]
    async fn without_servers_or_with_no_name_nobody_is_asked() {
        let nobody = Resolver::new(Vec::new()).txt("a.example").await;
        assert!(matches!(nobody, Err(LookupError::NoServer)), "{nobody:?}");
        let server = "127.0.0.1:1".parse().unwrap();
        let no_name = Resolver::new(vec![server]).txt("a..example").await;
        assert!(matches!(no_name, Err(LookupError::BadName { .. })), "{no_name:?}");
    }
}
