//! Returns freed memory to the system while the server is idle.
//!
//! The allocator returns pages to the system some time after they were freed, but checks that time only when
//! the program allocates or frees. An idle server does neither: the 90 MB that held half a message from each
//! of 100 clients stayed with the process until something else happened, and for that long `memory_bytes_max`
//! kept new connections out. So the control plane has the allocator check, for the pages of all threads, once
//! a second.
//!
//! In a program that embeds the library and uses another allocator this does nothing.

#![expect(unsafe_code, reason = "the allocator's call has no safe form")]

/// Has the allocator return pages that were freed a second ago or earlier. If there are none, this reads the
/// time and a few atomics.
pub(super) fn return_freed_memory() {
    // SAFETY: by the allocator's documentation any thread may call this at any time: it processes the pages
    // of the calling thread, and takes part, through atomics, in processing the free pages that all threads
    // share.
    unsafe { libmimalloc_sys::mi_collect(false) };
}
