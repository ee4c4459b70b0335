//! A client that sees every head of an answer, interim ones too, and sends its body when it likes.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use h2::client::ResponseFuture;
use http::{HeaderMap, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::{
    client::{Proto, quic_connect, tls_stream},
    stack::Stack,
};

/// Longest wait for what is to come.
const PATIENCE: Duration = Duration::from_secs(20);

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

enum Ends {
    H1(Box<dyn Io>),
    H2(h2::SendStream<Bytes>, Pin<Box<ResponseFuture>>),
    H3(Box<h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>>, quinn::Endpoint),
}

/// One request on a connection of its own.
pub(crate) struct Asking {
    ends: Ends,
    answer: Option<h2::RecvStream>,
    length: usize,
    _tasks: JoinSet<()>,
}

impl Asking {
    /// Sends the head; a body of `length` bytes is to come if that is not 0.
    pub(crate) async fn start(
        stack: &Stack,
        proto: Proto,
        host: &str,
        fields: &[(&str, &str)],
        length: usize,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let mut request = Request::post(format!("https://{host}/asking"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        if length > 0 {
            request = request.header("content-length", length);
        }
        let request = request.body(()).unwrap();
        let ends = match proto {
            Proto::Plain => {
                let stream = TcpStream::connect(stack.http).await.unwrap();
                Ends::H1(h1(Box::new(stream), &request, host).await)
            }
            Proto::H1 => {
                let stream = tls_stream(stack, b"http/1.1").await;
                Ends::H1(h1(Box::new(stream), &request, host).await)
            }
            Proto::H2 => {
                let stream = tls_stream(stack, b"h2").await;
                let (sender, connection) = h2::client::handshake(stream).await.unwrap();
                tasks.spawn(async move { drop(connection.await) });
                let mut sender = sender.ready().await.unwrap();
                let (answer, body) = sender.send_request(request, length == 0).unwrap();
                Ends::H2(body, Box::pin(answer))
            }
            Proto::H3 => {
                let (endpoint, connection) = quic_connect(stack).await;
                let transport = h3_quinn::Connection::new(connection);
                let (mut driver, mut sender) = h3::client::new(transport).await.unwrap();
                let mut stream = sender.send_request(request).await.unwrap();
                tasks.spawn(async move {
                    let _sender = sender; // the connection ends with the last of them
                    let _ = poll_fn(|cx| driver.poll_close(cx)).await;
                });
                if length == 0 {
                    stream.finish().await.unwrap();
                }
                Ends::H3(Box::new(stream), endpoint)
            }
        };
        Self { ends, answer: None, length: 0, _tasks: tasks }
    }

    /// The next head, interim or final.
    pub(crate) async fn next(&mut self) -> (u16, HeaderMap) {
        let reading = async {
            match &mut self.ends {
                Ends::H1(io) => read_head(io).await,
                Ends::H2(_, answer) => {
                    let (head, body) = h2_head(answer).await;
                    self.answer = body;
                    head
                }
                Ends::H3(stream, _) => stream.recv_response().await.unwrap(),
            }
        };
        let (parts, ()) = timeout(PATIENCE, reading).await.expect("a head comes").into_parts();
        let length = parts.headers.get("content-length");
        self.length = length.map_or(0, |length| length.to_str().unwrap().parse().unwrap());
        (parts.status.as_u16(), parts.headers)
    }

    /// Nothing comes for a while.
    pub(crate) async fn hears_nothing(&mut self) {
        let quiet = timeout(Duration::from_millis(100), self.next()).await;
        assert!(quiet.is_err(), "{:?} came", quiet.unwrap());
    }

    /// Sends the body, all of it.
    pub(crate) async fn send(&mut self, body: &'static str) {
        let body = Bytes::from_static(body.as_bytes());
        match &mut self.ends {
            Ends::H1(io) => io.write_all(&body).await.unwrap(),
            Ends::H2(send, _) => send.send_data(body, true).unwrap(),
            Ends::H3(stream, _) => {
                stream.send_data(body).await.unwrap();
                stream.finish().await.unwrap();
            }
        }
    }

    /// The body of the answer whose head was read, which has said how long it is.
    pub(crate) async fn text(mut self) -> String {
        let mut text = Vec::new();
        while text.len() < self.length {
            let reading = async {
                match &mut self.ends {
                    Ends::H1(io) => vec![io.read_u8().await.unwrap()],
                    Ends::H2(..) => {
                        let data = self.answer.as_mut().unwrap().data().await;
                        data.expect("there is more").unwrap().to_vec()
                    }
                    Ends::H3(stream, _) => {
                        let mut data = stream.recv_data().await.unwrap().expect("there is more");
                        data.copy_to_bytes(data.remaining()).to_vec()
                    }
                }
            };
            text.extend(timeout(PATIENCE, reading).await.expect("the body comes"));
        }
        String::from_utf8(text).unwrap()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Ends::H3(_, endpoint) = &self.ends {
            endpoint.close(0x100_u32.into(), b"");
        }
    }
}

async fn h1(mut io: Box<dyn Io>, request: &Request<()>, host: &str) -> Box<dyn Io> {
    let mut head = format!("POST {} HTTP/1.1\r\nHost: {host}\r\n", request.uri().path());
    for (name, value) in request.headers() {
        head += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    io.write_all((head + "\r\n").as_bytes()).await.unwrap();
    io
}

async fn read_head(io: &mut Box<dyn Io>) -> Response<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.expect("a head comes"));
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let mut response = Response::builder().status(status);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        response = response.header(name, value);
    }
    response.body(()).unwrap()
}

async fn h2_head(answer: &mut Pin<Box<ResponseFuture>>) -> (Response<()>, Option<h2::RecvStream>) {
    poll_fn(|cx| match ready!(answer.poll_informational(cx)) {
        Some(interim) => Poll::Ready((interim.unwrap(), None)),
        None => {
            let (parts, body) = ready!(answer.as_mut().poll(cx)).unwrap().into_parts();
            Poll::Ready((Response::from_parts(parts, ()), Some(body)))
        }
    })
    .await
}
