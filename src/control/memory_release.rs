//! Asks the allocator: returns freed memory to the system while the server is idle, and tells how much the allocator holds.
//!
//! The allocator returns pages to the system some time after they were freed, but checks that time only when
//! the program allocates or frees. An idle server does neither: the 90 MB that held half a message from each
//! of 100 clients stayed with the process until something else happened, and for that long `memory_bytes_max`
//! kept new connections out. So the control plane has the allocator check, for the pages of all threads, once
//! a second.
//!
//! In a program that embeds the library and uses another allocator this does nothing.

#![expect(unsafe_code, reason = "the allocator's calls have no safe form")]

use std::ptr;

/// Has the allocator return pages that were freed a second ago or earlier. If there are none, this reads the
/// time and a few atomics.
pub(super) fn return_freed_memory() {
    // SAFETY: by the allocator's documentation any thread may call this at any time: it processes the pages
    // of the calling thread, and takes part, through atomics, in processing the free pages that all threads
    // share.
    unsafe { libmimalloc_sys::mi_collect(false) };
}

/// Bytes of memory that the allocator has of the system: those in use, and free ones that it has not given back. `None` in a
/// program that uses another allocator. It reads a counter, and asks the system for the use of resources.
pub(super) fn committed_bytes() -> Option<u64> {
    let mut committed = 0_usize;
    let none = ptr::null_mut();
    // SAFETY: by the source of the allocator (`stats.c`) any thread may call this at any time: it reads atomics, and writes
    // where a pointer is not null. That is one place, which is valid for the call.
    unsafe {
        libmimalloc_sys::mi_process_info(none, none, none, none, none, &raw mut committed, none, none);
    }
    u64::try_from(committed).ok().filter(|&committed| committed > 0)
}
