//! Webhooks: URLs of the configuration to which the server sends events.
//!
//! ```text
//!   core ─┐ events, by a bounded                                                     ┌─ queue ─ batch ─► POST shop
//!   core ─┼─ channel, never waiting ─► intake ─► dispatcher: occupancy, sort, number ┼─ queue ─ batch ─► POST audit
//!   core ─┘                                                                          └─ …      ▲
//!                                                                          webhooks.redb ◄─────┘ with `data_dir`
//! ```
//! A core looks at [`Webhooks`], which it has with the policy, and puts a struct into the [`Intake`]; if that is full
//! it counts the event and goes on. One thread (`control/webhooks.rs`) does everything else: it numbers events, writes
//! them as JSON, keeps a queue for each webhook and sends batches, one request at a time for each webhook, so that a
//! webhook gets its events in their order. A failed request is repeated until it succeeds or its events are too old.
//!
//! | file | content |
//! |---|---|
//! | `compiled.rs` | webhooks with compiled patterns and secrets, as cores and the dispatcher use them |
//! | `event.rs` | the events and their JSON |
//! | `intake.rs` | events on their way from the cores |
//! | `occupancy.rs` | which channels have subscribers, over all cores |
//! | `dispatcher.rs` | from the intake to the queues of all webhooks |
//! | `hook.rs` | one webhook: its requests and their outcomes |
//! | `queue.rs` | the waiting events of one webhook |
//! | `disk.rs` | the same on disk |
//! | `store.rs` | when the file on disk is opened and committed |
//!
//! Not here: HTTP (`targets`), the thread and its time (`control/webhooks.rs`), the places on a core that make events.
//!
//! Limits: `webhook_events_waiting_max`, `webhook_bytes_max`; for each webhook `queue_events`, `queue_bytes`,
//! `disk_bytes` and `keep_ms`.

mod compiled;
pub(crate) mod disk;
pub(crate) mod dispatcher;
pub(crate) mod event;
pub(crate) mod hook;
mod intake;
mod occupancy;
mod queue;
mod store;

pub(crate) use compiled::RecentAnswers;
pub use compiled::{Webhook, Webhooks};
pub use event::Event;
pub use intake::{DatedEvent, Intake};
