//! Answers the request head of a connection: with an upgrade, or in plain HTTP.
//!
//! A server may ignore an offer of another protocol (RFC 9110 section 7.8), so `Upgrade: h2c` and the like make no
//! difference to a plain request. If a request names the WebSocket's own path or asks for a WebSocket, the answer names
//! each fault. An upgrade is checked in the order of the reference: the request itself, the application, the origin.

use crate::app::App;
use crate::config::Codec;
use crate::decision::{CloseReason, Limit};
use crate::http::login_pages::Page;
use crate::http::request::Expectation;
use crate::http::site::{self, Health, Plain};
use crate::http::{Refusal, Request, request};
use crate::protocols::{Framing, Wire};
use crate::websocket::deflate::Compression;
use crate::websocket::handshake::{self, Carries, Endpoints};

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Input, Open, Phase};

/// The purpose of a request.
enum Purpose {
    /// To open a WebSocket; the request may have faults.
    Upgrade,
    /// To get or post a login page.
    LoginPage(Page),
    /// To get a page that needs no login.
    Plain(Plain),
}

impl<A: App> Core<A> {
    /// Handles a request head: upgrades the connection, or answers in plain HTTP.
    pub(in crate::cores) fn receive_request(&mut self, id: ConnectionId, input: &[u8]) -> Input {
        let answer = match request::parse(input, self.limits.request_head_bytes_max as usize) {
            Ok(None) => return Input::Incomplete(0),
            Ok(Some((request, consumed))) => {
                self.recognise_client(id, &request);
                let admitted = self.admit_announced(id);
                admitted.and_then(|()| match self.purpose_of(&request)? {
                    Purpose::Upgrade => self.upgrade(id, &request).map(|()| Input::Consumed(consumed)),
                    Purpose::LoginPage(page) => self.receive_page(id, page, &request, &input[consumed..]),
                    Purpose::Plain(page) => {
                        self.answer_plain(id, page, request.method() == "HEAD");
                        Ok(Input::Rest)
                    }
                })
            }
            Err(refusal) => Err(refusal),
        };
        match answer {
            Ok(input) => input,
            Err(refusal) => {
                self.refuse(id, &refusal);
                Input::Consumed(input.len())
            }
        }
    }

    fn purpose_of(&self, request: &Request<'_>) -> Result<Purpose, Refusal> {
        let path = request.path();
        if self.requests.site().is_endpoint(path) && request.is_upgrade() {
            return Ok(Purpose::Upgrade);
        }
        let login_page = self.login_page(path);
        let page = self.requests.site().page(request.method(), path);
        if login_page.is_none() && page != Some(Plain::Probe) && request.offers_websocket() {
            return Ok(Purpose::Upgrade);
        }
        if request.expectation() == Expectation::Unknown {
            return Err(Refusal::Expectation);
        }
        match (login_page, page) {
            (Some(page), _) => Ok(Purpose::LoginPage(page)),
            (None, Some(page)) => Ok(Purpose::Plain(page)),
            (None, None) => Err(Refusal::of_plain(request)),
        }
    }

    fn answer_plain(&mut self, id: ConnectionId, page: Plain, head_only: bool) {
        match page {
            Plain::Probe => {
                let health = match self.draining {
                    Some(_) => Health::Draining,
                    None => Health::Serving,
                };
                self.connections
                    .send_head(id, |bytes| site::write_probe(health, head_only, bytes));
                self.close(id, CloseReason::Probed);
            }
            Plain::Home => {
                self.metrics.http_answers.add(1);
                self.connections
                    .send_head(id, |bytes| self.requests.site().write_home(head_only, bytes));
                self.close(id, CloseReason::HttpAnswered);
            }
        }
    }

    /// Answers in plain HTTP and ends the connection. Clients of a port for MQTT alone get no answer.
    pub(in crate::cores) fn refuse(&mut self, id: ConnectionId, refusal: &Refusal) {
        if self.speaks_only_mqtt(id) {
            return self.refuse_without_answer(id, limit_of(refusal));
        }
        self.metrics.http_answers.add(1);
        if let Some(limit) = limit_of(refusal) {
            self.metrics.limit_hit(limit);
        }
        self.audit_request_refused(id, refusal);
        self.connections.send_head(id, |bytes| refusal.write(bytes));
        self.close(id, CloseReason::HttpAnswered);
    }

    fn upgrade(&mut self, id: ConnectionId, request: &Request<'_>) -> Result<(), Refusal> {
        let endpoints = Endpoints {
            socketcluster: &self.requests.site().endpoint,
            mqtt: self.may_speak_mqtt(id).then_some(self.requests.mqtt_path()),
        };
        let mut accepted = handshake::upgrade(request, endpoints)?;
        let codec = self.codec_of(id);
        let compression = match (self.requests.accepts_compression(), accepted.carries) {
            // The codec is compact already.
            (true, Carries::SocketCluster) if codec == Codec::MinBin => Compression::Off,
            (true, Carries::SocketCluster) => accepted.agree_on_compression(request)?,
            // MQTT payloads have the form that their publishers chose, and stay uncompressed.
            (true, Carries::Mqtt) | (false, _) => Compression::Off,
        };
        if self.acceptor.memory_is_full() {
            return Err(Refusal::Busy);
        }
        let Some(client) = self.connections.get(id).map(|connection| connection.client) else {
            return Ok(());
        };
        let context = self.resources.allow_upgrade(request, client)?;
        accepted.check_origin(self.origins(), self.is_under_tls(id))?;
        let context = match &self.resources.policy.hooks {
            None => context,
            Some(hooks) => context.passing_on(self.passed_on(hooks, id, request)),
        };
        let claims = self.ambient_claims(id, request);
        let Some(connection) = self.connections.get_mut(id) else {
            return Ok(());
        };
        let now = self.time.now();
        let (session, framing) = match accepted.carries {
            Carries::SocketCluster => (
                self.resources.new_session(now, claims),
                match codec {
                    Codec::Json => Framing::WebSocket(compression),
                    Codec::MinBin => Framing::MinBin,
                },
            ),
            Carries::Mqtt => (
                self.resources.new_mqtt_session(now, claims),
                Framing::MqttOverWebSocket,
            ),
        };
        let is_open = session.is_open();
        connection.phase = Phase::Open(Open {
            wire: Wire::default(),
            session,
        });
        connection.framing = framing;
        self.resources.keep_context(id, context);
        self.metrics
            .compression_agreed
            .add(u64::from(compression.is_on()));
        connection.meter = self.measures.new_meter(self.time.now().uptime);
        let deadline = connection.deadline(&self.resources.settings, &self.measures);
        let sooner = self.wheel.is_sooner(deadline, connection.armed);
        self.connections.send_head(id, |bytes| accepted.write(bytes));
        if is_open {
            self.session_opens(id);
        }
        if sooner {
            self.arm(id);
        }
        Ok(())
    }

    /// The codec of a SocketCluster client whose request is being answered.
    fn codec_of(&self, id: ConnectionId) -> Codec {
        match self.connections.get(id).map(|connection| &connection.phase) {
            Some(Phase::Request { port, .. }) => self.acceptor.codec_on(*port),
            Some(_) | None => Codec::Json,
        }
    }
}

fn limit_of(refusal: &Refusal) -> Option<Limit> {
    match refusal {
        Refusal::HeadTooLarge => Some(Limit::RequestHeadBytes),
        Refusal::TooManyConnections => Some(Limit::ConnectionsPerAddress),
        Refusal::Busy => Some(Limit::Memory),
        Refusal::Malformed
        | Refusal::Expectation
        | Refusal::TransferCoding
        | Refusal::NotImplemented
        | Refusal::NotImplementedHead
        | Refusal::NotTls
        | Refusal::Method
        | Refusal::UpgradeHeader
        | Refusal::Key
        | Refusal::Version
        | Refusal::Path
        | Refusal::Subprotocol
        | Refusal::Extensions
        | Refusal::Origin(_)
        | Refusal::Application { .. } => None,
    }
}
