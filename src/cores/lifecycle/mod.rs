//! One connection: its phases, its deadlines, its counts, and its end.
//!
//! ```text
//!  connection.rs  one connection and its phases          ending.rs       the one way to end a connection
//!  reading.rs     why a connection is not read           recent_ends.rs  the last ends, for operators
//!  waiting.rs     queues of connections that wait        shedding.rs     how many a turn closes for memory
//!  wheel.rs       deadlines of all connections           counts.rs       how many are open, of the whole core
//!  meter.rs       rates of one connection                tally.rs        messages and bytes of one connection
//!  audit_trail.rs lines of the audit trail               wills.rs        publications that connections leave behind
//!  owner_calls.rs calls that wait for owners             moving.rs       connections between two cores
//!  timers.rs      timers of the application              webhooks.rs     events for webhooks
//!  mqtt_sessions.rs, mqtt_shares.rs                      the work of a turn for MQTT sessions and their groups
//!  will_state.rs  the wills of one core
//!  unsubscribe.rs, unsubscribing.rs                      subscriptions of connections that have ended
//!  webhook_events.rs                                     changes of occupancy that webhooks have yet to be told
//! ```

pub(crate) mod audit_trail;
pub(crate) mod connection;
pub(crate) mod counts;
pub(crate) mod ending;
pub(crate) mod meter;
pub(crate) mod moving;
pub(in crate::cores) mod mqtt_sessions;
mod mqtt_shares;
pub(in crate::cores) mod owner_calls;
pub(crate) mod reading;
pub(crate) mod recent_ends;
pub(crate) mod shedding;
pub(crate) mod tally;
pub(in crate::cores) mod timers;
mod unsubscribe;
pub(in crate::cores) mod unsubscribing;
pub(crate) mod waiting;
pub(in crate::cores) mod webhook_events;
mod webhooks;
pub(crate) mod wheel;
pub(in crate::cores) mod will_state;
pub(in crate::cores) mod wills;
