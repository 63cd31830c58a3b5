//! Whole runs of a server on one thread, under a clock that is moved and a schedule that a seed has chosen.
//!
//! ```text
//!   schedule.rs  which core turns, which client acts, how far the clock moves    plan.rs  the limits of a run
//!        │
//!        ▼                 sockets of the local domain (door.rs, wire.rs)
//!   client.rs ◄──────────────────────────────────────────────────────────► Core, Core, …  as they are
//!   following.rs  what each was promised                                        │ actor.rs: their application
//!        ▲                                                                      ▼
//!        └────────────────────────── log.rs: what was published, in order ◄── the ring
//! ```
//! The cores, the ring, the sessions, the transport and the polls are those of the server, without a line changed but
//! for three places that a test can set: where the time comes from (`clock/simulated.rs`), where new sockets come from
//! (`door.rs`), and how much one turn may do ([`Scale`]), so that turns which leave something over are frequent. A core
//! that would wait sleeps until its poll has an event or its time is over, and not a turn longer: a wake-up that is
//! missing is found as publications that do not come.
//!
//! Checked while it runs: by each client, in `client.rs` and `following.rs`; whenever everything has come to rest, in
//! `world.rs`; and when a core has ended, that it has left nothing behind, in `leftovers.rs`. Turns are whole: what cores
//! do to the ring between two instructions is for loom (`tests/loom`).
//!
//! That it finds what is broken was tried by breaking it, in 24 ways. It told of 19; the number of the first seed that
//! did: wake-ups that are skipped (4), an end that forgets its subscriptions (0), a cursor one too far (0), a reply that is dropped where
//! it is held (0), no reset_silence_timer for who was not read (0), an end that is counted twice (2), a drain that forgets
//! what was left behind (8), a subscription that does not wait for what was asked before it (25), a walk that does not
//! heed who leaves (136), a socket with room that is not told of (5), newcomers that a drain overlooks (6), interest that
//! is not taken back (0), visits that stay (0), input that is left over and forgotten (78), pongs that do not count (1),
//! messages behind the close frame (4), what is decided during a wait and lost (32), publications of those who went (7),
//! loads that are not given back (1). What it did not tell within 200 seeds: a flush cut short by the clock and forgotten,
//! bytes that are kept for a client that is closed for being slow, and three that concern the newest publications of a slow
//! client; those have tests of their own (`conflated.rs`, `tests/slow_consumer.rs`).
//!
//! A seed decides everything: the time, each look at it, the schedule, the limits, the hashes of channel names. The sockets
//! are the system's, and do at once what they are told; the thread has a descriptor table of its own (`descriptors.rs`),
//! since a copy that another thread or a child process holds for a moment would keep closed sockets open. Ids of sessions
//! are random as always, and nothing depends on them. `tests.rs` runs seeds twice beside busy threads and compares.
//!
//! `RINGCAST_SEEDS=0..100000 cargo test --release --lib simulation` runs other seeds. A seed means something only for one
//! state of the code; what one has found is written out as a scenario in `tests.rs`.

mod actor;
mod client;
mod descriptors;
mod door;
mod following;
mod leftovers;
mod log;
mod plan;
mod random;
mod schedule;
mod wire;
mod world;

#[cfg(test)]
mod tests;

use std::cell::Cell;

pub(super) use door::Door;

/// How much a turn may do, in the place of the constants of these names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) copies_per_turn_max: usize,
    pub(super) unflushed_bytes_max: usize,
    pub(super) buffers_max: usize,
    pub(super) read_bytes_per_turn_max: usize,
    pub(super) frames_per_turn_max: u64,
    /// Connections that a reload or a drain looks at.
    pub(super) places_per_turn_max: usize,
    /// Channels of a connection that are gone through.
    pub(super) channels_per_turn_max: usize,
}

impl Default for Scale {
    /// More than any run comes to.
    fn default() -> Scale {
        Scale {
            copies_per_turn_max: 16_384,
            unflushed_bytes_max: 4 * 1024 * 1024,
            buffers_max: 8192,
            read_bytes_per_turn_max: 256 * 1024,
            frames_per_turn_max: 256,
            places_per_turn_max: 256,
            channels_per_turn_max: 256,
        }
    }
}

thread_local! {
    static SCALE: Cell<Option<Scale>> = const { Cell::new(None) };
}

/// The scale of this thread's simulation, while there is one.
pub(super) fn scale() -> Option<Scale> {
    SCALE.get()
}
