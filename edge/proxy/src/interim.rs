//! Interim answers (1xx) on their way to a client, whatever its protocol.

use http::Response;

/// Sends 1xx answers before the final one. Where that cannot be done they are left out: a client
/// must be able to do without (RFC 9110 15.2).
#[derive(Debug, Clone, Default)]
pub(crate) enum Interim {
    /// Nobody to send them to.
    #[default]
    None,
    H1(edge_http1::server::Interim),
    H2(edge_http2::Interim),
    H3(edge_http3::Interim),
}

impl Interim {
    /// Tells a client that waits (`Expect: 100-continue`) to send its body. The HTTP/1.1 listener
    /// does that itself.
    pub(crate) fn go_on(&self) {
        let mut go_on = Response::new(());
        *go_on.status_mut() = http::StatusCode::CONTINUE;
        let sent = match self {
            Self::None | Self::H1(_) => return,
            Self::H2(interim) => interim.send(go_on).is_ok(),
            Self::H3(interim) => interim.send(go_on).is_ok(),
        };
        if !sent {
            tracing::debug!("a client was told too late to go on");
        }
    }

    /// Sends one. A guest's `100` is not passed on: see [`Interim::go_on`].
    pub(crate) fn send(&self, answer: Response<()>) {
        if answer.status() == http::StatusCode::CONTINUE {
            return;
        }
        let sent = match self {
            Self::None => return,
            Self::H1(interim) => interim.send(answer).is_ok(),
            Self::H2(interim) => interim.send(answer).is_ok(),
            Self::H3(interim) => interim.send(answer).is_ok(),
        };
        if !sent {
            tracing::debug!("an interim answer came too late");
        }
    }
}
