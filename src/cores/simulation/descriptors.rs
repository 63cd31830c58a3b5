//! The descriptor table of a thread that simulates.
//!
//! A socket ends for its peer when its last descriptor is closed, in whichever table. Other tests of the
//! process start child processes, which hold a copy of the whole table until their program begins, and
//! threads with tables of their own, which hold a copy as long as they run. On a busy machine that is long
//! enough for a simulated client never to see that its connection was closed, in a run that no seed repeats.
//! So the simulating thread has a table that no other thread copies.

use std::cell::OnceCell;

use crate::cores::fd_table;

thread_local! {
    static IS_OWN: OnceCell<bool> = const { OnceCell::new() };
}

/// Gives this thread a table of its own with standard input, output and error in it, once. False where the
/// system does not permit that: then the actions of other threads can influence a simulation.
pub(super) fn make_own() -> bool {
    IS_OWN.with(|is_own| {
        *is_own.get_or_init(|| {
            if fd_table::unshare_descriptors().is_err() {
                return false;
            }
            fd_table::close_all_but(&[]).expect("a thread sees its own descriptors");
            true
        })
    })
}
