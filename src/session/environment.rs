//! The values that a core lends a session for one call.

use super::{Scratch, Settings};
use crate::app::App;
use crate::clock::Now;
use crate::policy::Policy;

/// The values that a core lends a session of any protocol for one call.
#[derive(Debug)]
pub struct Environment<'a, A: App> {
    /// The time at which this turn of the core began.
    pub now: Now,
    /// Where the core finds this session, for an answer that comes later.
    pub address: usize,
    /// The settings of all sessions.
    pub settings: &'a Settings,
    /// The keys, rules and users by which clients are let in.
    pub policy: &'a Policy,
    /// The application's value on this core.
    pub app: &'a mut A,
    /// The buffers and counters of this core.
    pub scratch: &'a mut Scratch,
    /// How many packets of one message a session handles in one call. The rest waits for another call.
    pub packets_max: u64,
}
