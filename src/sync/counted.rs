//! Counts accesses to the broker's shared memory: how many a core's work needs, and how many cache lines have
//! to be fetched from another core.
//!
//! A test runs all cores on one thread and tells which core acts ([`count`]). Cache lines of 64 bytes are
//! tracked as in caches of unlimited size: a read fetches the line unless this core has it, and a write takes
//! the line from all other cores. So the cost of a publication with 16 cores can be counted on a machine with
//! two. Ordinary memory is not tracked: the buffers of publications, and memory that belongs to one core.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{self, Ordering};

/// The counted accesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accesses {
    /// Atomic loads of any ordering: plain instructions on common processors.
    pub(crate) loads: u64,
    /// Atomic stores; likewise.
    pub(crate) stores: u64,
    /// Read-modify-write operations: locked instructions.
    pub(crate) rmws: u64,
    pub(crate) fences: u64,
    /// Cache lines that other cores had changed, or had to give up.
    pub(crate) lines_moved: u64,
}

/// Counts the accesses of `core` during `work`.
pub(crate) fn count<R>(core: usize, work: impl FnOnce() -> R) -> (Accesses, R) {
    let before = ACCESSES.replace(Accesses::default());
    let outer = ACTING.replace(Some(core));
    let result = work();
    ACTING.set(outer);
    (ACCESSES.replace(before), result)
}

/// Forgets which core has which line, for the next test on a thread, whose memory may have the same addresses
/// as that of the last one.
pub(crate) fn forget_lines() {
    HOLDERS.take();
}

thread_local! {
    static ACTING: Cell<Option<usize>> = const { Cell::new(None) };
    static ACCESSES: Cell<Accesses> = const { Cell::new(Accesses { loads: 0, stores: 0, rmws: 0, fences: 0, lines_moved: 0 }) };
    /// For each line: the cores that have it.
    static HOLDERS: RefCell<HashMap<usize, u128>> = RefCell::new(HashMap::new());
}

fn note(change: impl FnOnce(&mut Accesses)) {
    if ACTING.get().is_some() {
        let mut accesses = ACCESSES.get();
        change(&mut accesses);
        ACCESSES.set(accesses);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

fn touch<T>(place: *const T, access: Access) {
    let Some(core) = ACTING.get() else { return };
    let own = 1_u128 << core;
    let moved = HOLDERS.with_borrow_mut(|holders| {
        let holders = holders.entry(place.addr() / LINE_BYTES).or_default();
        let before = *holders;
        *holders = match access {
            Access::Read => before | own,
            Access::Write => own,
        };
        // The first access to a line takes it from no core.
        before != 0 && before != *holders
    });
    note(|accesses| accesses.lines_moved += u64::from(moved));
}

const LINE_BYTES: usize = 64;

pub(crate) fn fence(ordering: Ordering) {
    note(|accesses| accesses.fences += 1);
    atomic::fence(ordering);
}

/// The methods that the broker uses, with std's meaning.
macro_rules! counted_atomic {
    ($name:ident, $value:ty) => {
        #[derive(Debug)]
        #[repr(transparent)]
        pub(crate) struct $name(atomic::$name);

        impl $name {
            pub(crate) const fn new(value: $value) -> $name {
                $name(atomic::$name::new(value))
            }

            pub(crate) fn load(&self, ordering: Ordering) -> $value {
                note(|accesses| accesses.loads += 1);
                touch(self, Access::Read);
                self.0.load(ordering)
            }

            pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                note(|accesses| accesses.stores += 1);
                touch(self, Access::Write);
                self.0.store(value, ordering);
            }

            fn rmw<R>(&self, operation: impl FnOnce(&atomic::$name) -> R) -> R {
                note(|accesses| accesses.rmws += 1);
                touch(self, Access::Write);
                operation(&self.0)
            }
        }
    };
}

counted_atomic!(AtomicBool, bool);
counted_atomic!(AtomicU64, u64);

impl AtomicBool {
    pub(crate) fn compare_exchange(
        &self,
        current: bool,
        new: bool,
        success: Ordering,
        failure: Ordering,
    ) -> Result<bool, bool> {
        self.rmw(|atomic| atomic.compare_exchange(current, new, success, failure))
    }
}

impl AtomicU64 {
    pub(crate) fn compare_exchange_weak(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.rmw(|atomic| atomic.compare_exchange_weak(current, new, success, failure))
    }

    pub(crate) fn fetch_or(&self, bits: u64, ordering: Ordering) -> u64 {
        self.rmw(|atomic| atomic.fetch_or(bits, ordering))
    }

    pub(crate) fn fetch_and(&self, bits: u64, ordering: Ordering) -> u64 {
        self.rmw(|atomic| atomic.fetch_and(bits, ordering))
    }
}

/// A cell with loom's interface.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        touch(self, Access::Read);
        read(self.0.get())
    }

    pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        touch(self, Access::Write);
        write(self.0.get())
    }
}

mod tests {
    use super::*;

    #[test]
    fn a_line_moves_when_another_core_has_changed_it_or_must_give_it_up() {
        let number = AtomicU64::new(0);
        let moved = |core: usize, access: Access| {
            let (accesses, ()) = count(core, || match access {
                Access::Read => assert_eq!(number.load(Ordering::Relaxed), 0),
                Access::Write => number.store(0, Ordering::Relaxed),
            });
            accesses.lines_moved
        };
        assert_eq!(moved(0, Access::Write), 0, "no core has had it");
        assert_eq!(moved(0, Access::Write), 0, "it is here");
        assert_eq!(moved(1, Access::Read), 1);
        assert_eq!(moved(1, Access::Read), 0, "both have it");
        assert_eq!(moved(0, Access::Read), 0, "both have it");
        assert_eq!(moved(0, Access::Write), 1);
        assert_eq!(moved(1, Access::Read), 1);
    }
}
