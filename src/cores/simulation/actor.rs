//! The application of a simulation: it has procedures like those of real applications, and records each
//! session that it is told about.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::app::{
    AllowedPublish, AnswerError, App, Call, CallAnswer, CallId, Client, Context, Deferred, DeferredDecision,
    Name, Peer, RawJson, Refusal, SessionId, TimerId, Undelivered, Unsent, Upgrade,
};
use crate::clock::Uptime;
use crate::decision::{CloseCode, CloseReason};

/// The events that the applications of all cores have seen, and the answers that they still owe.
#[derive(Debug, Default)]
pub(super) struct AppLog {
    /// The present turn.
    pub(super) turn: Turn,
    /// Sessions, by their ids.
    pub(super) sessions: BTreeMap<String, Session>,
    pub(super) owed: Vec<Deferred>,
    /// Whether some decisions are deferred.
    pub(super) defers: bool,
    /// How often the application was asked for a decision.
    pub(super) asked: u32,
    /// Decisions that clients wait for.
    pub(super) undecided: Vec<DeferredDecision>,
    /// Decisions for which a core had no room.
    pub(super) unsent: Vec<Unsent>,
    /// Calls of the server's that wait for their answers.
    pub(super) calls_open: usize,
    /// Calls of clients.
    pub(super) invoked: u64,
    /// The timers that are set, and when they come.
    pub(super) timers: BTreeMap<(SessionId, TimerId), Uptime>,
    /// A violation of what the application may expect.
    pub(super) wrong: Option<String>,
    /// Connections that have been upgraded.
    pub(super) upgraded: u64,
    /// The connections of MQTT clients, by the ids of their sessions: the claims of their tokens have a number.
    pub(super) numbers: BTreeMap<String, usize>,
    /// Beginnings and ends of connections of MQTT clients, in order, that have not been checked.
    pub(super) lives: Vec<LifeEvent>,
    /// The ends of other connections that have not been checked, by the ids of their sessions.
    pub(super) ends: Vec<(String, End)>,
}

/// The application was told of a connection of an MQTT client.
#[derive(Clone, Copy, Debug)]
pub(super) struct LifeEvent {
    /// The number of the connection.
    pub(super) connection: usize,
    pub(super) at: Uptime,
    /// The reason of its end; `None` if it has begun.
    pub(super) end: Option<CloseReason>,
}

/// The moment at which a core takes a turn, and the place up to which it had delivered before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    /// The first place in the ring that had not been delivered when the turn began.
    pub(super) undelivered: u64,
    pub(super) now: Uptime,
}

#[derive(Debug)]
pub(super) struct Session {
    /// The value of its connection.
    pub(super) number: Option<u64>,
    /// The user that its token has named.
    pub(super) user: Option<String>,
    pub(super) end: Option<End>,
}

/// How a session has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) reason: CloseReason,
    pub(super) turn: Turn,
}

#[derive(Debug)]
pub(super) struct Actor(pub(super) Rc<RefCell<AppLog>>);

/// The close code for clients that the application sends away.
pub(super) const SENT_AWAY: u16 = 4500;

impl AppLog {
    /// Defers every third decision.
    fn decide(&mut self, peer: &mut Peer<'_>) -> Result<(), Refusal> {
        self.asked += 1;
        if !self.defers || !self.asked.is_multiple_of(3) {
            return Ok(());
        }
        let (refusal, decision) = peer.defer_decision();
        self.undecided.push(decision);
        Err(refusal)
    }

    /// Decides everything that was deferred. Returns whether there was anything.
    pub(super) fn decide_all(&mut self) -> bool {
        let is_any = !self.undecided.is_empty() || !self.unsent.is_empty();
        let unsent = std::mem::take(&mut self.unsent).into_iter().map(Unsent::retry);
        let decided = std::mem::take(&mut self.undecided).into_iter();
        let sent: Vec<_> = unsent.chain(decided.map(DeferredDecision::allow)).collect();
        for result in sent {
            // A client that is gone needs no decision.
            if let Err(Undelivered::Full(unsent)) = result {
                self.unsent.push(unsent);
            }
        }
        is_any
    }
}

/// The core reads its clock a little later than the simulation.
const CLOCK_SLACK: Duration = Duration::from_millis(1);

impl Actor {
    /// Sets a timer with every second call, and cancels some.
    fn set_timer(&self, invoked: u64, peer: &mut Peer<'_>) {
        if !invoked.is_multiple_of(2) {
            return;
        }
        let told = &mut *self.0.borrow_mut();
        let after = Duration::from_millis(invoked % 7 * 500);
        match peer.set_timer(after) {
            Ok(timer) if invoked.is_multiple_of(3) => {
                if !peer.cancel_timer(timer) {
                    told.wrong = Some("a timer that was set just now is not there".to_owned());
                }
            }
            Ok(timer) => {
                told.timers.insert((peer.id(), timer), told.turn.now + after);
            }
            Err(_) => {}
        }
    }
}

impl App for Actor {
    fn handshake(&mut self, peer: &mut Peer<'_>) -> Result<(), Refusal> {
        self.0.borrow_mut().decide(peer)
    }

    fn context(&mut self, _request: &Upgrade<'_>) -> Context {
        let told = &mut *self.0.borrow_mut();
        told.upgraded += 1;
        Context::none().with(told.upgraded)
    }

    fn subscribe(
        &mut self,
        channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<(), Refusal> {
        if channel == *"forbidden" {
            return Err(Refusal::silent());
        }
        self.0.borrow_mut().decide(peer)
    }

    fn publish(
        &mut self,
        channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        if channel == *"forbidden" {
            return Err(Refusal::silent());
        }
        let decided = self.0.borrow_mut().decide(peer);
        decided.map(|()| AllowedPublish::as_sent())
    }

    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        let data = call.data.map_or("null", RawJson::as_str);
        let invoked = {
            let told = &mut *self.0.borrow_mut();
            told.invoked += 1;
            told.invoked
        };
        self.set_timer(invoked, peer);
        match call.event.as_str() {
            Some("echo") => peer.reply(&call.data),
            // A reply of this many bytes.
            Some("much") => peer.reply(&"m".repeat(data.parse().unwrap_or(0))),
            Some("later") => {
                let (answer, deferred) = peer.defer();
                self.0.borrow_mut().owed.push(deferred);
                answer
            }
            Some("ask me") => {
                if peer.invoke("question", &1).is_ok() {
                    self.0.borrow_mut().calls_open += 1;
                }
                peer.reply_empty()
            }
            Some("kick me") => {
                peer.kick_out(Some(data.trim_matches('"')), Some("because"));
                peer.reply_empty()
            }
            Some("kick me out of all") => {
                peer.kick_out(None, None);
                peer.reply_empty()
            }
            Some("send me away") => {
                peer.disconnect(CloseCode::new(SENT_AWAY).expect("one of 4000 to 4999"), "go");
                peer.reply_empty()
            }
            // No channel has a policy.
            Some("$history") => peer.reply_empty(),
            _ => CallAnswer::silent(),
        }
    }

    fn timer(&mut self, timer: TimerId, peer: &mut Peer<'_>) {
        let told = &mut *self.0.borrow_mut();
        match told.timers.remove(&(peer.id(), timer)) {
            Some(due) if due <= told.turn.now + CLOCK_SLACK => {}
            Some(_) => told.wrong = Some("a timer has come too early".to_owned()),
            None => told.wrong = Some("a timer that is not set, or of another client".to_owned()),
        }
    }

    fn answered(
        &mut self,
        _call: CallId,
        _answer: Result<Option<RawJson<'_>>, AnswerError<'_>>,
        _peer: &mut Peer<'_>,
    ) {
        let told = &mut *self.0.borrow_mut();
        match told.calls_open.checked_sub(1) {
            Some(left) => told.calls_open = left,
            None => told.wrong = Some("a call was answered twice".to_owned()),
        }
    }

    fn connected(&mut self, peer: &mut Peer<'_>) {
        let number = peer.value().copied();
        let told = &mut *self.0.borrow_mut();
        let claims: Option<serde_json::Value> = peer.claims().and_then(|claims| claims.value().ok());
        let user = claims
            .as_ref()
            .and_then(|claims| claims["sub"].as_str().map(str::to_owned));
        if let Some(number) = claims.and_then(|claims| claims["connection"].as_u64()) {
            let connection = usize::try_from(number).expect("few connections");
            told.numbers.insert(peer.id().to_string(), connection);
            told.lives.push(LifeEvent {
                connection,
                at: told.turn.now,
                end: None,
            });
        }
        let session = Session {
            number,
            user,
            end: None,
        };
        if told.sessions.insert(peer.id().to_string(), session).is_some() {
            told.wrong = Some("a session was connected twice".to_owned());
        }
    }

    fn disconnected(&mut self, client: &mut Client<'_>, reason: CloseReason) {
        let told = &mut *self.0.borrow_mut();
        // Its timers do not come any more.
        told.timers.retain(|(of, _), _| *of != client.id());
        let turn = told.turn;
        let device = told.numbers.get(&client.id().to_string()).copied();
        if let Some(connection) = device {
            told.lives.push(LifeEvent {
                connection,
                at: turn.now,
                end: Some(reason),
            });
        }
        let id = client.id().to_string();
        match told.sessions.get_mut(&id) {
            Some(session @ Session { end: None, .. }) => {
                let end = End { reason, turn };
                session.end = Some(end);
                if device.is_none() {
                    told.ends.push((id, end));
                }
                // MQTT clients may connect without a request of HTTP.
                let has_none = session.number.is_none() && device.is_none();
                if has_none || client.value::<u64>().copied() != session.number {
                    told.wrong = Some("a connection has lost its value".to_owned());
                }
            }
            Some(_) => told.wrong = Some(format!("a session ended twice, at last for {reason:?}")),
            None => told.wrong = Some("a session ended that never was connected".to_owned()),
        }
    }
}
