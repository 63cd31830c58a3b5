//! The publisher of the ring for publications that come from no client.
//!
//! All threads outside the cores share this one publisher, behind a lock; no core takes the lock. The publisher has its
//! own share of the ring's bytes (`outside_bytes_max`) and at most half of the slots, so that a program that publishes
//! without pause never takes the room of clients.
//!
//! A publication that finds no room is tried again each millisecond, for [`ROOM_TIME_MAX`]. Meanwhile, later
//! publications queue behind it.
//!
//! Limits: `outside_bytes_max`; half of `ring_slots`; [`WAITING_MAX`] publications that wait for room.

#![expect(
    clippy::disallowed_types,
    reason = "threads outside the cores take this lock, never a core"
)]

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::broker::{
    ChannelHash, ChannelHasher, CoreSet, Facts, Kind, Marks, Numbering, Origin, OutsidePublisher, Position,
    Publisher, RingFull, Sequence,
};
use crate::clock::Clock;
use crate::config::limits::Limits;
use crate::cores::operators::mailbox::CoreHandle;
use crate::metrics::outside::{OutsideCounts, OutsideMetrics, Refusal};
use crate::mqtt::publication::{Head, write_head};
use crate::policy::channels::Channels;
use crate::session::{self, MqttUse};
use crate::socketcluster::json::Fault;
use crate::socketcluster::publication;
use crate::store::{StoreChange, StoreHandle, StoreState};
use crate::websocket::frame::{self, OpCode};

use super::error::HandleError;

/// The shared publisher.
#[derive(Debug)]
pub(super) struct Publishing {
    ring: Mutex<Ring>,
    hasher: ChannelHasher,
    /// The epoch of positions.
    numbering: Numbering,
    /// Most own publications that may be in the ring.
    slots_max: usize,
    channel_name_bytes_max: usize,
    message_bytes_max: usize,
    mqtt: MqttUse,
    metrics: OutsideMetrics,
    /// Bytes of own publications in the ring, as of the last publication or tidying.
    ring_bytes: AtomicU64,
}

#[derive(Debug)]
struct Ring {
    publisher: Publisher,
    /// The policies of channels by which publications are marked.
    channels: Arc<Channels>,
    /// The store of remembered channels, if there is one.
    store: Option<StoreHandle>,
    /// Publications that wait for room.
    waiting: usize,
}

/// A publication that has been checked and encoded.
#[derive(Debug)]
pub(super) struct Publication {
    channel: Box<str>,
    hash: ChannelHash,
    frame_head: Vec<u8>,
    message: Vec<u8>,
    payload_bytes: u32,
    marks: Marks,
    /// The protocol of the message.
    origin: Origin,
    keeping: Keeping,
    /// The version of the policies that the marks follow from.
    version: u32,
}

/// Whether a publication is retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// As the policy of the channel says.
    ByPolicy,
    /// It is the retained publication of the channel from now on, as well.
    Retained,
}

/// How the owner of the channel stores a publication on disk, if there is a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnDisk {
    /// It remembers the publication.
    Remembered,
    /// It retains the publication, and may remember it as well.
    Retained,
}

/// A publication's place in the queue for room. A place that is dropped is given up.
#[derive(Debug)]
pub(super) struct QueuePlace<'a>(&'a Publishing);

/// Why a publication was not made.
#[derive(Clone, Copy, Debug)]
pub(super) enum NotPublished {
    /// There is no room, or others have waited for it longer.
    NoRoom,
    /// The store of its channel refuses publications, in this state.
    NotStored(StoreState),
}

/// A publication that was made.
#[derive(Debug)]
pub(super) struct Made {
    /// Its position, if the policy of the channel has positions.
    pub(super) position: Option<Position>,
    /// Set if it is acknowledged when it is on disk.
    pub(super) uncommitted: Option<Uncommitted>,
}

/// The record of a publication that is acknowledged when it is committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uncommitted {
    what: OnDisk,
    owner: usize,
    offset: u64,
}

impl Publishing {
    pub(super) fn new(
        outside: OutsidePublisher,
        channels: Arc<Channels>,
        store: Option<StoreHandle>,
        limits: &Limits,
        mqtt: MqttUse,
    ) -> Publishing {
        Publishing {
            ring: Mutex::new(Ring {
                publisher: outside.publisher,
                channels,
                store,
                waiting: 0,
            }),
            hasher: outside.hasher,
            numbering: outside.numbering,
            slots_max: (limits.ring_slots.next_power_of_two() / 2).max(1) as usize,
            channel_name_bytes_max: limits.channel_name_bytes_max as usize,
            message_bytes_max: limits.message_bytes_max as usize,
            mqtt,
            metrics: OutsideMetrics::default(),
            ring_bytes: AtomicU64::new(0),
        }
    }

    /// Checks a publication and encodes it, as a core encodes that of a client.
    ///
    /// # Errors
    /// The name or the data is not allowed.
    pub(super) fn prepare(
        &self,
        channel: &str,
        json: Option<&str>,
        keeping: Keeping,
    ) -> Result<Publication, HandleError> {
        let publication = self.encode(channel, json, keeping);
        if publication.is_err() {
            self.metrics.refused(Refusal::Invalid);
        }
        publication
    }

    fn encode(
        &self,
        channel: &str,
        json: Option<&str>,
        keeping: Keeping,
    ) -> Result<Publication, HandleError> {
        self.check_name(channel)?;
        if self.mqtt.is_on() && session::is_of_the_server(channel.as_bytes()) {
            return Err(HandleError::Reserved { reason: session::SYS });
        }
        let data = passed_on(json)?;
        let channels = Arc::clone(&self.ring().channels);
        let why_not = match keeping {
            Keeping::ByPolicy => None,
            Keeping::Retained => session::why_not_retained(channel.as_bytes(), &channels, self.mqtt),
        };
        if let Some(reason) = why_not {
            return Err(HandleError::NotRetained { reason });
        }
        let publication = self.write(channel, data.as_deref(), &channels, keeping);
        let (bytes, bytes_max) = (publication.message.len(), self.message_bytes_max);
        if bytes > bytes_max {
            return Err(HandleError::TooLarge { bytes, bytes_max });
        }
        Ok(publication)
    }

    /// A publication of the server itself for MQTT clients, which is retained. `payload` is text.
    pub(super) fn prepare_for_mqtt(&self, topic: &str, payload: &str) -> Publication {
        let head = Head {
            qos: 2,
            retain: true,
            is_text: true,
            ..Head::default()
        };
        let mut message = Vec::new();
        write_head(&head, &[], &mut message);
        message.extend_from_slice(payload.as_bytes());
        let channels = Arc::clone(&self.ring().channels);
        Publication {
            channel: topic.into(),
            hash: self.hasher.hash(topic.as_bytes()),
            frame_head: Vec::new(),
            message,
            payload_bytes: u32::try_from(payload.len()).unwrap_or(0),
            marks: session::marks_by(channels.find(topic.as_bytes())),
            origin: Origin::Mqtt,
            keeping: Keeping::Retained,
            version: channels.version(),
        }
    }

    /// The same publication by other policies.
    fn renewed(&self, publication: &Publication, channels: &Channels) -> Publication {
        match publication.origin {
            Origin::SocketCluster => {
                let (channel, data) = (&publication.channel, publication.data());
                self.write(channel, data, channels, publication.keeping)
            }
            Origin::Mqtt => Publication {
                channel: publication.channel.clone(),
                frame_head: Vec::new(),
                message: publication.message.clone(),
                marks: session::marks_by(channels.find(publication.channel.as_bytes())),
                version: channels.version(),
                ..*publication
            },
        }
    }

    /// Encodes a publication with the marks that follow from these policies.
    fn write(&self, channel: &str, data: Option<&str>, channels: &Channels, keeping: Keeping) -> Publication {
        let marks = session::marks_by(channels.find(channel.as_bytes()));
        let message = publication::message(channel, marks, self.numbering.epoch, data);
        let mut frame_head = Vec::new();
        frame::write_header(&mut frame_head, OpCode::Text, message.len());
        Publication {
            channel: channel.into(),
            hash: self.hasher.hash(channel.as_bytes()),
            frame_head,
            payload_bytes: data.map_or(0, |data| u32::try_from(data.len()).unwrap_or(0)),
            message,
            marks,
            origin: Origin::SocketCluster,
            keeping,
            version: channels.version(),
        }
    }

    /// Marks publications by these policies from now on, those that wait for room too. To be called before the cores
    /// get the order to adopt the same policies: then every publication after the place at which the last core has done
    /// so is marked by them.
    pub(super) fn adopt(&self, channels: &Arc<Channels>) {
        let mut ring = self.ring();
        if ring.channels.version() != channels.version() {
            ring.channels.supersede();
        }
        ring.channels = Arc::clone(channels);
    }

    /// The hash of a channel's name.
    pub(super) fn hash(&self, channel: &str) -> ChannelHash {
        self.hasher.hash(channel.as_bytes())
    }

    /// Checks an event of this name. Returns its data as it is sent.
    ///
    /// # Errors
    /// The data is not JSON, or the two are larger than a message may be.
    pub(super) fn check_data<'a>(
        &self,
        event: &str,
        json: Option<&'a str>,
    ) -> Result<Option<Cow<'a, str>>, HandleError> {
        let data = passed_on(json)?;
        let bytes = event.len() + data.as_deref().map_or(0, str::len);
        let bytes_max = self.message_bytes_max;
        if bytes > bytes_max {
            return Err(HandleError::TooLarge { bytes, bytes_max });
        }
        Ok(data)
    }

    /// The core, of so many, that owns a channel.
    pub(super) fn owner(&self, channel: &str, cores: usize) -> usize {
        self.hasher.hash(channel.as_bytes()).owner(cores)
    }

    /// Checks the length of a channel's name.
    ///
    /// # Errors
    /// It is longer than the names of clients may be.
    pub(super) fn check_name(&self, channel: &str) -> Result<(), HandleError> {
        let (bytes, bytes_max) = (channel.len(), self.channel_name_bytes_max);
        if bytes > bytes_max {
            return Err(HandleError::NameTooLong { bytes, bytes_max });
        }
        Ok(())
    }

    /// Publishes, if there is room and no other publication waits for it. A publication that has waited has a place
    /// in the queue, and shows it.
    pub(super) fn try_publish(
        &self,
        publication: &Publication,
        place: Option<&QueuePlace<'_>>,
        clock: &Clock,
        cores: &[CoreHandle],
    ) -> Result<Made, NotPublished> {
        let (wake, result) = self.append(publication, place, clock);
        for core in wake {
            cores[core].request_turn();
        }
        let (sequence, marks) = result?;
        self.metrics.published();
        let what = publication
            .on_disk()
            .filter(|_| self.store().is_some_and(|store| store.is_strict()));
        Ok(Made {
            position: marks.positioned.then(|| self.numbering.position(sequence)),
            uncommitted: what.map(|what| Uncommitted {
                what,
                owner: publication.hash.owner(cores.len()),
                offset: self.numbering.offset(sequence),
            }),
        })
    }

    /// Whether a publication is committed.
    ///
    /// # Errors
    /// It was published, and the store takes nothing, in this state.
    pub(super) fn is_committed(&self, uncommitted: Uncommitted) -> Result<bool, StoreState> {
        let Some(store) = self.store() else {
            return Ok(true);
        };
        let Uncommitted { what, owner, offset } = uncommitted;
        let is_committed = match what {
            OnDisk::Remembered => store.is_committed(owner, offset),
            OnDisk::Retained => store.has_read(owner, offset),
        };
        if is_committed {
            return Ok(true);
        }
        match store.state() {
            StoreState::Open | StoreState::Full | StoreState::Closing => Ok(false),
            state @ (StoreState::Failing | StoreState::Closed) => Err(state),
        }
    }

    fn store(&self) -> Option<StoreHandle> {
        self.ring().store.clone()
    }

    /// Returns the cores to wake, whether the publication was made or not, and its place and marks.
    fn append(
        &self,
        publication: &Publication,
        place: Option<&QueuePlace<'_>>,
        clock: &Clock,
    ) -> (CoreSet, Result<(Sequence, Marks), NotPublished>) {
        let mut guard = self.ring();
        let ring = &mut *guard;
        if place.is_none() && ring.waiting > 0 {
            return (CoreSet::EMPTY, Err(NotPublished::NoRoom));
        }
        if let Err(RingFull { wake }) = ring.publisher.has_fewer_than(self.slots_max) {
            return (wake, Err(NotPublished::NoRoom));
        }
        let renewed;
        let publication = if publication.version == ring.channels.version() {
            publication
        } else {
            renewed = self.renewed(publication, &ring.channels);
            &renewed
        };
        let facts = Facts {
            at_ns: clock.elapsed_ns(),
            kind: publication.kind(),
            origin: publication.origin,
            payload_bytes: publication.payload_bytes,
            marks: publication.marks,
            retain: publication.keeping == Keeping::Retained,
        };
        // Until the publication is made, the store is not let go of.
        let store = ring.store.as_ref().filter(|store| match publication.on_disk() {
            Some(OnDisk::Remembered) => true,
            Some(OnDisk::Retained) => store.is_strict() || publication.marks.remembered,
            None => false,
        });
        let change = StoreChange::of(facts.retain, publication.marks.remembered, facts.payload_bytes);
        let _stays_open = match store.map(|store| store.begin_publication(change)).transpose() {
            Ok(stays_open) => stays_open,
            Err(state) => return (CoreSet::EMPTY, Err(NotPublished::NotStored(state))),
        };
        let parts = [&publication.frame_head[..], &publication.message];
        let published =
            ring.publisher
                .try_publish(publication.channel.as_bytes(), publication.hash, &parts, facts);
        self.note_bytes(ring);
        match published {
            Ok(published) => (published.wake, Ok((published.sequence, publication.marks))),
            Err(RingFull { wake }) => (wake, Err(NotPublished::NoRoom)),
        }
    }

    /// A place in the queue for room.
    ///
    /// # Errors
    /// Too many publications wait already.
    pub(super) fn queue(&self) -> Result<QueuePlace<'_>, HandleError> {
        let mut ring = self.ring();
        if ring.waiting >= WAITING_MAX {
            return Err(self.give_up());
        }
        ring.waiting += 1;
        Ok(QueuePlace(self))
    }

    /// Counts a publication that found no room, and returns its error.
    pub(super) fn give_up(&self) -> HandleError {
        self.metrics.refused(Refusal::NoRoom);
        HandleError::RingFull
    }

    /// Frees buffers that publications no longer need. To be called about once a second.
    pub(super) fn free_memory(&self) {
        let mut ring = self.ring();
        ring.publisher.give_back();
        self.note_bytes(&ring);
    }

    /// The counts of publications, the bytes of the ring that they take, and the program's subscribers.
    pub(super) fn counts(&self, subscribers: u64) -> OutsideCounts {
        // Relaxed: a scrape needs no order between gauges.
        self.metrics
            .counts(self.ring_bytes.load(Ordering::Relaxed), subscribers)
    }

    /// Counts a subscriber of the program that was refused.
    pub(super) fn count_refused_subscriber(&self) {
        self.metrics.subscriber_refused();
    }

    fn note_bytes(&self, ring: &Ring) {
        let bytes = ring.publisher.lent_bytes() as u64;
        self.ring_bytes.store(bytes, Ordering::Relaxed);
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // The code that runs under the lock does not panic, and the ring would be consistent even so.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publication {
    fn kind(&self) -> Kind {
        match self.origin {
            Origin::SocketCluster => Kind::Json,
            Origin::Mqtt => Kind::Opaque,
        }
    }

    /// What is on disk of it; `None`: nothing. The server's own topics (`$SYS`) are for one process.
    fn on_disk(&self) -> Option<OnDisk> {
        match (self.keeping, self.origin) {
            (Keeping::Retained, Origin::SocketCluster) => Some(OnDisk::Retained),
            (Keeping::Retained, Origin::Mqtt) | (Keeping::ByPolicy, _) => {
                self.marks.remembered.then_some(OnDisk::Remembered)
            }
        }
    }

    /// The data in the message; `None` if there is none.
    fn data(&self) -> Option<&str> {
        let payload = Origin::SocketCluster.payload(&self.message, self.payload_bytes as usize);
        let data = std::str::from_utf8(payload).expect("the message is made of text");
        (!data.is_empty()).then_some(data)
    }
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        self.0.ring().waiting -= 1;
    }
}

fn passed_on(json: Option<&str>) -> Result<Option<Cow<'_, str>>, HandleError> {
    json.map(publication::passed_on)
        .transpose()
        .map_err(|(Fault::Malformed | Fault::TooDeep)| HandleError::NotJson)
}

/// How long a publication waits for room.
pub(super) const ROOM_TIME_MAX: Duration = Duration::from_secs(1);
/// How soon a full ring is tried again: as soon as a core tries again.
pub(super) const ROOM_RETRY: Duration = Duration::from_millis(1);
/// Most publications that wait for room at the same time.
const WAITING_MAX: usize = 1024;
