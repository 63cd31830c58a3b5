//! Sessions that a former process has left on disk (`data_dir`), before the core runs.
//!
//! All of them wait for their clients: from the end of the connection, or from now on if the former process
//! was not stopped in order. Deadlines are absolute, so the time without a process counts.

use std::collections::HashMap;

use super::incoming::IncomingIds;
use super::kept_publications::KeptRef;
use super::outgoing::Outgoing;
use super::saved::SavedEntry;
use super::saving::{Pending, SHARE};
use super::state::{SessionState, Traffic};
use super::stored::{self, Head, Item, StoredEntry};
use super::{DueWill, Sessions, Will};
use crate::clock::Now;
use crate::mqtt::Version;
use crate::mqtt::publication::client_hash;
use crate::mqtt::sessions::sharing::NO_LIMITS;
use crate::mqtt::shares::Membership;
use crate::mqtt::subscriptions::Subscriber;

/// A session on disk.
#[derive(Debug)]
pub(crate) struct StoredSession {
    client_id: Box<str>,
    /// `None` until its item has come.
    head: Option<OwnHead>,
    will: Option<Box<Will>>,
    filters: Vec<(Box<str>, Membership)>,
    incoming: Vec<u16>,
    outgoing: Vec<(u64, StoredEntry)>,
}

#[derive(Debug)]
struct OwnHead {
    version: Version,
    expiry_s: u32,
    since_unix_ms: Option<u64>,
    user: Option<Box<str>>,
}

/// The form of an item is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnknownForm;

/// The publications on disk, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct StoredPublications {
    publications: HashMap<u64, Box<[u8]>>,
    last: u64,
}

impl StoredPublications {
    /// Adds one.
    ///
    /// # Errors
    /// It is in another form.
    pub(crate) fn add(&mut self, number: u64, value: &[u8]) -> Result<(), UnknownForm> {
        let bytes = stored::read_publication(value).ok_or(UnknownForm)?;
        self.publications.insert(number, bytes.into());
        self.last = self.last.max(number);
        Ok(())
    }

    /// The highest number.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The numbers.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.publications.keys().copied()
    }
}

impl StoredSession {
    /// A session without an item.
    pub(crate) fn new(client_id: &str) -> StoredSession {
        StoredSession {
            client_id: client_id.into(),
            head: None,
            will: None,
            filters: Vec::new(),
            incoming: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    /// The client id.
    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Adds an item.
    ///
    /// # Errors
    /// It is in another form.
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), UnknownForm> {
        match Item::read(name).ok_or(UnknownForm)? {
            Item::Head => {
                let Head {
                    version,
                    expiry_s,
                    since_unix_ms,
                    user,
                } = Head::read(value).ok_or(UnknownForm)?;
                self.head = Some(OwnHead {
                    version,
                    expiry_s,
                    since_unix_ms,
                    user: user.map(Box::from),
                });
            }
            Item::Subscription(filter) => {
                let membership = stored::read_subscription(value).ok_or(UnknownForm)?;
                self.filters.push((filter.into(), membership));
            }
            Item::Outgoing(number) => {
                let entry = StoredEntry::read(value).ok_or(UnknownForm)?;
                self.outgoing.push((number, entry));
            }
            Item::Incoming => self.incoming = stored::read_ids(value).ok_or(UnknownForm)?,
            Item::Will => self.will = Some(Box::new(stored::read_will(value).ok_or(UnknownForm)?)),
        }
        Ok(())
    }

    /// The publications that its items name, once for each item.
    pub(crate) fn publications(&self) -> impl Iterator<Item = u64> {
        let publications = self.outgoing.iter().map(|(_, entry)| entry.publication);
        publications.filter(|&number| number > 0)
    }
}

impl Sessions {
    /// Takes the sessions of this core, which saves sessions already. `may_miss_some`: the former process may
    /// have done more than the disk contains.
    pub(crate) fn restore(
        &mut self,
        sessions: Vec<StoredSession>,
        publications: &StoredPublications,
        may_miss_some: bool,
        now: Now,
    ) {
        let mut copies = HashMap::new();
        for session in sessions {
            self.restore_one(session, publications, &mut copies, may_miss_some, now);
        }
    }

    fn restore_one(
        &mut self,
        session: StoredSession,
        publications: &StoredPublications,
        copies: &mut HashMap<u64, KeptRef>,
        may_miss_some: bool,
        now: Now,
    ) {
        let Some(saving) = self.saving.as_deref_mut() else {
            return;
        };
        session.publications().for_each(|number| saving.hold(number));
        let since = session
            .head
            .as_ref()
            .map(|head| head.since_unix_ms.unwrap_or(now.unix_ms));
        let waited_s = |since: u64| now.unix_ms.saturating_sub(since) / 1000;
        let is_over = match (&session.head, since) {
            (Some(head), Some(since)) => {
                head.expiry_s == 0 || (head.expiry_s < u32::MAX && waited_s(since) >= head.expiry_s.into())
            }
            // A session without a head is the rest of one.
            (_, _) => true,
        };
        self.last_serial += 1;
        let (Some(head), Some(since), false) = (&session.head, since, is_over) else {
            saving.end_restored(session.client_id.clone(), session.publications());
            if let Some(will) = session.will {
                self.due_wills.push_back(DueWill {
                    publisher: self.last_serial,
                    client_hash: client_hash(&session.client_id),
                    will,
                });
            }
            self.counts.expired += 1;
            return;
        };
        let waited_s = u32::try_from(waited_s(since)).unwrap_or(u32::MAX);
        let left = |seconds: u32| match seconds {
            u32::MAX => u32::MAX,
            _ => seconds.saturating_sub(waited_s),
        };
        let mut will = session.will;
        if let Some(will) = &mut will {
            will.delay_s = left(will.delay_s);
            self.wills_bytes += will.bytes();
        }
        let state = SessionState::restored(
            self.last_serial,
            session.client_id,
            head.user.clone(),
            will,
            left(head.expiry_s),
            head.version,
            now.uptime,
        );
        let number = self.insert(state);
        for (filter, membership) in session.filters {
            self.restore_filter(number, &filter, membership);
        }
        let traffic = self.restore_traffic(
            number,
            session.outgoing,
            session.incoming,
            publications,
            copies,
            may_miss_some.then(|| first_id_after_crash(now)),
        );
        let state = &mut self.states[number as usize];
        state.traffic = traffic;
        let deadline = state.deadline();
        if deadline != crate::clock::Uptime::NEVER {
            self.deadlines.insert((deadline, number));
        }
        // From now on the disk has the time since which the session waits, so that later restarts see the
        // remaining time.
        self.note(number, |pending: &mut Pending| {
            (pending.head, pending.will, pending.outgoing) = (true, true, true);
        });
    }

    fn restore_filter(&mut self, number: u32, filter: &str, membership: Membership) {
        let options = membership.options;
        if !filter.starts_with(SHARE) {
            let subscriber = Subscriber::Session(number);
            self.subscriptions
                .subscribe(subscriber, filter, options, NO_LIMITS);
            return;
        }
        let session = self.name(number);
        if membership.service.is_some() {
            self.shares.serve(session, filter, membership, NO_LIMITS);
            return;
        }
        let wait = self.shares.next_wait();
        self.shares.join(session, filter, options, NO_LIMITS, wait);
        self.shares.note_connected(session, false);
    }

    fn restore_traffic(
        &mut self,
        number: u32,
        mut outgoing: Vec<(u64, StoredEntry)>,
        incoming: Vec<u16>,
        publications: &StoredPublications,
        copies: &mut HashMap<u64, KeptRef>,
        last_id: Option<u16>,
    ) -> Option<Box<Traffic>> {
        if outgoing.is_empty() && incoming.is_empty() {
            return None;
        }
        if let (Some(saving), Some(_)) = (&mut self.saving, last_id) {
            incoming
                .iter()
                .for_each(|&id| saving.note_possibly_released(number, id));
        }
        // Publications in flight come first.
        outgoing.sort_unstable_by_key(|(number, entry)| (entry.packet_id == 0, *number));
        let (mut entries, mut gone) = (Vec::new(), Vec::new());
        for (number, entry) in outgoing {
            let publication = entry.publication;
            let kept = match (publication, copies.get(&publication)) {
                (0, _) => None,
                (_, Some(&kept)) => {
                    self.kept.hold(kept);
                    Some(kept)
                }
                (_, None) => match publications.publications.get(&publication) {
                    Some(bytes) => {
                        let kept = self.kept.restore(bytes, publication);
                        copies.insert(publication, kept);
                        Some(kept)
                    }
                    // Nothing is left to send.
                    None => {
                        gone.push(SavedEntry { number, publication });
                        continue;
                    }
                },
            };
            entries.push((entry, kept, SavedEntry { number, publication }));
        }
        Some(Box::new(Traffic {
            outgoing: Outgoing::restore(entries, gone, last_id, &self.kept),
            incoming: IncomingIds::restored(incoming),
        }))
    }
}

/// The packet identifier before the first one that is given after a crash. The former process may have given
/// identifiers that the disk does not have, and a client would mistake the next publication with one of them
/// for the earlier one.
fn first_id_after_crash(now: Now) -> u16 {
    u16::try_from(now.unix_ms % u64::from(u16::MAX)).unwrap_or(0)
}
