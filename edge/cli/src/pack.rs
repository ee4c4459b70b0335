//! Packs a directory into a tar.gz that depends on nothing but its content.
//!
//! Entries are sorted; times, owners and all permission bits but "executable" are dropped, so the
//! same code gives the same bytes on every machine.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use edge_api::MAX_ARCHIVE_BYTES;
use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

use crate::{failure::Failure, manifest};

/// Most files and directories in one archive.
const ENTRIES_MAX: usize = 100_000;

/// Most bytes before compression: what the guest's writable layer holds with ease.
const CONTENT_BYTES_MAX: u64 = 1 << 30;

/// Left out of every archive.
const ALWAYS_EXCLUDED: [&str; 5] = [".git", ".wrenn", "__pycache__", "*.pyc", manifest::FILE];

/// A packed directory.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The tar.gz.
    pub(crate) bytes: Vec<u8>,
    /// Files, directories and links in it.
    pub(crate) entries: usize,
}

/// Packs `dir` without what matches `exclude`.
pub(crate) fn pack(dir: &Path, exclude: &[String]) -> Result<Packed, Failure> {
    let patterns: Vec<&str> =
        ALWAYS_EXCLUDED.into_iter().chain(exclude.iter().map(String::as_str)).collect();
    let mut paths = Vec::new();
    walk(dir, Path::new(""), &patterns, &mut paths)?;
    paths.sort();
    let gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    let mut tar = tar::Builder::new(gzip);
    let mut content_bytes = 0;
    for path in &paths {
        content_bytes += append(&mut tar, dir, path)?;
        if content_bytes > CONTENT_BYTES_MAX {
            let mib = CONTENT_BYTES_MAX >> 20;
            return Err(Failure::Usage(format!("{} holds over {mib} MiB", dir.display())));
        }
    }
    let finished = tar.into_inner().and_then(flate2::write::GzEncoder::finish);
    let bytes = finished.map_err(Failure::file("pack", dir))?;
    if bytes.len() as u64 > MAX_ARCHIVE_BYTES {
        return Err(Failure::Usage(format!(
            "{} packs to {} bytes; at most {MAX_ARCHIVE_BYTES} are taken (see `exclude`)",
            dir.display(),
            bytes.len()
        )));
    }
    Ok(Packed { bytes, entries: paths.len() })
}

fn walk(
    dir: &Path,
    below: &Path,
    patterns: &[&str],
    found: &mut Vec<PathBuf>,
) -> Result<(), Failure> {
    let here = dir.join(below);
    for entry in fs::read_dir(&here).map_err(Failure::file("read", &here))? {
        let entry = entry.map_err(Failure::file("read", &here))?;
        let path = below.join(entry.file_name());
        if patterns.iter().any(|pattern| excludes(pattern, &path)) {
            continue;
        }
        if found.len() >= ENTRIES_MAX {
            let text = format!("{} holds over {ENTRIES_MAX} files", dir.display());
            return Err(Failure::Usage(text));
        }
        let kind = entry.file_type().map_err(Failure::file("look at", &entry.path()))?;
        found.push(path.clone());
        if kind.is_dir() {
            walk(dir, &path, patterns, found)?;
        }
    }
    Ok(())
}

/// Adds one entry and returns its bytes of content.
fn append<W: io::Write>(
    tar: &mut tar::Builder<W>,
    dir: &Path,
    path: &Path,
) -> Result<u64, Failure> {
    let full = dir.join(path);
    let meta = fs::symlink_metadata(&full).map_err(Failure::file("look at", &full))?;
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let packed = if meta.is_dir() {
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        tar.append_data(&mut header, path, io::empty())
    } else if meta.is_symlink() {
        let to = fs::read_link(&full).map_err(Failure::file("read", &full))?;
        if leaves(path, &to) {
            let text = format!("{} links to {}, outside it", full.display(), to.display());
            return Err(Failure::Usage(text));
        }
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        tar.append_link(&mut header, path, to)
    } else if meta.is_file() {
        return append_file(tar, header, &full, path);
    } else {
        return Err(Failure::Usage(format!("{} is no file, directory or link", full.display())));
    };
    packed.map(|()| 0).map_err(Failure::file("pack", &full))
}

fn append_file<W: io::Write>(
    tar: &mut tar::Builder<W>,
    mut header: Header,
    full: &Path,
    path: &Path,
) -> Result<u64, Failure> {
    use std::os::unix::fs::PermissionsExt;
    let file = fs::File::open(full).map_err(Failure::file("open", full))?;
    let meta = file.metadata().map_err(Failure::file("look at", full))?;
    let executable = meta.permissions().mode() & 0o100 != 0;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(if executable { 0o755 } else { 0o644 });
    header.set_size(meta.len());
    // A file that grows meanwhile is cut at the size announced; one that shrinks is an error.
    let content = io::Read::take(file, meta.len());
    let mut counted = Counted { inner: content, bytes: 0 };
    tar.append_data(&mut header, path, &mut counted).map_err(Failure::file("pack", full))?;
    if counted.bytes != meta.len() {
        return Err(Failure::Gave(format!("{} changed while it was packed", full.display())));
    }
    Ok(counted.bytes)
}

struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: io::Read> io::Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Whether a link at `path` to `to` points out of the archive.
fn leaves(path: &Path, to: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    for component in to.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    false
}

/// A pattern with a slash is meant from the top, one without is any file or directory's name.
fn excludes(pattern: &str, path: &Path) -> bool {
    let subject = if pattern.trim_end_matches('/').contains('/') {
        path.to_str()
    } else {
        path.file_name().and_then(|name| name.to_str())
    };
    let pattern = pattern.trim_start_matches("./").trim_matches('/');
    subject.is_some_and(|subject| matches(pattern.as_bytes(), subject.as_bytes()))
}

/// `*` stands for any run of bytes; everything else for itself. Linear but for backing up once.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, t) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("src/__pycache__")).unwrap();
        fs::create_dir_all(root.join(".git")).unwrap();
        fs::write(root.join(".git/config"), "x").unwrap();
        fs::write(root.join("src/__pycache__/a.pyc"), "x").unwrap();
        fs::write(root.join("src/main.py"), "print(1)\n").unwrap();
        fs::write(root.join("run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(root.join("run"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(root.join("notes.md"), "x").unwrap();
        symlink("src/main.py", root.join("main")).unwrap();
        dir
    }

    fn names(packed: &Packed) -> Vec<String> {
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&packed.bytes[..]));
        let entries = tar.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn archive_holds_the_code_sorted_and_not_what_is_excluded() {
        let packed = pack(sample().path(), &["*.md".to_owned()]).unwrap();
        assert_eq!(names(&packed), ["main", "run", "src", "src/main.py"]);
        assert_eq!(packed.entries, 4);
    }

    #[test]
    fn same_content_gives_same_bytes() {
        let (one, two) = (sample(), sample());
        let file = fs::File::options().write(true).open(two.path().join("run")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(99)).unwrap();
        let packed = |dir: &tempfile::TempDir| pack(dir.path(), &[]).unwrap().bytes;
        assert_eq!(packed(&one), packed(&two));
    }

    #[test]
    fn links_that_leave_and_special_files_are_refused_by_name() {
        for to in ["/etc/passwd", "../x", "src/../../x"] {
            let dir = sample();
            symlink(to, dir.path().join("bad")).unwrap();
            let failure = pack(dir.path(), &[]).unwrap_err();
            assert!(failure.to_string().contains("bad links to"), "{failure}");
        }
        let dir = sample();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("sock")).unwrap();
        assert!(pack(dir.path(), &[]).unwrap_err().to_string().contains("sock is no file"));
    }

    #[test]
    fn patterns_match_names_anywhere_and_paths_from_the_top() {
        let matching =
            [("*.md", "a/b.md"), ("docs/*", "docs/x"), ("./a/b", "a/b"), ("tmp/", "x/tmp")];
        for (pattern, path) in matching {
            assert!(excludes(pattern, Path::new(path)), "{pattern} {path}");
        }
        for (pattern, path) in [("*.md", "a.mdx"), ("docs/*", "x/docs/y"), ("a/b", "x/a/b")] {
            assert!(!excludes(pattern, Path::new(path)), "{pattern} {path}");
        }
    }
}
