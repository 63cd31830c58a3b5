//! Connections under TLS: how they begin, and what is seen of them besides their bytes.
//!
//! A connection is plain until its first byte: that of a TLS record of a handshake begins no HTTP request, so one port can
//! serve both. From then on the stream decrypts what is read and encrypts what is written, and nothing above knows.
//!
//! What TLS has to send besides (the handshake, alerts) leaves like replies, at the end of the turn: an empty outbox that
//! is flushed (`connections.rs`) writes it.
//!
//! Limits: `request_timeout` counts from the first byte of a handshake to the last of the request head. A handshake is
//! read in the time of connections that are being opened or closed (`turn.rs`).

use tracing::error;

use crate::app::App;
use crate::auth::Claims;
use crate::client::ambient::Ambient;
use crate::config::tls::OnListen;
use crate::decision::CloseReason;
use crate::http::Refusal;
use crate::metrics::block::Handshake;
use crate::policy::tls;
use crate::transport::stream::Stream;
use crate::transport::tls::{Broken, Completed, Failure, TlsStream};

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Phase};

/// What the first bytes of a request turned out to be.
pub(in crate::cores) enum First {
    /// A request, or nothing yet.
    Plain,
    /// TLS, or what stands in its place: all of them have been taken.
    Tls,
}

impl<A: App> Core<A> {
    /// Looks whether a connection begins with TLS.
    pub(in crate::cores) fn first_bytes(&mut self, id: ConnectionId, input: &[u8]) -> First {
        let Some(connection) = self.connections.get(id) else {
            return First::Plain;
        };
        let Phase::Request { port, .. } = connection.phase else {
            return First::Plain;
        };
        let Some(&first) = input.first() else {
            return First::Plain;
        };
        if connection.stream.tls.is_some() {
            return First::Plain;
        }
        match (self.acceptor.speak(port), first == HANDSHAKE_RECORD) {
            (OnListen::Off, _) | (OnListen::Shared, false) => First::Plain,
            (OnListen::Shared | OnListen::Only, true) => {
                self.begin_tls(id, input);
                First::Tls
            }
            (OnListen::Only, false) => {
                self.metrics.http_answers.add(1);
                self.connections
                    .send_head(id, |bytes| Refusal::NotTls.write(bytes));
                self.close(id, CloseReason::HttpAnswered);
                First::Tls
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
        let config = self.lent.policy.tls.as_ref().map(|tls| tls.config());
        let tls = match config.map(TlsStream::accept) {
            Some(Ok(tls)) => tls,
            // A port speaks TLS only where the policy have certificates, so this is a fault of the configuration of rustls.
            Some(Err(cause)) => {
                error!("TLS cannot be spoken: {cause}");
                return self.close(id, CloseReason::TlsFailed);
            }
            None => return self.close(id, CloseReason::TlsFailed),
        };
        if let Some(connection) = self.connections.get_mut(id) {
            match connection.stream.begin_tls(tls).process_first(hello) {
                None => self.attend_to_tls(id),
                Some(broken) => self.end_of_tls(id, broken),
            }
        }
    }

    /// Sends what TLS has to say, and counts a handshake that is over.
    pub(in crate::cores) fn attend_to_tls(&mut self, id: ConnectionId) {
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
            Some(Completed::Resumed) if self.has_ended(id) => {
                self.count_handshake(Handshake::Certificate);
                self.close(id, CloseReason::TlsFailed);
            }
            Some(Completed::Resumed) => self.count_handshake(Handshake::Resumed),
            None => {}
        }
    }

    /// What came is no TLS, or TLS that has to end here: an alert says so, then FIN.
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

    /// Whether a ticket stands for a client's certificate that has ended since: nobody has looked at it again.
    fn has_ended(&self, id: ConnectionId) -> bool {
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

/// Who the client is by its certificate, which a browser shows for the requests of any page.
pub(in crate::cores) fn shown_by_certificate(stream: &Stream) -> Option<Ambient<Box<Claims>>> {
    certified(stream).map(Ambient::new)
}

fn certified(stream: &Stream) -> Option<Box<Claims>> {
    let certificate = stream.tls.as_ref()?.peer_certificates().first()?;
    tls::claims_of(certificate).map(Box::new)
}

/// The type of the records of a handshake, with which TLS begins (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;
