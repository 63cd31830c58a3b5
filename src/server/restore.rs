//! Gives the content of a store to the cores that own the channels, before the cores run.
//!
//! The connections of the last process have ended with it. Their wills wait for their delays, from the end of the
//! connection if the store knows it, else from now on.
//!
//! A server without MQTT leaves retained publications and MQTT sessions on disk as they are.
//!
//! Each process has another hash of channels, and may have other policies: so the owners are determined again, and
//! channels without a policy are removed from the store.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::app::SessionId;
use crate::broker::{ChannelHasher, Epoch, Numbering, Origin};
use crate::clock::Now;
use crate::cores::{Stored, StoredSessions};
use crate::history::{Histories, Keep, NewPublication};
use crate::policy::channels::Channels;
use crate::protocols::{StoredPublications, StoredSession};
use crate::retained;
use crate::store::records::Batch;
use crate::store::{Beginning, Generation, Record, RunningStore, Store, StoreError, StoredWill};
use crate::wills::{HeldWill, RestoredWill, SessionKey};

/// The content of the store, for the cores.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) running: RunningStore,
    /// For each core.
    pub(super) parts: Vec<Stored>,
}

/// The numbering that continues the numbering of a store.
pub(super) fn numbering(beginning: &Beginning) -> Numbering {
    Numbering {
        epoch: Epoch::from_text(&beginning.epoch).unwrap_or_else(|| Numbering::new().epoch),
        base: beginning.base,
    }
}

/// Reads the histories into `histories`, one for each core, and starts the store.
///
/// # Errors
/// The disk is broken, or a publication is of another version.
pub(super) fn restore(
    mut store: Store,
    mut histories: Vec<Histories>,
    hasher: &ChannelHasher,
    channels: &Channels,
    now: Now,
    speaks_mqtt: bool,
) -> Result<Restored, StoreError> {
    let cores = histories.len();
    let beginning = store.beginning();
    for core in &mut histories {
        core.begin_with_store(beginning.unknown_through, beginning.removed_through, now);
    }
    let unix_ms_at_0 = now.unix_ms.saturating_sub(now.uptime.as_ms());
    let mut changes = Batch::default();
    let mut current: Option<(usize, u32)> = None;
    let mut unknown_form = None;
    store.read(|name, channel, publication| {
        let Some((offset, publication)) = publication else {
            if let Some((core, id)) = current.take() {
                histories[core].restored(id);
            }
            let hash = hasher.hash(name);
            match channels.find(name).and_then(Keep::of) {
                Some(keep) => {
                    let core = hash.owner(cores);
                    let complete_after = channel.kept.complete_after;
                    let id =
                        histories[core].restore_channel(name, hash, keep, channels.version(), complete_after);
                    current = Some((core, id));
                }
                None => changes.push(&Record::Removed {
                    channel: name,
                    through: beginning.base,
                }),
            }
            return;
        };
        let Some((core, id)) = current else {
            return;
        };
        match Origin::of_number(publication.form) {
            Some(origin) => histories[core].restore(
                id,
                &NewPublication::restored(
                    offset,
                    publication.unix_ms,
                    unix_ms_at_0,
                    origin,
                    publication.frame,
                    publication.payload_bytes,
                ),
            ),
            None => unknown_form = Some(publication.form),
        }
    })?;
    if let Some(form) = unknown_form {
        return Err(store.of_other_version(format!("it holds publications of the kind {form}")));
    }
    if let Some((core, id)) = current {
        histories[core].restored(id);
    }
    for core in &mut histories {
        core.sweep(now, u32::MAX);
        core.take_changes(now, |change| changes.push(&Record::from(change)));
    }
    let wills = restore_wills(&store, hasher, cores, now, &mut changes)?;
    let retained = if speaks_mqtt {
        restore_retained(&store, hasher, cores, now, &mut changes)?
    } else {
        (0..cores).map(|_| Vec::new()).collect()
    };
    let sessions = if speaks_mqtt {
        restore_sessions(&mut store, hasher, cores, &mut changes)?
    } else {
        none_of(cores)
    };
    let (running, sinks) = store.start(cores, &changes)?;
    let parts = sinks.into_iter().zip(histories).zip(wills);
    let parts = parts.zip(retained.into_iter().zip(sessions));
    Ok(Restored {
        running,
        parts: parts
            .map(|(((sink, histories), wills), (retained, mqtt))| Stored {
                sink,
                histories,
                wills,
                retained,
                mqtt,
            })
            .collect(),
    })
}

fn none_of(cores: usize) -> Vec<StoredSessions> {
    let none = || StoredSessions {
        sessions: Vec::new(),
        publications: Arc::default(),
        may_miss_some: false,
    };
    (0..cores).map(|_| none()).collect()
}

/// Reads the MQTT sessions for each core, and removes publications from the store that no session needs.
fn restore_sessions(
    store: &mut Store,
    hasher: &ChannelHasher,
    cores: usize,
    changes: &mut Batch,
) -> Result<Vec<StoredSessions>, StoreError> {
    let mut restored = none_of(cores);
    let (mut publications, mut is_unknown) = (StoredPublications::default(), false);
    store.read_publications(|number, value| is_unknown |= publications.add(number, value).is_err())?;
    let mut sessions: Vec<StoredSession> = Vec::new();
    store.read_sessions(|client_id, name, value| {
        let Ok(client_id) = str::from_utf8(client_id) else {
            is_unknown = true;
            return;
        };
        if sessions.last().is_none_or(|last| last.client_id() != client_id) {
            sessions.push(StoredSession::new(client_id));
        }
        is_unknown |= sessions
            .last_mut()
            .is_some_and(|last| last.add(name, value).is_err());
    })?;
    if is_unknown {
        let what = "it holds MQTT sessions in a form that is not known";
        return Err(store.of_other_version(what.to_owned()));
    }
    let mut needed = HashSet::new();
    for session in sessions {
        for number in session.publications() {
            store.count_holder(number);
            needed.insert(number);
        }
        let owner = hasher.hash(session.client_id().as_bytes()).owner(cores);
        restored[owner].sessions.push(session);
    }
    for number in publications.numbers().filter(|number| !needed.contains(number)) {
        store.count_holder(number);
        changes.push(&Record::Released { number });
    }
    let publications = Arc::new(publications);
    for core in &mut restored {
        core.publications = Arc::clone(&publications);
        core.may_miss_some = store.may_miss_some();
    }
    Ok(restored)
}

/// Reads the retained publications for each core, and removes expired ones from the store.
fn restore_retained(
    store: &Store,
    hasher: &ChannelHasher,
    cores: usize,
    now: Now,
    changes: &mut Batch,
) -> Result<Vec<Vec<retained::Entry>>, StoreError> {
    let mut restored: Vec<Vec<_>> = (0..cores).map(|_| Vec::new()).collect();
    let (mut scratch, mut is_unknown) = (Vec::new(), false);
    store.read_retained(
        |topic, value| match retained::Entry::restored(topic, value, &mut scratch) {
            Some(entry) if entry.expires_at_ms().is_some_and(|at| at <= now.unix_ms) => {
                changes.push(&Record::Retained { topic, value: None });
            }
            Some(entry) => restored[hasher.hash(topic).owner(cores)].push(entry),
            None => is_unknown = true,
        },
    )?;
    if is_unknown {
        let what = "it holds retained publications in a form that is not known";
        return Err(store.of_other_version(what.to_owned()));
    }
    Ok(restored)
}

/// Reads the wills for each core. Of several wills of a session, the one that was set last counts.
fn restore_wills(
    store: &Store,
    hasher: &ChannelHasher,
    cores: usize,
    now: Now,
    changes: &mut Batch,
) -> Result<Vec<Vec<RestoredWill>>, StoreError> {
    let mut read: Vec<(u64, Generation, HeldWill, Option<u64>)> = Vec::new();
    let mut is_unknown = false;
    store.read_wills(|generation, stored| match HeldWill::read(stored.will) {
        Some(held) => read.push((stored.set_unix_ms, *generation, held, stored.due_unix_ms)),
        None => is_unknown = true,
    })?;
    if is_unknown {
        return Err(store.of_other_version("it holds wills in a form that is not known".to_owned()));
    }
    read.sort_by_key(|(set_unix_ms, generation, ..)| (*set_unix_ms, *generation));
    let mut sessions = HashSet::new();
    let mut wills: Vec<Vec<RestoredWill>> = (0..cores).map(|_| Vec::new()).collect();
    for (set_unix_ms, generation, held, due_unix_ms) in read.into_iter().rev() {
        if let Some(key) = &held.session
            && !sessions.insert(key.clone())
        {
            changes.push(&Record::WillGone {
                generation: &generation,
            });
            continue;
        }
        let due_unix_ms = due_unix_ms.unwrap_or_else(|| {
            let delay_ms = u64::try_from(held.will.delay.as_millis()).unwrap_or(u64::MAX);
            let due_unix_ms = now.unix_ms.saturating_add(delay_ms);
            let mut will = Vec::new();
            held.write(&mut will);
            changes.push(&Record::Will {
                generation: &generation,
                will: StoredWill {
                    due_unix_ms: Some(due_unix_ms),
                    set_unix_ms,
                    will: &will,
                },
            });
            due_unix_ms
        });
        let owned_by = held
            .session
            .as_ref()
            .map_or(&generation[..], SessionKey::as_bytes);
        let owner = hasher.hash(owned_by).owner(cores);
        wills[owner].push(RestoredWill {
            generation: SessionId::new(generation),
            due: now.uptime + Duration::from_millis(due_unix_ms.saturating_sub(now.unix_ms)),
            held,
        });
    }
    Ok(wills)
}
