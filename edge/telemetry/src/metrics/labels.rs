//! Which words may stand in labels: each counter's small, fixed set.

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$each:meta])* $name:ident = $word:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$each])* $name,)* }

        impl $type {
            pub(crate) const ALL: [Self; [$($word,)*].len()] = [$(Self::$name,)*];

            /// The label's value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

words! {
    /// A limit that was met, label `limit` of `wrenn_edge_limit_total`.
    Limit {
        /// A head did not come in time.
        HeaderTime = "header_time";
        /// A head was too large.
        HeaderBytes = "header_bytes";
        /// A request broke the protocol.
        Malformed = "malformed";
        /// A connection was idle for too long.
        Idle = "idle";
        /// A body came too slowly.
        BodyRate = "body_rate";
        /// A client took no bytes of its answer.
        WriteStalled = "write_stalled";
        /// Too many streams on a connection.
        Streams = "streams";
        /// Too many streams were reset.
        Resets = "resets";
        /// Too many CONTINUATION frames.
        Continuations = "continuations";
        /// Too many SETTINGS frames.
        Settings = "settings";
        /// Too many PING frames.
        Pings = "pings";
        /// Too many other control frames.
        Control = "control";
        /// Too many DATA frames with next to nothing in them.
        TinyData = "tiny_data";
        /// A QUIC address had to be shown to be real.
        QuicRetry = "quic_retry";
        /// A handshake took too long.
        Handshake = "handshake";
        /// As many connections as may be.
        Connections = "connections";
        /// As many connections of one address as may be.
        ConnectionsPerAddress = "connections_per_address";
        /// More requests per second than allowed.
        Rate = "rate";
        /// As many requests wait as may wait.
        Queue = "queue";
        /// A request's body was too large.
        BodyBytes = "body_bytes";
    }
}

words! {
    /// What refused a well-formed request, label `by` of `wrenn_edge_refused_total`.
    Refused {
        /// The route allows fewer requests per second.
        Rate = "rate";
        /// As many requests of the route wait as may wait.
        Queue = "queue";
        /// The request waited for its turn for too long.
        QueueTimeout = "queue_timeout";
        /// The route asks for a token, and this one won't do.
        Auth = "auth";
        /// The client's address may not use the route.
        Address = "address";
        /// The route or the agent failed so often that it is spared for a while.
        Circuit = "circuit";
    }
}

words! {
    /// How an attempt at an agent failed, label `kind` of `wrenn_edge_upstream_errors_total`.
    UpstreamError {
        /// No connection came about.
        Connect = "connect";
        /// The connection or the stream broke before the answer's head was there.
        Reset = "reset";
        /// The answer's head did not come in time.
        Timeout = "timeout";
        /// The answer's body broke off, or stood still for too long.
        Body = "body";
    }
}

words! {
    /// Why a TLS handshake failed, label `reason` of `wrenn_edge_tls_handshake_failures_total`.
    HandshakeFailure {
        /// The client took too long.
        Timeout = "timeout";
        /// The client went away.
        Closed = "closed";
        /// What came is not TLS.
        NotTls = "not_tls";
        /// No version, cipher or application protocol in common.
        NothingInCommon = "nothing_in_common";
        /// There is no certificate for the name, or none was given.
        Name = "name";
        /// The client sent an alert, e.g. as it does not trust the certificate.
        Alert = "alert";
        /// Anything else.
        Other = "other";
    }
}
