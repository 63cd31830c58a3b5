//! The requests of a client: calls, in messages of their own or in arrays.

use std::time::Duration;

use super::Client;
use crate::cores::simulation::log::{PRESENCE, Sender, channel_name};
use crate::cores::simulation::policies::Wanted;
use crate::cores::simulation::wills::{Session, Will};
use crate::cores::simulation::world::GroundTruth;
use crate::protocols::PART_BYTES_MAX;

/// The requests that a client may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cores::simulation) enum Asked {
    Handshake,
    Subscribe(usize),
    Recover(usize, Wanted),
    Unsubscribe(usize),
    Publish(usize),
    /// `$history`, with the most publications that the answer may have.
    History(usize, Wanted, usize),
    /// `$presence`.
    Members(usize),
    /// `$presence_info`.
    Info(usize),
    /// `$will`: the channel, the name of a session, and the delay in milliseconds.
    Will(usize, Option<usize>, u32),
    TakeWillBack,
    Forbidden,
    Call,
    /// An answer of this many bytes.
    Much(u16),
    KickMe(usize),
    KickMeOutOfAll,
    SendMeAway,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) cid: u64,
    pub(super) asked: Asked,
    /// The end of its message in the stream of queued bytes.
    pub(super) end: usize,
    /// The end of the ring when that byte had been written.
    pub(super) earliest: Option<u64>,
    /// How often the wall clock had been set when it was queued.
    pub(super) clock_sets: u32,
}

impl Client {
    /// Queues a packet as a message of its own; `packet` gets the call id.
    pub(in crate::cores::simulation) fn ask(&mut self, truth: &mut GroundTruth, asked: Asked) {
        let packet = self.packet(truth, asked);
        truth.log.end_message();
        self.queue_text(truth, &packet);
        self.mark(1);
    }

    /// Queues packets as one array. All publications of a part of the array have the same fate.
    pub(in crate::cores::simulation) fn ask_all(&mut self, truth: &mut GroundTruth, all: &[Asked]) {
        let (mut array, mut part_began, mut part_count) = ("[".to_owned(), 1, 0);
        for &asked in all {
            array += &self.packet(truth, asked);
            array.push(',');
            part_count += 1;
            if truth.plan.defers || asked == Asked::SendMeAway {
                // The following packets are not handled, or later: a part ends where a decision is deferred.
                truth.log.end_message();
            }
            if part_count == truth.plan.scale.frames_per_turn_max
                || array.len() - part_began >= PART_BYTES_MAX
            {
                truth.log.end_message();
                (part_began, part_count) = (array.len(), 0);
            }
        }
        array.pop();
        array.push(']');
        truth.log.end_message();
        self.queue_text(truth, &array);
        self.mark(all.len());
    }

    /// Queues a call of a procedure. `is_late`: its answer comes at any time, or never.
    pub(in crate::cores::simulation) fn call(
        &mut self,
        truth: &mut GroundTruth,
        event: &str,
        data: &str,
        is_late: bool,
    ) {
        let packet = self.call_packet(truth, event, data, is_late);
        truth.log.end_message();
        self.queue_text(truth, &packet);
        self.mark(usize::from(!is_late));
    }

    fn call_packet(&mut self, truth: &GroundTruth, event: &str, data: &str, is_late: bool) -> String {
        let cid = self.next_cid;
        self.next_cid += 1;
        self.sent.before_handshake |= cid == 1;
        if is_late {
            self.late.insert(cid);
        } else {
            self.calls.push_back(Call {
                cid,
                asked: Asked::Call,
                end: usize::MAX,
                earliest: None,
                clock_sets: truth.clock_sets,
            });
        }
        call_text(event, data, cid)
    }

    fn packet(&mut self, truth: &mut GroundTruth, asked: Asked) -> String {
        let cid = self.next_cid;
        self.next_cid += 1;
        self.calls.push_back(Call {
            cid,
            asked,
            end: usize::MAX,
            earliest: None,
            clock_sets: truth.clock_sets,
        });
        if self.session.is_none() && asked != Asked::Handshake && cid == 1 {
            self.sent.before_handshake = true;
        }
        match asked {
            Asked::Subscribe(channel) | Asked::Recover(channel, _) | Asked::Unsubscribe(channel) => {
                self.infos.note_change(channel);
            }
            Asked::KickMe(channel) => self.infos.note_change(channel),
            Asked::KickMeOutOfAll => self.infos.note_changes(),
            _ => {}
        }
        match asked {
            Asked::Handshake => {
                let token = self
                    .token
                    .as_ref()
                    .map_or_else(|| "null".to_owned(), |token| format!("\"{token}\""));
                format!(r##"{{"event":"#handshake","data":{{"authToken":{token}}},"cid":{cid}}}"##)
            }
            Asked::Subscribe(channel) => {
                let name = channel_name(channel);
                format!(r##"{{"event":"#subscribe","data":{{"channel":"{name}"}},"cid":{cid}}}"##)
            }
            Asked::Recover(channel, wanted) => {
                let (name, wanted) = (channel_name(channel), wanted_text(truth, wanted));
                format!(
                    r##"{{"event":"#subscribe","data":{{"channel":"{name}","data":{wanted}}},"cid":{cid}}}"##
                )
            }
            Asked::Unsubscribe(channel) => {
                let name = channel_name(channel);
                format!(r##"{{"event":"#unsubscribe","data":"{name}","cid":{cid}}}"##)
            }
            Asked::Publish(channel) => {
                let name = channel_name(channel);
                let number = truth.log.begin(Sender::Client(self.index), channel);
                let padding = "p".repeat(truth.random.below(truth.plan.padding_max));
                format!(
                    r##"{{"event":"#publish","data":{{"channel":"{name}","data":"{number}:{padding}"}},"cid":{cid}}}"##
                )
            }
            Asked::History(channel, wanted, limit) => {
                let (name, wanted) = (channel_name(channel), wanted_text(truth, wanted));
                let wanted = wanted.trim_matches(['{', '}']);
                // A position is an object in the object.
                let end = if wanted.contains('{') { "}" } else { "" };
                let data = format!(r#"{{"channel":"{name}","limit":{limit},{wanted}{end}}}"#);
                call_text("$history", data, cid)
            }
            Asked::Members(channel) => {
                let data = format!(r#"{{"channel":"{}","limit":1000}}"#, channel_name(channel));
                call_text("$presence", data, cid)
            }
            Asked::Info(channel) => {
                let info = self.info_asked(truth, channel, cid);
                let data = format!(r#"{{"channel":"{}","info":{info}}}"#, channel_name(channel));
                call_text("$presence_info", data, cid)
            }
            Asked::Will(channel, name, delay_ms) => self.will_packet(truth, (channel, name, delay_ms), cid),
            Asked::TakeWillBack => {
                let now = truth.time.peek().uptime;
                truth.wills.ask(self.index, cid, None, now);
                call_text("$will", "null", cid)
            }
            Asked::Forbidden => {
                format!(r##"{{"event":"#publish","data":{{"channel":"forbidden","data":1}},"cid":{cid}}}"##)
            }
            Asked::Call => call_text("echo", cid, cid),
            Asked::Much(bytes) => call_text("much", bytes, cid),
            Asked::KickMe(channel) => call_text("kick me", format!("\"{}\"", channel_name(channel)), cid),
            Asked::KickMeOutOfAll => call_text("kick me out of all", 1, cid),
            Asked::SendMeAway => {
                self.sent.asked_to_go = true;
                call_text("send me away", 1, cid)
            }
        }
    }

    fn will_packet(
        &self,
        truth: &mut GroundTruth,
        (channel, name, delay_ms): (usize, Option<usize>, u32),
        cid: u64,
    ) -> String {
        let will = Will {
            number: truth.log.begin(Sender::Will, channel),
            session: name.map(|name| Session {
                user: self.user,
                name,
            }),
            user: self.user,
            delay: Duration::from_millis(delay_ms.into()),
            retain: truth.plan.mqtt && truth.random.chance(1, 3),
        };
        let retain = if will.retain { r#","retain":true"# } else { "" };
        let now = truth.time.peek().uptime;
        truth.wills.ask(self.index, cid, Some(will), now);
        let session = name.map_or_else(String::new, |name| format!(r#","session":"{name}""#));
        let (number, channel) = (will.number, channel_name(channel));
        let data = format!(
            r#"{{"channel":"{channel}","data":"{number}:will","delay_ms":{delay_ms}{session}{retain}}}"#
        );
        call_text("$will", data, cid)
    }

    /// The last `count` calls end with the bytes that are queued by now.
    fn mark(&mut self, count: usize) {
        let end = self.written + self.out.len();
        for call in self.calls.iter_mut().rev().take(count) {
            call.end = end;
        }
    }
}

impl Call {
    pub(super) fn subscribes_to(&self) -> Option<usize> {
        match self.asked {
            Asked::Subscribe(channel) | Asked::Recover(channel, _) => Some(channel),
            _ => None,
        }
    }

    /// Whether the core that owns the channel answers it.
    pub(super) fn is_of_an_owner(&self) -> bool {
        matches!(
            self.asked,
            Asked::History(..) | Asked::Members(_) | Asked::Info(_)
        )
    }

    /// Whether calls behind it may be answered before it: the server asks the core that owns the channel.
    pub(super) fn may_be_late(&self, truth: &GroundTruth) -> bool {
        match self.asked {
            _ if self.is_of_an_owner() => true,
            Asked::Subscribe(channel) => truth.plan.memory.is_some() && channel < PRESENCE,
            Asked::Recover(..) => truth.plan.memory.is_some(),
            _ => false,
        }
    }
}

/// The data of a subscription.
fn wanted_text(truth: &GroundTruth, wanted: Wanted) -> String {
    let recover = |epoch: &str, offset| format!(r#"{{"recover":{{"epoch":"{epoch}","offset":{offset}}}}}"#);
    match (wanted, &truth.epoch) {
        (Wanted::After(offset), Some(epoch)) => recover(epoch, offset),
        (Wanted::OtherEpoch, _) => recover("otherone", 1),
        (Wanted::Last(count), _) => format!(r#"{{"last":{count}}}"#),
        (Wanted::Since(unix_ms), _) => format!(r#"{{"since":{unix_ms}}}"#),
        (Wanted::Position, _) | (Wanted::After(_), None) => r#"{"recover":null}"#.to_owned(),
    }
}

fn call_text(event: &str, data: impl std::fmt::Display, cid: u64) -> String {
    format!(r#"{{"event":"{event}","data":{data},"cid":{cid}}}"#)
}
