//! An agent's answer becomes the client's; from here on bytes only flow.

use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body as _;

use super::{
    Call, Worker,
    invoke::{Held, Outbound},
};
use crate::{
    body::AnswerBody,
    error::EdgeError,
    head::Tunnel,
    headers::{self, outward},
    pages::{self, Form},
    upstream::Answered,
};

impl Worker {
    pub(super) fn answer(
        &self,
        call: &mut Call<'_>,
        outbound: &mut Outbound,
        answered: Answered,
        held: Held,
    ) -> Result<Response<AnswerBody>, EdgeError> {
        let Answered { mut parts, body, sent_at, reused } = answered;
        let route = sent_at - call.started;
        let switching = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        let accepted = switching && call.tunnel != Tunnel::No;
        let has_ours = outward::prepare(&mut parts.headers);
        let timing = outward::add_timing(&mut parts.headers, route);
        call.finish.draft.set_answer(timing, route, reused);
        if has_ours {
            call.finish.draft.set_words(&parts.headers);
        }
        call.finish.draft.hold(held, std::mem::take(&mut outbound.body));
        if switching && !accepted {
            // Nobody asked for it: what follows is no answer.
            let code = pool_model::ErrorCode::UpstreamReset;
            let message = "the guest switched to a protocol that nobody asked for";
            return Ok(pages::answer(Form::Json, code, message, call.id, None));
        }
        if has_ours && let Some(page) = self.page_for(call, &parts) {
            return Ok(page);
        }
        let limit_bytes = outbound.response_bytes_max;
        if limit_bytes > 0 && body.size_hint().lower() > limit_bytes {
            return Err(EdgeError::ResponseTooLarge { limit_bytes });
        }
        if accepted {
            accept_tunnel(&mut parts, call.tunnel);
            call.finish.draft.set_tunnel(self.telemetry.telemetry().tunnel());
        }
        Ok(Response::from_parts(parts, AnswerBody::upstream(body, limit_bytes)))
    }

    /// An agent's refusal as a page, for a browser.
    fn page_for(
        &self,
        call: &Call<'_>,
        parts: &http::response::Parts,
    ) -> Option<Response<AnswerBody>> {
        let code = parts.headers.get(headers::ERROR)?.to_str().ok()?.parse().ok()?;
        let form = Form::wanted(&call.parts.headers);
        if form == Form::Json || call.tunnel != Tunnel::No {
            return None;
        }
        let after = parts.headers.get(header::RETRY_AFTER);
        let after = after.and_then(|value| value.to_str().ok()?.parse().ok());
        let after = after.map(std::time::Duration::from_secs);
        let mut page = pages::answer(form, code, "", call.id, after);
        for name in [headers::SANDBOX, headers::SERVER_TIMING] {
            if let Some(value) = parts.headers.get(&name) {
                page.headers_mut().insert(name, value.clone());
            }
        }
        Some(page)
    }
}

/// `101` for who asked by `Upgrade`; `200` for who asked by CONNECT (RFC 8441 5).
fn accept_tunnel(parts: &mut http::response::Parts, tunnel: Tunnel) {
    match tunnel {
        Tunnel::Connect => {
            parts.status = StatusCode::OK;
            parts.headers.remove("sec-websocket-accept");
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        Tunnel::Upgrade | Tunnel::No => {
            parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
    }
}
