//! How does the test authority resolve names? Every name leads to this machine, and the TXT records
//! are the files that the hook writes.
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

const TYPE_A: u16 = 1;
const TYPE_TXT: u16 = 16;

pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    pub(crate) records: PathBuf,
    _task: AbortOnDropHandle<()>,
}

impl Dns {
    pub(crate) async fn start(records: &Path) -> Self {
        fs::create_dir_all(records).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let dir = records.to_owned();
        let task = tokio::spawn(async move {
            let mut query = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                if let Some(answer) = answer(&query[..length], &dir) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        let task = AbortOnDropHandle::new(task);
        Self { address, records: records.to_owned(), _task: task }
    }

    /// A program that keeps each TXT value in a file of its own: `<records>/<name>/<value>`.
    pub(crate) fn hook(&self) -> PathBuf {
        let program = self.records.with_extension("hook");
        let script = "#!/bin/sh\nset -e\ndir=\"${0%.hook}\"\ncase $1 in\n\
            present) mkdir -p \"$dir/$2\"; : > \"$dir/$2/$3\" ;;\n\
            cleanup) rm \"$dir/$2/$3\"; rmdir \"$dir/$2\" 2>/dev/null || true ;;\n*) exit 2 ;;\nesac\n";
        edge_testing::program(&program, script);
        program
    }
}

/// An answer by RFC 1035 section 4: header, the question again, records.
fn answer(query: &[u8], records: &Path) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(12..at + 4)?;
    let data: Vec<Vec<u8>> = match kind {
        TYPE_A => vec![vec![127, 0, 0, 1]],
        TYPE_TXT => fs::read_dir(records.join(labels.join(".")))
            .into_iter()
            .flatten()
            .map(|file| {
                let value = file.unwrap().file_name().into_string().unwrap();
                let mut data = vec![u8::try_from(value.len()).unwrap()];
                data.extend_from_slice(value.as_bytes());
                data
            })
            .collect(),
        _ => vec![],
    };
    let count = u16::try_from(data.len()).unwrap().to_be_bytes();
    let mut out = query.get(..2)?.to_vec();
    out.extend_from_slice(&[0x85, 0x80, 0, 1, count[0], count[1], 0, 0, 0, 0]);
    out.extend_from_slice(question);
    for item in data {
        out.extend_from_slice(&[0xc0, 12]); // the name of the question
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0]); // internet, not to be kept
        out.extend_from_slice(&u16::try_from(item.len()).unwrap().to_be_bytes());
        out.extend_from_slice(&item);
    }
    Some(out)
}
