//! Gives what a store has to the cores that own the channels, before the cores run.
//!
//! A connection of the last process has ended with it: its will waits for its delay, from the end that the store knows of
//! or else from now on.
//!
//! The hash of channels is another one in each process, and the policies may be others: so owners are found anew, and
//! channels without a policy are removed from the store.

use std::collections::HashSet;
use std::time::Duration;

use crate::app::SessionId;
use crate::broker::{ChannelHasher, Epoch, Numbering, Origin};
use crate::clock::Now;
use crate::cores::Stored;
use crate::history::{Histories, Keep, NewPublication};
use crate::policy::channels::Channels;
use crate::store::records::Batch;
use crate::store::{Beginning, Generation, Record, RunningStore, Store, StoreError, StoredWill};
use crate::wills::{HeldWill, RestoredWill, SessionKey};

/// What the cores begin with.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) running: RunningStore,
    /// For each core.
    pub(super) parts: Vec<Stored>,
}

/// The numbering that goes on from what a store has.
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
    store: Store,
    mut histories: Vec<Histories>,
    hasher: &ChannelHasher,
    channels: &Channels,
    now: Now,
) -> Result<Restored, StoreError> {
    let cores = histories.len();
    let beginning = store.beginning();
    for core in &mut histories {
        core.begin_with_store(beginning.unknown_through, beginning.removed_through);
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
    let (running, sinks) = store.start(cores, &changes)?;
    let parts = sinks.into_iter().zip(histories).zip(wills);
    Ok(Restored {
        running,
        parts: parts
            .map(|((sink, histories), wills)| Stored {
                sink,
                histories,
                wills,
            })
            .collect(),
    })
}

/// Reads the wills for each core. Of several connections of a session, the will of the one that has set it last counts.
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
