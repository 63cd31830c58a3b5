//! The close codes in words: the table of `docs/close-codes.md`, made from [`CloseReason`].

use crate::decision::{Blame, CloseCode, CloseReason};

impl CloseReason {
    /// Each reason, by [`CloseReason::index`]; an application may choose other codes.
    pub const ALL: [CloseReason; CloseReason::COUNT] = [
        CloseReason::PeerClosed,
        CloseReason::PeerVanished,
        CloseReason::HttpAnswered,
        CloseReason::RequestTimeout,
        CloseReason::ProtocolError,
        CloseReason::InvalidUtf8,
        CloseReason::MessageTooBig,
        CloseReason::TooManyFragments,
        CloseReason::HandshakeTimeout,
        CloseReason::MessageBeforeHandshake,
        CloseReason::CallIdMissing,
        CloseReason::HandshakeRefused(HANDSHAKE_REFUSED),
        CloseReason::PongTimeout,
        CloseReason::SigningFailed,
        CloseReason::SlowConsumer,
        CloseReason::Draining,
        CloseReason::Application(HANDSHAKE_REFUSED),
        CloseReason::TlsFailed,
        CloseReason::RateExceeded,
        CloseReason::IdleTimeout,
        CloseReason::BadProxyHeader,
        CloseReason::FrameTooBig,
        CloseReason::AuthenticationTimeout,
        CloseReason::Revoked,
        CloseReason::InflatedTooBig,
        CloseReason::BadCompression,
        CloseReason::WriteTimeout,
        CloseReason::HoldsMost,
        CloseReason::Probed,
    ];

    /// What happened, and what whoever wants to avoid it can do.
    const fn in_words(self) -> [&'static str; 2] {
        match self {
            CloseReason::PeerClosed => ["the client closed; its code is echoed", "nothing"],
            CloseReason::PeerVanished => [
                "the client ended or reset the TCP connection without a close frame",
                "nothing: tabs are closed and networks change; if all do, look at the proxy in front",
            ],
            CloseReason::HttpAnswered => [
                "the request was plain HTTP, or was refused, and has its answer",
                "if it was meant as a WebSocket: see the status of the answer, `path` and `origins`",
            ],
            CloseReason::Probed => [
                "a balancer asked at one of `probe_paths`, and has its answer",
                "nothing; `probe_paths = \"off\"` answers none",
            ],
            CloseReason::RequestTimeout => [
                "no complete request within `request_timeout_ms`",
                "nothing: health checks of balancers that send nothing do this; raise it for very slow lines",
            ],
            CloseReason::TlsFailed => [
                "the TLS handshake failed, or what came after it could not be decrypted",
                "look at `ringcast_tls_handshakes_total`; a client may not trust the certificate",
            ],
            CloseReason::BadProxyHeader => [
                "a trusted proxy did not begin with a PROXY header",
                "turn `send-proxy` on in the proxy, or `proxy_protocol` off",
            ],
            CloseReason::ProtocolError => [
                "a frame that RFC 6455 forbids",
                "mend the client's WebSocket library, or a proxy that changes bytes",
            ],
            CloseReason::InvalidUtf8 => ["text that is not UTF-8", "send UTF-8, or binary messages"],
            CloseReason::MessageTooBig => [
                "a message over `message_bytes_max`",
                "send less at a time, or raise the limit",
            ],
            CloseReason::TooManyFragments => [
                "a message in more than `fragments_max` fragments",
                "send larger fragments, or raise the limit",
            ],
            CloseReason::HandshakeTimeout => [
                "no `#handshake` within `handshake_timeout_ms` of the upgrade",
                "use a SocketCluster client; a plain WebSocket has to send `#handshake` first",
            ],
            CloseReason::MessageBeforeHandshake => [
                "another packet came before `#handshake`",
                "wait for the client's `connect` event before anything is sent",
            ],
            CloseReason::CallIdMissing => [
                "`#handshake` or `#authenticate` without a numeric `cid`",
                "mend the client: these two are calls",
            ],
            CloseReason::HandshakeRefused(_) => [
                "the application refused the handshake",
                "see the application; its error is in the answer to the handshake",
            ],
            CloseReason::PongTimeout => [
                "nothing came from the client within `ping_timeout_ms`",
                "nothing: the network or the device is gone, and the client comes back; client and server need the same timeout",
            ],
            CloseReason::SigningFailed => [
                "a token could not be signed",
                "set a key that signs (`auth_key`, `auth_private_key_file`, a private key in `jwks_file`)",
            ],
            CloseReason::SlowConsumer => [
                "`outbox_bytes_max` of publications wait for a client that does not read them",
                "fewer channels or smaller messages for it; `slow_consumer` skips or conflates instead",
            ],
            CloseReason::Draining => [
                "the server stops (SIGTERM)",
                "nothing: clients come back, to the next process or another server",
            ],
            CloseReason::Application(_) => ["the application disconnected the client", "see the application"],
            CloseReason::RateExceeded => [
                "over `messages_per_second_max` or `bytes_per_second_max` for `rate_grace_ms`",
                "send less, or raise the rates",
            ],
            CloseReason::IdleTimeout => [
                "no message in either direction for `idle_timeout_ms`",
                "connect when there is something to say, or raise the time",
            ],
            CloseReason::FrameTooBig => [
                "a frame over `frame_bytes_max`",
                "send smaller frames, or raise the limit",
            ],
            CloseReason::AuthenticationTimeout => [
                "not authenticated within `authentication_timeout_ms`, where others are not served (`allow_anonymous`)",
                "authenticate right after `connect`",
            ],
            CloseReason::Revoked => [
                "an operator has revoked the token (`/revoke`)",
                "log in again, if the user may",
            ],
            CloseReason::InflatedTooBig => [
                "a compressed message that inflates to more than `message_bytes_max`",
                "send less at a time, or raise the limit",
            ],
            CloseReason::BadCompression => [
                "a compressed message that cannot be inflated",
                "mend the client's compression, or turn it off",
            ],
            CloseReason::WriteTimeout => [
                "the client took nothing of what waits for it for `write_timeout_ms`, though it may answer pings",
                "read what comes; a client that reads slowly is not closed",
            ],
            CloseReason::HoldsMost => [
                "all connections together held more than `outbox_bytes_total_max`, and this one was one of those that held most",
                "as for `slow_consumer`; smaller messages, or more memory and a higher limit",
            ],
        }
    }

    fn shown_code(self) -> String {
        if let CloseReason::HandshakeRefused(default) = self {
            return format!("{}, or the application's", default.as_u16());
        }
        if let CloseReason::Application(_) = self {
            return "the application's".to_owned();
        }
        self.code()
            .map_or_else(|| "none".to_owned(), |code| code.as_u16().to_string())
    }
}

impl Blame {
    const fn word(self) -> &'static str {
        match self {
            Blame::Nobody => "nobody",
            Blame::Peer => "client",
            Blame::Limit => "client, by a limit",
            Blame::Draining => "server, on purpose",
            Blame::App => "application",
            Blame::Operator => "operator",
            Blame::Bug => "server",
        }
    }
}

/// The table of close codes in Markdown, as `docs/close-codes.md` has it: by code, those without one last.
pub fn markdown() -> String {
    let mut reasons = CloseReason::ALL;
    reasons.sort_by_key(|reason| match reason.code() {
        Some(_) if matches!(reason, CloseReason::Application(_)) => (1, 0),
        Some(code) => (0, usize::from(code.as_u16())),
        None => (2, reason.index()),
    });
    let mut table =
        "| code | `reason` in metrics | whose doing | what happened | what to do |\n|---|---|---|---|---|\n"
            .to_owned();
    for reason in reasons {
        let [what, advice] = reason.in_words();
        table.push_str(&format!(
            "| {} | `{}` | {} | {what} | {advice} |\n",
            reason.shown_code(),
            reason.label(),
            reason.blame().word(),
        ));
    }
    table
}

/// What a client is closed with whose handshake the application refuses without a code of its own.
const HANDSHAKE_REFUSED: CloseCode = CloseCode::new(4008).expect("it may be sent");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_place_and_its_line() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
        let table = markdown();
        for label in CloseReason::LABELS {
            assert_eq!(table.matches(&format!("| `{label}` |")).count(), 1, "{label}");
        }
        assert!(
            table
                .lines()
                .all(|line| line.matches(" | ").count() == 4 || line.starts_with("|---"))
        );
    }
}
