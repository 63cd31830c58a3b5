//! Why a connection ends: one row for each reason, with its close code, metric label, blame, limit and explanation.
//!
//! The rows make the enum, the tables of counters and the table of `docs/close-codes.md`. Nowhere else is a close code
//! a number. To add a reason, write its row; `UPDATE=1 cargo test --test docs` renews the table.
//!
//! Close codes: RFC 6455 section 7.4; wire reference, section 11.

use super::Limit;
use crate::labels::labels;

/// A close code that may stand in a close frame: RFC 6455 section 7.4, as the reference's WebSocket engine checks it
/// (1000 to 1014 without 1004, 1005 and 1006, and 3000 to 4999).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The code, if it may be sent.
    pub const fn new(code: u16) -> Option<CloseCode> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(CloseCode(code)),
            _ => None,
        }
    }

    /// The number on the wire.
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

labels! {
    /// Which side caused the end of a connection. Only a bug is logged as an error. The labels are those of
    /// `docs/close-codes.md`.
    pub enum Blame {
        /// The peer left, as peers do.
        Nobody = "nobody",
        /// The peer broke a rule.
        Peer = "client",
        /// A limit was reached.
        Limit = "client, by a limit",
        /// This server is stopping.
        Draining = "server, on purpose",
        /// The application asked for it.
        App = "application",
        /// An operator asked for it.
        Operator = "operator",
        /// This server has a bug.
        Bug = "server",
    }
}

/// Makes [`CloseReason`] from its rows. A row is
/// `Variant => close code, reason code, "metric label", blame, limit, "what happened", "what to do about it";`
/// where the close code is `None` if this server sends no close frame. The reason code is that of the DISCONNECT that
/// a client of MQTT 5 gets (MQTT 5.0 section 3.14.2.1), and `None` if it gets none.
macro_rules! close_reasons {
    ($(
        $(#[doc = $doc:literal])+
        $variant:ident $(($chosen:ident: $chosen_type:ty))? =>
            $code:expr, $reason_code:expr, $label:literal, $blame:ident, $limit:expr, $what:literal, $advice:literal;
    )+) => {
        /// Why a connection ends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum CloseReason {
            $($(#[doc = $doc])+ $variant $(($chosen_type))?,)+
        }

        labels! {
            /// A reason without the code that an application chose.
            enum Row {
                $($(#[doc = $doc])+ $variant = $label,)+
            }
        }

        impl CloseReason {
            /// Each reason, by [`CloseReason::index`]. Where the application chooses the code, the default stands for
            /// it.
            pub const ALL: [CloseReason; CloseReason::COUNT] = [
                $(CloseReason::$variant $(({ const CODE: $chosen_type = CHOSEN_BY_DEFAULT; CODE }))?,)+
            ];

            /// The code of our close frame; `None` if we send none.
            pub const fn code(self) -> Option<CloseCode> {
                let code: Option<u16> = match self {
                    $(CloseReason::$variant $(($chosen))? => $code,)+
                };
                match code {
                    Some(code) => Some(CloseCode(code)),
                    None => None,
                }
            }

            /// The reason code of the DISCONNECT for a client of MQTT 5; `None` if it gets none.
            pub const fn reason_code(self) -> Option<u8> {
                match self.row() {
                    $(Row::$variant => $reason_code,)+
                }
            }

            /// The limit that was reached, if this is where it is counted.
            pub const fn limit(self) -> Option<Limit> {
                match self.row() {
                    $(Row::$variant => $limit,)+
                }
            }

            /// Which side caused it.
            pub const fn blame(self) -> Blame {
                match self.row() {
                    $(Row::$variant => Blame::$blame,)+
                }
            }

            /// The event in words, and the advice for an operator or the author of a client.
            pub const fn in_words(self) -> [&'static str; 2] {
                match self.row() {
                    $(Row::$variant => [$what, $advice],)+
                }
            }

            const fn row(self) -> Row {
                match self {
                    $(CloseReason::$variant { .. } => Row::$variant,)+
                }
            }
        }
    };
}

close_reasons! {
    /// The peer sent a close frame.
    PeerClosed => None, None, "peer_closed", Nobody, None,
        "the client closed; its code is echoed",
        "nothing";

    /// The peer ended or reset the TCP connection without a close frame.
    PeerVanished => None, None, "peer_vanished", Nobody, None,
        "the client ended or reset the TCP connection without a close frame",
        "nothing: users close tabs and networks change; if all connections end like this, check the proxy in front of the server";

    /// The request was answered with plain HTTP.
    HttpAnswered => None, None, "http_answered", Nobody, None,
        "the request was plain HTTP, or was refused, and has its answer",
        "if it was meant as a WebSocket: check the status of the answer, `path` and `origins`";

    /// No complete request head within `request_timeout_ms`.
    RequestTimeout => None, None, "request_timeout", Peer, Some(Limit::RequestTime),
        "no complete request within `request_timeout_ms`",
        "nothing: balancers whose health checks send nothing cause this; raise the time for very slow lines";

    /// A frame that RFC 6455 forbids.
    ProtocolError => Some(1002), Some(0x81), "protocol_error", Peer, None,
        "a frame that RFC 6455 forbids",
        "fix the client's WebSocket library, or a proxy that changes bytes";

    /// Text that is not UTF-8.
    InvalidUtf8 => Some(1007), Some(0x81), "invalid_utf8", Peer, None,
        "text that is not UTF-8",
        "send UTF-8, or binary messages";

    /// A message over `message_bytes_max`.
    MessageTooBig => Some(1009), Some(0x95), "message_too_big", Limit, Some(Limit::MessageBytes),
        "a message over `message_bytes_max`",
        "send less at a time, or raise the limit";

    /// A message in more than `fragments_max` fragments.
    TooManyFragments => Some(1008), Some(0x97), "too_many_fragments", Limit, Some(Limit::Fragments),
        "a message in more than `fragments_max` fragments",
        "send larger fragments, or raise the limit";

    /// No handshake within `handshake_timeout_ms`.
    HandshakeTimeout => Some(4005), None, "handshake_timeout", Peer, Some(Limit::HandshakeTime),
        "no `#handshake` within `handshake_timeout_ms` of the upgrade",
        "use a SocketCluster client; a plain WebSocket has to send `#handshake` first";

    /// Another packet before the protocol's handshake.
    HandshakeMissing => Some(4009), None, "message_before_handshake", Peer, None,
        "another packet came before `#handshake`",
        "wait for the client's `connect` event before you send anything";

    /// A packet without a part that its protocol demands: in SocketCluster a `#handshake` or `#authenticate` without a
    /// numeric call id.
    MalformedPacket => Some(4008), Some(0x81), "call_id_missing", Peer, None,
        "`#handshake` or `#authenticate` without a numeric `cid`",
        "fix the client: these two packets are calls";

    /// The application refused the handshake, with this code.
    HandshakeRefused(code: CloseCode) => Some(code.as_u16()), Some(0x87), "handshake_refused", App, None,
        "the application refused the handshake",
        "check the application; its error is in the answer to the handshake";

    /// Nothing from the client within `ping_timeout_ms`.
    PongTimeout => Some(4001), Some(0x8d), "pong_timeout", Peer, Some(Limit::PongTime),
        "nothing came from the client within `ping_timeout_ms`",
        "nothing: the network or the device is gone, and the client connects again later; client and server need the same timeout";

    /// A token could not be signed.
    SigningFailed => Some(4002), Some(0x83), "signing_failed", Bug, None,
        "a token could not be signed",
        "set a key that signs (`auth_key`, `auth_private_key_file`, a private key in `jwks_file`)";

    /// The outbox is full of publications that the client does not read. The limit is counted where it is reached,
    /// since not every publication that reaches it closes the connection.
    SlowConsumer => Some(4010), Some(0x97), "slow_consumer", Limit, None,
        "`outbox_bytes_max` of publications wait for a client that does not read them",
        "subscribe it to fewer channels, or publish smaller messages; `slow_consumer` can skip or conflate publications instead";

    /// The server is stopping.
    Draining => Some(1001), Some(0x8b), "draining", Draining, None,
        "the server stops (SIGTERM)",
        "nothing: clients connect again, to the next process or another server";

    /// The application disconnected the client, with this code.
    Application(code: CloseCode) => Some(code.as_u16()), Some(0x98), "application", App, None,
        "the application disconnected the client",
        "see the application";

    /// The TLS handshake failed, or later records could not be decrypted.
    TlsFailed => None, None, "tls_failed", Peer, None,
        "the TLS handshake failed, or what came after it could not be decrypted",
        "look at `ringcast_tls_handshakes_total`; a client may not trust the certificate";

    /// Over a rate for `rate_grace_ms`.
    RateExceeded => Some(4029), Some(0x96), "rate_exceeded", Limit, Some(Limit::RateGrace),
        "over `messages_per_second_max` or `bytes_per_second_max` for `rate_grace_ms`",
        "send less, or raise the rates";

    /// No message for `idle_timeout_ms`.
    IdleTimeout => Some(4030), Some(0x98), "idle_timeout", Limit, Some(Limit::IdleTime),
        "no message in either direction for `idle_timeout_ms`",
        "connect when there is something to send, or raise the time";

    /// A connection from a trusted proxy does not begin with a PROXY header.
    BadProxyHeader => None, None, "bad_proxy_header", Peer, None,
        "a trusted proxy did not begin with a PROXY header",
        "turn `send-proxy` on in the proxy, or `proxy_protocol` off";

    /// A frame over `frame_bytes_max`.
    FrameTooBig => Some(1009), Some(0x95), "frame_too_big", Limit, Some(Limit::FrameBytes),
        "a frame over `frame_bytes_max`",
        "send smaller frames, or raise the limit";

    /// Not authenticated within `authentication_timeout_ms`, where unauthenticated clients are not served.
    AuthenticationTimeout => Some(4031), Some(0x87), "authentication_timeout", Peer, Some(Limit::AuthenticationTime),
        "not authenticated within `authentication_timeout_ms`, where others are not served (`allow_anonymous`)",
        "authenticate right after `connect`";

    /// An operator has revoked the token that the client had presented.
    Revoked => Some(4032), Some(0x87), "revoked", Operator, None,
        "an operator has revoked the token (`/revoke`)",
        "log in again, if the user may";

    /// A compressed message that inflates to more than `message_bytes_max`.
    InflatedTooBig => Some(1009), Some(0x95), "inflated_too_big", Limit, Some(Limit::InflatedBytes),
        "a compressed message that inflates to more than `message_bytes_max`",
        "send less at a time, or raise the limit";

    /// A compressed message that cannot be inflated.
    BadCompression => Some(1007), Some(0x81), "bad_compression", Peer, None,
        "a compressed message that cannot be inflated",
        "fix the client's compression, or turn it off";

    /// The client took none of the bytes that wait for it for `write_timeout_ms`.
    WriteTimeout => Some(4033), Some(0x97), "write_timeout", Peer, Some(Limit::WriteTime),
        "the client took nothing of what waits for it for `write_timeout_ms`, though it may answer pings",
        "make the client read from its socket; a client that reads slowly is not closed";

    /// The connections of the core held more than their share of `outbox_bytes_total_max`, and this one was one of
    /// those that held most.
    HoldsMost => Some(4010), Some(0x97), "holds_most", Limit, Some(Limit::OutboxBytesTotal),
        "all connections together held more than `outbox_bytes_total_max`, and this one was one of those that held most",
        "as for `slow_consumer`; or publish smaller messages, or give the server more memory and raise the limit";

    /// The client took the history of a channel more slowly than newer publications came, and the history no longer
    /// holds what follows: the client would miss some without knowing.
    HistoryLost => Some(4034), Some(0x83), "history_lost", Limit, None,
        "the client was getting the history of a channel, and the history no longer has the rest of it",
        "connect again and ask for recovery; let the server keep more history, or make the client read faster";

    /// A load balancer asked whether clients are served, and has its answer.
    Probed => None, None, "probed", Nobody, None,
        "a balancer asked at one of `probe_paths`, and has its answer",
        "nothing; with `probe_paths = \"off\"` the server answers no probes";

    /// A text frame on a WebSocket that carries MQTT.
    TextFrame => Some(1003), None, "text_frame", Peer, None,
        "a text frame on a WebSocket that carries MQTT, which is binary",
        "fix the client: MQTT packets travel in binary frames";

    /// The first bytes of a connection for MQTT alone are no CONNECT packet.
    NotMqtt => Some(1002), None, "not_mqtt", Peer, None,
        "the first packet of an MQTT client is not CONNECT, or the port is for MQTT alone and the client speaks something else",
        "connect with an MQTT client; WebSockets belong to `listen`";

    /// A packet that MQTT forbids by its form.
    MalformedMqtt => Some(1002), Some(0x81), "malformed_mqtt", Peer, None,
        "a packet whose form MQTT forbids",
        "fix the client's MQTT library, or a proxy that changes bytes";

    /// A packet that MQTT forbids at this point.
    MqttProtocolError => Some(1002), Some(0x82), "mqtt_protocol_error", Peer, None,
        "a packet that MQTT forbids at this point, such as a second CONNECT",
        "fix the client's MQTT library";

    /// The client has sent DISCONNECT.
    MqttDisconnected => Some(1000), None, "mqtt_disconnected", Nobody, None,
        "the client sent DISCONNECT",
        "nothing";

    /// A topic alias of the client is out of range.
    TopicAliasInvalid => Some(1002), Some(0x94), "topic_alias_invalid", Peer, None,
        "an MQTT client used a topic alias that is 0 or greater than `mqtt_topic_aliases_max`",
        "fix the client: Topic Alias Maximum of CONNACK says how many aliases there are";

    /// The client has more publications in flight than it may.
    ReceiveMaximumExceeded => Some(1008), Some(0x93), "receive_maximum_exceeded", Limit, None,
        "more publications with QoS 1 and 2 in flight than `mqtt_receive_max`",
        "fix the client: Receive Maximum of CONNACK says how many it may send; `mqtt_receive_excess = \"count\"` allows more";

    /// A packet of the client has more User Properties than it may.
    TooManyUserProperties => Some(1008), Some(0x97), "too_many_user_properties", Limit, Some(Limit::MqttUserProperties),
        "an MQTT client sent a packet with more than `mqtt_user_properties_max` User Properties",
        "fix the client, or raise the limit";

    /// The client asks the server to retain a publication, which it does not.
    RetainNotSupported => Some(1002), Some(0x9a), "retain_not_supported", Peer, None,
        "an MQTT client asked with RETAIN 1 for what `mqtt_retained_count_max = 0` forbids",
        "fix the client: Retain Available of CONNACK says whether publications are retained";

    /// The client's token has expired.
    TokenExpired => Some(4037), Some(0x87), "token_expired", Peer, None,
        "the token of an MQTT client has expired",
        "connect again with a new token";

    /// The client has subscriptions that are no longer allowed.
    NoLongerAllowed => Some(4038), Some(0x87), "no_longer_allowed", Operator, None,
        "the rules do not allow an MQTT client one of its subscriptions any more",
        "connect again and subscribe: SUBACK says which filters are allowed";

    /// A publication was not stored, and the version of MQTT has no other way to say so.
    NotStored => Some(4039), None, "not_stored", Limit, None,
        "a publication with QoS 1 or 2 of an MQTT 3.1 or 3.1.1 client could not be stored, so it was not acknowledged",
        "check the disk and `ringcast_store_*`; the client connects again and sends the publication again";

    /// The server has refused a CONNECT, and said why.
    MqttRefused => Some(1002), None, "mqtt_refused", Peer, None,
        "the server refused CONNECT; the code in CONNACK says why",
        "check what the code names: user name and password, client id, protocol version";

    /// Nothing came for one and a half times the keep alive of the client.
    KeepAliveTimeout => Some(4001), Some(0x8d), "keep_alive_timeout", Peer, Some(Limit::PongTime),
        "nothing came for one and a half times the keep alive that the client had named",
        "nothing: the network or the device is gone, and the client connects again later";

    /// Another connection has taken over the client id.
    TakenOver => Some(4035), Some(0x8e), "taken_over", Nobody, None,
        "another connection came with the same client id",
        "nothing if the client has reconnected; otherwise give each client an id of its own";
}

impl CloseReason {
    /// How many reasons there are, for tables of counters.
    pub const COUNT: usize = Row::COUNT;

    /// All labels, by [`CloseReason::index`].
    pub const LABELS: [&'static str; CloseReason::COUNT] = Row::LABELS;

    /// The place of this reason in tables of counters.
    pub const fn index(self) -> usize {
        self.row().index()
    }

    /// The value of the `reason` label in metrics.
    pub const fn label(self) -> &'static str {
        self.row().label()
    }

    /// Whether all queued bytes that have not begun to leave are dropped, so that the close frame is next: the client
    /// does not read.
    pub const fn drops_unsent(self) -> bool {
        matches!(
            self,
            CloseReason::SlowConsumer
                | CloseReason::WriteTimeout
                | CloseReason::HoldsMost
                | CloseReason::HistoryLost
        )
    }
}

/// The close code of a handshake that the application refuses without a code of its own.
const CHOSEN_BY_DEFAULT: CloseCode = CloseCode(4008);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_be_sent_are_the_same_as_in_the_reference() {
        for legal in [1000, 1001, 1003, 1007, 1014, 3000, 4000, 4999] {
            assert_eq!(CloseCode::new(legal).map(CloseCode::as_u16), Some(legal));
        }
        for illegal in [0, 401, 999, 1004, 1005, 1006, 1015, 2999, 5000, u16::MAX] {
            assert_eq!(CloseCode::new(illegal), None);
        }
    }

    #[test]
    fn every_code_of_a_row_may_be_sent() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
            let code = reason.code();
            assert!(
                code.is_none_or(|code| CloseCode::new(code.as_u16()).is_some()),
                "{reason:?}"
            );
        }
    }
}
