//! A table of values under small indexes, in chunks that never move.
//!
//! A core keeps things that it has thousands of (connections, channels, deadlines) here instead of in a
//! `Vec`: growing copies nothing, so it causes no pause and leaves no freed halves behind, and the memory of
//! a chunk is freed as soon as the chunk is empty.
//!
//! ```text
//!   chunks   [ taken, slots ][ taken, slots ][ taken, - ]      index = chunk · CHUNK + slot
//!                       │               └► [ v | v | - | v ]   CHUNK slots, one allocation
//!                       └────────────────► [ v | v | v | v ]
//! ```
//!
//! Invariants
//! 1. A value keeps its index and its address from `insert` to `remove`.
//! 2. Bit `n` of `taken` is set exactly while slot `n` contains a value; a chunk without slots has no values.
//! 3. All chunks before `room_from` are full. New values get the lowest free index, so that chunks at the end
//!    can become empty.

use std::ops::{Index, IndexMut};

/// Values under small indexes.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    room_from: usize,
    len: usize,
    /// Slots with allocated memory.
    slots: usize,
}

#[derive(Debug)]
struct Chunk<T> {
    taken: [u64; CHUNK / 64],
    /// `CHUNK` slots, or none while the chunk is empty.
    slots: Box<[Option<T>]>,
}

impl<T> Slab<T> {
    /// Empty, without memory.
    pub(crate) const fn new() -> Slab<T> {
        Slab {
            chunks: Vec::new(),
            room_from: 0,
            len: 0,
            slots: 0,
        }
    }

    /// The number of values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The memory of the table in bytes, without memory that its values own.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.slots * size_of::<Option<T>>() + self.chunks.capacity() * size_of::<Chunk<T>>()
    }

    /// One more than the highest index that may have a value.
    pub(crate) fn places(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// The index that `insert` will use next. Skips full chunks from the last one where a value was removed:
    /// for a million values at most 2,000 chunks of 80 bytes.
    pub(crate) fn vacant(&mut self) -> usize {
        while let Some(chunk) = self.chunks.get(self.room_from)
            && chunk.first_free() == CHUNK
        {
            self.room_from += 1;
        }
        self.room_from * CHUNK + self.chunks.get(self.room_from).map_or(0, Chunk::first_free)
    }

    /// Inserts a value; returns its index.
    pub(crate) fn insert(&mut self, value: T) -> usize {
        let index = self.vacant();
        self.insert_at(index, value);
        index
    }

    /// Inserts a value under this index; replaces an existing one.
    pub(crate) fn insert_at(&mut self, index: usize, value: T) {
        let (chunk, slot) = split(index);
        if chunk >= self.chunks.len() {
            self.chunks.resize_with(chunk + 1, Chunk::empty);
        }
        let chunk = &mut self.chunks[chunk];
        if chunk.slots.is_empty() {
            chunk.slots = (0..CHUNK).map(|_| None).collect();
            self.slots += CHUNK;
        }
        if chunk.slots[slot].replace(value).is_none() {
            chunk.taken[slot / 64] |= 1 << (slot % 64);
            self.len += 1;
        }
    }

    /// Removes a value and returns it.
    pub(crate) fn remove(&mut self, index: usize) -> Option<T> {
        let (at, slot) = split(index);
        let chunk = self.chunks.get_mut(at)?;
        let value = chunk.slots.get_mut(slot)?.take()?;
        chunk.taken[slot / 64] &= !(1 << (slot % 64));
        self.len -= 1;
        self.room_from = self.room_from.min(at);
        // The next value should need no allocation, so a chunk is only freed if others have as much room.
        if chunk.is_empty() && self.slots - self.len > CHUNK {
            *chunk = Chunk::empty();
            self.slots -= CHUNK;
            self.drop_empty_chunks();
        }
        Some(value)
    }

    /// The value under this index.
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        let (chunk, slot) = split(index);
        self.chunks.get(chunk)?.slots.get(slot)?.as_ref()
    }

    /// The value under this index.
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        let (chunk, slot) = split(index);
        self.chunks.get_mut(chunk)?.slots.get_mut(slot)?.as_mut()
    }

    /// All values with their indexes, in order.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> + Clone {
        self.chunks.iter().enumerate().flat_map(|(at, chunk)| {
            let values = chunk.slots.iter().enumerate();
            values.filter_map(move |(slot, value)| Some((at * CHUNK + slot, value.as_ref()?)))
        })
    }

    fn drop_empty_chunks(&mut self) {
        while self.chunks.last().is_some_and(|chunk| chunk.slots.is_empty()) {
            self.chunks.pop();
        }
        if self.chunks.len() < self.chunks.capacity() / 4 {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
    }
}

impl<T> Index<usize> for Slab<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        self.get(index).expect("there is a value under the index")
    }
}

impl<T> IndexMut<usize> for Slab<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        self.get_mut(index).expect("there is a value under the index")
    }
}

impl<T> Chunk<T> {
    fn empty() -> Chunk<T> {
        Chunk {
            taken: [0; CHUNK / 64],
            slots: Box::default(),
        }
    }

    fn is_empty(&self) -> bool {
        self.taken.iter().all(|&word| word == 0)
    }

    /// The first slot without a value; `CHUNK` if there is none.
    fn first_free(&self) -> usize {
        let word = self.taken.iter().position(|&word| word != u64::MAX);
        word.map_or(CHUNK, |word| {
            word * 64 + self.taken[word].trailing_ones() as usize
        })
    }
}

const fn split(index: usize) -> (usize, usize) {
    (index / CHUNK, index % CHUNK)
}

/// Gives memory of a list back once three quarters are unused; leaves room, so that the work stays constant per
/// removal.
pub(crate) fn shrink<T>(list: &mut Vec<T>) {
    if list.len() < list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
}

/// Slots of a chunk. Values of up to 128 bytes make chunks of up to 64 KiB; if the size of a value is a
/// multiple of 16, the allocator has exactly such a size. Above that its sizes are 16 KiB apart, which fits
/// 160 and 192 bytes.
const CHUNK: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn room(slab: &Slab<String>) -> usize {
        let slots: usize = slab.chunks.iter().map(|chunk| chunk.slots.len()).sum();
        assert_eq!(slots, slab.slots);
        slots / CHUNK
    }

    fn filled(count: usize) -> Slab<String> {
        let mut slab = Slab::new();
        for index in 0..count {
            assert_eq!(slab.insert(index.to_string()), index);
        }
        slab
    }

    #[test]
    fn values_keep_their_indexes_and_addresses_while_others_are_added() {
        let mut slab = filled(CHUNK);
        let first = std::ptr::from_ref(&slab[0]);
        for _ in 0..10 * CHUNK {
            slab.insert(String::new());
        }
        assert!(std::ptr::eq(first, &raw const slab[0]));
        assert_eq!(slab[CHUNK - 1], (CHUNK - 1).to_string());
        assert_eq!(slab.len(), 11 * CHUNK);
    }

    #[test]
    fn the_lowest_free_index_is_used_first() {
        let mut slab = filled(3 * CHUNK);
        for free in [2 * CHUNK + 7, 5, CHUNK, 64, 6] {
            assert_eq!(slab.remove(free), Some(free.to_string()));
        }
        for expected in [5, 6, 64, CHUNK, 2 * CHUNK + 7, 3 * CHUNK] {
            assert_eq!(slab.vacant(), expected);
            assert_eq!(slab.insert(String::new()), expected);
        }
    }

    #[test]
    fn removed_or_missing_values_are_not_found() {
        let mut slab = filled(2);
        assert!(slab.get(2).is_none() && slab.get(CHUNK).is_none() && slab.remove(usize::MAX).is_none());
        assert_eq!(slab.remove(0).as_deref(), Some("0"));
        assert!(slab.get(0).is_none() && slab.get_mut(0).is_none() && slab.remove(0).is_none());
        assert_eq!((slab.len(), slab.iter().count()), (1, 1));
    }

    #[test]
    fn an_empty_chunk_frees_its_memory_except_the_last_with_room() {
        let mut slab = filled(4 * CHUNK);
        assert_eq!(room(&slab), 4);
        for number in CHUNK..2 * CHUNK {
            slab.remove(number);
        }
        assert_eq!(room(&slab), 4, "that is room for the next to come");
        slab.remove(0);
        for number in 2 * CHUNK..3 * CHUNK {
            slab.remove(number);
        }
        assert_eq!(room(&slab), 3);
        let bytes = slab.memory_bytes();
        assert!(
            (3 * CHUNK..4 * CHUNK).contains(&(bytes / size_of::<Option<String>>())),
            "{bytes}"
        );
        for number in 0..4 * CHUNK {
            slab.remove(number);
        }
        assert_eq!((slab.len(), room(&slab)), (0, 1));
        // Adding and removing a value at the edge of a chunk allocates nothing.
        for _ in 0..3 {
            let at = slab.insert(String::new());
            slab.remove(at);
            assert_eq!(room(&slab), 1);
        }
    }

    #[test]
    fn an_index_may_be_chosen() {
        let mut slab = Slab::new();
        slab.insert_at(3 * CHUNK, "far".to_owned());
        assert_eq!((slab.len(), room(&slab), slab.vacant()), (1, 1, 0));
        slab.insert_at(3 * CHUNK, "again".to_owned());
        assert_eq!(slab.len(), 1);
        assert_eq!(slab[3 * CHUNK], "again");
        assert_eq!(slab.insert("first".to_owned()), 0);
        assert!(
            slab.iter()
                .map(|(at, value)| (at, value.as_str()))
                .eq([(0, "first"), (3 * CHUNK, "again")])
        );
    }
}
