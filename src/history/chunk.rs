//! A chunk: consecutive publications of one channel, their frames one behind the other.
//!
//! ```text
//!   bytes    [ frame … | frame … | frame … ]      as they are sent in a replay: the blanks hold `,"replayed":true`
//!   entries  [ offset, time, end, payload bytes ]  16 bytes each; offset and time are counted from the first entry's
//! ```
//! A chunk can be shared with readings. A shared chunk does not change: its channel copies it or begins another.
//!
//! Invariants
//! 1. Offsets rise from entry to entry, and times do not fall.
//! 2. `entries[n].end - dropped_bytes` is the end of frame `n` in `bytes`, and `bytes` ends with the last frame.

use std::ops::Range;

use super::NewPublication;
use super::histories::Newest;
use crate::broker::Origin;

/// Consecutive publications of one channel.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// The offset and the time of the first publication that the chunk ever had.
    base_offset: u64,
    base_at_ms: i64,
    origin: Origin,
    /// How many bytes have been dropped from the beginning.
    dropped_bytes: u32,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// The place of one publication in the chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    offset: u32,
    at_ms: u32,
    end: u32,
    payload_bytes: u32,
}

/// The bytes of an entry.
pub(super) const ENTRY_BYTES: usize = size_of::<Entry>();
const _: () = assert!(ENTRY_BYTES == 16);

impl Chunk {
    /// A chunk with its first publication.
    pub(super) fn new(publication: &NewPublication<'_>, channel_len: usize) -> Chunk {
        let mut chunk = Chunk {
            base_offset: publication.offset,
            base_at_ms: publication.at_ms,
            origin: publication.origin,
            dropped_bytes: 0,
            bytes: Vec::new(),
            entries: Vec::new(),
        };
        let entry = chunk
            .entry(publication)
            .expect("the offset and the time are those of the chunk, and a frame is shorter than 4 GiB");
        chunk.push(publication, entry, channel_len);
        chunk
    }

    /// The entry for a publication newer than all in the chunk, to be pushed; `None` if it belongs into a new chunk.
    #[inline]
    pub(super) fn next_entry(&self, publication: &NewPublication<'_>) -> Option<Entry> {
        if self.is_full(publication.frame.len()) || publication.origin != self.origin {
            return None;
        }
        self.entry(publication)
    }

    /// Appends a publication with its entry, that of [`Chunk::next_entry`].
    ///
    /// The vectors grow by an eighth of the entries, and by 8 bytes for each entry of the whole channel
    /// (`channel_len`). So the reserved memory stays within the bytes that each publication counts for, and in a long
    /// history a chunk is allocated once.
    pub(super) fn push(&mut self, publication: &NewPublication<'_>, entry: Entry, channel_len: usize) {
        if self.entries.capacity() == self.entries.len() {
            self.entries
                .reserve_exact(1 + (channel_len / 8).min(ENTRIES_RESERVED_MAX));
        }
        let frame = publication.frame;
        if self.bytes.capacity() - self.bytes.len() < frame.len() {
            let until_full = (CHUNK_BYTES + frame.len()).saturating_sub(self.bytes.len());
            let spare = (channel_len * SPARE_BYTES).min(until_full);
            self.bytes.reserve_exact(frame.len().max(spare));
        }
        self.bytes.extend_from_slice(frame);
        if let Some(blanks) = &publication.blanks {
            let begin = self.bytes.len() - frame.len();
            self.bytes[begin + blanks.start..begin + blanks.end].copy_from_slice(REPLAYED);
        }
        self.entries.push(entry);
    }

    /// The entry for the next publication, unless its numbers are too large for the chunk.
    fn entry(&self, publication: &NewPublication<'_>) -> Option<Entry> {
        let end = self.dropped_bytes as usize + self.bytes.len() + publication.frame.len();
        Some(Entry {
            offset: u32::try_from(publication.offset - self.base_offset).ok()?,
            at_ms: u32::try_from(publication.at_ms - self.base_at_ms).ok()?,
            end: u32::try_from(end).ok()?,
            payload_bytes: publication.payload_bytes,
        })
    }

    /// Whether the next publication, with a frame of so many bytes, begins another chunk. A chunk of some length
    /// without room is full, since moving it costs more than another chunk.
    fn is_full(&self, frame_bytes: usize) -> bool {
        let bytes = self.bytes.len();
        let has_room = self.bytes.capacity() - bytes >= frame_bytes;
        let is_long = bytes >= CHUNK_BYTES || (bytes >= CHUNK_BYTES_MOVED_MAX && !has_room);
        (is_long && self.entries.len() >= CHUNK_ENTRIES_MIN) || bytes >= CHUNK_BYTES_MAX
    }

    /// Whether copying it costs more than another chunk would.
    pub(super) fn is_long(&self) -> bool {
        self.bytes.len() >= CHUNK_BYTES / 2
    }

    /// Frees memory that was reserved for more publications, unless it is little.
    pub(super) fn seal(&mut self) {
        if self.bytes.capacity() - self.bytes.len() > SPARE_WHEN_FULL_MAX {
            self.bytes.shrink_to_fit();
        }
        self.entries.shrink_to_fit();
    }

    /// Drops the first `count` publications. Their memory stays reserved for later publications.
    pub(super) fn drop_first(&mut self, count: usize) {
        let bytes = self.start(count);
        self.bytes.drain(..bytes);
        self.entries.drain(..count);
        self.note_dropped(bytes);
    }

    /// Drops the first `count` publications of a chunk that gets no more, and frees their memory.
    pub(super) fn cut_first(&mut self, count: usize) {
        let bytes = self.start(count);
        self.bytes = self.bytes[bytes..].to_vec();
        self.entries = self.entries[count..].to_vec();
        self.note_dropped(bytes);
    }

    fn note_dropped(&mut self, bytes: usize) {
        self.dropped_bytes += u32::try_from(bytes).expect("invariant 2: an end has 32 bits");
    }

    /// How many publications it has.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many bytes some of its frames have.
    #[inline]
    pub(super) fn frame_bytes(&self, entries: Range<usize>) -> usize {
        self.start(entries.end) - self.start(entries.start)
    }

    /// The bytes of some of its frames.
    pub(super) fn frames(&self, entries: Range<usize>) -> &[u8] {
        &self.bytes[self.start(entries.start)..self.start(entries.end)]
    }

    /// The offset of a publication.
    pub(super) fn offset(&self, entry: usize) -> u64 {
        self.base_offset + u64::from(self.entries[entry].offset)
    }

    /// The time of a publication.
    pub(super) fn at_ms(&self, entry: usize) -> i64 {
        self.base_at_ms + i64::from(self.entries[entry].at_ms)
    }

    /// The payload of a publication.
    pub(super) fn payload(&self, entry: usize) -> &[u8] {
        let frame = self.frames(entry..entry + 1);
        self.origin
            .payload(frame, self.entries[entry].payload_bytes as usize)
    }

    /// The last publication.
    pub(super) fn newest(&self, unix_ms_at_0: i64) -> Newest<'_> {
        let last = self.len() - 1;
        Newest {
            offset: self.offset(last),
            unix_ms: u64::try_from(self.at_ms(last).saturating_add(unix_ms_at_0)).unwrap_or(0),
            origin: self.origin,
            frame: self.frames(last..last + 1),
            payload_bytes: self.entries[last].payload_bytes,
        }
    }

    /// The first entry whose offset is higher.
    pub(super) fn first_after(&self, offset: u64) -> usize {
        self.entries
            .partition_point(|entry| self.base_offset + u64::from(entry.offset) <= offset)
    }

    /// The first entry that was published at this time or later.
    pub(super) fn first_since(&self, at_ms: i64) -> usize {
        self.entries
            .partition_point(|entry| self.base_at_ms + i64::from(entry.at_ms) < at_ms)
    }

    /// The memory that it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Chunk>() + self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// The beginning of an entry's frame; for the index behind the last entry, the end of the bytes.
    fn start(&self, entry: usize) -> usize {
        match entry.checked_sub(1) {
            Some(before) => (self.entries[before].end - self.dropped_bytes) as usize,
            None => 0,
        }
    }
}

/// The member that a replayed publication has in the place of the blanks.
pub(super) const REPLAYED: &[u8; crate::broker::BLANKS] = b",\"replayed\":true";
/// Most entries that are reserved at once.
const ENTRIES_RESERVED_MAX: usize = 64;
/// A chunk of so many bytes is full, if it has [`CHUNK_ENTRIES_MIN`] publications.
const CHUNK_BYTES: usize = 16 * 1024;
/// A chunk of so many bytes is not moved to get more room.
const CHUNK_BYTES_MOVED_MAX: usize = 4 * 1024;
/// With fewer publications, a chunk's own memory would count too much for each of them.
const CHUNK_ENTRIES_MIN: usize = 8;
/// A chunk of so many bytes is full.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// A full chunk may keep so many bytes reserved: a thirty-second of it.
const SPARE_WHEN_FULL_MAX: usize = CHUNK_BYTES / 32;
/// Bytes that are reserved in a chunk, or not freed, for each of its publications.
pub(super) const SPARE_BYTES: usize = 8;
