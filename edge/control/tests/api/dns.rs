//! The resolver against a name server of our own, which also lies.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use edge_control::{LookupError, Resolver, TxtLookup};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    time::timeout,
};

/// What goes wrong with an answer over UDP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Lie {
    #[default]
    None,
    /// Three forged answers before the true one: another id, another name, another socket.
    Forged,
    /// No answer at all.
    Silent,
    /// Cut, with the whole answer over TCP.
    Cut,
    /// Cut, and TCP says a length and nothing more.
    CutAndHung,
    /// The server can't say.
    Fails,
    /// The right head and question, then rubbish.
    Garbage,
}

#[derive(Debug, Default)]
struct Zone {
    texts: HashMap<String, Vec<String>>,
    lie: Lie,
}

/// A name server on one port, UDP and TCP, until its runtime ends.
#[derive(Debug, Clone)]
pub(crate) struct FakeDns {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl FakeDns {
    pub(crate) async fn start() -> Self {
        let (udp, tcp) = same_port().await;
        let dns = Self { address: udp.local_addr().unwrap(), zone: Arc::default() };
        tokio::spawn(dns.clone().serve_udp(udp));
        tokio::spawn(dns.clone().serve_tcp(tcp));
        dns
    }

    pub(crate) fn set(&self, name: &str, texts: &[&str]) {
        let texts = texts.iter().map(|&text| text.to_owned()).collect();
        self.zone.lock().unwrap().texts.insert(name.to_owned(), texts);
    }

    pub(crate) fn lie(&self, lie: Lie) {
        self.zone.lock().unwrap().lie = lie;
    }

    fn lies(&self) -> Lie {
        self.zone.lock().unwrap().lie
    }

    async fn serve_udp(self, socket: UdpSocket) {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let question = buffer[..length].to_vec();
            let mut answer = self.answer(&question);
            match self.lies() {
                Lie::None => {}
                Lie::Forged => self.forge(&socket, from, &question).await,
                Lie::Silent => continue,
                Lie::Cut | Lie::CutAndHung => {
                    answer.truncate(question.len());
                    answer[2] |= 2;
                    answer[7] = 0;
                }
                Lie::Fails => answer[3] = 2,
                Lie::Garbage => {
                    answer.truncate(question.len());
                    answer[7] = 1;
                    answer.extend([0xc0, 0xff, 1, 2, 3]);
                }
            }
            socket.send_to(&answer, from).await.unwrap();
        }
    }

    async fn forge(&self, socket: &UdpSocket, to: SocketAddr, question: &[u8]) {
        let evil = |question: &[u8]| {
            let mut answer = question.to_vec();
            (answer[2], answer[7]) = (0x81, 1);
            answer.extend(text_record("evil"));
            answer
        };
        let mut id = question.to_vec();
        id[0] ^= 1;
        let mut name = question.to_vec();
        name[13] ^= 1;
        socket.send_to(&evil(&id), to).await.unwrap();
        socket.send_to(&evil(&name), to).await.unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        stranger.send_to(&evil(question), to).await.unwrap();
    }

    async fn serve_tcp(self, listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let dns = self.clone();
            tokio::spawn(async move {
                let length = stream.read_u16().await.unwrap();
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await.unwrap();
                let answer = dns.answer(&question);
                stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
                if dns.lies() == Lie::CutAndHung {
                    std::future::pending::<()>().await;
                }
                stream.write_all(&answer).await.unwrap();
            });
        }
    }

    fn answer(&self, question: &[u8]) -> Vec<u8> {
        let mut name = Vec::new();
        let mut at = 12;
        while question[at] != 0 {
            let end = at + 1 + usize::from(question[at]);
            name.push(String::from_utf8_lossy(&question[at + 1..end]).into_owned());
            at = end;
        }
        let texts = self.zone.lock().unwrap().texts.get(&name.join(".")).cloned();
        let mut answer = question.to_vec();
        answer[2] = 0x81;
        match texts {
            None => answer[3] = 3,
            Some(texts) => {
                answer[7] = u8::try_from(texts.len()).unwrap();
                texts.iter().for_each(|text| answer.extend(text_record(text)));
            }
        }
        answer
    }
}

/// A TXT record of the name in the question.
fn text_record(text: &str) -> Vec<u8> {
    let parts = text.as_bytes().chunks(255);
    let data: Vec<u8> =
        parts.flat_map(|part| [&[u8::try_from(part.len()).unwrap()], part].concat()).collect();
    let mut record = vec![0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60];
    record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    record.extend(data);
    record
}

async fn same_port() -> (UdpSocket, TcpListener) {
    for _ in 0..20 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for UDP and TCP")
}

#[tokio::test]
async fn texts_are_found_and_their_absence_is_an_answer() {
    let dns = FakeDns::start().await;
    let long = "x".repeat(400);
    dns.set("_a.example.org", &["one", &long]);
    dns.set("_b.example.org", &[]);
    let resolver = Resolver::new(vec![dns.address]);
    assert_eq!(resolver.txt("_a.example.org").await.unwrap(), ["one", &long]);
    assert!(resolver.txt("_b.example.org").await.unwrap().is_empty());
    assert!(resolver.txt("_c.example.org").await.unwrap().is_empty());
}

#[tokio::test]
async fn forged_answers_are_passed_over_and_cut_ones_asked_for_over_tcp() {
    let dns = FakeDns::start().await;
    let long = "y".repeat(5000);
    dns.set("_a.example.org", &["true"]);
    dns.set("_l.example.org", &[&long]);
    let resolver = Resolver::new(vec![dns.address]);
    dns.lie(Lie::Forged);
    assert_eq!(resolver.txt("_a.example.org").await.unwrap(), ["true"]);
    dns.lie(Lie::Cut);
    assert_eq!(resolver.txt("_l.example.org").await.unwrap(), [long]);
}

#[tokio::test]
async fn servers_that_fail_or_say_nothing_end_in_a_bounded_refusal() {
    let dns = FakeDns::start().await;
    dns.set("_a.example.org", &["true"]);
    let resolver = Resolver::new(vec![dns.address]);
    for (lie, part) in [
        (Lie::Silent, "no answer within"),
        (Lie::Fails, "answer code 2"),
        (Lie::Garbage, "malformed"),
        (Lie::CutAndHung, "no answer within"),
    ] {
        dns.lie(lie);
        let asked = timeout(Duration::from_secs(60), resolver.txt("_a.example.org"));
        let refused = asked.await.expect("every wait has a bound").unwrap_err();
        assert!(matches!(refused, LookupError::Failed { .. }), "{lie:?}: {refused:?}");
        assert!(refused.to_string().contains(part), "{lie:?}: {refused}");
    }
}

#[tokio::test]
async fn a_server_that_fails_has_the_next_one_asked() {
    let (bad, good) = (FakeDns::start().await, FakeDns::start().await);
    bad.lie(Lie::Fails);
    good.set("_a.example.org", &["true"]);
    let resolver = Resolver::new(vec![bad.address, good.address]);
    assert_eq!(resolver.txt("_a.example.org").await.unwrap(), ["true"]);
}
