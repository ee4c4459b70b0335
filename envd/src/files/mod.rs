//! Files over plain HTTP: read one, write some, unpack an archive.
//!
//! # Invariants
//!
//! - Bytes stream through in pieces; no file is ever held in memory.
//! - What is created belongs to the acting user, and so do directories made on the way.
//! - An archive never writes outside its directory, whatever its entries and links say.
//!
//! # Limits
//!
//! Archives: 200 000 entries, 16 GiB unpacked. Files: what the disk holds.

mod archive;
mod body;
mod download;
mod path;
mod upload;
mod write;

use std::sync::Arc;

use http::{HeaderMap, Request, StatusCode, Uri};
use hyper::body::Incoming;

pub(crate) use archive::extract_archive;
pub(crate) use download::download;
pub(crate) use path::{BadPath, resolve};
pub(crate) use upload::upload;

use crate::{
    access::SignedFile,
    accounts::{LookUpUserError, User},
    guest::Guest,
    http::Refusal,
};

/// The query of a file's address.
#[derive(Debug, Default, PartialEq, Eq)]
struct FileQuery {
    path: Option<String>,
    username: Option<String>,
    signature: Option<String>,
    expiration: Option<String>,
}

impl FileQuery {
    fn of(uri: &Uri) -> Result<Self, Refusal> {
        let mut query = Self::default();
        for pair in uri.query().unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match name {
                "path" => &mut query.path,
                "username" => &mut query.username,
                "signature" => &mut query.signature,
                "signature_expiration" => &mut query.expiration,
                _ => continue,
            };
            *slot = Some(path::form_decoded(value).ok_or_else(|| {
                Refusal::new(
                    StatusCode::BAD_REQUEST,
                    format!("query parameter {name} is not UTF-8"),
                )
            })?);
        }
        Ok(query)
    }

    fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_default()
    }

    /// Lets in who has the token or a signature for this address.
    fn check(
        &self,
        operation: &'static str,
        guest: &Guest,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let signed = SignedFile {
            operation,
            path: self.path(),
            username: self.username.as_deref().unwrap_or_default(),
            signature: self.signature.as_deref(),
            expiration: self.expiration.as_deref(),
        };
        let now_s = guest.system.now().as_second();
        Ok(signed.check(guest.identity.token().as_deref(), headers, now_s)?)
    }

    fn user(&self, guest: &Guest) -> Result<User, Refusal> {
        let named = self.username.as_deref().filter(|name| !name.is_empty());
        guest.user(named).map_err(|error| {
            let status = match error {
                LookUpUserError::Unknown { .. } => StatusCode::UNAUTHORIZED,
                LookUpUserError::Unreadable { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Refusal::of(status, &error)
        })
    }
}

/// Who acts in a request about files, and on what.
fn admit(
    operation: &'static str,
    guest: &Arc<Guest>,
    request: &Request<Incoming>,
) -> Result<(FileQuery, User), Refusal> {
    let query = FileQuery::of(request.uri())?;
    query.check(operation, guest, request.headers())?;
    let user = query.user(guest)?;
    Ok((query, user))
}

fn bad_request(what: impl ToString) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, what)
}
