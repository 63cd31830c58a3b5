//! The buffers of one publisher: taken for a publication, put back when every reader has passed it.
//!
//! Buffers come in classes of powers of two, so that a small publication never occupies the buffer of a large one, and
//! the bytes counted are the bytes held. In the steady state nothing is allocated. Buffers that are left over after a
//! burst are freed step by step by [`BufferPool::give_back`].
//!
//! Invariants
//! 1. Lent and kept buffers together take at most `bytes_max`, with one exception: a single buffer of any size may be
//!    lent while no other is. [`BufferPool::take`] keeps it.
//! 2. A kept buffer is empty and its capacity is at least that of its class.

/// The smallest buffer.
const CLASS_BYTES_MIN: usize = 128;
/// The pool keeps this many bytes of buffers, however long they are not needed, so that rare publications
/// allocate nothing.
const KEPT_BYTES_MIN: usize = 64 * 1024;
/// How many classes are kept: up to 64 KiB. The allocation of a larger buffer costs little beside filling it.
const CLASSES: usize = 10;

/// The buffers of one publisher.
#[derive(Debug)]
pub(crate) struct BufferPool {
    kept: [Vec<Vec<u8>>; CLASSES],
    /// The fewest of each class that were kept at a time since the last [`BufferPool::give_back`]: these were not
    /// needed.
    unused: [usize; CLASSES],
    kept_bytes: usize,
    lent_bytes: usize,
    bytes_max: usize,
}

impl BufferPool {
    /// A pool that holds and lends at most `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> BufferPool {
        BufferPool {
            kept: std::array::from_fn(|_| Vec::new()),
            unused: [0; CLASSES],
            kept_bytes: 0,
            lent_bytes: 0,
            bytes_max,
        }
    }

    /// Whether a buffer for `bytes` could be taken now.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.lent_bytes == 0 || self.lent_bytes.saturating_add(class_bytes(bytes)) <= self.bytes_max
    }

    /// An empty buffer for `bytes`; [`BufferPool::has_room`] has said that there is room.
    pub(crate) fn take(&mut self, bytes: usize) -> Vec<u8> {
        debug_assert!(self.has_room(bytes), "asked before");
        let class = class(bytes);
        let held = bytes_of(class, bytes);
        self.lent_bytes += held;
        if let Some(kept) = self.kept.get_mut(class) {
            let buffer = kept.pop();
            self.unused[class] = self.unused[class].min(kept.len());
            if let Some(buffer) = buffer {
                self.kept_bytes -= held;
                return buffer;
            }
        }
        self.make_room();
        Vec::with_capacity(held)
    }

    /// Takes a buffer back that was taken for as many bytes as it now holds.
    #[inline]
    pub(crate) fn put_back(&mut self, mut buffer: Vec<u8>) {
        let class = class(buffer.len());
        let held = bytes_of(class, buffer.len());
        self.lent_bytes -= held;
        if let Some(kept) = self.kept.get_mut(class) {
            buffer.clear();
            kept.push(buffer);
            self.kept_bytes += held;
        }
    }

    /// Whether the pool keeps more than it needs, so that [`BufferPool::give_back`] would free some.
    pub(crate) fn keeps_much(&self) -> bool {
        self.kept_bytes > KEPT_BYTES_MIN
    }

    /// Frees half of the buffers that were not needed since the last call: otherwise the buffers of one burst would be
    /// kept for ever. To be called about once a second.
    pub(crate) fn give_back(&mut self) {
        let is_little = !self.keeps_much();
        for (class, kept) in self.kept.iter_mut().enumerate() {
            let unused = if is_little {
                0
            } else {
                self.unused[class].min(kept.len())
            };
            kept.truncate(kept.len() - unused.div_ceil(2));
            self.kept_bytes -= unused.div_ceil(2) * (CLASS_BYTES_MIN << class);
            if kept.len() < kept.capacity() / 4 {
                kept.shrink_to(kept.len() * 2);
            }
            self.unused[class] = kept.len();
        }
    }

    /// Bytes of buffers that are lent.
    pub(crate) fn lent_bytes(&self) -> usize {
        self.lent_bytes
    }

    /// Bytes of buffers that are kept for their next use.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Most bytes of buffers that may be lent.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Frees kept buffers, the largest first, until invariant 1 holds.
    fn make_room(&mut self) {
        for class in (0..CLASSES).rev() {
            while self.kept_bytes + self.lent_bytes > self.bytes_max {
                if self.kept[class].pop().is_none() {
                    break;
                }
                self.kept_bytes -= CLASS_BYTES_MIN << class;
            }
        }
    }
}

/// The class of a buffer for `bytes`; [`CLASSES`] or more if the pool does not keep buffers of this size.
fn class(bytes: usize) -> usize {
    (bytes.max(CLASS_BYTES_MIN) - 1).ilog2() as usize + 1 - CLASS_BYTES_MIN.ilog2() as usize
}

/// How many bytes a buffer for `bytes` takes.
fn class_bytes(bytes: usize) -> usize {
    bytes_of(class(bytes), bytes)
}

/// How many bytes a buffer of this class for `bytes` takes.
fn bytes_of(class: usize, bytes: usize) -> usize {
    if class < CLASSES {
        CLASS_BYTES_MIN << class
    } else {
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: usize = CLASS_BYTES_MIN << (CLASSES - 1);

    fn filled(pool: &mut BufferPool, bytes: usize) -> Vec<u8> {
        let mut buffer = pool.take(bytes);
        buffer.resize(bytes, 1);
        buffer
    }

    #[test]
    fn a_class_holds_its_bytes_and_wastes_less_than_half() {
        for bytes in [0, 1, 127, 128] {
            assert_eq!((class(bytes), class_bytes(bytes)), (0, 128));
        }
        for bytes in [129, 255, 256] {
            assert_eq!((class(bytes), class_bytes(bytes)), (1, 256));
        }
        assert_eq!(class_bytes(LARGEST), LARGEST);
        assert_eq!(class_bytes(LARGEST + 1), LARGEST + 1);
        assert_eq!(class(LARGEST + 1), CLASSES);
    }

    #[test]
    fn a_buffer_put_back_is_taken_again() {
        let mut pool = BufferPool::new(1024);
        let buffer = filled(&mut pool, 100);
        let address = buffer.as_ptr();
        pool.put_back(buffer);
        let again = pool.take(120);
        assert!(again.is_empty());
        assert_eq!(again.as_ptr(), address);
    }

    #[test]
    fn lent_and_kept_bytes_stay_within_the_bound() {
        let mut pool = BufferPool::new(1024);
        let small: Vec<_> = (0..8).map(|_| filled(&mut pool, 128)).collect();
        assert!(!pool.has_room(1));
        small.into_iter().for_each(|buffer| pool.put_back(buffer));
        let larger = filled(&mut pool, 512);
        assert!(pool.kept_bytes + pool.lent_bytes <= 1024);
        assert!(pool.has_room(512) && !pool.has_room(513));
        pool.put_back(larger);
        assert_eq!(pool.lent_bytes(), 0);
    }

    #[test]
    fn what_a_burst_has_left_goes_back_and_what_is_used_again_stays() {
        let mut pool = BufferPool::new(1 << 20);
        let burst: Vec<_> = (0..1000).map(|_| filled(&mut pool, 300)).collect();
        burst.into_iter().for_each(|buffer| pool.put_back(buffer));
        // Ten buffers are in use at a time, again and again. The others wait for the next burst, and become
        // fewer and fewer.
        let mut kept = vec![pool.kept_bytes()];
        for _ in 0..20 {
            pool.give_back();
            let used: Vec<_> = (0..10).map(|_| filled(&mut pool, 300)).collect();
            used.into_iter().for_each(|buffer| pool.put_back(buffer));
            kept.push(pool.kept_bytes());
        }
        assert!(kept[1] == kept[0] && kept[2] <= kept[0] / 2 + 5120, "{kept:?}");
        assert!(kept.is_sorted_by(|before, after| before >= after), "{kept:?}");
        let last = kept.last().unwrap();
        assert!((KEPT_BYTES_MIN / 2..=KEPT_BYTES_MIN).contains(last), "{kept:?}");
        assert!(pool.kept[2].capacity() <= 500, "nor is the list of them long");
        assert_eq!(pool.lent_bytes(), 0);
    }

    #[test]
    fn one_buffer_over_the_bound_is_lent_alone_and_freed_after() {
        let mut pool = BufferPool::new(1024);
        let huge = filled(&mut pool, LARGEST + 1);
        assert!(!pool.has_room(0));
        pool.put_back(huge);
        assert_eq!((pool.lent_bytes, pool.kept_bytes), (0, 0));
        let within_a_class = filled(&mut pool, LARGEST);
        pool.put_back(within_a_class);
        let _other = filled(&mut pool, 1024);
        assert_eq!(pool.kept_bytes, 0);
    }
}
