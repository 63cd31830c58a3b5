//! The wills of SocketCluster clients: which of them must, may and must not be published (`docs/wills.md`).
//!
//! This is a naive model. A client knows when it has sent a request and when it was answered, and the
//! application is told when a connection ends. The server may act at any time between these moments; only the
//! order of events whose times do not overlap is certain. Each connection that names a session is a
//! generation of it: only the will of the last generation counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::actor::End;
use crate::clock::Uptime;
use crate::decision::CloseReason;

/// The requests of clients about wills.
#[derive(Debug, Default)]
pub(super) struct Wills {
    /// By the client.
    generations: BTreeMap<usize, Generation>,
    /// The clients, by the ids of their sockets.
    clients: BTreeMap<String, usize>,
    /// The client of each will, and the place of the will among the client's requests, by the number of the
    /// publication.
    wills: BTreeMap<usize, (usize, usize)>,
    /// The number of the next event.
    moments: u64,
    is_tight: bool,
    /// Users whose tokens were revoked: wills that they had left by then are not published.
    revoked: BTreeSet<usize>,
    pub(super) published: u64,
    /// Wills that were void since a later connection had named their session.
    pub(super) superseded: u64,
}

/// A connection.
#[derive(Debug, Default)]
struct Generation {
    commands: Vec<Command>,
    /// The code of its own close frame.
    close: Option<u16>,
    end: Option<Ended>,
    published: Option<usize>,
    is_judged: bool,
}

/// One call of `$will`.
#[derive(Clone, Copy, Debug)]
struct Command {
    cid: u64,
    /// `None` takes the will back.
    will: Option<Will>,
    asked: Moment,
    answered: Option<Moment>,
    is_refused: bool,
}

/// A will.
#[derive(Clone, Copy, Debug)]
pub(super) struct Will {
    /// The number of the publication.
    pub(super) number: usize,
    pub(super) session: Option<Session>,
    pub(super) user: Option<usize>,
    pub(super) delay: Duration,
    /// Whether it is to be the retained publication of its channel.
    pub(super) retain: bool,
}

/// The name of a session, and the user that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) user: Option<usize>,
    pub(super) name: usize,
}

#[derive(Clone, Copy, Debug)]
struct Moment {
    order: u64,
    at: Uptime,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    /// Its time is that of the turn; the core has used that time for the end, or a later one.
    moment: Moment,
    leaves: Leaves,
    /// By this time the owner of the session has learned of the end.
    known_at: Option<Uptime>,
}

/// Whether a connection leaves its will behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    Yes,
    No,
    /// Both are allowed.
    Either,
}

impl Wills {
    /// No wills so far. `is_tight`: there may be no room for a will, which is published early then.
    pub(super) fn new(is_tight: bool) -> Wills {
        Wills {
            is_tight,
            ..Wills::default()
        }
    }

    fn moment(&mut self, at: Uptime) -> Moment {
        self.moments += 1;
        Moment {
            order: self.moments,
            at,
        }
    }

    /// A client knows the id of its socket. `end`: the server has ended the connection before.
    pub(super) fn begin(&mut self, client: usize, id: &str, end: Option<End>) {
        self.clients.insert(id.to_owned(), client);
        self.generations.insert(client, Generation::default());
        if let Some(end) = end {
            self.end(id, end);
        }
    }

    /// A client calls `$will`.
    pub(super) fn ask(&mut self, client: usize, cid: u64, will: Option<Will>, now: Uptime) {
        let asked = self.moment(now);
        let Some(generation) = self.generations.get_mut(&client) else {
            return;
        };
        if let Some(will) = will {
            self.wills
                .insert(will.number, (client, generation.commands.len()));
        }
        generation.commands.push(Command {
            cid,
            will,
            asked,
            answered: None,
            is_refused: false,
        });
    }

    /// The call is answered.
    pub(super) fn answer(&mut self, client: usize, cid: u64, is_refused: bool, now: Uptime) {
        let moment = self.moment(now);
        let commands = self.generations.get_mut(&client);
        let commands = commands.into_iter().flat_map(|one| &mut one.commands);
        for command in commands.filter(|command| command.cid == cid) {
            (command.answered, command.is_refused) = (Some(moment), is_refused);
        }
    }

    /// A client sends a close frame.
    pub(super) fn note_close(&mut self, client: usize, code: u16) {
        if let Some(generation) = self.generations.get_mut(&client) {
            generation.close.get_or_insert(code);
        }
    }

    /// A connection has ended.
    pub(super) fn end(&mut self, id: &str, end: End) {
        let moment = self.moment(end.turn.now);
        let generation = self
            .clients
            .get(id)
            .and_then(|client| self.generations.get_mut(client));
        if let Some(generation) = generation {
            let leaves = match (end.reason, generation.close) {
                (CloseReason::Draining | CloseReason::Revoked, _) => Leaves::No,
                (CloseReason::PeerClosed, Some(1000)) => Leaves::No,
                // Its farewell may have been read before the connection ended by another cause.
                (_, Some(1000)) => Leaves::Either,
                (_, _) => Leaves::Yes,
            };
            generation.end.get_or_insert(Ended {
                moment,
                leaves,
                known_at: None,
            });
        }
    }

    /// The tokens of a user are revoked.
    pub(super) fn revoke(&mut self, user: usize) {
        self.revoked.insert(user);
    }

    pub(super) fn has(&self, number: usize) -> bool {
        self.wills.contains_key(&number)
    }

    /// A will was published, perhaps to be retained.
    ///
    /// # Errors
    /// It must not be published, not now, or not in this way.
    pub(super) fn note_published(
        &mut self,
        number: usize,
        is_retained: bool,
        now: Uptime,
    ) -> Result<(), String> {
        let Some(&(client, place)) = self.wills.get(&number) else {
            return Err(format!("{number} is no will of a client"));
        };
        let generation = &self.generations[&client];
        let what = |why: String| Err(format!("the will {number} is published: {why}: {generation:?}"));
        let (command, Some(end)) = (generation.commands[place], generation.end) else {
            return what("its connection has not ended".to_owned());
        };
        let Some(will) = command.will else {
            return what("it is none".to_owned());
        };
        if is_retained != will.retain {
            return what(format!("to be retained: {is_retained}"));
        }
        if end.leaves == Leaves::No {
            return what("its client has left in peace".to_owned());
        }
        if let Some(other) = generation.published {
            return what(format!("and {other} was"));
        }
        if command.is_refused || generation.certain().is_some_and(|certain| certain > place) {
            return what("it was refused, taken back or replaced".to_owned());
        }
        if !self.is_tight && now + TOLERANCE < end.moment.at + will.delay {
            return what(format!("at {now:?}, before its delay is over"));
        }
        if let Some((later, by)) = self.superseding(client, &command, will, end) {
            return what(format!("client {later} has its session: {by:?}"));
        }
        let generation = self.generations.get_mut(&client);
        if let Some(generation) = generation {
            generation.published = Some(number);
        }
        self.published += 1;
        Ok(())
    }

    /// A later connection that certainly has named the session of a will before it was due.
    fn superseding(
        &self,
        client: usize,
        command: &Command,
        will: Will,
        end: Ended,
    ) -> Option<(usize, Command)> {
        let claimed_by = command
            .answered
            .map_or(end.moment.order, |answered| answered.order.min(end.moment.order));
        let due = end.moment.at + will.delay;
        self.others(client, will).find(|(_, other)| {
            let is_in_time = |answered: Moment| {
                answered.order < end.moment.order || (!self.is_tight && answered.at + TOLERANCE < due)
            };
            other.asked.order > claimed_by && !other.is_refused && other.answered.is_some_and(is_in_time)
        })
    }

    /// The requests of other connections about the session of a will.
    fn others(&self, client: usize, will: Will) -> impl Iterator<Item = (usize, Command)> {
        let others = self
            .generations
            .iter()
            .filter(move |&(&other, _)| other != client);
        others.flat_map(move |(&other, generation)| {
            let is_same =
                move |command: &&Command| match (command.will.and_then(|will| will.session), will.session) {
                    (Some(one), Some(two)) => one == two,
                    _ => false,
                };
            generation
                .commands
                .iter()
                .filter(is_same)
                .map(move |&command| (other, command))
        })
    }

    /// No core has anything to do, and none stands still.
    ///
    /// # Errors
    /// A will should have been published.
    pub(super) fn check_at_rest(&mut self, now: Uptime) -> Result<(), String> {
        for generation in self.generations.values_mut() {
            if let Some(end) = &mut generation.end {
                end.known_at.get_or_insert(now);
            }
        }
        let mut judged = Vec::new();
        for (&client, generation) in &self.generations {
            let (false, Some(end)) = (generation.is_judged, generation.end) else {
                continue;
            };
            let certain = generation.certain().map(|place| generation.commands[place]);
            let is_certain = !generation
                .commands
                .iter()
                .any(|command| command.answered.is_none());
            let Some((command, will)) = certain.and_then(|command| Some((command, command.will?))) else {
                judged.push((client, false));
                continue;
            };
            let due = end.known_at.unwrap_or(now) + will.delay;
            if now <= due + LATE_MAX {
                continue;
            }
            let may_supersede = |(other, by): &(usize, Command)| {
                let ended = self.generations[other].end.map(|end| end.moment);
                let is_before = [by.answered, ended]
                    .into_iter()
                    .flatten()
                    .any(|moment| moment.order < command.asked.order);
                !by.is_refused && !is_before && by.asked.at <= due + TOLERANCE
            };
            let is_superseded = self.others(client, will).any(|other| may_supersede(&other));
            judged.push((client, is_superseded && generation.published.is_none()));
            let may_be_revoked = will.user.is_some_and(|user| self.revoked.contains(&user));
            let is_due = is_certain && end.leaves == Leaves::Yes && !is_superseded && !may_be_revoked;
            if is_due && generation.published.is_none() {
                return Err(format!(
                    "the will {} of client {client} was not published: {generation:?}",
                    will.number
                ));
            }
        }
        for (client, is_superseded) in judged {
            self.superseded += u64::from(is_superseded);
            if let Some(generation) = self.generations.get_mut(&client) {
                generation.is_judged = true;
            }
        }
        Ok(())
    }
}

impl Generation {
    /// The last call that certainly was carried out.
    fn certain(&self) -> Option<usize> {
        self.commands
            .iter()
            .rposition(|command| command.answered.is_some() && !command.is_refused)
    }
}

/// The time of a turn is that of its beginning, which is a little earlier than its actions.
const TOLERANCE: Duration = Duration::from_millis(6);
/// How late a will may be at rest.
const LATE_MAX: Duration = Duration::from_millis(60);
