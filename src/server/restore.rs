//! Gives what a store has to the cores that own the channels, before the cores run.
//!
//! The hash of channels is another one in each process, and the policies may be others: so owners are found anew, and
//! channels without a policy are removed from the store.

use crate::broker::{ChannelHasher, Epoch, Numbering, Origin};
use crate::clock::Now;
use crate::history::{Histories, Keep, NewPublication};
use crate::policy::channels::Channels;
use crate::store::records::Batch;
use crate::store::{Beginning, Record, RunningStore, Sink, Store, StoreError};

/// What the cores begin with.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) running: RunningStore,
    /// For each core.
    pub(super) parts: Vec<(Sink, Histories)>,
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
    let (running, sinks) = store.start(cores, &changes)?;
    Ok(Restored {
        running,
        parts: sinks.into_iter().zip(histories).collect(),
    })
}
