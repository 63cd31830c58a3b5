//! Connections under TLS: their beginning and their end, and facts about them for the rest of a core.
//!
//! The first byte of a connection tells whether it speaks TLS: no HTTP request begins with the first byte of a TLS
//! handshake, so one port can serve both. From then on the stream decrypts and encrypts, and the layers above see plain
//! bytes.
//!
//! TLS has records of its own to send: the handshake and alerts. They are sent at the end of the turn like
//! replies: the flush writes them even if the outbox is empty (`connections.rs`).
//!
//! Limits: `request_timeout` counts from the first byte of a handshake to the last of the request head. A handshake is
//! read within the transition budget (`turn.rs`).

use tracing::error;

use crate::app::App;
use crate::auth::Claims;
use crate::client::ambient::Ambient;
use crate::config::tls::OnListen;
use crate::decision::CloseReason;
use crate::http::Refusal;
use crate::metrics::block::Handshake;
use crate::policy::tls;
use crate::transport::port::MqttOn;
use crate::transport::stream::Stream;
use crate::transport::tls::{Broken, Completed, Failure, TlsStream};

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Phase};

/// The protocol of the first bytes of a connection.
pub(in crate::cores) enum FirstBytes {
    /// Plain HTTP, or there are no bytes yet.
    Plain,
    /// TLS, or bytes that a port for TLS alone has refused. All of them are consumed.
    Tls,
}

impl<A: App> Core<A> {
    /// Finds out whether a connection begins with TLS, and begins TLS if it does.
    pub(in crate::cores) fn detect_tls(&mut self, id: ConnectionId, input: &[u8]) -> FirstBytes {
        let Some(connection) = self.connections.get(id) else {
            return FirstBytes::Plain;
        };
        let Phase::Request { port, .. } = connection.phase else {
            return FirstBytes::Plain;
        };
        let Some(&first) = input.first() else {
            return FirstBytes::Plain;
        };
        if connection.stream.tls.is_some() {
            return FirstBytes::Plain;
        }
        match (self.acceptor.speak(port), first == HANDSHAKE_RECORD) {
            (OnListen::Off, _) | (OnListen::Shared, false) => FirstBytes::Plain,
            (OnListen::Shared | OnListen::Only, true) => {
                self.begin_tls(id, input);
                FirstBytes::Tls
            }
            (OnListen::Only, false) if self.acceptor.mqtt_on(port) == MqttOn::Only => {
                self.close(id, CloseReason::TlsFailed);
                FirstBytes::Tls
            }
            (OnListen::Only, false) => {
                self.metrics.http_answers.add(1);
                self.connections
                    .send_head(id, |bytes| Refusal::NotTls.write(bytes));
                self.close(id, CloseReason::HttpAnswered);
                FirstBytes::Tls
            }
        }
    }

    /// Whether a connection speaks TLS with this server itself.
    pub(in crate::cores) fn is_under_tls(&self, id: ConnectionId) -> bool {
        self.connections
            .get(id)
            .is_some_and(|connection| connection.stream.tls.is_some())
    }

    fn begin_tls(&mut self, id: ConnectionId, hello: &[u8]) {
        let config = self.resources.policy.tls.as_ref().map(|tls| tls.config());
        let tls = match config.map(TlsStream::accept) {
            Some(Ok(tls)) => tls,
            // A port speaks TLS only if the policy has certificates, so rustls has refused its configuration.
            Some(Err(cause)) => {
                error!(
                    "a TLS connection cannot begin ({cause}): rustls does not accept the TLS settings; check the \
                     certificate and the key"
                );
                return self.close(id, CloseReason::TlsFailed);
            }
            None => return self.close(id, CloseReason::TlsFailed),
        };
        if let Some(connection) = self.connections.get_mut(id) {
            match connection.stream.begin_tls(tls).process_first(hello) {
                None => self.serve_tls(id),
                Some(broken) => self.end_of_tls(id, broken),
            }
        }
    }

    /// Queues the records that TLS itself has to send, and counts a handshake that is complete.
    pub(in crate::cores) fn serve_tls(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let Some(tls) = &mut connection.stream.tls else {
            return;
        };
        let completed = tls.take_completed();
        if tls.has_own_records() {
            self.connections.send_records(id);
        }
        match completed {
            Some(Completed::Full) => self.count_handshake(Handshake::Full),
            Some(Completed::Resumed) if self.has_expired_certificate(id) => {
                self.count_handshake(Handshake::Certificate);
                self.close(id, CloseReason::TlsFailed);
            }
            Some(Completed::Resumed) => self.count_handshake(Handshake::Resumed),
            None => {}
        }
    }

    /// Ends a connection whose input is not valid TLS, or whose handshake failed: sends an alert, then FIN.
    pub(in crate::cores) fn end_of_tls(&mut self, id: ConnectionId, broken: Broken) {
        if broken.in_handshake {
            self.count_handshake(match broken.failure {
                Failure::Incompatible => Handshake::Incompatible,
                Failure::Protocol => Handshake::Protocol,
                Failure::Certificate => Handshake::Certificate,
                Failure::Refused => Handshake::Refused,
                Failure::Malformed => Handshake::Malformed,
            });
        }
        if broken.failure == Failure::Certificate {
            self.audit_token_refused(id, "certificate", "tls");
        }
        self.connections.send_records(id);
        self.close(id, CloseReason::TlsFailed);
    }

    /// Whether a resumed session stands for a client's certificate that has expired. A resumption does not check it
    /// again.
    fn has_expired_certificate(&self, id: ConnectionId) -> bool {
        let claims = self
            .connections
            .get(id)
            .and_then(|connection| certified(&connection.stream));
        let end = claims.and_then(|claims| claims.expires_at());
        end.is_some_and(|end| self.time.now().unix_ms as f64 > end * 1000.0)
    }

    fn count_handshake(&self, handshake: Handshake) {
        self.metrics.tls_handshakes[handshake.index()].add(1);
    }
}

/// The claims of the client's certificate. A browser presents it for requests of any page.
pub(in crate::cores) fn ambient_certificate(stream: &Stream) -> Option<Ambient<Box<Claims>>> {
    certified(stream).map(Ambient::new)
}

fn certified(stream: &Stream) -> Option<Box<Claims>> {
    let certificate = stream.tls.as_ref()?.peer_certificates().first()?;
    tls::claims_of(certificate).map(Box::new)
}

/// The record type of a handshake, the first byte of TLS (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;
