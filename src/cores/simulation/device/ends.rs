//! The conditions that hold at the end of an MQTT connection, and while nothing is on its way.

use super::{Device, Link};
use crate::config::SlowConsumer;
use crate::config::limits::MemoryMax;
use crate::cores::simulation::world::GroundTruth;
use crate::decision::CloseReason;

impl Device {
    /// The server has ended a connection.
    pub(super) fn end_link(&mut self, truth: &mut GroundTruth, at: usize) {
        let link = &mut self.links[at];
        link.disappear();
        let what = format!("device {}, connection {}", self.index, link.number);
        if !truth.lives.has_begun(link.number) {
            // The client was too slow with its packet, or there was no room for it.
            return;
        }
        let Some(reason) = truth.lives.end_of(link.number) else {
            truth.fail(&format!("{what} has ended, and the application was not told"));
        };
        truth.trace.mix(reason.index() as u64);
        if !may_end(truth, link, reason) {
            truth.fail(&format!("{what} has ended by {reason:?}: {link:?}"));
        }
        if let Some(code) = link.code
            && Some(code) != reason.reason_code()
        {
            truth.fail(&format!(
                "{what} has ended by {reason:?}, and was told {code:02x}"
            ));
        }
    }

    /// Nothing is on its way any more. Returns the publications that must have come and are missing.
    pub(in crate::cores::simulation) fn check_at_rest(
        &mut self,
        truth: &GroundTruth,
    ) -> Result<Vec<usize>, String> {
        let Some(link) = self.links.last().filter(|_| self.is_quiet(truth)) else {
            return Ok(Vec::new());
        };
        if link.in_flight > 0 {
            return Err(format!(
                "{} are in flight, and it has acknowledged all",
                link.in_flight
            ));
        }
        if self.session.is_asking() {
            return Err(format!("an answer is missing: {:?}", self.session));
        }
        if !self.session.outgoing.is_empty() {
            return Err(format!("{:?} are not acknowledged", self.session.outgoing));
        }
        if !self.session.incoming.is_empty() {
            return Err(format!("{:?} are not released", self.session.incoming));
        }
        let number = link.number;
        // With QoS 0 no publication is certain where some wait in the queue, which may be full.
        let queues_qos0 = truth.plan.mqtt_bounds.queues_qos0;
        let is_certain = truth.plan.slow_consumer == SlowConsumer::Close && !queues_qos0;
        let opened = is_certain.then_some(link.opened_at);
        let missing = self.session.check_at_rest(opened, &truth.log)?;
        if truth.plan.memory.is_steady() && missing.is_empty() {
            self.session
                .check_retained(number, truth.plan.channels, &truth.log)?;
        }
        Ok(missing)
    }

    /// Whether nothing keeps the client from getting everything that is meant for it.
    fn is_quiet(&self, truth: &GroundTruth) -> bool {
        let Some((link, older)) = self.links.split_last() else {
            return false;
        };
        let limits = &truth.plan.limits;
        let is_limited = limits.messages_per_second_max > 0 || limits.bytes_per_second_max > 0;
        link.is_open
            && link.attentive
            && link.may_send()
            && link.unwritten() == 0
            && link.owed.is_empty()
            && older.iter().all(|link| link.socket.is_none())
            && !is_limited
            && !truth.draining
    }

    /// Whether its session may have, or will get, publications of the group that have not been observed.
    pub(in crate::cores::simulation) fn may_share_in_secret(&self, truth: &GroundTruth) -> bool {
        !self.may_be_over(truth) && self.session.may_share() && !self.is_quiet(truth)
    }

    /// Whether a publication for the group at this place must have come to it or to another member.
    pub(in crate::cores::simulation) fn must_share(&self, truth: &GroundTruth, sequence: u64) -> bool {
        // Publications for a session that has ended go to another member, if there is one. A client that does
        // not read has yet to learn that its session has ended.
        self.is_open() && !self.may_be_over(truth) && self.session.must_share(sequence)
    }

    fn may_be_over(&self, truth: &GroundTruth) -> bool {
        let now = truth.time.peek().uptime;
        truth.lives.may_be_over(self.index, self.session.key, now)
    }
}

/// Whether the end of a connection has a cause.
fn may_end(truth: &GroundTruth, link: &Link, reason: CloseReason) -> bool {
    let limits = &truth.plan.limits;
    match reason {
        CloseReason::MqttDisconnected => link.sent_disconnect,
        CloseReason::PeerVanished => link.sent_fin,
        CloseReason::TakenOver => truth.lives.is_displaced(link.number),
        CloseReason::MalformedMqtt | CloseReason::MqttProtocolError | CloseReason::ProtocolError => {
            link.sent_garbage
        }
        CloseReason::KeepAliveTimeout => link.keep_alive_s > 0,
        CloseReason::Draining => truth.draining,
        CloseReason::SlowConsumer => truth.plan.slow_consumer != SlowConsumer::Skip,
        CloseReason::HoldsMost => limits.outbox_bytes_total_max != MemoryMax::Off,
        CloseReason::RateExceeded => limits.messages_per_second_max > 0 || limits.bytes_per_second_max > 0,
        CloseReason::IdleTimeout => !limits.idle_timeout.is_zero(),
        CloseReason::WriteTimeout => !limits.write_timeout.is_zero() && link.dozed,
        _ => false,
    }
}
