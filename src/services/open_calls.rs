//! The calls that clients of one core have made to services, and that have not ended.
//!
//! A call has a slot. It is also in two lists: the list of its connection, and the list of calls with the same time
//! limit, whose deadlines are therefore in order. So an answer, a deadline and the end of a connection find their calls
//! without a search.
//!
//! Limits: [`Bounds`].

use std::time::Duration;

use super::by_number::ByNumber;
use super::call::{CallId, SLOT_BITS};
use super::directory::Entry;
use super::reply::ReplyTo;
use crate::clock::Uptime;

/// The open calls of one core.
#[derive(Debug)]
pub struct OpenCalls {
    core: usize,
    bounds: Bounds,
    slots: Vec<Slot>,
    /// The first slot that is free, in a list.
    free: u32,
    len: usize,
    bytes: usize,
    /// Whenever a list is empty, its time limit may change.
    by_time: Vec<(Duration, List)>,
    by_connection: ByNumber<usize, (List, u32)>,
}

/// Most open calls.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of one core.
    pub of_core: u32,
    /// Of one connection.
    pub of_connection: u32,
    /// Most bytes of the calls of one core. If no call is open, any one call has room.
    pub bytes_of_core: u32,
}

/// An open call.
#[derive(Debug)]
pub struct Open {
    /// The connection of the caller.
    pub connection: usize,
    /// The receiver of its end.
    pub reply: ReplyTo,
    /// Its pool, and the row of `[[services]]`.
    pub place: Entry,
    /// When it began.
    pub began_ns: u64,
    deadline: Uptime,
    bytes: usize,
    /// The index of its list in `by_time`.
    list: usize,
}

/// The limit that keeps a call from being opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// The number of open calls.
    Calls,
    /// The bytes of open calls.
    Bytes,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    open: Option<Open>,
    time: Links,
    connection: Links,
}

/// The neighbours of a slot in a list; [`NONE`] at its ends.
#[derive(Clone, Copy, Debug)]
struct Links {
    before: u32,
    after: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

const NONE: u32 = u32::MAX;
const NO_LINKS: Links = Links {
    before: NONE,
    after: NONE,
};
const EMPTY: List = List {
    first: NONE,
    last: NONE,
};

impl OpenCalls {
    /// No call is open on this core.
    pub fn new(core: usize, bounds: Bounds) -> OpenCalls {
        OpenCalls {
            core,
            bounds,
            slots: Vec::new(),
            free: NONE,
            len: 0,
            bytes: 0,
            by_time: Vec::new(),
            by_connection: ByNumber::default(),
        }
    }

    /// How many calls are open.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many bytes the open calls had when they began.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no call is open.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a connection has open calls.
    pub fn has_connection(&self, connection: usize) -> bool {
        self.by_connection.contains_key(&connection)
    }

    /// Opens a call of so many bytes, unless there are too many: then the reply is returned.
    ///
    /// # Errors
    /// Too many calls are open.
    pub fn begin(
        &mut self,
        connection: usize,
        reply: ReplyTo,
        place: Entry,
        timeout: Duration,
        bytes: usize,
        (now, now_ns): (Uptime, u64),
    ) -> Result<CallId, (TooMany, ReplyTo)> {
        let count = self.by_connection.get(&connection).map_or(0, |(_, count)| *count);
        let slots_max = (self.bounds.of_core as usize).min(1 << SLOT_BITS);
        if self.len >= slots_max || count >= self.bounds.of_connection {
            return Err((TooMany::Calls, reply));
        }
        if self.len > 0 && self.bytes + bytes > self.bounds.bytes_of_core as usize {
            return Err((TooMany::Bytes, reply));
        }
        let slot = self.take_slot();
        let list = self.list_of(timeout);
        let entry = &mut self.slots[slot as usize];
        entry.open = Some(Open {
            connection,
            reply,
            place,
            began_ns: now_ns,
            deadline: now + timeout,
            bytes,
            list,
        });
        let id = CallId::new(self.core, slot, entry.generation);
        self.len += 1;
        self.bytes += bytes;
        link(&mut self.slots, &mut self.by_time[list].1, slot, |slot| {
            &mut slot.time
        });
        let (of_connection, count) = self.by_connection.entry(connection).or_insert((EMPTY, 0));
        *count += 1;
        link(&mut self.slots, of_connection, slot, |slot| &mut slot.connection);
        Ok(id)
    }

    /// Takes a call that ends; `None` if it has ended before.
    pub fn take(&mut self, id: CallId) -> Option<Open> {
        let slot = self.slots.get(id.slot())?;
        if slot.generation != id.generation() || id.core() != self.core {
            return None;
        }
        self.take_at(u32::try_from(id.slot()).ok()?)
    }

    /// The place of an open call, for a call that goes on to another pool.
    pub fn place_mut(&mut self, id: CallId) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(id.slot())?;
        let is_it = slot.generation == id.generation() && id.core() == self.core;
        slot.open.as_mut().filter(|_| is_it).map(|open| &mut open.place)
    }

    /// Takes a call whose deadline has come.
    pub fn take_overdue(&mut self, now: Uptime) -> Option<(CallId, Open)> {
        let slot = self.by_time.iter().find_map(|(_, list)| {
            let open = self.slots.get(list.first as usize)?.open.as_ref()?;
            (open.deadline <= now).then_some(list.first)
        })?;
        self.take_named(slot)
    }

    /// Takes a call of a connection that has ended: the newest first, so that none gets the place of another.
    pub fn take_of_connection(&mut self, connection: usize) -> Option<(CallId, Open)> {
        let (list, _) = self.by_connection.get(&connection)?;
        self.take_named(list.last)
    }

    /// Takes the calls whose pools were owned by a core that has stopped. All calls are looked at, once.
    pub fn take_of_owner(&mut self, owner: usize) -> Vec<Open> {
        let is_of = |slot: &Slot| slot.open.as_ref().is_some_and(|open| open.place.owner == owner);
        let slots = 0..u32::try_from(self.slots.len()).unwrap_or(NONE);
        slots
            .filter_map(|slot| is_of(&self.slots[slot as usize]).then(|| self.take_at(slot))?)
            .collect()
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Uptime {
        let firsts = self.by_time.iter().filter_map(|(_, list)| {
            let open = self.slots.get(list.first as usize)?.open.as_ref()?;
            Some(open.deadline)
        });
        firsts.min().unwrap_or(Uptime::NEVER)
    }

    /// The rows of `[[services]]` have changed: `row_of` gives the new index of an old one.
    pub fn assign_rows(&mut self, row_of: impl Fn(usize) -> usize) {
        for open in self.slots.iter_mut().filter_map(|slot| slot.open.as_mut()) {
            open.place.row = row_of(open.place.row);
        }
    }

    /// The row of `[[services]]` of each open call.
    pub fn rows(&self) -> impl Iterator<Item = usize> {
        let open = self.slots.iter().filter_map(|slot| slot.open.as_ref());
        open.map(|open| open.place.row)
    }

    fn take_named(&mut self, slot: u32) -> Option<(CallId, Open)> {
        let generation = self.slots.get(slot as usize)?.generation;
        let open = self.take_at(slot)?;
        Some((CallId::new(self.core, slot, generation), open))
    }

    fn take_at(&mut self, slot: u32) -> Option<Open> {
        let open = self.slots.get_mut(slot as usize)?.open.take()?;
        unlink(&mut self.slots, &mut self.by_time[open.list].1, slot, |slot| {
            &mut slot.time
        });
        if let Some((list, count)) = self.by_connection.get_mut(&open.connection) {
            unlink(&mut self.slots, list, slot, |slot| &mut slot.connection);
            *count -= 1;
            if *count == 0 {
                self.by_connection.remove(&open.connection);
            }
        }
        self.len -= 1;
        self.bytes -= open.bytes;
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.time.after = self.free;
        self.free = slot;
        Some(open)
    }

    fn take_slot(&mut self) -> u32 {
        if let Some(slot) = self.slots.get(self.free as usize) {
            let taken = self.free;
            self.free = slot.time.after;
            return taken;
        }
        self.slots.push(Slot {
            generation: 0,
            open: None,
            time: NO_LINKS,
            connection: NO_LINKS,
        });
        u32::try_from(self.slots.len() - 1).expect("fewer slots than SLOT_BITS can name")
    }

    /// The list of the calls with this time limit. There are as many lists as time limits in force, and few more.
    fn list_of(&mut self, timeout: Duration) -> usize {
        let mut lists = self.by_time.iter();
        if let Some(at) = lists.position(|(limit, _)| *limit == timeout) {
            return at;
        }
        let mut lists = self.by_time.iter();
        let at = lists.position(|(_, list)| list.first == NONE).unwrap_or_else(|| {
            self.by_time.push((timeout, EMPTY));
            self.by_time.len() - 1
        });
        self.by_time[at].0 = timeout;
        at
    }
}

/// Puts a slot last in a list.
fn link(slots: &mut [Slot], list: &mut List, slot: u32, links: impl Fn(&mut Slot) -> &mut Links) {
    let last = list.last;
    *links(&mut slots[slot as usize]) = Links {
        before: last,
        after: NONE,
    };
    match slots.get_mut(last as usize) {
        Some(last) => links(last).after = slot,
        None => list.first = slot,
    }
    list.last = slot;
}

fn unlink(slots: &mut [Slot], list: &mut List, slot: u32, links: impl Fn(&mut Slot) -> &mut Links) {
    let Links { before, after } = *links(&mut slots[slot as usize]);
    match slots.get_mut(before as usize) {
        Some(before) => links(before).after = after,
        None => list.first = after,
    }
    match slots.get_mut(after as usize) {
        Some(after) => links(after).before = before,
        None => list.last = before,
    }
}
