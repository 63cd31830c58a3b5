//! A simulation of the whole server on one thread: a seed chooses the schedule, and the simulation moves the clock.
//!
//! ```text
//!   schedule.rs  which core turns, which client acts, how far the clock moves    plan.rs  the limits of a run
//!        │
//!        ▼                 sockets of the local domain (listener.rs, wire.rs)
//!   client/, device/ ◄───────────────────────────────────────────────────► Core, Core, …  as they are
//!   following.rs  the publications due                                          │ actor.rs: their application
//!        ▲                                                                      ▼
//!        └────────────────────────── log.rs: what was published, in order ◄── the ring
//! ```
//! The cores, the ring, the sessions, the transport and the polls are the server's own code. A test replaces
//! three things: the source of the time (`clock/simulated.rs`), the source of new sockets (`listener.rs`),
//! and the limits on the work of one turn ([`Scale`]), which are low so that turns often leave work for the
//! next. A core that waits takes no turn before its poll has an event or its time is over. So the simulation
//! finds missing wake-ups: publications do not arrive.
//!
//! In every third run MQTT clients (`device/`) publish and subscribe on the same channels. They connect to
//! any core, lose their connections after any byte, resume their sessions, take their own sessions over, and
//! acknowledge at any time. Some of their packets subscribe to two hundred filters, which takes several turns.
//! Three naive models compute the right outcomes: `device/session.rs` (each
//! publication exactly once, at least once, and in order; retained publications), `lives.rs` (which session
//! goes on, which will is published when), `shares.rs` (which member of a group gets which publication). If
//! one of their publications is missing, the server must have counted it as dropped. `moves.rs` has other
//! runs, whose connections move between cores with boxes for one letter.
//!
//! Clients of SocketCluster leave wills behind, with sessions that they resume on other connections, ask for
//! the past of channels (`client/history.rs`), and keep lists of members by answers and events
//! (`client/presence.rs`). `wills.rs` says which wills must, may and must not be published. When nothing has
//! changed for a while, a list of members has exactly the present connections, with the infos that they have
//! set for themselves.
//!
//! In every third run they call procedures of each other (`client/services.rs`): they register patterns, give
//! them up, and answer at once, late, twice, under ids that they were not given, or never. `services.rs` says
//! how a call may end for its caller: once, with the first answer of the one service that has got it, or with
//! a failure that has a cause. No service has more calls than its window, and cancelled calls count in it as
//! long as `docs/services.md` says. At rest, callers, owners and services know the same about calls, and when
//! all clients have left they know of none.
//!
//! In every third run the cores report events to a webhook. `webhooks.rs` takes the events in the place of
//! the webhooks' thread, and compares them with the actual sessions, channels with subscribers, and members.
//! If an event is missing, the server must have counted it as lost.
//!
//! Each client checks what it receives (`client/`, `following.rs`). `world.rs` checks the cores whenever nothing is
//! under way. When a core has ended, `leftovers.rs` checks that nothing is left. Turns of different cores never
//! overlap: loom tests their access to the ring at the level of single instructions (`tests/loom`).
//!
//! To learn which faults the simulation finds, 24 faults were put into the server one at a time. It found 19 of them.
//! In parentheses is the first seed that failed: a wake-up is skipped (4); a closed connection keeps its subscriptions
//! (0); a cursor is one too far (0); the reply of a held connection is dropped (0); the silence timer of a connection
//! that was not read is not reset (0); an end is counted twice (2); a drain forgets abandoned publications (8); a
//! subscription does not wait for earlier publications (25); a walk over subscribers misses one that unsubscribes
//! (136); a writable socket is not noticed (5); a drain overlooks new connections (6); the interest in a channel is not
//! withdrawn (0); the visits of a closed connection stay (0); kept input is forgotten (78); pongs do not count (1);
//! messages follow the close frame (4); decisions made during a wait are lost (32); publications of closed connections
//! are lost (7); loads are not given back (1).
//! Five were not found within 200 seeds: a flush that the clock has cut short is forgotten, bytes are kept for a client
//! that is closed for being slow, and three faults about the newest publications of a slow client. Those three have
//! tests of their own (`conflated.rs`, `tests/slow_consumer.rs`).
//!
//! Later 17 faults were put into services, webhooks, infos and wills. It found 13, in parentheses with the
//! seed: a window has room for one call more (3); deadlines are not checked (4); a cancelled call stays in
//! flight (3), or leaves its window at once (20); an answered one stays listed (210); calls of a service that
//! ends do not end (3); a service that gives a pattern up stays a member (3); webhooks are not told of an end
//! (0), a vacated channel (0), or a member that leaves (13); an info is not reported (643), or not kept
//! (297); a will is not retained (17). Not found within 650 seeds: the answer to a call that has ended goes
//! to the next call in its slot; callers that end cancel nothing; `$serve` is answered before all cores know
//! the pattern; a returned call is passed on although it was cancelled (`services/tests.rs` and
//! `tests/services.rs` have tests of these).
//!
//! A seed decides everything: the time at each reading of the clock, the schedule, the limits, the hashes of channel
//! names. The sockets are real, but of the local domain, so that they act at once. The thread has a descriptor table of
//! its own (`descriptors.rs`): otherwise a copy of the table that another thread or a child process has for a moment
//! would keep closed sockets open. Session ids are random, and nothing depends on them. `tests.rs` runs seeds twice
//! beside busy threads and compares the results.
//!
//! `RINGCAST_SEEDS=0..100000 cargo test --release --lib simulation` runs other seeds. A seed has a meaning only for one
//! state of the code, so each fault that a seed has found is written out as a scenario in `tests.rs`.

mod actor;
mod client;
mod descriptors;
mod device;
mod following;
mod leftovers;
mod listener;
mod lives;
mod log;
#[cfg(test)]
mod moves;
mod plan;
mod policies;
mod random;
mod schedule;
mod services;
mod shares;
mod webhooks;
mod wills;
mod wire;
mod world;

#[cfg(test)]
mod tests;

use std::cell::Cell;

pub(super) use listener::SimulatedListener;

/// The limits on the work of a turn, in the place of the constants of these names.
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
    /// Letters that may wait for a core.
    pub(super) letters_waiting_max: usize,
    pub(super) letters_per_turn_max: usize,
}

impl Default for Scale {
    /// More than any run needs.
    fn default() -> Scale {
        Scale {
            copies_per_turn_max: 16_384,
            unflushed_bytes_max: 4 * 1024 * 1024,
            buffers_max: 8192,
            read_bytes_per_turn_max: 256 * 1024,
            frames_per_turn_max: 256,
            places_per_turn_max: 256,
            channels_per_turn_max: 256,
            letters_waiting_max: 1024,
            letters_per_turn_max: 256,
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
