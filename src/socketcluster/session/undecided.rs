//! Packets about which the application decides later (`app/deferred_decision.rs`).
//!
//! ```text
//!  packet ──► the application defers ──► kept ──► decision, or deadline ──► the packet is handled again
//! ```
//! While a packet is kept, [`Session::is_waiting`] says so and the core takes no other input of the
//! connection. Further packets of an array wait as the rest of the array ([`Session::has_more`]), further
//! messages in the socket.
//!
//! Limits: `decision_timeout`.

use super::{Environment, Session};
use crate::app::{Again, App, Decide, DecisionNumber, DeferredOrders, Refusal};
use crate::auth::Issued;
use crate::clock::Uptime;
use crate::decision::{CloseReason, Decisions, Limit};
use crate::socketcluster::decode::{Decoded, decode};
use crate::socketcluster::encode;
use crate::socketcluster::number::NumberText;
use crate::socketcluster::packet::Event;

/// Something about which the application decides later.
#[derive(Debug)]
pub(super) struct Undecided {
    number: DecisionNumber,
    deadline: Uptime,
    about: About,
    /// The application's earlier decisions about it.
    decided: Vec<Result<(), Refusal>>,
    /// The application's orders to its peer.
    kept: DeferredOrders,
}

/// The question to be decided.
pub(super) enum About {
    /// The text of a packet.
    Packet(Box<str>),
    /// A login whose password was right.
    Login(Box<Issued>, Option<NumberText>),
}

impl About {
    /// A packet.
    pub(super) fn event(event: &Event<'_>) -> About {
        let mut name = Vec::new();
        event.name.write_decoded(&mut name);
        let mut text = Vec::new();
        let data = event.data.map(|value| value.json.as_bytes());
        encode::received(&name, data, event.cid.map(|cid| cid.as_str()), &mut text);
        // The name is that of an event of the server, and everything else was text.
        About::Packet(String::from_utf8_lossy(&text).into())
    }
}

impl std::fmt::Debug for About {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It may hold a token.
        formatter.debug_struct("About").finish_non_exhaustive()
    }
}

impl Session {
    /// Whether the session waits for a decision of the application, and takes no message before it.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.calls
            .as_ref()
            .is_some_and(|calls| !calls.undecided.is_empty())
    }

    /// Bytes of the packets and logins that wait for a decision.
    pub(super) fn undecided_bytes(&self) -> usize {
        let undecided = self.calls.as_ref().map_or(&[][..], |calls| &calls.undecided);
        undecided.iter().map(Undecided::bytes).sum()
    }

    /// The earliest deadline of the decisions.
    pub(super) fn decision_deadline(&self) -> Option<Uptime> {
        let undecided = &self.calls.as_ref()?.undecided;
        undecided.iter().map(|undecided| undecided.deadline).min()
    }

    /// The application decides later. `decided` are its earlier decisions about this.
    pub(super) fn await_decision<A: App>(
        &mut self,
        number: DecisionNumber,
        about: About,
        decided: Vec<Result<(), Refusal>>,
        env: &mut Environment<'_, '_, A>,
    ) {
        self.await_answers(env);
        let undecided = Undecided {
            number,
            deadline: env.common.now.uptime + env.common.settings.decision_timeout,
            about,
            decided,
            kept: env.common.scratch.app.keep_orders(),
        };
        self.calls.get_or_insert_default().undecided.push(undecided);
    }

    /// The application has decided.
    pub(super) fn decided<A: App>(
        &mut self,
        number: DecisionNumber,
        decide: Decide,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        match self.take_undecided(|undecided| undecided.number == number) {
            Some(undecided) => self.handle_again(undecided, decide, env, decisions),
            // The deadline has passed, or the session has nothing with this number.
            None => Ok(()),
        }
    }

    /// The application has not decided in time: its decisions count as refusals.
    pub(super) fn expire_decisions<A: App>(
        &mut self,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let now = env.common.now.uptime;
        while let Some(undecided) = self.take_undecided(|undecided| undecided.deadline <= now) {
            env.common.scratch.hit(Limit::DecisionTime);
            self.handle_again(undecided, Box::new(|_| Err(Refusal::too_late())), env, decisions)?;
        }
        Ok(())
    }

    fn take_undecided(&mut self, is_wanted: impl Fn(&Undecided) -> bool) -> Option<Undecided> {
        let undecided = &mut self.calls.as_mut()?.undecided;
        let place = undecided.iter().position(is_wanted)?;
        Some(undecided.remove(place))
    }

    fn handle_again<A: App>(
        &mut self,
        undecided: Undecided,
        decide: Decide,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        env.common.scratch.app.again = Some(Box::new(Again {
            decided: undecided.decided,
            decide: Some(decide),
            kept: undecided.kept,
        }));
        let result = match undecided.about {
            About::Packet(text) => match decode(&text) {
                Decoded::One(packet) => self.receive_packet(&packet, env, decisions),
                Decoded::Many(_) | Decoded::Long(_) | Decoded::TooDeep => Ok(()),
            },
            About::Login(issued, cid) => self.admit_user(*issued, cid.as_ref(), env, decisions),
        };
        env.common.scratch.app.again = None;
        result
    }
}

impl Undecided {
    fn bytes(&self) -> usize {
        let about = match &self.about {
            About::Packet(text) => text.len(),
            About::Login(issued, _) => issued.token.len(),
        };
        about + self.kept.bytes()
    }
}
