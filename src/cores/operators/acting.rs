//! Does what other threads ask for with the connections of a selection: closes them, sends them events, begins and ends
//! their subscriptions. Some connections in each turn.
//!
//! Limits: `EFFORT_PER_TURN_MAX` (`report.rs`).

use crate::app::{App, CallOutcome};
use crate::decision::{CloseReason, Decision};

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;
use crate::cores::operators::questions::{Act, Acting, Calling};
use crate::cores::operators::selection::Selected;

impl<A: App> Core<A> {
    /// Goes on with an operation on connections. True when it is done.
    pub(in crate::cores) fn act_some(&mut self, acting: &mut Acting, effort: &mut u32) -> bool {
        loop {
            match self.next_selected(&mut acting.selecting, effort) {
                Selected::Found(id) => {
                    *effort = effort.saturating_sub(EFFORT_OF_AN_ACT);
                    acting.done += u64::from(self.act(id, &acting.act));
                }
                Selected::Later => return false,
                Selected::End => return true,
            }
        }
    }

    /// Goes on to look for a client and calls it. True when that is done, or there is no such client.
    pub(in crate::cores) fn call_client(&mut self, calling: &mut Calling, effort: &mut u32) -> bool {
        let selected = self.next_selected(&mut calling.selecting, effort);
        if selected == Selected::Later {
            return false;
        }
        let Some(outside) = calling.outside.take() else {
            return true;
        };
        match selected {
            Selected::Found(id) if self.has_room_for_event(id) => {
                let (event, data) = (&calling.event, calling.data.as_deref());
                self.decide(id, |session, environment, decisions| {
                    session.call_from_outside(event, data, outside, environment, decisions);
                    Ok(())
                });
            }
            Selected::Found(_) | Selected::Later | Selected::End => outside.tell(CallOutcome::NoConnection),
        }
        true
    }

    /// Returns whether there was something to do.
    fn act(&mut self, id: ConnectionId, act: &Act) -> bool {
        if self
            .connections
            .get(id)
            .is_none_or(|connection| connection.is_ending())
        {
            return false;
        }
        match act {
            Act::Disconnect { code, reason } => {
                self.close_saying(id, CloseReason::Application(*code), reason);
                true
            }
            Act::Transmit { event, data } => {
                if !self.has_room_for_event(id) {
                    return false;
                }
                self.decide(id, |session, _, decisions| {
                    session.transmit(event, data.as_deref(), decisions);
                    Ok(())
                });
                true
            }
            Act::Subscribe { channel } => self.subscribe_by_server(id, channel),
            Act::Unsubscribe { channel, message } => {
                self.kick_out(id, channel.as_deref(), message.as_deref())
            }
        }
    }

    fn subscribe_by_server(&mut self, id: ConnectionId, channel: &str) -> bool {
        let mut is_allowed = false;
        self.decide(id, |session, environment, decisions| {
            is_allowed = session.subscribe_by_server(channel, environment, decisions);
            Ok(())
        });
        is_allowed
    }

    /// Ends a subscription of a connection, or all.
    fn kick_out(&mut self, id: ConnectionId, channel: Option<&str>, message: Option<&str>) -> bool {
        let is_subscribed = match channel {
            Some(name) => {
                let number = self.delivery.number_of(name.as_bytes());
                number.is_some_and(|number| self.delivery.subscriptions().is_subscribed(id.index(), number))
            }
            None => self.delivery.subscriptions().count_of(id.index()) > 0,
        };
        if !is_subscribed {
            return false;
        }
        self.decide(id, |session, _, decisions| {
            let reason = message.map(|json| decisions.write(|out| out.extend_from_slice(json.as_bytes())));
            let kick_out = match channel {
                Some(name) => {
                    let message = session.kicked_out(name.as_bytes(), reason, decisions);
                    let channel = decisions.write(|out| out.extend_from_slice(name.as_bytes()));
                    Decision::KickOut { channel, message }
                }
                None => Decision::KickOutAll { reason },
            };
            decisions.push(kick_out);
            Ok(())
        });
        true
    }
}

/// To act on a connection costs as much as to look at this many places.
const EFFORT_OF_AN_ACT: u32 = 32;
