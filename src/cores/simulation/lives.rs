//! The lives of the connections and sessions of MQTT clients, as the application was told of them: which
//! session goes on with a connection, and which will is published when (sections 3.1.2.4, 3.1.2.5 and 4.1 of
//! MQTT 5).
//!
//! This is a naive model. It takes the order of the events from the server, and computes their consequences
//! itself. Times are compared with a tolerance, since the server's clock is read some steps after that of a
//! turn; within the tolerance, both outcomes are right.

use std::collections::BTreeMap;
use std::time::Duration;

use super::actor::LifeEvent;
use crate::clock::Uptime;
use crate::decision::CloseReason;

/// All connections of MQTT clients.
#[derive(Debug, Default)]
pub(super) struct Lives {
    /// By the number of the connection.
    connections: Vec<Life>,
    /// The session of each client, by the client, as long as it lasts.
    sessions: BTreeMap<usize, Present>,
    /// The connections with wills, by the numbers of the wills.
    wills: BTreeMap<usize, usize>,
    begun: u64,
    /// Whether CONNACK waits for a store: the application is not told of a connection that ends meanwhile,
    /// and the will of that connection stays.
    pub(super) connack_waits: bool,
    pub(super) resumed: u64,
    pub(super) taken_over: u64,
    pub(super) wills_published: u64,
}

/// A connection, with the fields of its CONNECT and its DISCONNECT.
#[derive(Debug)]
struct Life {
    device: usize,
    asked: Asked,
    disconnect: Option<Disconnect>,
    will: WillState,
    /// Whether the session was there before; `None` if the model cannot know, or if the client is not
    /// connected yet.
    is_present: Option<bool>,
    has_begun: bool,
    /// The connection that has begun its session, if the model can know.
    key: Option<usize>,
    /// Its place in the order of the connections that have begun.
    place: u64,
    end: Option<CloseReason>,
    is_displaced: bool,
}

/// The facts of CONNECT that matter here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) is_clean: bool,
    pub(super) expiry_s: u32,
    /// The number of the will and its delay.
    pub(super) will: Option<(usize, u32)>,
}

/// The facts of DISCONNECT.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disconnect {
    pub(super) code: u8,
    pub(super) expiry_s: Option<u32>,
}

/// A session that exists.
#[derive(Clone, Copy, Debug)]
struct Present {
    /// The connection that has begun it.
    key: usize,
    /// The connection that has it, or had it.
    connection: usize,
    /// Since when it has no connection.
    waits_since: Option<Uptime>,
    expiry_s: u32,
    /// The expiry in a DISCONNECT that the server may or may not have read, if it is sooner; otherwise the
    /// same.
    expiry_min_s: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WillState {
    None,
    /// The connection has not ended.
    Kept,
    /// It is published at that time, unless the client resumes its session.
    Waits(Uptime),
    Due,
    Published,
    Never(&'static str),
    /// Both outcomes are right.
    Either,
}

/// By how much later than the application the server reads its clock.
const TOLERANCE: Duration = Duration::from_millis(6);
/// How late a will may be when no core has work.
const WILL_LATE_MAX: Duration = Duration::from_millis(60);

impl Lives {
    /// A client is about to connect. Returns the number of the connection.
    pub(super) fn ask(&mut self, device: usize, asked: Asked) -> usize {
        let number = self.connections.len();
        if let Some((will, _)) = asked.will {
            self.wills.insert(will, number);
        }
        self.connections.push(Life {
            device,
            asked,
            disconnect: None,
            will: asked.will.map_or(WillState::None, |_| WillState::Kept),
            is_present: None,
            has_begun: false,
            key: None,
            place: 0,
            end: None,
            is_displaced: false,
        });
        number
    }

    /// A client has sent DISCONNECT. Whether it counts is known when the connection has ended.
    pub(super) fn note_disconnect(&mut self, connection: usize, disconnect: Disconnect) {
        self.connections[connection].disconnect.get_or_insert(disconnect);
    }

    /// Whether DISCONNECT may have another expiry: not if CONNECT had none (MQTT-3.14.2-2).
    pub(super) fn may_change_expiry(&self, connection: usize) -> bool {
        self.connections
            .get(connection)
            .is_some_and(|life| life.asked.expiry_s > 0)
    }

    pub(super) fn has_begun(&self, connection: usize) -> bool {
        self.connections[connection].has_begun
    }

    /// Whether another connection has taken the session of this one over.
    pub(super) fn is_displaced(&self, connection: usize) -> bool {
        self.connections[connection].is_displaced
    }

    /// The connection that has begun the session of a connection.
    pub(super) fn key_of(&self, connection: usize) -> Option<usize> {
        self.connections[connection].key
    }

    /// The client has read that its connection has begun a session.
    pub(super) fn note_begun(&mut self, device: usize, connection: usize) {
        if let Some(present) = self.sessions.get_mut(&device)
            && present.connection == connection
        {
            present.key = connection;
        }
        self.connections[connection].key = Some(connection);
    }

    /// All connections of a client, for the report of a failure.
    pub(super) fn of(&self, device: usize) -> impl Iterator<Item = impl std::fmt::Debug> {
        self.connections.iter().filter(move |life| life.device == device)
    }

    /// How a connection has ended, if it has.
    pub(super) fn end_of(&self, connection: usize) -> Option<CloseReason> {
        self.connections[connection].end
    }

    /// The client has read CONNACK: checks that the session is there or not, as it must be, and that the
    /// connection that had it before has lost it.
    ///
    /// # Errors
    /// It is not as it must be.
    pub(super) fn check_connack(&self, connection: usize, is_present: bool) -> Result<(), String> {
        let life = &self.connections[connection];
        if !life.has_begun {
            return Err("CONNACK without a session".to_owned());
        }
        if life.is_present.is_some_and(|expected| expected != is_present) {
            return Err(format!("Session Present is {is_present}: {life:?}"));
        }
        let device = life.device;
        let others = self.connections.iter().enumerate();
        for (number, other) in others.filter(|(_, other)| other.device == device && other.has_begun) {
            if other.end.is_none() && other.place < life.place {
                return Err(format!(
                    "connection {number} has not let the session go: {other:?}"
                ));
            }
        }
        Ok(())
    }

    /// Whether a session has ended by now, or may have.
    pub(super) fn may_be_over(&self, device: usize, key: usize, now: Uptime) -> bool {
        self.sessions.get(&device).is_none_or(|present| {
            present.key != key
                || present
                    .ends_between()
                    .is_some_and(|(soonest, _)| now + TOLERANCE >= soonest)
        })
    }

    /// Takes an event that the application was told in a turn.
    ///
    /// # Errors
    /// A connection has ended in a way that is not allowed.
    pub(super) fn take(&mut self, event: LifeEvent) -> Result<(), String> {
        match event.end {
            None => self.begin(event.connection, event.at),
            Some(reason) => self.end(event.connection, reason, event.at)?,
        }
        Ok(())
    }

    fn begin(&mut self, connection: usize, at: Uptime) {
        let Life { device, asked, .. } = self.connections[connection];
        let before = self.sessions.get(&device).copied();
        // A DISCONNECT counts from the moment at which it is read, before its connection has ended. The model
        // is not told whether it was read.
        let left = before
            .filter(|present| present.waits_since.is_none())
            .and_then(|present| self.connections[present.connection].disconnect);
        let may_end = left.is_some_and(|left| left.expiry_s == Some(0));
        let is_there = match before {
            Some(present) if may_end && present.expiry_s > 0 => None,
            Some(present) => present.lasts(at),
            None => Some(false),
        };
        let is_present = match (is_there, asked.is_clean) {
            (_, true) | (Some(false), _) => Some(false),
            (Some(true), false) => Some(true),
            (None, false) => None,
        };
        if let Some(present) = before {
            let old = &mut self.connections[present.connection];
            let is_taken_over = present.waits_since.is_none();
            old.is_displaced = is_taken_over;
            self.taken_over += u64::from(is_taken_over);
            let delay_s = old.asked.will.map_or(0, |(_, delay_s)| delay_s);
            old.will = match (old.will, is_present) {
                (WillState::Kept, Some(true)) if delay_s > 0 => WillState::Never("its client came back"),
                (WillState::Kept, None) if delay_s > 0 => WillState::Either,
                (WillState::Kept, _) if left.is_some_and(|left| left.code == 0) => WillState::Either,
                (WillState::Kept, _) => WillState::Due,
                (WillState::Waits(due), _) if at >= due + TOLERANCE => WillState::Due,
                (WillState::Waits(due), Some(true)) if at + TOLERANCE < due => {
                    WillState::Never("its client came back in time")
                }
                (WillState::Waits(_), Some(false)) => WillState::Due,
                (WillState::Waits(_), _) => WillState::Either,
                (other, _) => other,
            };
        }
        self.resumed += u64::from(is_present == Some(true));
        let key = match (before, is_present) {
            (Some(present), Some(true) | None) => present.key,
            (_, _) => connection,
        };
        let life = &mut self.connections[connection];
        (life.has_begun, life.is_present, life.key) = (true, is_present, Some(key));
        self.begun += 1;
        life.place = self.begun;
        self.sessions.insert(
            device,
            Present {
                key,
                connection,
                waits_since: None,
                expiry_s: asked.expiry_s,
                expiry_min_s: asked.expiry_s,
            },
        );
    }

    fn end(&mut self, connection: usize, reason: CloseReason, at: Uptime) -> Result<(), String> {
        let life = &mut self.connections[connection];
        life.end = Some(reason);
        if life.is_displaced {
            return match reason {
                CloseReason::TakenOver => Ok(()),
                other => Err(format!(
                    "connection {connection} was taken over, and ended by {other:?}"
                )),
            };
        }
        let Some(present) = self
            .sessions
            .get_mut(&life.device)
            .filter(|present| present.connection == connection)
        else {
            return Err(format!("connection {connection} had no session: {life:?}"));
        };
        let disconnect = life.disconnect;
        // A DISCONNECT behind a publication that waits for the ring was read, and counts (MQTT-3.14.4-3),
        // even if the connection ends by another cause before the publication is made. The model is not told
        // whether it was read.
        let is_certain = reason == CloseReason::MqttDisconnected;
        if let Some(expiry_s) = disconnect.and_then(|disconnect| disconnect.expiry_s)
            && present.expiry_s > 0
        {
            let before = if is_certain { expiry_s } else { present.expiry_s };
            (present.expiry_min_s, present.expiry_s) = (expiry_s.min(before), expiry_s.max(before));
        }
        let (device, expiry_s) = (life.device, present.expiry_s);
        present.waits_since = Some(at);
        if life.will == WillState::Kept {
            let delay_s = life.asked.will.map_or(0, |(_, delay_s)| delay_s);
            life.will = match disconnect {
                Some(_) if !is_certain => WillState::Either,
                Some(Disconnect { code: 0, .. }) => WillState::Never("its client has disconnected"),
                _ if delay_s == 0 || expiry_s == 0 => WillState::Due,
                _ => WillState::Waits(at + Duration::from_secs(delay_s.min(expiry_s).into())),
            };
        }
        if expiry_s == 0 {
            self.sessions.remove(&device);
        }
        Ok(())
    }

    /// A will was published.
    ///
    /// # Errors
    /// It must not be published, or not now.
    pub(super) fn note_will(&mut self, will: usize, now: Uptime) -> Result<(), String> {
        let Some(&connection) = self.wills.get(&will) else {
            return Err(format!("{will} is no will of an MQTT client"));
        };
        let life = &mut self.connections[connection];
        let is_right = match life.will {
            WillState::Due | WillState::Either => true,
            WillState::Waits(due) => now + TOLERANCE >= due,
            WillState::Kept if !life.has_begun => self.connack_waits,
            WillState::None | WillState::Kept | WillState::Published | WillState::Never(_) => false,
        };
        if !is_right {
            return Err(format!(
                "the will of connection {connection} is published: {life:?}"
            ));
        }
        life.will = WillState::Published;
        self.wills_published += 1;
        Ok(())
    }

    /// No core has any work.
    ///
    /// # Errors
    /// A will should have been published.
    pub(super) fn check_at_rest(&self, now: Uptime) -> Result<(), String> {
        for &connection in self.wills.values() {
            let life = &self.connections[connection];
            let is_late = match life.will {
                WillState::Due => true,
                WillState::Waits(due) => now > due + WILL_LATE_MAX,
                _ => false,
            };
            if is_late {
                return Err(format!(
                    "the will of connection {connection} was not published: {life:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Present {
    /// The earliest and the latest time at which it ends, if its client does not resume it.
    fn ends_between(&self) -> Option<(Uptime, Uptime)> {
        let since = self.waits_since?;
        let after = |seconds: u32| since + Duration::from_secs(seconds.into());
        Some((after(self.expiry_min_s), after(self.expiry_s)))
    }

    /// Whether it has not ended, as far as that can be told.
    fn lasts(&self, at: Uptime) -> Option<bool> {
        let Some((soonest, latest)) = self.ends_between() else {
            return Some(self.expiry_s > 0);
        };
        if at + TOLERANCE < soonest {
            return Some(true);
        }
        (at >= latest + TOLERANCE).then_some(false)
    }
}
