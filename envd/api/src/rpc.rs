//! The client's process calls: Connect over one connection each.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use connectrpc::{
    Protocol,
    client::{CallOptions, ClientConfig},
};
use http::{HeaderName, HeaderValue, Uri, header};

use crate::{
    ACCESS_TOKEN_HEADER, EnvdClient, EnvdError, ProcessStream, Running, Signal, Start, Stdin,
    proto::process::{
        self as wire, __buffa::oneof::process_input, __buffa::oneof::process_selector,
    },
    transport::Transport,
};

impl EnvdClient {
    /// Starts a process; returns once it runs.
    ///
    /// # Errors
    ///
    /// [`EnvdError`]; code `invalid_argument` for a program or directory that isn't there,
    /// `unauthenticated` for an unknown user.
    pub async fn start(&self, start: &Start) -> Result<ProcessStream, EnvdError> {
        const CALL: &str = "start a process";
        let mut options = self.options(start.user.as_deref());
        if let Some(timeout) = start.timeout {
            options = options.with_timeout(timeout);
        }
        let waited = start.timeout.unwrap_or(self.deadline);
        let opened = async {
            let wire = self.rpc().start_with_options(start.to_wire(), options).await;
            let wire = wire.map_err(|e| EnvdError::from_connect(CALL, waited, e))?;
            ProcessStream::open(CALL, waited, wire).await
        };
        let stream = self.bounded(CALL, opened).await?;
        if let Stdin::Bytes(bytes) = &start.stdin {
            self.feed(stream.pid(), bytes).await?;
        }
        Ok(stream)
    }

    /// Sends all of a short standard input and closes it.
    async fn feed(&self, pid: u32, bytes: &Bytes) -> Result<(), EnvdError> {
        /// Below the guest's limit for one message.
        const PIECE_BYTES: usize = 1 << 20;
        for piece in bytes.chunks(PIECE_BYTES) {
            match self.send_stdin(pid, piece).await {
                // The process may end, or close its input, without reading all of it.
                Err(EnvdError::Refused { .. }) => return Ok(()),
                sent => sent?,
            }
        }
        match self.close_stdin(pid).await {
            Err(EnvdError::Refused { .. }) => Ok(()),
            closed => closed,
        }
    }

    /// Lists the processes that were started through the daemon and still run.
    ///
    /// # Errors
    ///
    /// [`EnvdError`].
    pub async fn list(&self) -> Result<Vec<Running>, EnvdError> {
        const CALL: &str = "list processes";
        let options = self.options(None).with_timeout(self.deadline);
        let listed = self.rpc().list_with_options(wire::ListRequest::default(), options).await;
        let listed = listed.map_err(|e| EnvdError::from_connect(CALL, self.deadline, e))?;
        Ok(listed.into_owned().processes.into_iter().map(Running::from_wire).collect())
    }

    /// Sends a signal to a process, not to its children.
    ///
    /// # Errors
    ///
    /// [`EnvdError`]; code `not_found` when it no longer runs.
    pub async fn signal(&self, pid: u32, signal: Signal) -> Result<(), EnvdError> {
        const CALL: &str = "signal a process";
        let options = self.options(None).with_timeout(self.deadline);
        let request = wire::SendSignalRequest {
            process: by_pid(pid),
            signal: signal.to_wire().into(),
            ..Default::default()
        };
        let sent = self.rpc().send_signal_with_options(request, options).await;
        sent.map(drop).map_err(|e| EnvdError::from_connect(CALL, self.deadline, e))
    }

    /// Writes to a process's standard input; at most 4 MiB at a time.
    ///
    /// # Errors
    ///
    /// [`EnvdError`]; code `internal` when its standard input is not open.
    pub async fn send_stdin(&self, pid: u32, bytes: &[u8]) -> Result<(), EnvdError> {
        const CALL: &str = "feed a process";
        let options = self.options(None).with_timeout(self.deadline);
        let input = wire::ProcessInput {
            input: Some(process_input::Input::Stdin(bytes.to_vec())),
            ..Default::default()
        };
        let request = wire::SendInputRequest {
            process: by_pid(pid),
            input: Some(input).into(),
            ..Default::default()
        };
        let sent = self.rpc().send_input_with_options(request, options).await;
        sent.map(drop).map_err(|e| EnvdError::from_connect(CALL, self.deadline, e))
    }

    /// Closes a process's standard input: it reads an end of file.
    ///
    /// # Errors
    ///
    /// [`EnvdError`]; code `not_found` when it no longer runs.
    pub async fn close_stdin(&self, pid: u32) -> Result<(), EnvdError> {
        const CALL: &str = "close a standard input";
        let options = self.options(None).with_timeout(self.deadline);
        let request = wire::CloseStdinRequest { process: by_pid(pid), ..Default::default() };
        let closed = self.rpc().close_stdin_with_options(request, options).await;
        closed.map(drop).map_err(|e| EnvdError::from_connect(CALL, self.deadline, e))
    }

    fn rpc(&self) -> wire::ProcessClient<Transport> {
        let config = ClientConfig::new(Uri::from_static("http://envd/"))
            .with_protocol(Protocol::Connect)
            .proto();
        wire::ProcessClient::new(self.transport.clone(), config)
    }

    fn options(&self, user: Option<&str>) -> CallOptions {
        let mut headers = Vec::new();
        if let Some(token) = &self.token {
            headers.push((HeaderName::from_static(ACCESS_TOKEN_HEADER), token.clone()));
        }
        if let Some(user) = user {
            let basic = format!("Basic {}", STANDARD.encode(format!("{user}:")));
            // Base64 always fits a header.
            headers.extend(HeaderValue::try_from(basic).map(|v| (header::AUTHORIZATION, v)));
        }
        CallOptions::default().with_headers(headers)
    }
}

/// A message field as the generated code embeds it.
type Embedded<T> = buffa::MessageField<T, buffa::Inline<T>>;

fn by_pid(pid: u32) -> Embedded<wire::ProcessSelector> {
    let selector = Some(process_selector::Selector::Pid(pid));
    Some(wire::ProcessSelector { selector, ..Default::default() }).into()
}
