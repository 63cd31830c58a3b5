//! The atomics and cells that the ring and the post use: those of std, loom's under `--cfg ringcast_loom`, or in unit
//! tests those of [`counted`], which count their uses.
//!
//! A cfg of our own, since the common `loom` cfg would change dependencies such as tokio too. Only the
//! broker's shared memory uses this module: loom has to explore every order of these operations.

#[cfg(all(test, not(ringcast_loom)))]
#[path = "sync/counted.rs"] // explicit, since tests/loom includes this file by its path
pub(crate) mod counted;

#[cfg(all(test, not(ringcast_loom)))]
pub(crate) use counted::{AtomicBool, AtomicU64, UnsafeCell, fence};

#[cfg(not(any(test, ringcast_loom)))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, fence};

#[cfg(not(ringcast_loom))]
pub(crate) use std::sync::atomic::Ordering;

#[cfg(ringcast_loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicU64, Ordering, fence},
};

/// A cell with loom's interface: loom checks each access against all others, so an access must have a
/// beginning and an end.
#[cfg(not(any(test, ringcast_loom)))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(any(test, ringcast_loom)))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    /// Calls `read` with a pointer for reading.
    pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    /// Calls `write` with a pointer for writing.
    pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}
