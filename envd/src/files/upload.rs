//! `POST /files`: writes one file, or all that a form holds.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use multer::Multipart;
use serde::Serialize;
use tokio_util::io::ReaderStream;

use super::{
    FileQuery, admit, bad_request,
    body::{Content, Encoding},
    write::write_file,
};
use crate::{
    accounts::User,
    guest::Guest,
    http::{Body, Refusal, json},
};

/// Bytes between the unpacking thread and the form's parser.
const FORM_PIPE_BYTES: usize = 64 << 10;

/// A file that was written, as E2B's clients read it.
#[derive(Debug, Serialize)]
struct Written {
    path: String,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl Written {
    fn at(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default();
        Self {
            path: path.to_string_lossy().into_owned(),
            name: name.to_string_lossy().into_owned(),
            kind: "file",
        }
    }
}

/// Answers `POST /files`.
pub(crate) async fn upload(
    guest: &Arc<Guest>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let (query, user) = admit("write", guest, &request)?;
    let encoding = Encoding::of(request.headers())?;
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let body = BodyDataStream::new(request.into_body());
    let written = match essence.as_str() {
        "application/octet-stream" => {
            if query.path().is_empty() {
                return Err(bad_request("query parameter path is missing"));
            }
            vec![write(guest, query.path(), &user, body, encoding).await?]
        }
        "multipart/form-data" => {
            let boundary = multer::parse_boundary(&kind).map_err(bad_request)?;
            match encoding {
                Encoding::Identity => {
                    form(guest, &query, &user, Multipart::new(body, boundary)).await?
                }
                Encoding::Gzip => {
                    let plain = unpacked(body, encoding);
                    form(guest, &query, &user, Multipart::new(plain, boundary)).await?
                }
            }
        }
        _ => {
            let expected = "expected application/octet-stream or multipart/form-data";
            return Err(bad_request(format!("unknown content type: {expected}")));
        }
    };
    Ok(json(StatusCode::OK, &written))
}

/// Writes every part of a form that is named `file`.
async fn form(
    guest: &Arc<Guest>,
    query: &FileQuery,
    user: &User,
    mut parts: Multipart<'static>,
) -> Result<Vec<Written>, Refusal> {
    let mut written = Vec::new();
    let mut targets = BTreeSet::new();
    while let Some(part) = parts.next_field().await.map_err(bad_request)? {
        if part.name() != Some("file") {
            continue;
        }
        let target = match (query.path(), part.file_name()) {
            ("", Some(name)) if !name.is_empty() => name.to_owned(),
            ("", _) => return Err(bad_request("part has no file name and the query no path")),
            (path, _) => path.to_owned(),
        };
        if !targets.insert(target.clone()) {
            return Err(bad_request(format!("file {target} is there twice")));
        }
        written.push(write(guest, &target, user, part, Encoding::Identity).await?);
    }
    if written.is_empty() {
        return Err(bad_request("form has no part named file"));
    }
    Ok(written)
}

async fn write<S, E>(
    guest: &Arc<Guest>,
    target: &str,
    user: &User,
    content: S,
    encoding: Encoding,
) -> Result<Written, Refusal>
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    let path = guest.resolve(target, user).map_err(bad_request)?;
    let (to, user) = (path.clone(), user.clone());
    let content = Content::new(content, encoding);
    blocking(move || write_file(&to, &user, &mut *content.reader())).await??;
    Ok(Written::at(&path))
}

/// Unpacks a whole form ahead of its parser, a bounded piece at a time.
fn unpacked(
    body: BodyDataStream<Incoming>,
    encoding: Encoding,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    let packed = Content::new(body, encoding);
    let (near, far) = tokio::io::duplex(FORM_PIPE_BYTES);
    let mut to = tokio_util::io::SyncIoBridge::new(far);
    let work =
        tokio::task::spawn_blocking(move || std::io::copy(&mut packed.reader(), &mut to).map(drop));
    // A broken packing must not look like the end of the form.
    let verdict = futures::stream::once(async move {
        work.await.unwrap_or_else(|error| Err(std::io::Error::other(error))).map(|()| Bytes::new())
    });
    futures::StreamExt::chain(ReaderStream::new(near), verdict)
        .try_filter(|bytes| std::future::ready(!bytes.is_empty()))
}

/// Runs blocking work to its end on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!("file work died: {error}");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
    })
}
