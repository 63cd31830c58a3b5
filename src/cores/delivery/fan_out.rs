//! Publications: from this core into the ring, and from the ring into the outboxes of this core's subscribers.
//!
//! The core delivers at once after each publish, so that a publisher that is subscribed gets its own copy before the
//! acknowledgement, as from the reference. Before it subscribes or unsubscribes a connection, it delivers all
//! publications that had been claimed when the connection asked. So a subscription begins and ends at an exact place in
//! the one order of publications.
//!
//! A turn makes no more than [`COPIES_PER_TURN_MAX`] copies, and no more than the outboxes have room for
//! before they are flushed. The delivery of a publication to many subscribers pauses there. The publication
//! keeps its place in the ring, before those that follow, and its delivery goes on in the next turn.
//! Meanwhile, connections whose next decision comes after that delivery (see above) wait, and are not read
//! (`lifecycle/waiting.rs`). So each connection has at most one publication that waits.
//!
//! To publish for one client never closes another connection and never reads another's input: this file knows no step
//! of the core (`tests/architecture.rs`, "parts of a core know neither the core nor its steps"). It only marks a
//! subscriber that does not take a publication; a step of the turn closes it (`Core::close_marked` in
//! `lifecycle/ending.rs`).
//!
//! MQTT subscribers come after the others (`connections/mqtt.rs`), on a core that has MQTT sessions.
//!
//! Waits: such a connection waits for this core's own delivery. The delivery waits for a flush of some
//! outbox, and for cores that are about to fill a place they have claimed. Those cores do not wait for
//! anything (`broker/ring/mod.rs`), so these waits form no cycle.

use std::collections::VecDeque;
use std::sync::Arc;

use mio::Waker;

use crate::broker::{
    AllChannels, Change, ChannelHash, ChannelHasher, CoreBroker, CoreSet, Facts, Numbering, Origin,
    Publication, Publisher, Reader, RingFull, Sequence, SubscriptionLimits, Subscriptions,
};
use crate::clock::Clock;
use crate::decision::{Decisions, Limit, Publish, Stored, SubscribeOutcome, UnsubscribeOutcome};
use crate::metrics::block::CoreMetrics;
use crate::mqtt::Sessions;
use crate::policy::channels::Channels;
use crate::store::StoreChange;
use crate::websocket::frame::{self, OpCode};

use super::core_store::{Admission, CoreStore};
use super::retained_topics::RetainedTopics;
use super::translation::Translation;
use crate::cores::connections::Connections;
use crate::cores::connections::delivery_inspector::DeliveryInspector;
use crate::cores::connections::replays::ReadLater;
use crate::cores::delivery::channel_memory::ChannelMemory;
use crate::cores::delivery::followers::{Follower, Followers};
use crate::cores::delivery::webhook_publications::WebhookPublications;
use crate::cores::lifecycle::connection::{Awaited, Commit, ConnectionId};

/// This core's end of the ring, its subscriptions, and its progress in delivering the publications of the
/// ring.
///
/// Delivery does not know the core: to publish and to deliver touches the outboxes of subscribers, and
/// neither closes a connection nor reads one.
#[derive(Debug)]
pub(in crate::cores) struct Delivery {
    broker: CoreBroker,
    /// The publications that this core remembers; `None` if no channel has had a policy since the start.
    memory: Option<Box<ChannelMemory>>,
    /// Retained publications; `None` unless the server speaks MQTT.
    retained: Option<Box<RetainedTopics>>,
    /// The wakers of all cores.
    wakers: Arc<[Arc<Waker>]>,
    /// Whether the publication at the front of the ring is under way.
    under_way: bool,
    /// Copies that this turn may still make.
    copies_left: usize,
    /// Delivered publications that have not been written to sockets yet, for the measure of their latency.
    delivered: VecDeque<Delivered>,
    /// The time of publication for the decisions that are carried out now: the clock is read for the first
    /// publication.
    publish_ns: Option<u64>,
    frame_head: Vec<u8>,
    /// The publication under way in the form for SocketCluster clients.
    translation: Translation,
    /// Subscribers of the program, and the webhooks that get publications; `None` if there are none.
    followers: Option<Box<Followers>>,
    metrics: Arc<CoreMetrics>,
}

/// A publication in the outboxes of some subscribers.
#[derive(Clone, Copy, Debug)]
struct Delivered {
    at_ns: u64,
    subscribers: u64,
    end_of_bulk: u64,
}

impl Delivery {
    /// With nothing delivered yet.
    pub(in crate::cores) fn new(
        broker: CoreBroker,
        memory: Option<Box<ChannelMemory>>,
        retained: Option<Box<RetainedTopics>>,
        wakers: Arc<[Arc<Waker>]>,
        metrics: Arc<CoreMetrics>,
    ) -> Delivery {
        Delivery {
            broker,
            memory,
            retained,
            wakers,
            under_way: false,
            copies_left: 0,
            delivered: VecDeque::new(),
            publish_ns: None,
            frame_head: Vec::new(),
            translation: Translation::default(),
            followers: None,
            metrics,
        }
    }

    /// Forgets the time of publication: the next publication reads the clock again.
    pub(in crate::cores) fn begin_publishing(&mut self) {
        self.publish_ns = None;
    }

    /// Publishes to all subscribers of a channel, on all cores; returns the place behind the publication. The frame of
    /// the publisher's own protocol is made here, once.
    ///
    /// # Errors
    /// The ring has no room: the caller tries again later.
    pub(in crate::cores) fn publish(
        &mut self,
        connections: &mut Connections,
        inspector: &mut impl DeliveryInspector,
        clock: &Clock,
        decisions: &Decisions,
        publish: Publish,
    ) -> Result<Sequence, RingFull> {
        let (channel, message) = (decisions.bytes(publish.channel), decisions.bytes(publish.message));
        self.frame_head.clear();
        match publish.origin {
            Origin::SocketCluster => {
                frame::write_header(&mut self.frame_head, OpCode::Text, message.len());
            }
            // The message already is the frame.
            Origin::Mqtt => {}
        }
        let hash = self.broker.hasher.hash(channel);
        let parts = [&self.frame_head[..], message];
        let facts = Facts {
            at_ns: *self.publish_ns.get_or_insert_with(|| clock.elapsed_ns()),
            kind: publish.kind(),
            origin: publish.origin,
            payload_bytes: publish.payload_bytes,
            marks: publish.marks,
            retain: publish.retain,
        };
        let mut published = self.broker.publisher.try_publish(channel, hash, &parts, facts);
        if let Err(RingFull { wake }) = published {
            // The ring is full. Lagging cores make room once they are woken, and so does this core. Then try
            // once more.
            self.wake(wake);
            self.deliver(connections, inspector);
            let parts = [&self.frame_head[..], message];
            published = self.broker.publisher.try_publish(channel, hash, &parts, facts);
        }
        match published {
            Ok(published) => {
                self.metrics.publications.add(1);
                self.wake(published.wake);
                self.deliver(connections, inspector);
                Ok(published.sequence.next())
            }
            Err(full) => {
                self.wake(full.wake);
                Err(full)
            }
        }
    }

    /// The store, if there is one.
    #[inline]
    pub(in crate::cores) fn on_disk(&mut self) -> Option<&mut CoreStore> {
        self.memory.as_deref_mut()?.on_disk()
    }

    /// Whether a publication to a remembered channel may be published now, as far as the store is concerned.
    pub(in crate::cores) fn admission(&mut self, publish: Publish) -> Admission {
        let change = StoreChange::of(publish.retain, publish.marks.remembered, publish.payload_bytes);
        self.on_disk()
            .map_or(Admission::Open, |on_disk| on_disk.admission(change))
    }

    /// Whether a publication is not refused by the store.
    pub(in crate::cores) fn stores(&mut self, publish: Publish) -> bool {
        !publish.marks.remembered || !matches!(self.admission(publish), Admission::Refused(_))
    }

    /// The commit that the acknowledgement of a publication waits for, if it waits for one. `place` is the place behind
    /// the publication.
    pub(in crate::cores) fn commit_of(
        &mut self,
        publish: Publish,
        channel: &[u8],
        place: Sequence,
    ) -> Option<Commit> {
        // Without a store, no name is hashed.
        self.on_disk()?;
        let (hash, marks) = (self.broker.hasher.hash(channel), publish.marks);
        match publish.origin {
            Origin::SocketCluster if !publish.retain => self.on_disk()?.commit_of(hash, place),
            Origin::SocketCluster | Origin::Mqtt => {
                let is_kept = publish.retain || marks.remembered;
                let publisher = &self.broker.publisher;
                // The publisher's session, with the packet identifier, is on this core.
                let cores = publisher.concerned(hash, is_kept).union(publisher.own_core());
                self.on_disk()?.commit_of_all(cores, place)
            }
        }
    }

    /// Tells the store how far this core has read the ring and recorded the publications that it keeps. In
    /// strict mode, clients of other cores wait for that, if the server speaks MQTT. `has_saved_all`: no
    /// change of sessions is left to record.
    pub(in crate::cores) fn note_read(&mut self, has_saved_all: bool) {
        let place = self.broker.reader.place();
        let retained = self.retained.as_ref();
        let has_recorded_all = has_saved_all && retained.is_some_and(|retained| !retained.has_unsaved());
        let Some(on_disk) = self.on_disk() else {
            return;
        };
        on_disk.note_place(place);
        if has_recorded_all {
            on_disk.note_read(place);
        }
    }

    /// The fate of a publication; `None` while it is not known.
    pub(in crate::cores) fn outcome(&mut self, commit: Commit) -> Option<Stored> {
        match self.on_disk() {
            Some(on_disk) => on_disk.outcome(commit),
            None => Some(Stored::Yes),
        }
    }

    /// Whether there was a commit since the last call.
    pub(in crate::cores) fn take_commits(&mut self) -> bool {
        self.on_disk().is_some_and(CoreStore::take_commits)
    }

    /// Lets a new turn deliver.
    pub(in crate::cores) fn begin_delivering(&mut self) {
        self.metrics.deliveries_paused.add(u64::from(self.under_way));
        self.copies_left = copies_per_turn_max();
    }

    /// Delivers publications until the turn has made all its copies, or until connections must be closed
    /// because all of them together hold too much. The rest keeps the core from sleeping.
    pub(in crate::cores) fn deliver(
        &mut self,
        connections: &mut Connections,
        inspector: &mut impl DeliveryInspector,
    ) {
        let mut passed = 0_usize;
        while self.copies_left > 0 && !connections.is_shedding() && self.deliver_front(connections, inspector)
        {
            self.broker.reader.pass();
            passed += 1;
            if passed.is_multiple_of(RELEASE_EVERY) {
                self.broker.reader.release();
            }
        }
        self.broker.reader.release();
    }

    /// Begins or continues the delivery of the publication at the front of the ring; true if all subscribers
    /// have it. The delivery of a publication without subscribers on this core ends here.
    #[inline]
    fn deliver_front(
        &mut self,
        connections: &mut Connections,
        inspector: &mut impl DeliveryInspector,
    ) -> bool {
        if self.under_way {
            return self.go_on(connections, inspector);
        }
        let mut front = self.broker.reader.front();
        if self.memory.is_some()
            || self.followers.is_some()
            || (self.retained.is_some() && front.is_some_and(|front| front.publication.is_retained()))
        {
            if front.is_none() {
                // Even if a publication has come in the meantime: it must be kept first.
                return false;
            }
            self.keep_front(connections.unix_ms);
            front = self.broker.reader.front();
        }
        let Some(delivery) = front else {
            return false;
        };
        let publication = delivery.publication;
        self.broker
            .subscriptions
            .begin_walk(delivery.hash, || publication.channel());
        // A publication without subscribers here costs something, too.
        self.copies_left -= 1;
        let memory = self.memory.as_deref();
        if self.broker.subscriptions.is_walk_over()
            && !connections.begin_mqtt_walk(
                delivery.hash,
                &publication,
                || unquotes(memory, publication),
                &mut self.copies_left,
            )
        {
            self.end_translation();
            return true;
        }
        self.under_way = true;
        self.go_on(connections, inspector)
    }

    /// Continues the delivery of the publication at the front of the ring; true if all subscribers have it.
    #[inline(never)]
    fn go_on<L: DeliveryInspector>(&mut self, connections: &mut Connections, inspector: &mut L) -> bool {
        let Some(delivery) = self.broker.reader.front() else {
            return false;
        };
        let mut publication = delivery.publication;
        let subscriptions = &mut self.broker.subscriptions;
        let mut taken = 0;
        if !subscriptions.is_walk_over() {
            publication = self
                .translation
                .for_socketcluster(publication, self.broker.numbering);
        }
        while !subscriptions.is_walk_over() {
            let frame_bytes = publication.frame().len();
            let room = connections.room(frame_bytes).min(self.copies_left);
            if room == 0 || (taken > 0 && connections.must_shed()) {
                break;
            }
            let channel = subscriptions.walked();
            let subscribers = subscriptions.walk(room);
            self.copies_left -= subscribers.len();
            taken += if L::INSPECTS {
                connections.deliver_inspected(subscribers, channel, publication, inspector)
            } else if connections.recoveries.is_empty() {
                connections.deliver(subscribers, channel, publication)
            } else {
                connections.deliver_or_collect(subscribers, channel, publication)
            };
            let copies = connections.take_encoded_bytes() / ENCODED_BYTES_PER_COPY;
            self.copies_left = self.copies_left.saturating_sub(copies);
        }
        let mut is_over = subscriptions.is_walk_over();
        let (original, memory) = (&delivery.publication, self.memory.as_deref());
        let copies_left = &mut self.copies_left;
        if is_over
            && connections.begin_mqtt_walk(
                delivery.hash,
                original,
                || unquotes(memory, *original),
                copies_left,
            )
        {
            let (more, has_all) =
                connections.deliver_to_mqtt(delivery.hash, original, inspector, copies_left);
            taken += more;
            is_over = has_all;
        }
        if taken > 0 {
            note(
                &mut self.delivered,
                Delivered {
                    at_ns: publication.at_ns(),
                    subscribers: taken,
                    end_of_bulk: connections.end_of_bulk(),
                },
            );
        }
        self.under_way = !is_over;
        if is_over {
            connections.end_publication();
            self.end_translation();
        }
        is_over
    }

    /// The publication under way has been delivered. The bytes of its translation count like copies.
    #[inline]
    fn end_translation(&mut self) {
        let made = self.translation.end_publication() / ENCODED_BYTES_PER_COPY;
        self.copies_left = self.copies_left.saturating_sub(made);
    }

    /// Keeps the publication at the front of the ring before its delivery begins, where this core has to:
    /// remembers it, retains it, or copies it to subscribers of the program and to webhooks. Not called on a
    /// core that does none of these.
    #[inline(never)]
    fn keep_front(&mut self, unix_ms: u64) {
        let Some(delivery) = self.broker.reader.front() else {
            return;
        };
        let publication = delivery.publication;
        let (translation, numbering) = (&mut self.translation, self.broker.numbering);
        if let Some(memory) = &mut self.memory
            && memory.takes(delivery.hash, publication)
        {
            memory.append(
                delivery.hash,
                translation.for_socketcluster(publication, numbering),
            );
        }
        if let Some(retained) = &mut self.retained
            && is_retained(publication, self.memory.as_deref())
            && retained.concerns(delivery.hash)
        {
            retained.take_in(
                delivery.hash,
                publication,
                unquotes(self.memory.as_deref(), publication),
            );
        }
        if let Some(followers) = &mut self.followers
            && followers.concerns(delivery.hash, publication.channel())
        {
            let publication = translation.for_socketcluster(publication, numbering);
            followers.tell_webhooks(&publication, numbering, unix_ms);
            copy_to_followers(
                &mut self.followers,
                &mut self.broker.subscriptions,
                delivery.hash,
                (&publication, numbering),
                &self.metrics,
            );
        }
    }

    /// The place that delivery must have reached before suspended work continues; `None` if it has.
    pub(in crate::cores) fn awaits(
        &mut self,
        connections: &mut Connections,
        inspector: &mut impl DeliveryInspector,
        awaited: Awaited,
    ) -> Option<Sequence> {
        let (Awaited::Published(place) | Awaited::Asked(place)) = awaited else {
            return None;
        };
        if !self.broker.reader.has_passed(place) {
            self.deliver(connections, inspector);
        }
        (!self.broker.reader.has_passed(place)).then_some(place)
    }

    /// The core that owns a name, and so keeps the single copy of its state.
    pub(in crate::cores) fn owner_of(&self, name: &[u8]) -> usize {
        self.owner(name).0
    }

    /// Whether any core has subscribers of a channel, or maybe has.
    pub(in crate::cores) fn has_subscribers(&self, name: &[u8]) -> bool {
        self.broker.publisher.is_awaited(self.broker.hasher.hash(name))
    }

    /// The place behind all publications so far.
    pub(in crate::cores) fn claimed(&self) -> Sequence {
        self.broker.reader.claimed()
    }

    /// The hasher of channels that all cores share.
    pub(in crate::cores) fn hasher(&self) -> &ChannelHasher {
        &self.broker.hasher
    }

    /// Whether everything before a place has been delivered.
    pub(in crate::cores) fn has_passed(&self, place: Sequence) -> bool {
        self.broker.reader.has_passed(place)
    }

    /// The core that owns a channel, and the hash of the channel's name.
    pub(in crate::cores) fn owner(&self, name: &[u8]) -> (usize, ChannelHash) {
        let hash = self.broker.hasher.hash(name);
        (hash.owner(self.core_count()), hash)
    }

    /// The way for connections to find the histories of channels with these policies.
    pub(in crate::cores) fn read_later(&self, channels: &Arc<Channels>) -> ReadLater {
        ReadLater {
            channels: Arc::clone(channels),
            numbering: self.broker.numbering,
            hasher: self.broker.hasher.clone(),
            cores: self.core_count(),
        }
    }

    /// The memory of this core.
    pub(in crate::cores) fn memory(&mut self) -> Option<&mut ChannelMemory> {
        self.memory.as_deref_mut()
    }

    /// The memory of this core. If it has none yet, it begins with the one that `begin` returns for this
    /// number of cores.
    pub(in crate::cores) fn memory_or_begin(
        &mut self,
        begin: impl FnOnce(usize, Numbering) -> ChannelMemory,
    ) -> &mut ChannelMemory {
        let (cores, numbering) = (self.core_count(), self.broker.numbering);
        self.memory
            .get_or_insert_with(|| Box::new(begin(cores, numbering)))
    }

    /// How many cores there are.
    pub(in crate::cores) fn core_count(&self) -> usize {
        self.wakers.len()
    }

    /// The numbering of positions.
    pub(in crate::cores) fn numbering(&self) -> Numbering {
        self.broker.numbering
    }

    /// The place up to which all publications that this core remembers are in its memory.
    pub(in crate::cores) fn appended(&self) -> Sequence {
        let next = self.broker.reader.place();
        if self.under_way { next.next() } else { next }
    }

    /// The retained publications of this core's topics, if the server speaks MQTT.
    #[inline]
    pub(in crate::cores) fn retained(&mut self) -> Option<&mut RetainedTopics> {
        self.retained.as_deref_mut()
    }

    /// Records the changes of retained publications, if there is a store.
    pub(in crate::cores) fn record_retained(&mut self) {
        if let (Some(memory), Some(retained)) = (&mut self.memory, &mut self.retained)
            && retained.has_unsaved()
            && let Some(on_disk) = memory.on_disk()
            && !on_disk.has_finished()
        {
            retained.record(on_disk);
        }
    }

    /// Whether retained publications have work for the next turn.
    #[inline]
    pub(in crate::cores) fn has_retained_work(&self) -> bool {
        let topics = self.retained.as_ref();
        topics.is_some_and(|topics| topics.has_work(self.appended()))
    }

    /// The place of the first publication that an MQTT session gets if it subscribes now. The filters of
    /// sessions are searched after all SocketCluster subscribers have the publication.
    pub(in crate::cores) fn next_for_mqtt(&self, connections: &Connections) -> Sequence {
        let next = self.broker.reader.place();
        match connections.has_begun_mqtt_walk() {
            true => next.next(),
            false => next,
        }
    }

    /// The place of the first publication that a subscriber of a channel gets from now on. The publication
    /// under way has reached some of its subscribers, and not others.
    pub(in crate::cores) fn next_for(&self, connection: u32, channel: u32) -> Sequence {
        let next = self.broker.reader.place();
        if self.under_way && !self.broker.subscriptions.walk_will_reach(connection, channel) {
            return next.next();
        }
        next
    }

    /// The publisher of the ring, for the steps of the turn that look after its memory.
    pub(in crate::cores) fn publisher(&mut self) -> &mut Publisher {
        &mut self.broker.publisher
    }

    /// The reader of the ring, for the steps of the turn that sleep and wake.
    pub(in crate::cores) fn reader(&mut self) -> &mut Reader {
        &mut self.broker.reader
    }

    /// How many publications this core has not delivered.
    pub(in crate::cores) fn depth(&self) -> u64 {
        self.broker.reader.depth()
    }

    /// Wakes cores that sleep.
    pub(in crate::cores) fn wake(&self, cores: CoreSet) {
        for core in cores {
            self.metrics.wakes.add(1);
            // An eventfd write fails only when its counter is full: then the core is being woken anyway.
            let _ = self.wakers[core].wake();
        }
    }

    /// Records how long publications took from the publish to the write.
    #[inline]
    pub(in crate::cores) fn record_latencies(&mut self, connections: &Connections, clock: &Clock) {
        if !self.delivered.is_empty() {
            self.record_some_latencies(connections, clock);
        }
    }

    #[inline(never)]
    fn record_some_latencies(&mut self, connections: &Connections, clock: &Clock) {
        let now_ns = clock.elapsed_ns();
        while let Some(written) = self
            .delivered
            .pop_front_if(|delivered| connections.has_flushed(delivered.end_of_bulk))
        {
            self.metrics
                .publish_to_write_seconds
                .record_many_ns(now_ns.saturating_sub(written.at_ns), written.subscribers);
        }
    }

    /// Subscribes a connection to a channel.
    pub(in crate::cores) fn subscribe(
        &mut self,
        index: u32,
        name: &[u8],
        limits: SubscriptionLimits,
    ) -> SubscribeOutcome {
        let hash = self.broker.hasher.hash(name);
        let outcome = self.broker.subscriptions.subscribe(index, name, hash, limits);
        self.tell_subscriptions();
        outcome
    }

    /// Ends a connection's subscription to a channel, and drops the channel's publications that are conflated
    /// for it.
    pub(in crate::cores) fn unsubscribe(
        &mut self,
        connections: &mut Connections,
        id: ConnectionId,
        name: &[u8],
    ) -> UnsubscribeOutcome {
        let hash = self.broker.hasher.hash(name);
        if connections.is_conflating(id)
            && let Some(channel) = self.broker.subscriptions.number_of(name, hash)
        {
            connections.forget_conflated(id, channel);
        }
        let outcome = self.broker.subscriptions.unsubscribe(id.index(), name, hash);
        self.tell_subscriptions();
        outcome
    }

    /// Ends at most `max` subscriptions of a connection. Returns how many are left.
    pub(in crate::cores) fn unsubscribe_some(&mut self, index: u32, max: usize) -> usize {
        let left = self.broker.subscriptions.unsubscribe_some(index, max);
        self.tell_subscriptions();
        left
    }

    /// Copies publications on a channel to a subscriber of the program: those that are published from now on.
    pub(in crate::cores) fn follow(&mut self, follower: Follower) {
        let hash = self.broker.hasher.hash(follower.channel());
        let begin = self.broker.reader.claimed();
        self.broker.subscriptions.interest_in(hash);
        self.followers.get_or_insert_default().add(hash, follower, begin);
    }

    /// Stops copying to the subscriber with this id.
    pub(in crate::cores) fn unfollow(&mut self, id: u64) {
        let Some(followers) = &mut self.followers else {
            return;
        };
        if let Some(hash) = followers.remove(id) {
            self.broker.subscriptions.no_interest_in(hash);
        }
        if followers.is_empty() {
            self.followers = None;
        }
    }

    /// From now on, tells webhooks of publications on the channels that they name; with `None`, stops that.
    pub(in crate::cores) fn tell_publications(&mut self, told: Option<WebhookPublications>) {
        self.broker
            .subscriptions
            .wake_for_all(AllChannels::Webhooks, told.is_some());
        if told.is_some() || self.followers.is_some() {
            let followers = self.followers.get_or_insert_default();
            followers.webhooks = told;
            if followers.is_empty() {
                self.followers = None;
            }
        }
    }

    /// Begins or stops to note which channels get their first subscriber on this core, or lose their last.
    pub(in crate::cores) fn watch_channels(&mut self, is_on: bool) {
        self.broker.subscriptions.watch(is_on);
    }

    /// The channels that have got their first subscriber on this core, or lost their last, since the last call.
    pub(in crate::cores) fn take_watched(&mut self) -> Vec<Change> {
        self.broker.subscriptions.take_watched()
    }

    /// Tells publishers which topics MQTT sessions of this core have become interested in, and which they no
    /// longer are.
    pub(in crate::cores) fn tell_mqtt_interest(&mut self, sessions: &mut Sessions) {
        sessions
            .subscriptions
            .tell_interest(&mut self.broker.subscriptions);
    }

    fn tell_subscriptions(&self) {
        self.metrics.subscriptions.set(self.broker.subscriptions.len());
    }

    /// The number of a channel, if it has subscribers on this core.
    pub(in crate::cores) fn number_of(&self, name: &[u8]) -> Option<u32> {
        let hash = self.broker.hasher.hash(name);
        self.broker.subscriptions.number_of(name, hash)
    }

    /// The subscriptions of this core's connections, to look at.
    pub(in crate::cores) fn subscriptions(&self) -> &Subscriptions {
        &self.broker.subscriptions
    }
}

/// Whether a publication becomes the retained one of its topic: its publisher or the policy of the channel
/// demands it.
#[inline]
fn is_retained(publication: Publication<'_>, memory: Option<&ChannelMemory>) -> bool {
    publication.is_retained()
        || (publication.is_remembered()
            && memory.is_some_and(|memory| memory.keeps_last_value(publication.channel())))
}

/// Whether MQTT clients get a string of a publication without its quotes.
#[inline]
fn unquotes(memory: Option<&ChannelMemory>, publication: Publication<'_>) -> bool {
    publication.origin() == Origin::SocketCluster
        && memory.is_some_and(|memory| memory.unquotes(publication.channel()))
}

/// Copies a publication to the subscribers of the program, and removes the subscribers that the program has
/// dropped.
#[cold]
fn copy_to_followers(
    followers: &mut Option<Box<Followers>>,
    subscriptions: &mut Subscriptions,
    hash: ChannelHash,
    (publication, numbering): (&Publication<'_>, Numbering),
    metrics: &CoreMetrics,
) {
    let Some(copying) = followers else { return };
    let (left_out, gone) = copying.copy(hash, publication, numbering);
    metrics.limit_hits[Limit::SubscriberQueue.index()].add(left_out);
    for id in gone {
        if let Some(hash) = copying.remove(id) {
            subscriptions.no_interest_in(hash);
        }
    }
    if copying.is_empty() {
        *followers = None;
    }
}

/// Notes a publication until it is written. Joins it with the one before if both are written at once.
fn note(waiting: &mut VecDeque<Delivered>, delivered: Delivered) {
    match waiting.back_mut() {
        Some(last) if (last.at_ns, last.end_of_bulk) == (delivered.at_ns, delivered.end_of_bulk) => {
            last.subscribers += delivered.subscribers;
        }
        Some(_) | None => waiting.push_back(delivered),
    }
}

/// [`COPIES_PER_TURN_MAX`], or the value of a simulation.
fn copies_per_turn_max() -> usize {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.copies_per_turn_max;
    }
    COPIES_PER_TURN_MAX
}

/// Copies of publications that one turn makes, at 20 to 100 ns each: far more than are merged into one flush
/// of some thousand connections, and still done in little time.
const COPIES_PER_TURN_MAX: usize = 16_384;
/// To encode this many bytes in another form costs as much as a copy: measured for compression.
const ENCODED_BYTES_PER_COPY: usize = 16;
/// A core that has fallen behind frees slots in steps, so that publishers need not wait for its whole
/// backlog.
const RELEASE_EVERY: usize = 256;
