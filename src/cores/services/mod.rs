//! Services on a core (`crate::services`): calls of this core's clients, pools that this core owns, and
//! services that are clients of this core.
//!
//! ```text
//!   caller.rs                       owner.rs                          member.rs
//!   calls of sessions, deadlines ─► Pools ─► the member's core ─────► the session of the member
//!   the end of a call ◄───────────────────────────────────────────── its answer
//!                                   Pools ◄── done ──────────────────┘
//! ```
//! Sessions queue `services::Order`s. [`serve`] carries them out in the same turn, between two messages,
//! since a call may lead to the session of another connection of the same core.
//!
//! A core's letters to itself do not go through its box: it takes such a letter as soon as it has handled the
//! one before.
//!
//! Without services and without calls of the server itself, a turn looks at a few numbers.

pub(in crate::cores) mod state;

mod caller;
#[cfg(test)]
pub(in crate::cores) mod census;
mod member;
mod owner;
mod serve;
