//! Files over plain HTTP.

use std::{fs, os::unix::fs::MetadataExt as _};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fixture::TestGuest;

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn twenty_mebibytes_come_back_byte_for_byte() {
    let guest = TestGuest::start().await;
    let content = Bytes::from(noise(20 << 20));
    let written = guest.client.write_file("deep/er/file.bin", None, content.clone()).await.unwrap();
    assert_eq!((written.path, &written.name[..]), (guest.path("deep/er/file.bin"), "file.bin"));
    let back = guest.client.read_file("deep/er/file.bin", None, 64 << 20).await.unwrap();
    assert!(back == content, "{} bytes differ", back.len());
    for path in ["deep", "deep/er", "deep/er/file.bin"] {
        let metadata = fs::metadata(guest.home.join(path)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (61_234, 61_234), "{path}");
    }
    assert_eq!(fs::metadata(guest.home.join("deep/er/file.bin")).unwrap().mode() & 0o777, 0o644);
    assert_eq!(
        guest.client.read_file("deep/er/file.bin", None, 100).await.unwrap_err().status(),
        None
    );
}

#[tokio::test]
async fn upload_replaces_a_longer_file_and_an_empty_one_stays_empty() {
    let guest = TestGuest::start().await;
    guest.client.write_file("f", None, Bytes::from("something long")).await.unwrap();
    guest.client.write_file("f", None, Bytes::from("short")).await.unwrap();
    assert_eq!(guest.client.read_file("f", None, 100).await.unwrap(), "short");
    guest.client.write_file("f", None, Bytes::new()).await.unwrap();
    let answer = guest.get("/files?path=f", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("content-length: 0\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn files_that_do_not_tell_their_size_are_read_whole() {
    let guest = TestGuest::start().await;
    let read = guest.client.read_file("/proc/sys/kernel/random/boot_id", None, 100).await.unwrap();
    assert_eq!(read.len(), 37);
}

#[tokio::test]
async fn refusals_have_the_contracts_status_and_shape() {
    let guest = TestGuest::start().await;
    fs::create_dir(guest.home.join("dir")).unwrap();
    fs::write(guest.home.join("file"), "x").unwrap();
    let octets = "content-type: application/octet-stream\r\n";
    let cases = [
        (guest.get("/files?path=missing", "").await, 404, "does not exist"),
        (guest.get("/files?path=dir", "").await, 400, "is a directory"),
        (guest.get("/files?path=file%2Fx", "").await, 400, "not usable"),
        (guest.get("/files?path=/dev/zero", "").await, 400, "not a regular file"),
        (guest.get("/files?path=~other/x", "").await, 400, "another user's home"),
        (
            guest.get("/files?path=file&username=nobody-here", "").await,
            401,
            "invalid username: 'nobody-here'",
        ),
        (guest.post("/files?path=dir", octets, "x").await, 400, "is a directory"),
        (guest.post("/files", octets, "x").await, 400, "path is missing"),
        (
            guest.post("/files?path=a", "content-type: text/plain\r\n", "x").await,
            400,
            "unknown content type",
        ),
        (
            guest.post("/files?path=a", &format!("{octets}content-encoding: br\r\n"), "x").await,
            400,
            "content encoding",
        ),
        (
            guest.post("/files?path=a", &format!("{octets}content-encoding: gzip\r\n"), "x").await,
            400,
            "can't read",
        ),
        (guest.get("/nowhere", "").await, 404, "no such endpoint"),
        (guest.post("/metrics", "", "").await, 405, "not allowed"),
    ];
    for (answer, status, words) in cases {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], status);
        assert!(body["message"].as_str().unwrap().contains(words), "{body}");
    }
    assert!(!guest.home.join("a").exists(), "a refused upload leaves nothing");
}

#[tokio::test]
async fn ranges_are_served() {
    let guest = TestGuest::start().await;
    fs::write(guest.home.join("f"), "0123456789").unwrap();
    let answer = guest.get("/files?path=f", "range: bytes=2-4\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 206"), "{answer}");
    assert!(answer.contains("content-range: bytes 2-4/10\r\n") && answer.ends_with("\r\n\r\n234"));
    let answer = guest.get("/files?path=f", "range: bytes=-3\r\n").await;
    assert!(answer.ends_with("\r\n\r\n789"), "{answer}");
    let answer = guest.get("/files?path=f", "range: bytes=10-\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 416") && answer.contains("bytes */10"), "{answer}");
}

#[tokio::test]
async fn forms_hold_one_or_many_files() {
    let guest = TestGuest::start().await;
    let kind = "content-type: multipart/form-data; boundary=XX\r\n";
    let form = "--XX\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a/b c.txt\"\r\n\r\none\r\n\
        --XX\r\ncontent-disposition: form-data; name=\"other\"\r\n\r\nignored\r\n\
        --XX\r\ncontent-disposition: form-data; name=\"file\"; filename=\"d.txt\"\r\n\r\ntwo\r\n--XX--\r\n";
    let answer = guest.post("/files", kind, form).await;
    let body: serde_json::Value =
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body[0]["path"], guest.path("a/b c.txt"));
    assert_eq!((&body[1]["name"], &body[1]["type"]), (&"d.txt".into(), &"file".into()));
    assert_eq!(fs::read(guest.home.join("a/b c.txt")).unwrap(), b"one");
    assert_eq!(fs::read(guest.home.join("d.txt")).unwrap(), b"two");
    // With a path, the part needs no name.
    let single = "--XX\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nthree\r\n--XX--\r\n";
    guest.post("/files?path=e.txt", kind, single).await;
    assert_eq!(fs::read(guest.home.join("e.txt")).unwrap(), b"three");
    let refused = [
        (guest.post("/files", kind, single).await, "no file name"),
        (guest.post("/files?path=x", kind, &form.replace("other", "file")).await, "twice"),
        (guest.post("/files", kind, "--XX--\r\n").await, "no part named file"),
        (guest.post("/files?path=y", kind, "--XX\r\ncontent-disp").await, "incomplete"),
    ];
    for (answer, words) in refused {
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(words), "{answer}");
    }
}

#[tokio::test]
async fn packed_bodies_are_unpacked() {
    let guest = TestGuest::start().await;
    let content = noise(1 << 20).repeat(2);
    let pack = |bytes: &[u8]| {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        std::io::Write::write_all(&mut packed, bytes).unwrap();
        packed.finish().unwrap()
    };
    let octets = "application/octet-stream";
    assert!(post_packed(&guest, "/files?path=p", octets, &pack(&content)).await.contains(" 200 "));
    assert!(fs::read(guest.home.join("p")).unwrap() == content);
    let mut form = b"--XX\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\n".to_vec();
    form.extend_from_slice(&content);
    form.extend_from_slice(b"\r\n--XX--\r\n");
    let kind = "multipart/form-data; boundary=XX";
    assert!(post_packed(&guest, "/files?path=q", kind, &pack(&form)).await.contains(" 200 "));
    assert!(fs::read(guest.home.join("q")).unwrap() == content);
    let packed = pack(&content);
    let cut = post_packed(&guest, "/files?path=r", octets, &packed[..packed.len() / 2]).await;
    assert!(cut.contains(" 400 ") && !guest.home.join("r").exists(), "{cut}");
}

async fn post_packed(guest: &TestGuest, target: &str, kind: &str, body: &[u8]) -> String {
    let mut stream = tokio::net::TcpStream::connect(guest.address).await.unwrap();
    let head = format!(
        "POST {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {kind}\r\n\
         content-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A file system of 1 MiB, as full as a test wants it.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Some("size=1m");
        nix::mount::mount(
            Some("none"),
            dir.path(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            options,
        )
        .unwrap();
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount(self.0.path());
    }
}

#[tokio::test]
async fn full_disk_is_told_apart_and_leaves_no_half_file() {
    let guest = TestGuest::start().await;
    let disk = SmallDisk::mount();
    let path = disk.0.path().join("f").display().to_string();
    let error = guest
        .client
        .write_file(&path, Some("root"), Bytes::from(vec![1; 4 << 20]))
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(507), "{error}");
    assert!(!disk.0.path().join("f").exists());
}

#[tokio::test]
async fn metrics_and_environment_are_json() {
    let guest = TestGuest::start().await;
    let metrics = guest.client.metrics().await.unwrap();
    assert!(metrics.cpu_count > 0 && metrics.mem_total > metrics.mem_used);
    let envs = guest.get("/envs", "").await;
    assert!(envs.contains("\"E2B_SANDBOX\":\"true\""), "{envs}");
}
