//! Services: clients that answer calls of other clients. Values and tables without I/O; the cores pass calls between
//! them (`cores/services`).
//!
//! ```text
//!   core of the caller             owner of the pattern            core of the member
//!   OpenCalls ──── call ──────────► Pools: chooses ──── given ────► the session calls its client
//!      ▲                              ▲     a member                          │
//!      │                              └──────────────── done ─────────────────┤
//!      └──────────────────────────────── answer ──────────────────────────────┘
//! ```
//! A service registers a **pattern**: the name of a procedure, or a prefix with a final `*`. One core **owns** each
//! pattern: it has the **members** of its **pool**, counts their calls in flight, and queues calls that no member has
//! room for. Every core has a **directory** of all patterns, so a call of a procedure without a service costs one
//! look-up and no letter.
//!
//! Invariants
//! 1. A call ends once for its caller: its slot in [`OpenCalls`] is taken by the first of answer, failure, deadline and
//!    end of the caller. A later answer finds another generation.
//! 2. A member has at most as many calls in flight as its window: [`Pools`] alone counts them.
//! 3. The buffers of a call travel with it to the service and come back with the answer, so calls allocate nothing in
//!    the steady state.
//!
//! Limits: the rows of `[limits]` that begin with `service`; for each pattern the bounds in `[[services]]`.

mod access;
mod by_number;
mod call;
mod directory;
mod offer;
mod open_calls;
mod pattern;
mod pools;
mod reply;

#[cfg(test)]
mod tests;

pub use access::{Access, Order, Question};
pub use by_number::ByNumber;
pub use call::{CallId, Ended, Failure, MemberKey, Outcome, PoolId, ServiceCall, Token};
pub use directory::{Directory, Entry};
pub use offer::{Offer, WEIGHT_DEFAULT, WINDOW_DEFAULT, meta};
pub use open_calls::{Bounds as OpenCallsMax, Open, OpenCalls, TooMany};
pub use pattern::{PATTERN_BYTES_MAX, Pattern};
pub use pools::{
    Bounds as PoolsMax, Called, Cancelled, GivenUp, JoinFailure, Joined, MemberView, Next, NotDelivered,
    PoolView, Pools, RemovedPool, TakenBack,
};
pub use reply::{ReplyTo, ServiceFailure, ServiceReply};
