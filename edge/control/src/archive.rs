//! Looks through a code archive before a machine is booted for it.

use std::{
    io::{self, Read},
    path::{Component, Path},
};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use pool_model::ErrorCode;
use tar::{Archive, EntryType};

use crate::ApiError;

/// Most bytes of an archive unpacked.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;
/// Most entries of an archive.
const ENTRIES_MAX: usize = 100_000;

/// Refuses what is no tar.gz, is empty, or holds what could leave the directory it is unpacked in.
/// (The guest daemon checks again, it is the one who unpacks.)
pub(crate) async fn check(code: Bytes) -> Result<(), ApiError> {
    let checked = tokio::task::spawn_blocking(move || look_through(&code)).await;
    checked.map_err(ApiError::internal)?
}

fn look_through(code: &[u8]) -> Result<(), ApiError> {
    if code.is_empty() {
        return Err(malformed("the part `code` is empty"));
    }
    let unpacked = MultiGzDecoder::new(code).take(UNPACKED_BYTES_MAX + 1);
    let mut archive = Archive::new(unpacked);
    let mut entries = 0;
    for entry in archive.entries().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        entries += 1;
        if entries > ENTRIES_MAX {
            return Err(malformed(format!("it has over {ENTRIES_MAX} entries")));
        }
        let path = entry.path().map_err(unreadable)?;
        let shown: String = path.display().to_string().chars().take(200).collect();
        if !stays_inside(&path) {
            return Err(malformed(format!("`{shown}` would leave the code's directory")));
        }
        let target = entry.link_name().map_err(unreadable)?;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::Directory => {}
            EntryType::XGlobalHeader => {}
            EntryType::Symlink => {
                let from = path.parent().unwrap_or(Path::new(""));
                let inside = target.is_some_and(|target| resolves_inside(from, &target));
                if !inside {
                    return Err(malformed(format!("the link `{shown}` leads out")));
                }
            }
            EntryType::Link => {
                if !target.is_some_and(|target| stays_inside(&target)) {
                    return Err(malformed(format!("the link `{shown}` leads out")));
                }
            }
            _ => return Err(malformed(format!("`{shown}` is no file, directory or link"))),
        }
    }
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(unreadable)?;
    if rest.limit() == 0 {
        return Err(malformed(format!("it is over {UNPACKED_BYTES_MAX} bytes unpacked")));
    }
    if entries == 0 {
        return Err(malformed("it is empty"));
    }
    Ok(())
}

fn stays_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Whether a link in the directory `from` to `target` ends inside, going by the names alone.
fn resolves_inside(from: &Path, target: &Path) -> bool {
    let mut depth = 0_usize;
    for part in from.components().chain(target.components()) {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

fn malformed(problem: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::MalformedArchive, format!("the code archive is refused: {problem}"))
}

fn unreadable(error: io::Error) -> ApiError {
    malformed("it is not a readable tar.gz").with_source(error)
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};
    use tar::{Builder, Header};

    use super::*;

    fn packed(fill: impl FnOnce(&mut Builder<GzEncoder<Vec<u8>>>)) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        fill(&mut builder);
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn entry(kind: EntryType, path: &str, target: &str) -> Vec<u8> {
        packed(|builder| {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            // Not through the setters: they refuse what must be refused here.
            let name = &mut header.as_old_mut().name;
            name[..path.len()].copy_from_slice(path.as_bytes());
            let link = &mut header.as_old_mut().linkname;
            link[..target.len()].copy_from_slice(target.as_bytes());
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
        })
    }

    #[test]
    fn good_archives_pass() {
        assert!(look_through(&entry(EntryType::Regular, "./app/main.py", "")).is_ok());
        assert!(look_through(&entry(EntryType::Symlink, "a/link", "../b")).is_ok());
    }

    #[test]
    fn what_is_not_whole_or_leads_out_is_refused() {
        let good = entry(EntryType::Regular, "main.py", "");
        for bad in [
            Vec::new(),
            b"not gzip".to_vec(),
            good[..good.len() / 2].to_vec(),
            packed(|_| {}),
            entry(EntryType::Regular, "../up", ""),
            entry(EntryType::Regular, "/etc/passwd", ""),
            entry(EntryType::Symlink, "link", "/etc/passwd"),
            entry(EntryType::Symlink, "a/link", "../../b"),
            entry(EntryType::Link, "hard", "../b"),
            entry(EntryType::Char, "null", ""),
        ] {
            let error = look_through(&bad).unwrap_err();
            assert_eq!(error.code(), ErrorCode::MalformedArchive, "{error}");
        }
    }
}
