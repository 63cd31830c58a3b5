//! Events about the members of a room, for the subscribers of `$presence/NAME`.
//!
//! A room has at most one event in each tick. An event has the changes of the members since the earlier events. Changes
//! that cancel each other within a tick make no event.
//!
//! Limits: [`EVENT_BYTES_MAX`] and [`CHANGES_PER_EVENT_MAX`]; further changes are in the next event. A room of more
//! than `sampled_over` members gets events of few entries: see [`entries_max`].

use super::member::PendingEvent;
use super::page::{write_identity, write_member, write_number};
use super::rooms::{Room, Rooms};
use crate::clock::Uptime;

/// The event of a room whose tick has come.
#[derive(Debug)]
pub struct Event<'a> {
    /// The name of the room's channel.
    pub channel: &'a [u8],
    /// The data of the publication, as JSON; `None` if the changes have cancelled each other, or if there is no
    /// subscriber.
    pub data: Option<&'a [u8]>,
}

/// The event that is being written, in buffers that are used again.
#[derive(Debug, Default)]
pub(super) struct Draft {
    joined: Vec<u8>,
    left: Vec<u8>,
    changed: Vec<u8>,
    data: Vec<u8>,
    /// How many of the room's changed members it covers.
    covered: usize,
    entries: usize,
    /// Whether it leaves out some of the members that it covers.
    is_sampled: bool,
    /// Whether the publication would have no subscriber.
    is_unwatched: bool,
}

impl Rooms {
    /// Writes the event of the room whose tick has come first, if `is_watched` returns true for the name of its
    /// channel. The caller publishes the event and calls [`Rooms::event_is_told`]. If it cannot be published now, the
    /// caller asks again later, and the event then covers the changes of the meantime as well.
    pub fn next_event(&mut self, now: Uptime, is_watched: impl FnOnce(&[u8]) -> bool) -> Option<Event<'_>> {
        let room = self.due.front().filter(|due| due.at <= now)?.room;
        if is_watched(&self.rooms[room as usize].name) {
            self.write_event(room);
        } else {
            self.draft.clear();
            self.draft.covered = CHANGES_PER_EVENT_MAX;
            self.draft.is_unwatched = true;
        }
        let draft = &self.draft;
        Some(Event {
            channel: &self.rooms[room as usize].name,
            data: (draft.entries > 0).then_some(&draft.data),
        })
    }

    /// The last event of [`Rooms::next_event`] was published, or has no subscribers. Forgets the members that have
    /// left. Returns how many changes that were.
    pub fn event_is_told(&mut self, now: Uptime) -> usize {
        let Some(due) = self.due.pop_front() else {
            return 0;
        };
        let room = &mut self.rooms[due.room as usize];
        let covered = self.draft.covered.min(room.changed.len());
        let mut changed = std::mem::take(&mut room.changed);
        for member in changed.drain(..covered) {
            self.member_is_told(member);
        }
        let room = &mut self.rooms[due.room as usize];
        room.is_due = !changed.is_empty();
        if room.is_due {
            room.changed = changed;
            if self.draft.is_unwatched || self.refusals.is_any() {
                // The next ones cost no event, or others need the room of the members that have left.
                self.due.push_front(due);
            } else {
                self.due.push_back(Due {
                    at: now + self.settings.tick,
                    room: due.room,
                });
            }
        } else if room.places.is_empty() {
            self.remove_room(due.room);
        }
        covered
    }

    /// Writes the changes of a room into the draft. The cost is proportional to the changes.
    fn write_event(&mut self, room: u32) {
        let room: &Room = &self.rooms[room as usize];
        let draft = &mut self.draft;
        draft.clear();
        let entries_max = entries_max(room.count, self.settings.sampled_over);
        for &id in room.changed.iter().take(CHANGES_PER_EVENT_MAX) {
            draft.covered += 1;
            let member = &self.members[id as usize];
            let list = match member.pending_event() {
                PendingEvent::Nothing => continue,
                PendingEvent::Joined => &mut draft.joined,
                PendingEvent::Left => &mut draft.left,
                PendingEvent::Changed => &mut draft.changed,
            };
            if draft.entries == entries_max {
                draft.is_sampled = true;
                continue;
            }
            draft.entries += 1;
            if !list.is_empty() {
                list.push(b',');
            }
            let (user, connections) = (member.user.as_deref(), member.connections.as_slice());
            if member.is_there {
                let connections = user.is_none().then_some(connections);
                let info = member.info.as_ref().map(|info| &***info);
                write_member(user, info, member.since, connections, list);
            } else {
                write_identity(user, connections, list);
            }
            if draft.joined.len() + draft.left.len() + draft.changed.len() >= EVENT_BYTES_MAX {
                break;
            }
        }
        draft.assemble(room.count);
    }
}

impl Draft {
    fn clear(&mut self) {
        for list in [
            &mut self.joined,
            &mut self.left,
            &mut self.changed,
            &mut self.data,
        ] {
            list.clear();
        }
        (self.covered, self.entries) = (0, 0);
        (self.is_sampled, self.is_unwatched) = (false, false);
    }

    fn assemble(&mut self, count: u32) {
        let data = &mut self.data;
        data.extend_from_slice(b"{\"joined\":[");
        data.extend_from_slice(&self.joined);
        data.extend_from_slice(b"],\"left\":[");
        data.extend_from_slice(&self.left);
        if !self.changed.is_empty() {
            data.extend_from_slice(b"],\"changed\":[");
            data.extend_from_slice(&self.changed);
        }
        data.extend_from_slice(b"],\"count\":");
        write_number(u64::from(count), data);
        if self.is_sampled {
            data.extend_from_slice(b",\"sampled\":true");
        }
        data.push(b'}');
    }
}

/// A room with changes that no event has had yet, and the time of the next event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) at: Uptime,
    pub(super) room: u32,
}

/// How many members one event may name in a room of `count` members. An event goes to about as many subscribers, so in
/// a larger room it names fewer: an event costs no more than one that names all members of a room of `sampled_over`.
fn entries_max(count: u32, sampled_over: u32) -> usize {
    if count <= sampled_over {
        return usize::MAX;
    }
    let entries = u64::from(sampled_over).pow(2) / u64::from(count);
    usize::try_from(entries).unwrap_or(usize::MAX).max(ENTRIES_MIN)
}

/// Entries that an event may have in a room of any size.
pub(super) const ENTRIES_MIN: usize = 8;
/// An event that has grown to this size gets no further entry.
pub(super) const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Changes that one event covers, at 0.2 µs each.
pub(super) const CHANGES_PER_EVENT_MAX: usize = 4096;
