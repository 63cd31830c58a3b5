//! The history of one channel.
//!
//! ```text
//!   chunks  [ gone | entry entry entry ][ entry entry … ][ entry entry ]
//!                    └ the oldest                                └ the newest
//!   complete_after: all publications after this offset are there
//! ```
//! Publications are dropped from the beginning, one by one. Their memory is freed when the first chunk has lost all of
//! its entries, or so many that copying the rest is worth it.
//!
//! A channel may keep its last value longer than its history. Then the newest publication stays though its offset is
//! not above `complete_after`: it does not belong to the history, and only
//! [`Query::LastValue`](super::Query::LastValue) finds it.
//!
//! Invariants
//! 1. The entries are in the order of their offsets.
//! 2. Entries whose offset is above `complete_after` are the history: all publications after `complete_after`. If
//!    others are there, it is one, the newest.

use std::collections::VecDeque;
use std::sync::Arc;

use super::chunk::{Chunk, ENTRY_BYTES, SPARE_BYTES};
use super::histories::Newest;
use super::query::Unknown;
use super::reading::Piece;
use super::{Keep, NewPublication};
use crate::broker::ChannelHash;

/// The history of one channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) hash: ChannelHash,
    pub(super) name: Box<[u8]>,
    pub(super) keep: Keep,
    /// The version of the policies that `keep` is of.
    pub(super) version: u32,
    /// Entries of the first chunk that are gone.
    gone: u32,
    chunks: VecDeque<Arc<Chunk>>,
    len: usize,
    frame_bytes: usize,
    complete_after: u64,
    /// The time of the newest publication that the history has lost, or a later time; `i64::MIN` if it has lost none.
    lost_at_ms: i64,
    /// Why the publications up to there are missing.
    why: Unknown,
}

impl Channel {
    /// Without a publication. The caller will append all publications after this offset and after this time.
    pub(super) fn new(
        hash: ChannelHash,
        name: &[u8],
        keep: Keep,
        version: u32,
        (complete_after, lost_at_ms): (u64, i64),
        why: Unknown,
    ) -> Channel {
        Channel {
            hash,
            name: name.into(),
            keep,
            version,
            gone: 0,
            chunks: VecDeque::new(),
            len: 0,
            frame_bytes: 0,
            complete_after,
            lost_at_ms,
            why,
        }
    }

    /// Appends the next publication of a store. The store does not know the times of publications before its first one.
    pub(super) fn restore(&mut self, publication: &NewPublication<'_>) {
        self.lost_at_ms = self.lost_at_ms.min(publication.at_ms);
        self.push(publication);
    }

    /// The number of publications, including a last value that has left the history.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many bytes their frames have.
    pub(super) fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// How many publications the history has.
    pub(super) fn history_len(&self) -> usize {
        match self.newest_offset() > self.complete_after {
            true => self.len,
            false => 0,
        }
    }

    /// Appends the newest publication. Afterwards the caller drops publications beyond the limits.
    pub(super) fn push(&mut self, publication: &NewPublication<'_>) {
        if self.len > self.history_len() {
            // The former last value.
            self.remove_oldest(self.why);
        }
        let last = self.chunks.back_mut().and_then(|last| {
            let entry = last.next_entry(publication)?;
            let is_read = Arc::strong_count(last) > 1;
            (!(is_read && last.is_long())).then_some((last, entry))
        });
        if let Some((last, entry)) = last {
            // Copies a chunk that a reading holds.
            Arc::make_mut(last).push(publication, entry, self.len);
        } else {
            if let Some(full) = self.chunks.back_mut().and_then(Arc::get_mut) {
                full.seal();
            }
            if self.chunks.len() == self.chunks.capacity() {
                self.chunks.reserve_exact(1 + self.chunks.len() / 4);
            }
            self.chunks.push_back(Arc::new(Chunk::new(publication, self.len)));
        }
        self.len += 1;
        self.frame_bytes += publication.frame.len();
    }

    /// Takes the oldest publication out of the history. If it is the last value, it stays beside the history.
    pub(super) fn drop_oldest(&mut self, why: Unknown) {
        if self.len == 1 && self.keep.last_value {
            self.note_newest_gone(why);
        } else {
            self.remove_oldest(why);
        }
    }

    /// Removes the oldest publication, also if it is the last value.
    pub(super) fn remove_oldest(&mut self, why: Unknown) {
        let Some((first, oldest)) = self.first() else {
            return;
        };
        let (offset, frame_bytes) = (first.offset(oldest), first.frame_bytes(oldest..oldest + 1));
        let at_ms = first.at_ms(oldest);
        let (is_last_of_chunk, gone_bytes) = (oldest + 1 == first.len(), first.frame_bytes(0..oldest + 1));
        self.note_gone(offset, at_ms, why);
        self.frame_bytes -= frame_bytes;
        self.len -= 1;
        self.gone += 1;
        if is_last_of_chunk {
            self.chunks.pop_front();
            self.gone = 0;
            if self.chunks.len() < self.chunks.capacity() / 4 {
                self.chunks.shrink_to(self.chunks.len() * 2);
            }
        } else if gone_bytes + self.gone as usize * ENTRY_BYTES > self.len * SPARE_BYTES {
            self.trim();
        }
    }

    /// The history has lost the publications up to this offset, the last of which was published at this moment.
    fn note_gone(&mut self, offset: u64, at_ms: i64, why: Unknown) {
        if offset > self.complete_after {
            self.complete_after = offset;
            self.lost_at_ms = self.lost_at_ms.max(at_ms);
            self.why = why;
        }
    }

    fn note_newest_gone(&mut self, why: Unknown) {
        self.note_gone(self.newest_offset(), self.known_at_ms(), why);
    }

    /// Frees the memory of dropped publications.
    fn trim(&mut self) {
        let is_last = self.chunks.len() == 1;
        // While a reading holds the chunk, the memory cannot be given back anyway.
        if let Some(chunk) = self.chunks.front_mut().and_then(Arc::get_mut) {
            if is_last {
                chunk.drop_first(self.gone as usize);
            } else {
                chunk.cut_first(self.gone as usize);
            }
            self.gone = 0;
        }
    }

    /// Removes all publications, for this reason.
    pub(super) fn clear(&mut self, why: Unknown) {
        self.note_newest_gone(why);
        self.chunks = VecDeque::new();
        self.gone = 0;
        self.len = 0;
        self.frame_bytes = 0;
    }

    /// All publications after this offset are there.
    pub(super) fn complete_after(&self) -> u64 {
        self.complete_after
    }

    /// The newest publication, if it is there.
    pub(super) fn newest(&self, unix_ms_at_0: i64) -> Option<Newest<'_>> {
        let chunk = self.chunks.back()?;
        Some(chunk.newest(unix_ms_at_0))
    }

    /// The offset of the oldest publication that is there.
    pub(super) fn oldest_offset(&self) -> Option<u64> {
        let (chunk, entry) = self.first()?;
        Some(chunk.offset(entry))
    }

    /// When the oldest publication leaves the history because of its age, if it will.
    pub(super) fn deadline(&self) -> Option<i64> {
        if self.history_len() == 0 {
            return None;
        }
        let (chunk, entry) = self.first()?;
        Some(chunk.at_ms(entry).saturating_add_unsigned(self.keep.age_ms))
    }

    /// The highest offset that the channel has ever had, as far as is known.
    pub(super) fn newest_offset(&self) -> u64 {
        let newest = self.chunks.back().map(|last| last.offset(last.len() - 1));
        newest.unwrap_or(self.complete_after)
    }

    /// The time of the newest publication, if it is there.
    pub(super) fn newest_at_ms(&self) -> Option<i64> {
        self.chunks.back().map(|last| last.at_ms(last.len() - 1))
    }

    /// The time of the newest publication that the channel has ever had, or a later time.
    pub(super) fn known_at_ms(&self) -> i64 {
        self.newest_at_ms().unwrap_or(self.lost_at_ms)
    }

    /// The publications up to the offset `up_to` that answer a query, at most so many; and the reason if requested
    /// publications are missing. The answer to a query after a position has all of them or none.
    pub(super) fn read(
        &self,
        query: ChannelQuery,
        publications_max: usize,
        up_to: u64,
    ) -> (Vec<Piece>, Option<Unknown>) {
        match query {
            ChannelQuery::After(offset) if offset < self.complete_after => (Vec::new(), Some(self.why)),
            ChannelQuery::After(offset) => {
                let (pieces, count) = self.pieces(|chunk| chunk.first_after(offset), usize::MAX, up_to);
                match count > publications_max {
                    true => (Vec::new(), Some(Unknown::TooMany)),
                    false => (pieces, None),
                }
            }
            ChannelQuery::Last(count) => {
                let max = count.min(publications_max).min(self.history_len());
                (self.pieces(|_| 0, max, up_to).0, None)
            }
            ChannelQuery::Since(at_ms) => {
                let since = |max| self.pieces(|chunk| chunk.first_since(at_ms), max, up_to);
                let (mut pieces, count) = since(self.history_len());
                let lost = (self.lost_at_ms >= at_ms).then_some(self.why);
                let too_many = (count > publications_max).then_some(Unknown::TooMany);
                if too_many.is_some() {
                    pieces = since(publications_max).0;
                }
                (pieces, lost.or(too_many))
            }
            ChannelQuery::LastValue if self.keep.last_value => (self.pieces(|_| 0, 1, up_to).0, None),
            ChannelQuery::LastValue => (Vec::new(), None),
        }
    }

    /// The newest publications up to the offset `up_to`, at most so many. `first_of` returns the index of the first
    /// wanted entry of a chunk; if it is not 0, earlier chunks have no wanted entry.
    fn pieces(&self, first_of: impl Fn(&Chunk) -> usize, max: usize, up_to: u64) -> (Vec<Piece>, usize) {
        let mut pieces = Vec::new();
        let mut count = 0;
        for (at, chunk) in self.chunks.iter().enumerate().rev() {
            let gone = if at == 0 { self.gone as usize } else { 0 };
            let end = chunk.first_after(up_to);
            let wanted = first_of(chunk);
            let from = wanted.max(gone).max(end.saturating_sub(max - count));
            if from < end {
                count += end - from;
                let chunk = Arc::clone(chunk);
                pieces.push(Piece { chunk, from, end });
            }
            if wanted > 0 || count == max {
                break;
            }
        }
        pieces.reverse();
        (pieces, count)
    }

    fn first(&self) -> Option<(&Chunk, usize)> {
        Some((self.chunks.front()?, self.gone as usize))
    }

    /// The memory that the publications take, and the lists of their chunks.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        let counts = 2 * size_of::<usize>();
        let chunks = self.chunks.iter().map(|chunk| counts + chunk.memory_bytes());
        chunks.sum::<usize>() + self.chunks.capacity() * size_of::<Arc<Chunk>>()
    }
}

/// A [`Query`](super::Query) with its position and time converted to offsets and the clock of this process.
#[derive(Clone, Copy, Debug)]
pub(super) enum ChannelQuery {
    After(u64),
    Last(usize),
    Since(i64),
    LastValue,
}
