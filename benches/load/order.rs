//! Records the order of a channel's publications, which must be the same for all its subscribers.
//!
//! The first subscriber of this thread that reaches a place in the order records the publication at this place; it must
//! be the next publication of its publisher. All other subscribers must receive the same publication at the same place.
//! So a subscriber keeps only its place. Places that all subscribers have passed are dropped, except for a hash, by
//! which threads compare their orders at the end.
//!
//! If a publication is lost, doubled, changed or out of order, another publication is at its place. So this one check
//! is enough.

use std::collections::{HashMap, VecDeque};

use super::wire::Publication;

/// The orders of all channels that have subscribers on this thread.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    channels: HashMap<u32, Order>,
}

impl Orders {
    /// Checks the publication that a subscriber received at its place.
    pub(crate) fn check(&mut self, publication: &Publication, place: u32) -> Result<(), String> {
        self.channels
            .entry(publication.channel)
            .or_default()
            .check(publication, place)
    }

    /// True if a channel keeps more places than are likely to be needed.
    pub(crate) fn wants_trimming(&self, channel: u32) -> bool {
        self.channels
            .get(&channel)
            .is_some_and(|order| order.kept.len() >= KEPT_BEFORE_TRIMMING)
    }

    /// Drops the places before `place`, which all subscribers of this thread have passed.
    pub(crate) fn trim(&mut self, channel: u32, place: u32) {
        if let Some(order) = self.channels.get_mut(&channel) {
            let passed = place.saturating_sub(order.first) as usize;
            order.kept.drain(..passed.min(order.kept.len()));
            order.first = place.max(order.first);
        }
    }

    /// For each channel, the number of publications and a hash of them in their order.
    pub(crate) fn digests(&self) -> impl Iterator<Item = (u32, Digest)> + '_ {
        self.channels.iter().map(|(channel, order)| {
            let digest = Digest {
                count: order.first as usize + order.kept.len(),
                hash: order.hash,
            };
            (*channel, digest)
        })
    }
}

/// An order, short enough to be compared between threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) count: usize,
    hash: u64,
}

#[derive(Debug, Default)]
struct Order {
    /// The first place that is kept.
    first: u32,
    /// Publisher and number of the publication at each place.
    kept: VecDeque<(u32, u32)>,
    /// The number that the next publication of each publisher must have.
    next: HashMap<u32, u32>,
    hash: u64,
}

impl Order {
    fn check(&mut self, publication: &Publication, place: u32) -> Result<(), String> {
        let came = (publication.from, publication.number);
        let known = place
            .checked_sub(self.first)
            .and_then(|index| self.kept.get(index as usize));
        match known {
            Some(known) if *known == came => Ok(()),
            Some(known) => Err(format!(
                "number {} of publisher {} where others had number {} of publisher {}",
                came.1, came.0, known.1, known.0
            )),
            None => {
                let next = self.next.entry(came.0).or_default();
                let expected = *next;
                if expected == came.1 {
                    *next += 1;
                    self.hash = (self.hash ^ u64::from(came.0) << 32 ^ u64::from(came.1))
                        .wrapping_mul(ODD)
                        .rotate_left(29);
                    self.kept.push_back(came);
                    Ok(())
                } else {
                    Err(format!(
                        "number {} of publisher {} where its number {expected} was due",
                        came.1, came.0
                    ))
                }
            }
        }
    }
}

const KEPT_BEFORE_TRIMMING: usize = 1 << 16;
/// Spreads the bits; any odd number does.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
