//! Freed memory goes back to the system while nobody allocates.
//!
//! The allocator gives pages back some time after they were freed, and looks whether that time is over when it allocates
//! or frees. In a server that has become quiet nobody does: what 100 clients had sent of half a message (90 MB) stayed
//! with the process for as long as nothing else came, and `memory_bytes_max` kept newcomers out for as long. So the
//! control plane has it look, for the pages of all threads, once a second.
//!
//! Where the program that embeds the library has another allocator there is nothing to give back, and nothing happens.

#![expect(unsafe_code, reason = "the allocator's call has no safe form")]

/// Has the allocator give back what was freed a second ago. If that is nothing, this reads the time and a few atomics.
pub(super) fn give_back() {
    // SAFETY: any thread may call this at any time, by the allocator's documentation: it looks after the pages of the
    // calling thread, and takes part, with atomics, in looking after the free ones that all threads share.
    unsafe { libmimalloc_sys::mi_collect(false) };
}
