//! Packets about which the application decides later (`app/deferred_decision.rs`): CONNECT, SUBSCRIBE and PUBLISH.
//!
//! The session keeps the packet and says that it waits ([`Session::is_waiting`]); the core reads no further
//! packet. When the decision comes, or its deadline, the packet is handled again.
//!
//! Limits: `decision_timeout`.

use super::{Session, State, close_saying, decode_and_close, long_packets};
use crate::app::{Again, App, Decide, DecisionNumber, DeferredOrders, Refusal};
use crate::clock::Uptime;
use crate::decision::{CloseReason, Decisions, Limit};
use crate::mqtt::Version;
use crate::mqtt::environment::Environment;

/// A decision that has not come yet.
#[derive(Debug)]
pub(super) struct Undecided {
    number: DecisionNumber,
    pub(super) deadline: Uptime,
    /// The application's earlier decisions about the packet.
    decided: Vec<Result<(), Refusal>>,
    /// The application's orders to its peer.
    kept: DeferredOrders,
}

/// A packet that waits for a decision.
pub(super) struct KeptPacket {
    first: u8,
    /// The bytes behind the fixed header.
    body: Box<[u8]>,
    pub(super) undecided: Undecided,
}

impl KeptPacket {
    /// A packet whose bytes are still to come: [`Session::handle`].
    pub(super) fn new(undecided: Undecided) -> KeptPacket {
        KeptPacket {
            first: 0,
            body: Box::default(),
            undecided,
        }
    }
}

impl std::fmt::Debug for KeptPacket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The packet is the client's.
        formatter
            .debug_struct("KeptPacket")
            .field("undecided", &self.undecided)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Handles a packet of a connected client, and keeps it if the application decides later.
    #[inline]
    pub(super) fn handle<A: App>(
        &mut self,
        version: Version,
        first: u8,
        body: &[u8],
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        if long_packets::is_long(version, first, body) && !self.has_parts() {
            return self.begin_parts(version, first, body, env, decisions);
        }
        let result = match decode_and_close(version, first, body, decisions) {
            Ok(packet) if packet.properties().user_count() > env.settings.user_properties_max => {
                close_saying(
                    decisions,
                    CloseReason::TooManyUserProperties,
                    "more User Properties in one packet than the server allows",
                )
            }
            Ok(packet) => self.receive_packet(packet, env, decisions),
            Err(reason) => Err(reason),
        };
        if let State::Open(open) = &mut self.state
            && let Some(extras) = &mut open.extras
            && let Some(kept) = &mut extras.undecided
        {
            (kept.first, kept.body) = (first, body.into());
        }
        result
    }

    /// The application decides later. `decided` are its earlier decisions about the packet.
    pub(super) fn undecided<A: App>(
        number: DecisionNumber,
        decided: Vec<Result<(), Refusal>>,
        env: &mut Environment<'_, '_, A>,
    ) -> Undecided {
        Undecided {
            number,
            deadline: env.common.now.uptime + env.common.settings.decision_timeout,
            decided,
            kept: env.common.scratch.app.keep_orders(),
        }
    }

    /// The same about a packet of a connected client.
    pub(super) fn await_decision<A: App>(
        &mut self,
        number: DecisionNumber,
        decided: Vec<Result<(), Refusal>>,
        env: &mut Environment<'_, '_, A>,
    ) {
        let undecided = Session::undecided(number, decided, env);
        if let Some(open) = self.open_mut() {
            open.extras_mut().undecided = Some(Box::new(KeptPacket::new(undecided)));
        }
    }

    /// The application has decided.
    ///
    /// # Errors
    /// The connection is to be closed after the decisions so far were carried out.
    pub(crate) fn decided<A: App>(
        &mut self,
        number: DecisionNumber,
        decide: Decide,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        self.decide_if(|undecided| undecided.number == number, decide, env, decisions)
    }

    /// The application has not decided in time: its decision counts as a refusal.
    pub(super) fn expire_decision<A: App>(
        &mut self,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        env.common.scratch.hit(Limit::DecisionTime);
        self.decide_if(|_| true, Box::new(|_| Err(Refusal::too_late())), env, decisions)
    }

    /// The deadline of the decision that the session waits for.
    pub(super) fn decision_deadline(&self) -> Uptime {
        match &self.state {
            State::Deciding(_, undecided) => undecided.deadline,
            State::Open(open) => open
                .undecided()
                .map_or(Uptime::NEVER, |kept| kept.undecided.deadline),
            State::AwaitingConnect { .. } | State::LoggingIn(_) | State::Saving(_) | State::Ended => {
                Uptime::NEVER
            }
        }
    }

    /// How many bytes the session keeps for a packet that waits for a decision, or is handled in parts.
    pub fn kept_bytes(&self) -> usize {
        match &self.state {
            State::Deciding(pending, undecided) => pending.bytes() + undecided.kept.bytes(),
            State::Open(open) => {
                open.undecided()
                    .map_or(0, |kept| kept.body.len() + kept.undecided.kept.bytes())
                    + self.parts_bytes()
            }
            State::Saving(accepting) => accepting.bytes(),
            State::AwaitingConnect { .. } | State::LoggingIn(_) | State::Ended => 0,
        }
    }

    fn decide_if<A: App>(
        &mut self,
        is_wanted: impl Fn(&Undecided) -> bool,
        decide: Decide,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) -> Result<(), CloseReason> {
        let since = env.common.now.uptime;
        let result = match &mut self.state {
            State::Open(open) => {
                let version = open.version;
                let kept = open
                    .extras
                    .as_mut()
                    .and_then(|extras| extras.undecided.take_if(|kept| is_wanted(&kept.undecided)));
                let Some(kept) = kept else {
                    return Ok(());
                };
                let KeptPacket {
                    first,
                    body,
                    undecided,
                } = *kept;
                env.common.scratch.app.again = Some(again(undecided, decide));
                self.handle(version, first, &body, env, decisions)
            }
            State::Deciding(_, undecided) if is_wanted(undecided) => {
                let State::Deciding(pending, undecided) =
                    std::mem::replace(&mut self.state, State::AwaitingConnect { since })
                else {
                    return Ok(());
                };
                self.heard = since;
                env.common.scratch.app.again = Some(again(*undecided, decide));
                self.admit_again(&pending, env, decisions)
            }
            State::AwaitingConnect { .. }
            | State::LoggingIn(_)
            | State::Deciding(..)
            | State::Saving(_)
            | State::Ended => {
                return Ok(());
            }
        };
        env.common.scratch.app.again = None;
        result
    }
}

fn again(undecided: Undecided, decide: Decide) -> Box<Again> {
    Box::new(Again {
        decided: undecided.decided,
        decide: Some(decide),
        kept: undecided.kept,
    })
}
