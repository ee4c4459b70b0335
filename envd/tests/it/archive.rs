//! Archives, friendly and hostile.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, symlink},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use tar::{Builder, EntryType, Header};

use crate::fixture::TestGuest;

/// One entry; names go in byte by byte, as no library would write them.
fn entry(kind: EntryType, name: &str, link: &str, content: &[u8]) -> (Header, Vec<u8>) {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_mtime(1_700_000_000);
    header.set_size(content.len() as u64);
    header.set_cksum();
    (header, content.to_vec())
}

fn file(name: &str, content: &str) -> (Header, Vec<u8>) {
    entry(EntryType::Regular, name, "", content.as_bytes())
}

fn link(kind: EntryType, name: &str, to: &str) -> (Header, Vec<u8>) {
    entry(kind, name, to, b"")
}

fn packed(entries: Vec<(Header, Vec<u8>)>) -> Bytes {
    let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (header, content) in entries {
        tar.append(&header, &content[..]).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap().into()
}

#[tokio::test]
async fn archive_is_unpacked_for_its_user() {
    let guest = TestGuest::start().await;
    let archive = packed(vec![
        entry(EntryType::Directory, "./", "", b""),
        entry(EntryType::Directory, "src/", "", b""),
        file("src/main.py", "print()"),
        file("made/on/the/way.txt", "x"),
        link(EntryType::Symlink, "src/up", "../made"),
        link(EntryType::Symlink, "latest", "src/main.py"),
        link(EntryType::Link, "hard", "src/main.py"),
        file("src/main.py", "again"),
    ]);
    guest.client.extract_archive("app", None, archive).await.unwrap();
    let app = guest.home.join("app");
    assert_eq!(fs::read_to_string(app.join("src/main.py")).unwrap(), "again");
    assert_eq!(fs::read_to_string(app.join("hard")).unwrap(), "print()");
    assert_eq!(fs::read_to_string(app.join("src/up/on/the/way.txt")).unwrap(), "x");
    assert_eq!(fs::read_to_string(app.join("latest")).unwrap(), "again");
    for path in ["", "src", "src/main.py", "made/on", "src/up", "latest", "hard"] {
        let metadata = fs::symlink_metadata(app.join(path)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (61_234, 61_234), "{path}");
    }
    let metadata = fs::metadata(app.join("src/main.py")).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o755, "without set-user-id");
    assert_eq!(metadata.mtime(), 1_700_000_000);
}

#[tokio::test]
async fn nothing_is_written_outside() {
    let guest = TestGuest::start().await;
    let outside = tempfile::tempdir().unwrap();
    let out = outside.path().display().to_string();
    fs::write(outside.path().join("kept"), "untouched").unwrap();
    let sym = |name: &str, to: &str| link(EntryType::Symlink, name, to);
    let hard = |name: &str, to: &str| link(EntryType::Link, name, to);
    let attacks = vec![
        vec![file(&format!("{out}/evil"), "x")],
        vec![file("../evil", "x")],
        vec![file("a/../../evil", "x")],
        vec![file("a/b/../../../evil", "x")],
        vec![sym("l", &out), file("l/evil", "x")],
        vec![sym("l", "..")],
        vec![sym("d/l", "../..")],
        vec![sym("d/l", "x/../../..")],
        // A link that stays inside, and a second one that climbs from where it leads.
        vec![sym("d/e/in", "../.."), sym("out", "d/e/in/../..")],
        vec![sym("d", "e"), file("d/evil", "x")],
        vec![hard("h", &format!("{out}/kept")), file("h", "overwritten")],
        vec![hard("h", "../evil")],
        vec![entry(EntryType::Char, "dev", "", b"")],
        vec![entry(EntryType::Fifo, "fifo", "", b"")],
        vec![entry(EntryType::Block, "blk", "", b"")],
        vec![file("f", "x"), file("f/below", "x")],
    ];
    for (number, attack) in attacks.into_iter().enumerate() {
        let dir = format!("attack-{number}");
        let error = guest.client.extract_archive(&dir, None, packed(attack)).await.unwrap_err();
        assert_eq!(error.status(), Some(400), "{number}: {error}");
    }
    assert!(
        !guest.home.join("evil").exists() && !guest.home.parent().unwrap().join("evil").exists()
    );
    let names: Vec<_> =
        fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["kept"]);
    assert_eq!(fs::read_to_string(outside.path().join("kept")).unwrap(), "untouched");
}

#[tokio::test]
async fn link_that_lay_there_before_is_not_followed() {
    let guest = TestGuest::start().await;
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(guest.home.join("app")).unwrap();
    symlink(outside.path(), guest.home.join("app/l")).unwrap();
    symlink(outside.path().join("f"), guest.home.join("app/f")).unwrap();
    let through = packed(vec![file("l/evil", "x")]);
    let error = guest.client.extract_archive("app", None, through).await.unwrap_err();
    assert_eq!(error.status(), Some(400), "{error}");
    // One in the place of a file is replaced, not written through.
    guest.client.extract_archive("app", None, packed(vec![file("f", "mine")])).await.unwrap();
    assert_eq!(fs::read_to_string(guest.home.join("app/f")).unwrap(), "mine");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn malformed_archives_are_bad_requests() {
    let guest = TestGuest::start().await;
    let good = packed(vec![file("f", &"content ".repeat(1000))]);
    let mut flipped = good.to_vec();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let mut not_tar = GzEncoder::new(Vec::new(), Compression::fast());
    io::Write::write_all(&mut not_tar, &[7; 2048]).unwrap();
    let cases = [
        Bytes::new(),
        Bytes::from_static(b"no archive at all"),
        good.slice(..good.len() - 9),
        good.slice(..20),
        flipped.into(),
        not_tar.finish().unwrap().into(),
    ];
    for (number, archive) in cases.into_iter().enumerate() {
        let error = guest.client.extract_archive("x", None, archive).await.unwrap_err();
        assert_eq!(error.status(), Some(400), "{number}: {error}");
        assert!(error.to_string().contains("malformed archive"), "{number}: {error}");
    }
}
