//! Presence: which users are in a channel now. Pure: it gets changes and the time, and returns pages and events.
//!
//! Each channel has an owner core. The cores of its subscribers tell the owner when a client joins or leaves, and the
//! owner keeps all members in a [`Rooms`]. A **room** is a channel with presence. A **member** of a room is a user, or
//! a client without a user; a user with several connections is one member.
//!
//! ```text
//!   join, leave, set_info ──► Rooms ──► page, count            answers to calls
//!                               │
//!                               └─────► next_event, at ticks   {"joined":[…],"left":[…],"count":n}
//! ```
//!
//! Not here: which channels have presence (`policy`), and how cores tell the owner (`cores/presence`).

mod event;
mod identity;
mod member;
mod messages;
mod page;
mod places;
mod refusals;
mod rooms;

#[cfg(test)]
mod tests;

pub use self::event::Event;
pub use self::identity::Identity;
pub use self::messages::{Answer, Answered, Ask, Done, Message, Refused, Request, RoomMessage};
pub use self::page::{Page, PageMember};
#[cfg(test)]
pub(crate) use self::refusals::{DOUBT, RETRY};
pub use self::rooms::{
    Client, Departure, InfoRefused, Joined, MemberChange, Room, RoomSettings, Rooms, Tally,
};
