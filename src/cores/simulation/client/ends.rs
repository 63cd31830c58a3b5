//! The conditions that hold at the end of a connection, and while nothing is on its way.

use std::time::Duration;

use super::calls::Call;
use super::{Client, Phase};
use crate::config::SlowConsumer;
use crate::config::limits::MemoryMax;
use crate::cores::simulation::actor::SENT_AWAY;
use crate::cores::simulation::world::GroundTruth;
use crate::decision::CloseReason;

impl Client {
    pub(super) fn take_close(&mut self, truth: &mut GroundTruth, payload: &[u8]) {
        let code = match payload {
            &[high, low, ..] => u16::from_be_bytes([high, low]),
            _ => 1005,
        };
        truth.trace.mix(u64::from(code));
        self.code = Some(code);
        self.phase = Phase::Closed;
        if !self.may_be_closed(truth, code) {
            truth.fail(&format!("client {} was closed with {code}: {self:?}", self.index));
        }
        if let Some(id) = &self.session {
            truth.expect(self.index, "at its close", self.check_end(truth, id, code));
        }
        self.queue_close(truth, code);
    }

    /// Whether a close with this code has a cause.
    fn may_be_closed(&self, truth: &GroundTruth, code: u16) -> bool {
        let (limits, sent) = (&truth.plan.limits, &self.sent);
        match code {
            1000 => sent.close,
            1001 => truth.draining || (sent.close && sent.close_code == 1001),
            1002 | 1009 => sent.garbage,
            // Silence counts from the upgrade on, and not while the core stood still.
            4001 => self.session.is_none() || sent.dozed || !self.answers_pings,
            4005 => self.session.is_none(),
            4009 => sent.before_handshake,
            4010 => {
                truth.plan.slow_consumer != SlowConsumer::Skip
                    || !self.late.is_empty()
                    || self.services.is_used
                    || self.calls.iter().any(Call::is_of_an_owner)
                    || limits.outbox_bytes_total_max != MemoryMax::Off
            }
            4029 => limits.messages_per_second_max > 0 || limits.bytes_per_second_max > 0,
            4030 => !limits.idle_timeout.is_zero(),
            4032 => self.token.is_some() && truth.revoked,
            // The rest of a history was lost, or its owner did not answer.
            4034 => truth.plan.memory.is_some(),
            4033 => !limits.write_timeout.is_zero() && sent.dozed,
            SENT_AWAY => sent.asked_to_go,
            _ => false,
        }
    }

    /// The application was told the same end, and everything that was delivered before it has come.
    fn check_end(&self, truth: &GroundTruth, id: &str, code: u16) -> Result<(), String> {
        let told = truth.told.borrow();
        let Some(end) = told.sessions.get(id).and_then(|session| session.end) else {
            return Err("the application has not been told of the end".to_owned());
        };
        let own_code = self.sent.close_code;
        let told_code = end.reason.code().map_or(own_code, |code| code.as_u16());
        if told_code != code {
            return Err(format!(
                "closed with {code}, and the application was told {end:?}"
            ));
        }
        // The server does not read a client whose outbox is full. If this client did not read, its pong may
        // be unread for a long time. The time of a turn is that of its beginning: so a pong that leaves
        // during the turn that reads it counts as a little earlier than it left.
        if code == 4001 && !self.sent.dozed {
            let silent_since = self.pong_at.unwrap_or(self.connected_at);
            if end.turn.now.since(silent_since) + READ_EARLY_MAX < truth.plan.ping_timeout {
                return Err(format!("a pong left at {silent_since:?}, {end:?}"));
            }
        }
        if ![4010, 4033].contains(&code) && truth.plan.slow_consumer == SlowConsumer::Close {
            for following in self
                .following
                .keys()
                .filter_map(|&channel| self.live(channel, truth))
            {
                following.expect_until(end.turn.undelivered, &truth.log, SlowConsumer::Close)?;
            }
        }
        // Replies that were on their way to a paused connection may be lost with it; a client that left by
        // itself gets all of them. A recovery that was under way may be lost as well.
        let is_lost = self.calls.iter().any(|call| !call.may_be_late(truth));
        if end.reason == CloseReason::PeerClosed && is_lost {
            return Err(format!(
                "{:?} were not answered before its close frame",
                self.calls
            ));
        }
        Ok(())
    }

    pub(super) fn end(&mut self, truth: &mut GroundTruth, is_reset: bool) {
        truth.trace.mix(u64::from(is_reset));
        let was = std::mem::replace(&mut self.phase, Phase::Gone);
        self.socket = None;
        let sent = &self.sent;
        let is_expected = match was {
            Phase::Closed => true,
            // The client was too slow with its request, or has ended its own direction.
            Phase::Requesting => true,
            // If memory is short, there is no answer either.
            Phase::Upgraded => {
                let total_max = truth.plan.limits.outbox_bytes_total_max;
                sent.fin || sent.close || sent.dozed || total_max != MemoryMax::Off
            }
            Phase::Gone => false,
        };
        if !is_expected {
            truth.fail(&format!(
                "client {} was dropped without a word: {self:?}",
                self.index
            ));
        }
    }

    /// Whether nothing keeps the client from getting everything that is meant for it.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_open() && self.attentive && self.out.is_empty() && !self.sent.close && !self.sent.fin
    }

    /// Nothing is on its way any more: checks that everything has come that should have.
    pub(in crate::cores::simulation) fn check_at_rest(&self, truth: &GroundTruth) -> Result<(), String> {
        if !self.is_quiet() {
            return Ok(());
        }
        let limits = &truth.plan.limits;
        let is_limited = limits.messages_per_second_max > 0 || limits.bytes_per_second_max > 0;
        if !is_limited && !self.calls.is_empty() {
            return Err(format!("{:?} are not answered", self.calls));
        }
        let may_lag = truth.plan.slow_consumer != SlowConsumer::Close && !truth.owners_answer();
        for (&channel, following) in &self.following {
            let policy = truth.slow_consumer_of(channel);
            if self.is_subscribing(channel) || policy == SlowConsumer::Skip || may_lag {
                continue;
            }
            following.expect_until(truth.log.claimed(), &truth.log, policy)?;
            let is_certain = truth.plan.memory.has_last_value(channel) && truth.owners_answer();
            if is_certain && following.wants_last_value() {
                following.expect_newest(&truth.log)?;
            }
        }
        let now = truth.time.peek().uptime;
        if let (Some(interval), Some(opened)) = (truth.plan.ping_interval, self.opened_at) {
            let last = self.last_ping.unwrap_or(opened).max(opened);
            if now.since(last) > interval + PING_LATE_MAX {
                return Err(format!("no ping since {last:?}, now it is {now:?}"));
            }
        }
        Ok(())
    }
}

/// By how much a pong that a turn reads may have left after the beginning of the turn.
const READ_EARLY_MAX: Duration = Duration::from_millis(1);
/// A tick of the wheel, plus the time that readings of the clock add.
const PING_LATE_MAX: Duration = Duration::from_millis(60);
