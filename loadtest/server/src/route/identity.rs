//! Answers that say whom they are for, and from where.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Refusal, SERVER_TIMING, fault::EVERY_MAX, typed, value};
use crate::{
    body::{Inbound, Incomplete, Outbound, full},
    query::Query,
    state::State,
};

/// What is sent with a request to be repeated in its answer, and in no other.
const NONCE: HeaderName = HeaderName::from_static("x-loadtest-nonce");
/// Which sandbox an answer is from.
const SANDBOX: HeaderName = HeaderName::from_static("x-wrenn-sandbox");
/// As an invocation's answer has them; nothing is really done.
const STEPS: &str = "route;dur=0.05, lease;dur=0.02, restore;dur=100, upstream;dur=1";

/// `/echo`: the nonce, and length and digest of the body.
pub(super) async fn echo(
    mut request: Request<Inbound>,
    query: Option<&str>,
) -> Result<Response<Outbound>, Refusal> {
    Query::parse(query, &[])?;
    let digest = Digest::of(request.body_mut()).await?;
    Ok(digest.answer(nonce(request.headers()).as_deref()))
}

/// `/mixup?every=`: the same, but each so-manyth has the nonce of an earlier one.
pub(super) async fn mixup(
    mut request: Request<Inbound>,
    query: Option<&str>,
    state: &State,
) -> Result<Response<Outbound>, Refusal> {
    let query = Query::parse(query, &["every"])?;
    let every = query.number("every", 1..=EVERY_MAX)?.unwrap_or(10);
    let digest = Digest::of(request.body_mut()).await?;
    let own = nonce(request.headers());
    let other = own.as_ref().and_then(|own| state.swap_nonce(own));
    let nonce = if state.turns.mixup.is_every(every) { other.or(own) } else { own };
    Ok(digest.answer(nonce.as_deref()))
}

/// `/sandbox?reuse=`: as `/echo`, and from a sandbox of its own; each so-manyth from one that
/// answered before.
pub(super) async fn sandbox(
    mut request: Request<Inbound>,
    query: Option<&str>,
    state: &State,
) -> Result<Response<Outbound>, Refusal> {
    let query = Query::parse(query, &["reuse"])?;
    let reuse = query.number("reuse", 1..=EVERY_MAX)?;
    let digest = Digest::of(request.body_mut()).await?;
    let again = reuse.is_some_and(|every| state.turns.sandbox.is_every(every));
    let id = format!("sb_{}", base36(state.sandbox(again)));
    let mut response = digest.answer(nonce(request.headers()).as_deref());
    response.headers_mut().insert(SANDBOX, value(&id));
    response.headers_mut().insert(SERVER_TIMING, HeaderValue::from_static(STEPS));
    Ok(response)
}

fn nonce(headers: &HeaderMap) -> Option<String> {
    headers.get(NONCE).map(|nonce| String::from_utf8_lossy(nonce.as_bytes()).into_owned())
}

struct Digest {
    body_bytes: u64,
    sha256: String,
}

impl Digest {
    async fn of(body: &mut Inbound) -> Result<Self, Incomplete> {
        let (mut hash, mut body_bytes) = (Sha256::new(), 0);
        while let Some(piece) = body.next().await? {
            hash.update(&piece);
            body_bytes += piece.len() as u64;
        }
        let sha256 = hash.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}"); // a string takes everything
            text
        });
        Ok(Self { body_bytes, sha256 })
    }

    fn answer(self, nonce: Option<&str>) -> Response<Outbound> {
        let Self { body_bytes, sha256 } = self;
        let json = json!({ "nonce": nonce, "body_bytes": body_bytes, "sha256": sha256 });
        typed(StatusCode::OK, "application/json", full(format!("{json}\n")))
    }
}

fn base36(mut number: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut text = Vec::new();
    loop {
        text.push(char::from(DIGITS[usize::try_from(number % 36).expect("it is below 36")]));
        number /= 36;
        if number == 0 {
            return text.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_to_the_base_of_36() {
        assert_eq!([0, 35, 36, 1295, 1296].map(base36), ["0", "z", "10", "zz", "100"]);
    }
}
