//! Visits: connections whose deadlines may have come, and the application's timers of these connections.
//!
//! Limits: `VISITS_PER_TURN_MAX`; `DECIDED_CHECKS_MAX` (`input/late_answers.rs`).

use crate::app::App;
use crate::decision::{CloseReason, Limit};

use crate::cores::core::Core;
use crate::cores::input::late_answers::DECIDED_CHECKS_MAX;
use crate::cores::lifecycle::connection::{ConnectionId, Phase};
use crate::cores::lifecycle::meter::Due;
use crate::cores::lifecycle::reading::Why;
use crate::cores::lifecycle::timers::next_timer;

impl<A: App> Core<A> {
    /// Visits the connections whose deadline may have come.
    #[inline]
    pub(super) fn visit_due(&mut self) {
        self.wheel.advance(self.time.now().uptime);
        if self.wheel.has_due() {
            self.visit_some_due();
        }
    }

    #[inline(never)]
    fn visit_some_due(&mut self) {
        let room = self.connections.room(1).max(VISITS_PER_TURN_MIN);
        let mut left = VISITS_PER_TURN_MAX.min(room);
        while left > 0 {
            if self.shares.decided_checks >= DECIDED_CHECKS_MAX {
                return;
            }
            let Some(index) = self.wheel.take_due() else {
                return;
            };
            left -= 1;
            if let Some(id) = self.connections.id_at(index) {
                self.visit(id);
                if !self.resources.scratch.common.app.timers.is_empty() {
                    left = self.run_timers(id, left);
                }
                self.arm(id);
            }
        }
    }

    fn visit(&mut self, id: ConnectionId) {
        let now = self.time.now().uptime;
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.deadline(&self.resources.settings, &self.measures) > now {
            return;
        }
        // The other phases have deadlines of their own.
        let is_open = matches!(connection.phase, Phase::Open(_));
        let responsive_since = self.time.responsive_since(self.limits.write_timeout);
        if is_open && self.connections.takes_nothing(id, responsive_since) {
            return self.close(id, CloseReason::WriteTimeout);
        }
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        match &mut connection.phase {
            Phase::ProxyHeader { .. } | Phase::Request { .. } | Phase::LoggingIn { .. } => {
                self.close(id, CloseReason::RequestTimeout);
            }
            Phase::Closing { deadline, .. }
            | Phase::Finishing { deadline, .. }
            | Phase::Emptying { deadline } => {
                // While this core stalled, it could not send the bytes that were queued last: the peer gets the whole
                // time again.
                let close_timeout = self.limits.close_timeout;
                let whole_time = self.time.responsive_since(close_timeout) + close_timeout;
                if whole_time > now {
                    *deadline = whole_time;
                    return;
                }
                self.metrics.limit_hit(Limit::CloseTime);
                self.drop_socket(id);
            }
            Phase::Open(_) => self.visit_open(id),
        }
    }

    /// Visits an open connection: resets the silence timer if the client could not be heard, checks its rates, and lets
    /// its session act on its timers.
    fn visit_open(&mut self, id: ConnectionId) {
        let now = self.time.now().uptime;
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let Phase::Open(open) = &mut connection.phase else {
            return;
        };
        // If the server has not read the connection (because of the ring, its rate, a pending decision, or
        // connections that were read before it), silence is not the client's fault. The same holds if this
        // core stalled and sent no pings.
        let reading = connection.reading;
        let silence_max = open.session.silence_max(&self.resources.settings);
        if reading.is_paused_by(Why::Work)
            || reading.is_paused_by(Why::Rate)
            || reading.is_paused_by(Why::Decision)
            || reading.is_queued()
            || open
                .session
                .last_heard_before(self.time.responsive_since(silence_max))
        {
            open.session
                .reset_silence_timer(self.time.now(), &self.resources.settings);
        }
        connection.shows_tokens = false;
        if connection.is_ending() {
            return;
        }
        let due = match &mut connection.meter {
            None => Due::Nothing,
            Some(meter) => meter.due(connection.tally.messages(), &self.measures, now),
        };
        if let Due::Close(reason) = due {
            self.close(id, reason);
            return;
        }
        if due == Due::Resume {
            connection.reading.resume(Why::Rate);
        }
        self.resources.scratch.common.begin_verifications();
        self.decide(id, |session, environment, decisions| {
            session.timed_out(environment, decisions)
        });
        if reading.is_paused_by(Why::Decision) {
            self.shares.decided_checks += self.resources.scratch.common.verifications();
            self.follow_decision(id);
        }
        if due == Due::Resume {
            self.take_in_again(id);
        }
    }

    /// Calls the application for the timers of a connection that are due: for the first, and for as many more
    /// as `left` allows. Returns how many visits are left. The other timers wait for later turns: their
    /// connection is armed again.
    ///
    /// If the application sends something to a client that does not read, the connection is closed: nothing
    /// else bounds messages that the client has not asked for.
    #[cold]
    fn run_timers(&mut self, id: ConnectionId, mut left: usize) -> usize {
        let now = self.time.now().uptime;
        let last = self.resources.scratch.common.app.timers.last();
        let mut is_first = true;
        while let Some(connection) = self.connections.get(id) {
            let timers = &mut self.resources.scratch.common.app.timers;
            if connection.is_ending() || next_timer(connection, timers) > now {
                return left;
            }
            // The visit has already counted for the first timer.
            if !is_first {
                let Some(fewer) = left.checked_sub(1) else {
                    return left;
                };
                left = fewer;
            }
            is_first = false;
            let Some(timer) = timers.take_due(id.token().0, now, last) else {
                return left;
            };
            let bytes_before = connection.waiting_bytes();
            self.decide(id, |session, environment, decisions| {
                session.timer(timer, environment, decisions)
            });
            let bytes = self.connections.get(id).map_or(0, |one| one.waiting_bytes());
            if bytes > bytes_before && !self.has_room_for_event(id) {
                return left;
            }
        }
        left
    }
}

/// Most visits of one turn, so that the heartbeats of a hundred thousand connections do not delay other work. Each
/// further timer of a connection counts as one.
const VISITS_PER_TURN_MAX: usize = 4096;
/// Visits of a turn that has more publications to deliver than it can. A core that is late with publications
/// must still ping its clients: otherwise it would consider all of them silent.
const VISITS_PER_TURN_MIN: usize = 256;
