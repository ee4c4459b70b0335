//! `GET /files`: the bytes of one file, or a range of them.

use std::{
    io::{self, SeekFrom},
    ops::Range,
    path::Path,
    sync::Arc,
};

use futures::TryStreamExt as _;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
};
use tokio_util::io::ReaderStream;

use super::{admit, bad_request};
use crate::{
    guest::Guest,
    http::{Body, BodyError, Refusal, full},
};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 128 << 10;

/// Most bytes of a file that doesn't tell its size.
const UNSIZED_MAX_BYTES: u64 = 1 << 20;

/// Answers `GET /files`.
pub(crate) async fn download(
    guest: &Arc<Guest>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let (query, user) = admit("read", guest, &request)?;
    let path = guest.resolve(query.path(), &user).map_err(bad_request)?;
    let (mut file, length) = open(&path).await?;
    if length == 0 {
        // Files of /proc and /sys say that they are empty, and are not.
        let mut bytes = Vec::new();
        let read = file.take(UNSIZED_MAX_BYTES).read_to_end(&mut bytes).await;
        read.map_err(|error| unreadable(&path, &error))?;
        let size = bytes.len();
        return Ok(answer(StatusCode::OK, &path, u64::try_from(size).unwrap_or(0), full(bytes)));
    }
    let (status, range) = match wanted(request.headers(), length) {
        Wanted::All => (StatusCode::OK, 0..length),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => return Ok(unsatisfiable(length)),
    };
    if range.start > 0 {
        let sought = file.seek(SeekFrom::Start(range.start)).await;
        sought.map_err(|error| unreadable(&path, &error))?;
    }
    let size = range.end - range.start;
    // At most what was promised, even when the file grows meanwhile.
    let pieces = ReaderStream::with_capacity(file.take(size), PIECE_BYTES);
    let frames = pieces.map_ok(Frame::data).map_err(|error| Box::new(error) as BodyError);
    let mut answer = answer(status, &path, size, StreamBody::new(frames).boxed_unsync());
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        let value = HeaderValue::try_from(text).map(|value| (header::CONTENT_RANGE, value));
        answer.headers_mut().extend(value);
    }
    Ok(answer)
}

fn answer(status: StatusCode, path: &Path, size: u64, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, size.into());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_DISPOSITION, disposition(path));
    answer
}

async fn open(path: &Path) -> Result<(File, u64), Refusal> {
    let opened = async {
        // Not blocking: a pipe that nobody writes to would hold us here for ever.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).await?;
        let metadata = file.metadata().await?;
        Ok((file, metadata))
    };
    let (file, metadata) = opened.await.map_err(|error| unreadable(path, &error))?;
    if metadata.is_dir() {
        return Err(bad_request(format!("path '{}' is a directory", path.display())));
    }
    if !metadata.is_file() {
        return Err(bad_request(format!("path '{}' is not a regular file", path.display())));
    }
    Ok((file, metadata.len()))
}

fn unreadable(path: &Path, error: &io::Error) -> Refusal {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Refusal::new(StatusCode::NOT_FOUND, format!("path '{shown}' does not exist"))
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            bad_request(format!("path '{shown}' is not usable: {error}"))
        }
        _ => Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("can't read '{shown}': {error}"),
        ),
    }
}

/// What part of a file is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Range<u64>),
    Nothing,
}

/// Reads `Range`: one range of bytes; anything else is answered with the whole file.
fn wanted(headers: &HeaderMap, length: u64) -> Wanted {
    // We hand out no validators, so a conditional range can't match.
    if headers.contains_key(header::IF_RANGE) {
        return Wanted::All;
    }
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let Some((first, last)) = range
        .and_then(|range| range.trim().strip_prefix("bytes="))
        .and_then(|range| range.split_once('-'))
    else {
        return Wanted::All;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let range = match (first.trim().is_empty(), last.trim().is_empty()) {
        (true, false) => match number(last) {
            Some(suffix) => length.saturating_sub(suffix)..length,
            None => return Wanted::All,
        },
        (false, true) => match number(first) {
            Some(first) => first..length,
            None => return Wanted::All,
        },
        (false, false) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(length),
            _ => return Wanted::All,
        },
        (true, true) => return Wanted::All,
    };
    if range.start < range.end { Wanted::Part(range) } else { Wanted::Nothing }
}

fn unsatisfiable(length: u64) -> Response<Body> {
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    let value = HeaderValue::try_from(format!("bytes */{length}"));
    answer.headers_mut().extend(value.map(|value| (header::CONTENT_RANGE, value)));
    answer
}

/// `inline` with the file's name, where a header can hold it.
fn disposition(path: &Path) -> HeaderValue {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ';
    if !name.chars().all(plain) {
        return HeaderValue::from_static("inline");
    }
    HeaderValue::try_from(format!("inline; filename=\"{name}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("inline"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_the_rfc() {
        let of = |text: &str| {
            let headers = HeaderMap::from_iter([(header::RANGE, text.parse().unwrap())]);
            wanted(&headers, 10)
        };
        assert_eq!(of("bytes=0-3"), Wanted::Part(0..4));
        assert_eq!(of("bytes=3-"), Wanted::Part(3..10));
        assert_eq!(of("bytes=-3"), Wanted::Part(7..10));
        assert_eq!(of("bytes=-30"), Wanted::Part(0..10));
        assert_eq!(of("bytes=5-99"), Wanted::Part(5..10));
        for nothing in ["bytes=10-", "bytes=10-11", "bytes=-0"] {
            assert_eq!(of(nothing), Wanted::Nothing, "{nothing}");
        }
        for all in ["bytes=5-3", "bytes=0-1,3-4", "bytes=-", "lines=1-2", "bytes=a-b"] {
            assert_eq!(of(all), Wanted::All, "{all}");
        }
        assert_eq!(wanted(&HeaderMap::new(), 10), Wanted::All);
    }

    #[test]
    fn names_that_no_header_can_hold_are_left_out() {
        assert_eq!(disposition(Path::new("/a/b c.txt")), "inline; filename=\"b c.txt\"");
        for odd in ["/a/ü", "/a/\"", "/a/\n"] {
            assert_eq!(disposition(Path::new(odd)), "inline", "{odd}");
        }
    }
}
