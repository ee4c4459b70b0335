//! The services' log files.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
};

use pool_config::Layout;

/// A log that is larger than this when its service starts is put aside, bytes.
const KEPT_BYTES_MAX: u64 = 16 << 20;

/// Opens `log/{name}.log` for appending; one older log is kept.
pub(super) fn open(layout: &Layout, name: &str) -> io::Result<File> {
    let dir = layout.log_dir();
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{name}.log"));
    if fs::metadata(&path).is_ok_and(|meta| meta.len() > KEPT_BYTES_MAX) {
        fs::rename(&path, dir.join(format!("{name}.log.1")))?;
    }
    File::options().create(true).append(true).open(path)
}

/// The last bytes of `log/{name}.log`, from the start of a line.
pub(super) fn tail(layout: &Layout, name: &str, bytes_max: u32) -> io::Result<String> {
    let mut file = File::open(layout.log_dir().join(format!("{name}.log")))?;
    let from = file.metadata()?.len().saturating_sub(u64::from(bytes_max));
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(u64::from(bytes_max)).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(match text.split_once('\n') {
        Some((_, whole_lines)) if from > 0 => whole_lines.to_owned(),
        _ => text,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn tail_starts_at_a_line_and_a_large_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let mut log = open(&layout, "edge").unwrap();
        log.write_all(b"first line\nsecond\nthird\n").unwrap();
        assert_eq!(tail(&layout, "edge", 12).unwrap(), "third\n");
        log.set_len(KEPT_BYTES_MAX + 1).unwrap();
        assert_eq!(open(&layout, "edge").unwrap().metadata().unwrap().len(), 0);
        assert!(layout.log_dir().join("edge.log.1").exists());
    }
}
