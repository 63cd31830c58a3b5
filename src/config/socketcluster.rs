//! The SocketCluster protocol: its version, and its times, which clients must agree with.

use std::fmt;
use std::time::Duration;

use super::form::{Words, milliseconds, word, words};
use super::settings::settings;

settings! {
    /// The SocketCluster protocol: its version, and its times, which clients must agree with.
    socketcluster: SocketCluster {
        /// Version of the SocketCluster protocol: `1`, `2`, or `auto` to find out for each connection.
        protocol: Protocol = Protocol::Auto, "protocol", word();

        /// The codec of SocketCluster clients at `listen`: `json`, or `min-bin` for clients whose `codecEngine` is
        /// `sc-codec-min-bin` (MessagePack). Such clients get no compression.
        codec: Codec = Codec::Json, "codec", word();

        /// The codec of SocketCluster clients at `tls_listen`: `json`, `min-bin`, or `same` for that of `codec`.
        tls_codec: TlsCodec = TlsCodec::Same, "tls_codec", word();

        /// Whether messages to a client are collected for a while after its handshake and sent as arrays. Clients of
        /// version 15 and later read arrays.
        batch_on_handshake: bool = false, "batch_on_handshake", word();

        /// Milliseconds after the handshake for which messages are collected, with `batch_on_handshake`.
        batch_duration: Duration = Duration::from_millis(400), "batch_on_handshake_duration_ms",
            milliseconds!(1 to 60000);

        /// Milliseconds between two such arrays, with `batch_on_handshake`.
        batch_interval: Duration = Duration::from_millis(50), "batch_interval_ms", milliseconds!(1 to 60000);

        /// Whether the server pings connections and expects answers. Clients need the same setting
        /// (`pingTimeoutDisabled`).
        pings: bool = true, "pings", word();

        /// Milliseconds between two pings to a connection.
        ping_interval: Duration = Duration::from_millis(8000), "ping_interval_ms", milliseconds!(1 to 2147483647);

        /// Milliseconds of silence after which a connection is closed. Clients are told this time and close as well.
        ping_timeout: Duration = Duration::from_millis(30_000), "ping_timeout_ms", milliseconds!(1 to 2147483647);

        /// Milliseconds for a client to answer a call from the server; then the call has failed.
        ack_timeout: Duration = Duration::from_millis(10_000), "ack_timeout_ms", milliseconds!(1 to 2147483647);
    }
}

/// How SocketCluster packets are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// JSON text.
    #[default]
    Json,
    /// MessagePack with short names, as the npm package `sc-codec-min-bin` writes it.
    MinBin,
}

words! { Codec, Text, "json or min-bin": "json" => Json, "min-bin" => MinBin }

/// The codec at `tls_listen`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsCodec {
    /// That of `codec`.
    #[default]
    Same,
    /// JSON text.
    Json,
    /// MessagePack with short names.
    MinBin,
}

words! { TlsCodec, Text, "same, json or min-bin": "same" => Same, "json" => Json, "min-bin" => MinBin }

impl SocketCluster {
    /// The codecs of clients at `listen` and at `tls_listen`.
    pub(crate) const fn codecs(&self) -> [Codec; 2] {
        let tls = match self.tls_codec {
            TlsCodec::Same => self.codec,
            TlsCodec::Json => Codec::Json,
            TlsCodec::MinBin => Codec::MinBin,
        };
        [self.codec, tls]
    }
}

/// Which version of the SocketCluster protocol is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Found out for each connection.
    #[default]
    Auto,
    /// Version 1: `#1` and `#2` as ping and pong.
    V1,
    /// Version 2: empty messages as ping and pong.
    V2,
}

words! { Protocol, TextOrNumber, "auto, 1 or 2": "auto" => Auto, "1" => V1, "2" => V2 }

impl fmt::Display for Protocol {
    /// As it is set.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.word())
    }
}
