//! The messages of an open connection. The messages of one read are taken together as a batch (`intake.rs`); their
//! session decides about each, and `carry_out.rs` carries the decisions of the whole batch out.

use crate::app::App;
use crate::decision::{CloseReason, Decisions, Limit};
use crate::mqtt::session::Placement;
use crate::protocols::{Content, Session};

use crate::cores::arrivals::moving::Moved;
use crate::cores::core::Core;
use crate::cores::input::intake::{Batch, CONTROL_ROOM, Next};
use crate::cores::lifecycle::connection::{Awaited, ConnectionId, Input, Open, Phase, Work};
use crate::cores::lifecycle::reading::Why;
use crate::cores::lifecycle::waiting::WaitsFor;

impl<A: App> Core<A> {
    /// Handles the messages at the beginning of the input, up to a control frame that needs an answer or the
    /// end of the input. Carries out the session's decisions about all of them together.
    pub(in crate::cores) fn receive_messages(&mut self, id: ConnectionId, input: &mut [u8]) -> Input {
        let Some((connection, mqtt)) = self.connections.get_with_mqtt(id) else {
            return Input::Consumed(input.len());
        };
        let Phase::Open(Open { session, .. }) = &connection.phase else {
            return Input::Consumed(0);
        };
        if session.has_more() {
            return self.receive_more(id);
        }
        let now = self.time.now().uptime;
        let rate_left = match &connection.meter {
            None => u64::MAX,
            Some(meter) => meter.messages_left(&self.measures, now),
        };
        let mut room = CONTROL_ROOM;
        self.decisions.clear();
        let mut environment = self.resources.environment(self.time.now(), id, mqtt);
        let decisions = &mut self.decisions;
        let batch = self.intake.take_batch(
            connection,
            input,
            &mut room,
            rate_left,
            &mut environment,
            decisions,
        );
        let deadline = connection.deadline_of_session(&self.resources.settings);
        let sooner = self.wheel.is_sooner(deadline, connection.armed);
        self.intake
            .account_for(&batch, connection, &self.measures, now, &self.metrics);
        if batch.has_opened {
            self.session_opens(id);
        }
        self.count_hits(id);
        self.carry_out(id, batch.result);
        if batch.has_opened {
            self.connections.begin_batching(id);
            self.resources.scratch.common.app.timers.rearm(id.token().0);
        }
        if sooner {
            self.arm(id);
        }
        self.after_batch(id, &batch, input)
    }

    /// Finishes a batch: answers a control frame, or decides how the core goes on with the input.
    fn after_batch(&mut self, id: ConnectionId, batch: &Batch<'_>, input: &[u8]) -> Input {
        let input_bytes = input.len();
        match &batch.next {
            Next::Consumed => Input::Consumed(batch.consumed),
            Next::Incomplete => Input::Incomplete(batch.consumed),
            Next::OverRate => {
                self.pause(id, Limit::MessagesPerSecond);
                Input::Consumed(batch.consumed)
            }
            Next::Enough => {
                self.read_rest_next_turn(id);
                Input::Incomplete(batch.consumed)
            }
            Next::Broken => Input::Consumed(input_bytes),
            Next::Move(owner, version) => {
                match self.move_away(id, *owner, *version, &input[batch.consumed..]) {
                    Moved::Yes | Moved::Refused => Input::Rest,
                    Moved::NotYet => {
                        self.suspend_input(id, WaitsFor::Move);
                        Input::Incomplete(batch.consumed)
                    }
                }
            }
            Next::Subscribe => self.await_delivery(id, batch.consumed),
            Next::Decision => {
                if let Some(connection) = self.connections.get_mut(id)
                    && connection.awaits_decision()
                {
                    connection.reading.pause(Why::Decision);
                }
                Input::Consumed(batch.consumed)
            }
            Next::Pong(payload) => {
                self.connections.send(id, Content::Pong, payload);
                Input::Consumed(batch.consumed)
            }
            Next::Farewell(answer) => {
                if answer.is_orderly() {
                    self.delete_will(id);
                }
                self.connections.send_farewell(id, answer);
                self.close(id, CloseReason::PeerClosed);
                Input::Consumed(input_bytes)
            }
        }
    }

    /// An MQTT session subscribes and unsubscribes at once. So all publications so far are delivered first:
    /// otherwise a client that subscribes after a publication was acknowledged would get it live.
    fn await_delivery(&mut self, id: ConnectionId, consumed: usize) -> Input {
        if self.connections.has_suspended(id) {
            // Its earlier decisions come first. After them the packet is handled again.
            return Input::Incomplete(consumed);
        }
        let asked = Awaited::Asked(self.delivery.claimed());
        let waits = self
            .delivery
            .awaits(&mut self.connections, &mut self.resources.inspector(), asked);
        if let Some(Session::Mqtt(client)) = self.session(id) {
            client.session.placement = Placement::OwnerMaySubscribe;
            if let Some(place) = waits {
                self.suspend_input(id, WaitsFor::Delivery(place));
                return Input::Incomplete(consumed);
            }
        }
        Input::Consumed(consumed)
    }

    /// Stops reading a connection without suspended work until the event has come. Then it goes on with its
    /// input.
    fn suspend_input(&mut self, id: ConnectionId, waits_for: WaitsFor) {
        self.intake.end_share();
        if let Some(connection) = self.connections.get_mut(id)
            && connection.suspended.is_none()
        {
            self.waiting
                .suspend(connection, Work::new(Decisions::new(), Ok(())), waits_for);
        }
    }

    /// The connection has used up its share of this turn: the next turn goes on with its input. If its
    /// session waits for a decision, the turn after the decision does.
    fn read_rest_next_turn(&mut self, id: ConnectionId) {
        self.intake.end_share();
        if let Some(connection) = self.connections.get_mut(id) {
            if connection.awaits_decision() {
                connection.reading.pause(Why::Decision);
            } else {
                self.waiting.read_next_turn(connection);
            }
        }
    }

    /// Goes on with an array of packets. If a part of it is left, that part and all input behind it wait for the next
    /// turn.
    fn receive_more(&mut self, id: ConnectionId) -> Input {
        let Some(connection) = self.connections.get_mut(id) else {
            return Input::Rest;
        };
        if let Some(meter) = &connection.meter
            && meter.messages_left(&self.measures, self.time.now().uptime) == 0
        {
            self.pause(id, Limit::MessagesPerSecond);
            return Input::Incomplete(0);
        }
        let mut has_more = false;
        self.decide(id, |session, environment, decisions| {
            let result = session.receive_more(environment, decisions);
            has_more = session.has_more();
            result
        });
        if self.resources.scratch.common.verifications() > 0
            && let Some(connection) = self.connections.get_mut(id)
        {
            connection.shows_tokens = true;
        }
        if has_more {
            self.read_rest_next_turn(id);
            return Input::Incomplete(0);
        }
        Input::Consumed(0)
    }

    /// Stops reading a connection until it is below its rate again.
    pub(in crate::cores) fn pause(&mut self, id: ConnectionId, limit: Limit) {
        if let Some(connection) = self.connections.get_mut(id)
            && let Some(meter) = &mut connection.meter
            && meter.pause(&self.measures, self.time.now().uptime)
        {
            connection.reading.pause(Why::Rate);
            self.metrics.limit_hit(limit);
            self.arm(id);
        }
    }
}
