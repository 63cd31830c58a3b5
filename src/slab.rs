//! Values under small indexes, in chunks that never move.
//!
//! What a core has thousands of (connections, channels, deadlines) lives here rather than in a `Vec`: growing copies
//! nothing, so that it takes no pause and leaves no freed halves behind, and the memory of a chunk goes back as soon
//! as the chunk is empty.
//!
//! ```text
//!   chunks   [ taken, slots ][ taken, slots ][ taken, - ]      index = chunk · CHUNK + slot
//!                       │               └► [ v | v | - | v ]   CHUNK slots, one allocation
//!                       └────────────────► [ v | v | v | v ]
//! ```
//!
//! Invariants
//! 1. A value keeps its index and its address from `insert` to `remove`.
//! 2. Bit `n` of `taken` is set exactly while slot `n` holds a value; a chunk without slots has none.
//! 3. All chunks before `room_from` are full. New values take the lowest free index, so that chunks at the end can
//!    become empty.

use std::ops::{Index, IndexMut};

/// Values under small indexes.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    room_from: usize,
    len: usize,
    /// Slots that there is memory for.
    slots: usize,
}

#[derive(Debug)]
struct Chunk<T> {
    taken: [u64; CHUNK / 64],
    /// All of them, or none while the chunk is empty.
    slots: Box<[Option<T>]>,
}

impl<T> Slab<T> {
    /// No values, and no memory.
    pub(crate) const fn new() -> Slab<T> {
        Slab {
            chunks: Vec::new(),
            room_from: 0,
            len: 0,
            slots: 0,
        }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory that the table takes, without what its values have elsewhere.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.slots * size_of::<Option<T>>() + self.chunks.capacity() * size_of::<Chunk<T>>()
    }

    /// One more than the highest index that may hold a value.
    pub(crate) fn places(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// The index that `insert` will give next. Walks over full chunks, from the last one where a value was removed: for a
    /// million values at most 2,000 of 80 bytes.
    pub(crate) fn vacant(&mut self) -> usize {
        while let Some(chunk) = self.chunks.get(self.room_from)
            && chunk.first_free() == CHUNK
        {
            self.room_from += 1;
        }
        self.room_from * CHUNK + self.chunks.get(self.room_from).map_or(0, Chunk::first_free)
    }

    /// Puts a value where there is room; answers where that is.
    pub(crate) fn insert(&mut self, value: T) -> usize {
        let index = self.vacant();
        self.insert_at(index, value);
        index
    }

    /// Puts a value under this index, in the place of one that may be there.
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

    /// Takes a value out.
    pub(crate) fn remove(&mut self, index: usize) -> Option<T> {
        let (at, slot) = split(index);
        let chunk = self.chunks.get_mut(at)?;
        let value = chunk.slots.get_mut(slot)?.take()?;
        chunk.taken[slot / 64] &= !(1 << (slot % 64));
        self.len -= 1;
        self.room_from = self.room_from.min(at);
        // The next value should not have to ask for memory again: there is room for as many elsewhere.
        if chunk.is_empty() && self.slots - self.len > CHUNK {
            *chunk = Chunk::empty();
            self.slots -= CHUNK;
            self.forget_last_chunks();
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

    /// All values, by their indexes.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> + Clone {
        self.chunks.iter().enumerate().flat_map(|(at, chunk)| {
            let values = chunk.slots.iter().enumerate();
            values.filter_map(move |(slot, value)| Some((at * CHUNK + slot, value.as_ref()?)))
        })
    }

    fn forget_last_chunks(&mut self) {
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

/// Slots of a chunk. Values of up to 128 bytes make chunks of up to 64 KiB; where the bytes of a value are a multiple
/// of 16, that is a size which the allocator wastes nothing of. Above, its sizes are 16 KiB apart: 160 and 192 bytes.
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
    fn values_keep_their_indexes_and_addresses_while_others_come() {
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
    fn the_lowest_free_index_is_taken_first() {
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
    fn what_was_removed_or_never_there_is_not_found() {
        let mut slab = filled(2);
        assert!(slab.get(2).is_none() && slab.get(CHUNK).is_none() && slab.remove(usize::MAX).is_none());
        assert_eq!(slab.remove(0).as_deref(), Some("0"));
        assert!(slab.get(0).is_none() && slab.get_mut(0).is_none() && slab.remove(0).is_none());
        assert_eq!((slab.len(), slab.iter().count()), (1, 1));
    }

    #[test]
    fn an_empty_chunk_gives_its_memory_back_but_the_last_one() {
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
        // Coming and going at the edge of a chunk asks for no memory.
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
