//! The request head of a connection: its upgrade, or an answer in plain HTTP.
//!
//! The order of the questions is the reference's: the request itself, the application, the origin.

use crate::app::App;
use crate::config::limits::Limit;
use crate::decision::CloseReason;
use crate::http::{Refusal, Request, request};
use crate::websocket::deflate::Compression;
use crate::websocket::handshake;
use crate::websocket::message::Receiver;
use crate::websocket::origins::Origins;

use super::Core;
use super::connection::{ConnectionId, Open, Phase};
use super::receive::Input;
use super::secure;

impl<A: App> Core<A> {
    /// The request head: upgrade, or an answer in plain HTTP.
    pub(super) fn receive_request(&mut self, id: ConnectionId, input: &[u8]) -> Input {
        let answer = match request::parse(input, self.limits.request_head_bytes_max as usize) {
            Ok(None) => return Input::Incomplete(0),
            Ok(Some((request, consumed))) => {
                self.recognise_client(id, &request);
                let admitted = self.admit_announced(id);
                admitted.and_then(|()| match self.page(&request) {
                    Some(page) => self.receive_page(id, page, &request, &input[consumed..]),
                    None => self.upgrade(id, &request).map(|()| Input::Consumed(consumed)),
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

    /// Answers in plain HTTP and ends the connection.
    pub(super) fn refuse(&mut self, id: ConnectionId, refusal: &Refusal) {
        self.metrics.http_answers.add(1);
        if let Some(limit) = limit_of(refusal) {
            self.metrics.limit_hit(limit);
        }
        self.connections.send_head(id, |bytes| refusal.write(bytes));
        self.close(id, CloseReason::HttpAnswered);
    }

    fn upgrade(&mut self, id: ConnectionId, request: &Request<'_>) -> Result<(), Refusal> {
        let mut accepted = handshake::upgrade(request, &self.path)?;
        let compression = match self.compression {
            true => accepted.agree_on_compression(request)?,
            false => Compression::Off,
        };
        if self.admission.memory_is_full() {
            return Err(Refusal::Busy);
        }
        let Some(client) = self.connections.get(id).map(|connection| connection.client) else {
            return Ok(());
        };
        self.lent.allow_upgrade(request, client)?;
        let doors = &self.lent.doors;
        let origins = Origins {
            option: &doors.origins,
            list: &doors.allowed_origins,
        };
        let verdict = accepted.check_origin(origins, self.is_under_tls(id))?;
        let shown = self.shown_by_cookie(id, request, verdict);
        let Some(connection) = self.connections.get_mut(id) else {
            return Ok(());
        };
        let certified = || {
            secure::claims(&connection.stream)
                .filter(|claims| !self.lent.doors.tokens.are_revoked(claims, self.now.unix_ms))
        };
        let claims = shown.or_else(certified);
        let session = self.lent.new_session(self.now, claims);
        if session.is_open() {
            self.sessions_open += 1;
            self.metrics.sessions.set(self.sessions_open);
        }
        connection.phase = Phase::Open(Open {
            receiver: Receiver::default(),
            session,
        });
        connection.compression = compression;
        self.metrics
            .compression_agreed
            .add(u64::from(compression.is_on()));
        connection.meter = self.measures.new_meter(self.now.uptime);
        let deadline = connection.deadline(&self.lent.settings, &self.measures);
        let sooner = self.wheel.is_sooner(deadline, connection.armed);
        self.connections.send_head(id, |bytes| accepted.write(bytes));
        if sooner {
            self.arm(id);
        }
        Ok(())
    }
}

fn limit_of(refusal: &Refusal) -> Option<Limit> {
    match refusal {
        Refusal::HeadTooLarge => Some(Limit::RequestHeadBytes),
        Refusal::TooManyConnections => Some(Limit::ConnectionsPerAddress),
        Refusal::Busy => Some(Limit::Memory),
        Refusal::Malformed
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
