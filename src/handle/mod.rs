//! Operations of threads outside the cores on a running server.
//!
//! A [`Handle`] publishes without a client, looks connections and channels up, acts on connections, calls clients, and
//! subscribes the program itself. It is for the control plane and for the program that embeds the server, from any
//! thread. Its operations are futures ([`Pending`]), which a thread can also wait for. None of them makes a core wait:
//! publications have a publisher of the ring of their own (`publishing.rs`), and every other operation is a question to
//! the cores (`asking.rs`), which they answer in steps (`cores/operators/report.rs`).
//!
//! ```text
//!   mod.rs          the handle; publishing      publishing.rs  the end of the ring
//!   history.rs      histories of channels
//!   connections.rs  look up, act                asking.rs      questions to cores
//!   calls.rs        calls to clients            subscriber.rs  a subscriber of the program
//!   presence.rs     members of channels
//!   pending.rs      an operation under way      waits.rs       time limits, and the thread that wakes operations
//!   error.rs        why one was not done
//! ```

mod asking;
mod calls;
mod connections;
mod error;
mod history;
mod pending;
mod presence;
mod publishing;
mod services;
mod subscriber;
mod waits;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

pub use calls::{Answers, ClientAnswer, ClientAnswers, ClientFailure};
pub use connections::{ChannelInfo, ConnectionInfo, Page};
pub use error::HandleError;
pub use history::{History, HistoryEntry, HistoryQuery};
pub use pending::Pending;
pub use presence::MemberInfo;
use publishing::{Keeping, Made, NotPublished, Publication, Publishing, ROOM_RETRY, ROOM_TIME_MAX};
pub use services::{ServiceInfo, ServiceMember};
pub use subscriber::{Received, Subscriber};
use waits::{End, Waits};

use crate::broker::{self, OutsidePublisher};
use crate::clock::Clock;
use crate::config::limits::Limits;
use crate::cores::operators::mailbox::CoreHandle;
use crate::cores::operators::questions::Answer;
pub use crate::cores::operators::selection::Selection;
use crate::metrics::outside::OutsideCounts;
use crate::policy::channels::Channels;
use crate::session::MqttUse;
use crate::store::{StoreHandle, StoreState};

/// Acts on a running server, from any thread but those of its cores. All clones act on the same server.
///
/// Each operation is a [`Pending`]: `.await` it, or call [`Pending::wait`].
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

struct Shared {
    cores: Vec<CoreHandle>,
    publishing: Publishing,
    waits: Arc<Waits>,
    clock: Clock,
    /// `program_subscribers_max`
    subscribers_max: usize,
    /// `subscriber_queue_bytes_max`
    subscriber_queue_bytes_max: usize,
}

/// A publication that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Its position, if the policy of the channel has positions.
    pub position: Option<Position>,
}

/// The place of a publication in the order of all publications, as clients know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The name of the numbering. Offsets of two numberings cannot be compared.
    pub epoch: String,
    /// The place in it. The offsets of a channel's publications rise, with gaps.
    pub offset: u64,
}

impl Position {
    fn of(position: broker::Position) -> Position {
        Position {
            epoch: position.epoch.as_str().to_owned(),
            offset: position.offset,
        }
    }
}

/// Ends all operations of handles when it is dropped.
#[derive(Debug)]
pub(crate) struct HandleThread {
    waits: Arc<Waits>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// A handle of these cores, and the thread that wakes its operations.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(
        cores: Vec<CoreHandle>,
        outside: OutsidePublisher,
        channels: Arc<Channels>,
        store: Option<StoreHandle>,
        limits: &Limits,
        mqtt: MqttUse,
        clock: Clock,
    ) -> io::Result<(Handle, HandleThread)> {
        let (waits, thread) = Waits::start(clock)?;
        let handle = Handle(Arc::new(Shared {
            cores,
            publishing: Publishing::new(outside, channels, store, limits, mqtt),
            waits: Arc::clone(&waits),
            clock,
            subscribers_max: limits.program_subscribers_max as usize,
            subscriber_queue_bytes_max: usize::try_from(limits.subscriber_queue_bytes_max)
                .unwrap_or(usize::MAX),
        }));
        let thread = Some(thread);
        Ok((handle, HandleThread { waits, thread }))
    }

    /// A place for the report of a core about an order of the control plane, and a wait for the report, for `time_max`
    /// at most. The wait ends without a report if `time_max` has passed, the core has dropped the order, or the server
    /// has ended.
    ///
    /// # Errors
    /// Too many operations wait.
    pub(crate) fn report(
        &self,
        time_max: Duration,
    ) -> Result<(impl Future<Output = Option<u64>> + Send + use<>, Answer<u64>), HandleError> {
        let (wait, reply) = self.0.waits.answer(self.0.clock.uptime() + time_max)?;
        let report = async {
            match wait.await {
                End::Answered(connections) => connections.downcast().ok().map(|connections| *connections),
                End::Due | End::Unanswered | End::ServerEnded => None,
            }
        };
        Ok((
            report,
            Answer::new(move |connections: u64| reply.give(connections)),
        ))
    }

    /// Marks publications by these policies from now on. To be called before the cores get the order to adopt them.
    pub(crate) fn adopt(&self, channels: &Arc<Channels>) {
        self.0.publishing.adopt(channels);
    }

    /// Publishes to all subscribers of a channel. `data` is checked and passed on as a client's is; permissions and the
    /// application are not asked.
    ///
    /// If the ring has no room, the publication is tried again for a second. Publications that one thread makes one
    /// after the other, waiting for each, reach all subscribers in that order.
    ///
    /// # Errors
    /// [`HandleError::NotJson`], [`HandleError::NameTooLong`], [`HandleError::Reserved`], [`HandleError::TooLarge`],
    /// [`HandleError::RingFull`], or an error of every operation: [`HandleError::Busy`], [`HandleError::Ended`],
    /// [`HandleError::OnCore`]. Nothing was published then.
    pub fn publish(&self, channel: &str, data: &(impl Serialize + ?Sized)) -> Pending<Receipt> {
        match serde_json::to_string(data) {
            Ok(json) => self.publish_json(channel, Some(&json)),
            Err(_) => Pending::new(async { Err(HandleError::NotJson) }),
        }
    }

    /// As [`Handle::publish`], with data that is JSON text already, or without data.
    ///
    /// # Errors
    /// As [`Handle::publish`].
    pub fn publish_json(&self, channel: &str, json: Option<&str>) -> Pending<Receipt> {
        self.publish_keeping(channel, json, Keeping::ByPolicy)
    }

    /// As [`Handle::publish`], and the publication is the retained one of the channel from now on: MQTT clients that
    /// subscribe get it first, and so do SocketCluster clients that ask for it.
    ///
    /// # Errors
    /// As [`Handle::publish`], and [`HandleError::NotRetained`].
    pub fn retain(&self, channel: &str, data: &(impl Serialize + ?Sized)) -> Pending<Receipt> {
        match serde_json::to_string(data) {
            Ok(json) => self.retain_json(channel, Some(&json)),
            Err(_) => Pending::new(async { Err(HandleError::NotJson) }),
        }
    }

    /// As [`Handle::retain`], with data that is JSON text already. Without data, subscribers get a publication without
    /// data, and the channel has no retained publication any more.
    ///
    /// # Errors
    /// As [`Handle::retain`].
    pub fn retain_json(&self, channel: &str, json: Option<&str>) -> Pending<Receipt> {
        self.publish_keeping(channel, json, Keeping::Retained)
    }

    fn publish_keeping(&self, channel: &str, json: Option<&str>, keeping: Keeping) -> Pending<Receipt> {
        let prepared = self.0.publishing.prepare(channel, json, keeping);
        let shared = Arc::clone(&self.0);
        Pending::new(async move { shared.publish(&prepared?).await })
    }

    /// Publishes text of the server itself to MQTT clients, and retains it.
    ///
    /// # Errors
    /// As [`Handle::publish`].
    pub(crate) fn publish_for_mqtt(&self, topic: &str, payload: &str) -> Pending<Receipt> {
        let prepared = self.0.publishing.prepare_for_mqtt(topic, payload);
        let shared = Arc::clone(&self.0);
        Pending::new(async move { shared.publish(&prepared).await })
    }

    fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.0)
    }

    /// Frees memory that publications no longer need. To be called about once a second.
    pub(crate) fn free_memory(&self) {
        self.0.publishing.free_memory();
    }

    /// The counts of publications.
    pub(crate) fn counts(&self) -> OutsideCounts {
        self.0.publishing.counts(self.0.waits.listening_count() as u64)
    }
}

impl Shared {
    /// Whether the server has ended: nothing reads the ring any more.
    fn has_ended(&self) -> bool {
        self.waits.has_ended() || self.cores.iter().all(CoreHandle::has_stopped)
    }

    async fn publish(&self, publication: &Publication) -> Result<Receipt, HandleError> {
        if self.has_ended() {
            return Err(HandleError::Ended);
        }
        let publish = |place: Option<&_>| {
            self.publishing
                .try_publish(publication, place, &self.clock, &self.cores)
        };
        match publish(None) {
            Ok(made) => return self.acknowledge(made).await,
            Err(NotPublished::NotStored(state)) => return Err(not_stored(state)),
            Err(NotPublished::NoRoom) => {}
        }
        let place = self.publishing.queue()?;
        let deadline = self.clock.uptime() + ROOM_TIME_MAX;
        loop {
            self.sleep_until(self.clock.uptime() + ROOM_RETRY).await?;
            match publish(Some(&place)) {
                Ok(made) => {
                    drop(place);
                    return self.acknowledge(made).await;
                }
                Err(NotPublished::NotStored(state)) => return Err(not_stored(state)),
                Err(NotPublished::NoRoom) if self.clock.uptime() >= deadline => {
                    return Err(self.publishing.give_up());
                }
                Err(NotPublished::NoRoom) => {}
            }
        }
    }

    /// The receipt of a publication; in `store_mode` `strict`, waits until the publication is on disk.
    async fn acknowledge(&self, made: Made) -> Result<Receipt, HandleError> {
        if let Some(uncommitted) = made.uncommitted {
            while !self
                .publishing
                .is_committed(uncommitted)
                .map_err(|_| HandleError::PublishedNotStored)?
            {
                self.sleep_until(self.clock.uptime() + COMMIT_RETRY)
                    .await
                    .map_err(|_| HandleError::PublishedNotStored)?;
            }
        }
        let position = made.position.map(Position::of);
        Ok(Receipt { position })
    }
}

/// The error of a publication that a store in this state refuses.
fn not_stored(state: StoreState) -> HandleError {
    match state {
        StoreState::Open | StoreState::Full | StoreState::Failing => HandleError::NotStored,
        StoreState::Closing | StoreState::Closed => HandleError::Elsewhere,
    }
}

/// How often a publication that waits for the disk is checked.
const COMMIT_RETRY: Duration = Duration::from_millis(1);

impl fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl Drop for HandleThread {
    fn drop(&mut self) {
        self.waits.end();
        if let Some(thread) = self.thread.take() {
            // It does not panic unless the waker of a program does, and then that program's log says so.
            let _ = thread.join();
        }
    }
}
