//! This node: the other nodes that it knows, and what goes to them and comes from them. No I/O.
//!
//! ```text
//!   ring ─► publication ─► who wants it? ─► queue ─► frames, one for each node ─► NATS
//!   NATS ─► frame ─► link: is one missing? ─► publications, what the node wants, pings
//! ```
//! Frames go to one node, never to a channel: so the sender knows what each node gets, a link's numbers have no gaps but for
//! losses, and a publication comes once, whatever filters overlap. Nothing is passed on that has come from another node,
//! so that there are no loops, whatever way messages take.
//!
//! A node that misses a frame counts what is missing, and asks for all that the sender wants, since a change of that may have
//! been in the frame. A node of which nothing is heard for `cluster_node_timeout_ms` is forgotten.
//!
//! Limits: `cluster_queue_bytes_max`; [`NODES_MAX`] other nodes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tracing::{error, info, warn};

use crate::broker::{ChannelHash, Origin};
use crate::clock::{Now, Uptime};
use crate::cores::{InterestChange, Subject};
use crate::metrics::cluster::{ClusterLoss, ClusterMetrics};

use super::interest::{Interest, NODES_MAX, NodeSet, OwnInterest};
use super::wire::{FRAME_HEAD_BYTES, FrameHead, Greeting, Item, Unread, read_frame};

/// This node, and what it knows of the others.
#[derive(Debug)]
pub(super) struct Node {
    id: String,
    incarnation: u64,
    digests: [u64; 2],
    /// By place.
    peers: Vec<Option<Peer>>,
    own: OwnInterest,
    interest: Interest,
    queue: Queue,
    node_timeout: Duration,
    /// The number of the next link.
    next_link: u64,
    /// Whether a greeting is to be sent at once: another node may not know this one.
    greets: bool,
    /// Whether others want more than before: the ring may have a publication that the bridge was not woken for.
    has_new_interest: bool,

    /// Whether this node drains.
    is_draining: bool,
    next_gap_line: Uptime,
    has_told_version: bool,
    metrics: Arc<ClusterMetrics>,
}

/// What a node is made of.
#[derive(Debug)]
pub(super) struct NodeSettings {
    pub(super) id: String,
    pub(super) incarnation: u64,
    pub(super) digests: [u64; 2],
    pub(super) interest: Interest,
    pub(super) linger: Duration,
    pub(super) queue_bytes_max: usize,
    pub(super) node_timeout: Duration,
    /// Greater than in any former life of the process.
    pub(super) first_link: u64,
    pub(super) metrics: Arc<ClusterMetrics>,
}

/// Another node.
#[derive(Debug)]
struct Peer {
    incarnation: u64,
    /// Empty until it has greeted.
    id: String,
    version: String,
    digests: Option<[u64; 2]>,
    is_draining: bool,
    heard: Uptime,
    out: Outgoing,
    incoming: Option<Incoming>,
    /// Whether this node has missed a frame, and has not been told since what the other one wants.
    awaits_all: bool,
    /// For how many beats it and another one with its id have been heard.
    shared_id_beats: u32,
    round_trip_ns: Option<u64>,
    sent: u64,
    received: u64,
    missed: u64,
    gaps: u64,
}

/// The link to another node.
#[derive(Debug)]
struct Outgoing {
    link: u64,
    /// Frames so far.
    number: u64,
    /// Publications so far, sent or lost.
    published: u64,
}

/// The link from another node.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    link: u64,
    number: u64,
    published: u64,
}

/// What waits to be sent.
#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Queued>,
    bytes: usize,
    bytes_max: usize,
    /// By place: publications that were not queued, since the last frame.
    lost: Vec<u64>,
}

#[derive(Debug)]
struct Queued {
    to: NodeSet,
    item: Box<[u8]>,
    is_publication: bool,
}

/// A frame on its way out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The incarnation that gets it.
    pub(super) to: u64,
    pub(super) bytes: Vec<u8>,
}

/// A publication that has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrived<'a> {
    pub(super) origin: Origin,
    pub(super) channel: &'a [u8],
    pub(super) body: &'a [u8],
}

impl Node {
    pub(super) fn new(settings: NodeSettings) -> Node {
        Node {
            id: settings.id,
            incarnation: settings.incarnation,
            digests: settings.digests,
            peers: (0..NODES_MAX).map(|_| None).collect(),
            own: OwnInterest::new(settings.linger),
            interest: settings.interest,
            queue: Queue {
                bytes_max: settings.queue_bytes_max,
                lost: vec![0; NODES_MAX],
                ..Queue::default()
            },
            node_timeout: settings.node_timeout,
            next_link: settings.first_link,
            greets: true,
            has_new_interest: false,
            is_draining: false,
            next_gap_line: Uptime::default(),
            has_told_version: false,
            metrics: settings.metrics,
        }
    }

    /// How often this node tells that it is alive.
    pub(super) fn beat(&self) -> Duration {
        self.node_timeout / 5
    }

    /// The configuration has changed.
    pub(super) fn set_digests(&mut self, digests: [u64; 2]) {
        if self.digests != digests {
            self.digests = digests;
            self.greets = true;
        }
    }

    // ---- what this node wants

    /// Notes what cores have told.
    pub(super) fn change_own(&mut self, changes: Vec<InterestChange>, now: Uptime) {
        for change in changes {
            if let Some(subject) = self.own.change(change, now) {
                self.tell_all(subject, true);
            }
        }
        self.metrics.wanted.set(self.own.len() as u64);
    }

    /// Tells the others what this node wants no more. Returns when that is to be done next.
    pub(super) fn end_lingering(&mut self, now: Uptime) -> Uptime {
        while let Some(subject) = self.own.next_left(now) {
            self.tell_all(subject, false);
        }
        self.metrics.wanted.set(self.own.len() as u64);
        self.own.next_due()
    }

    fn tell_all(&mut self, subject: Subject, is_wanted: bool) {
        let to = self.peers();
        if !to.is_empty() {
            self.queue.push(to, &Item::Want { subject, is_wanted });
        }
    }

    /// Tells a node all that this one wants.
    fn name_all(&mut self, place: usize) {
        let to = NodeSet::of(place);
        self.queue.push(to, &Item::AllBegins);
        for subject in self.own.subjects() {
            let item = Item::Want {
                subject: subject.clone(),
                is_wanted: true,
            };
            self.queue.push(to, &item);
        }
        self.queue.push(to, &Item::AllEnds);
    }

    // ---- publications of this node

    /// The nodes that want a publication.
    pub(super) fn wanted_by<'n>(&mut self, hash: ChannelHash, name: impl Fn() -> &'n [u8]) -> NodeSet {
        self.interest.nodes(hash, name)
    }

    /// Queues a publication for some nodes, or counts it as lost.
    pub(super) fn publish(&mut self, to: NodeSet, origin: Origin, channel: &[u8], body: &[u8]) {
        let item = Item::Publication {
            origin,
            channel,
            body,
        };
        if self.queue.has_room(item.bytes()) {
            self.queue.push(to, &item);
        } else {
            to.places().for_each(|place| self.queue.lost[place] += 1);
            self.metrics.lost[ClusterLoss::QueueFull.index()].add(1);
        }
        self.metrics.queue_bytes.set(self.queue.bytes as u64);
    }

    /// Whether there is something to send.
    pub(super) fn has_queued(&self) -> bool {
        !self.queue.items.is_empty()
    }

    /// Takes out what waits, about [`TAKEN_BYTES`] of it, as frames of at most `frame_bytes_max`.
    pub(super) fn take_frames(&mut self, frame_bytes_max: usize) -> Vec<Frame> {
        let mut open: Vec<(Vec<u8>, u64)> = vec![(Vec::new(), 0); NODES_MAX];
        let (mut used, mut taken, mut frames) = (NodeSet::EMPTY, 0, Vec::new());
        while taken < TAKEN_BYTES
            && let Some(queued) = self.queue.items.pop_front()
        {
            self.queue.bytes -= queued.bytes();
            for place in queued.to.places() {
                if FRAME_HEAD_BYTES + queued.item.len() > frame_bytes_max {
                    if queued.is_publication {
                        self.queue.lost[place] += 1;
                        self.metrics.lost[ClusterLoss::TooLarge.index()].add(1);
                    }
                    continue;
                }
                let (items, publications) = &mut open[place];
                if FRAME_HEAD_BYTES + items.len() + queued.item.len() > frame_bytes_max.min(FRAME_BYTES) {
                    let (items, publications) = (std::mem::take(items), std::mem::take(publications));
                    frames.extend(self.frame(place, &items, publications));
                }
                let (items, publications) = &mut open[place];
                items.extend_from_slice(&queued.item);
                *publications += u64::from(queued.is_publication);
                taken += queued.item.len();
                used.insert(place);
            }
        }
        for place in used.places() {
            let (items, publications) = &open[place];
            frames.extend(self.frame(place, items, *publications));
        }
        self.queue.tidy();
        self.metrics.queue_bytes.set(self.queue.bytes as u64);
        frames
    }

    /// A frame with these items.
    fn frame(&mut self, place: usize, items: &[u8], publications: u64) -> Option<Frame> {
        let peer = self.peers[place].as_mut().filter(|_| !items.is_empty())?;
        let out = &mut peer.out;
        out.number += 1;
        out.published += std::mem::take(&mut self.queue.lost[place]);
        let head = FrameHead {
            sender: self.incarnation,
            link: out.link,
            number: out.number,
            published: out.published,
        };
        let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + items.len());
        head.write(&mut bytes);
        bytes.extend_from_slice(items);
        out.published += publications;
        peer.sent += publications;
        self.metrics.sent.add(publications);
        Some(Frame {
            to: peer.incarnation,
            bytes,
        })
    }

    // ---- what comes from others

    /// Takes a frame in. Returns its publications, in their order.
    pub(super) fn take_frame<'b>(&mut self, bytes: &'b [u8], now: Uptime, now_ns: u64) -> Vec<Arrived<'b>> {
        let (head, items) = match read_frame(bytes) {
            Ok(read) => read,
            Err(unread) => {
                self.unread(unread);
                return Vec::new();
            }
        };
        if head.sender == self.incarnation {
            return Vec::new();
        }
        let Some(place) = self.place_of(head.sender, now) else {
            return Vec::new();
        };
        if !self.follows(place, head, now) {
            return Vec::new();
        }
        let mut arrived = Vec::new();
        for item in items {
            match item {
                Ok(Item::Publication {
                    origin,
                    channel,
                    body,
                }) => arrived.push(Arrived {
                    origin,
                    channel,
                    body,
                }),
                Ok(Item::Want { subject, is_wanted }) => {
                    self.has_new_interest |= is_wanted;
                    self.interest.change(place, subject, is_wanted);
                }
                Ok(Item::AllBegins) => {
                    self.interest.all_begins(place);
                    if let Some(peer) = &mut self.peers[place] {
                        peer.awaits_all = false;
                    }
                }
                Ok(Item::AllEnds) => self.interest.all_ends(place),
                Ok(Item::AskAll) => self.name_all(place),
                Ok(Item::Ping(number)) => self.queue.push(NodeSet::of(place), &Item::Pong(number)),
                Ok(Item::Pong(sent_ns)) => {
                    if let Some(peer) = &mut self.peers[place] {
                        peer.round_trip_ns = Some(now_ns.saturating_sub(sent_ns));
                    }
                }
                Err(unread) => self.unread(unread),
            }
        }
        if let Some(peer) = &mut self.peers[place] {
            let count = arrived.len() as u64;
            peer.received += count;
            if let Some(incoming) = &mut peer.incoming {
                incoming.published = incoming.published.saturating_add(count);
            }
        }
        self.metrics.wanted_by_others.set(self.interest.len() as u64);
        arrived
    }

    /// Compares a frame with those before it. False if it is not the next one, but one that has come already.
    fn follows(&mut self, place: usize, head: FrameHead, now: Uptime) -> bool {
        let Some(peer) = &mut self.peers[place] else {
            return false;
        };
        peer.heard = now;
        let before = peer.incoming;
        if let Some(before) = before
            && (head.link < before.link || (head.link == before.link && head.number <= before.number))
        {
            self.metrics.repeated.add(1);
            return false;
        }
        peer.incoming = Some(Incoming {
            link: head.link,
            number: head.number,
            published: head.published,
        });
        let (is_next, missed) = match before {
            Some(before) if before.link == head.link => (
                before.number.checked_add(1) == Some(head.number),
                head.published.saturating_sub(before.published),
            ),
            // The other node has forgotten this one, and has found it again: nobody knows what it would have sent.
            Some(_) => (false, head.published),
            // What came before this node knew the other one was for nobody, or for a former life of the link.
            None => (head.number == 1, 0),
        };
        if is_next && missed == 0 {
            return true;
        }
        let (id, is_first) = (peer.id.clone(), before.is_none());
        if !is_next {
            // What it wants may have been in a frame that is missing.
            peer.awaits_all = true;
            self.queue.push(NodeSet::of(place), &Item::AskAll);
        }
        if is_first {
            return true;
        }
        peer.missed = peer.missed.saturating_add(missed);
        peer.gaps += 1;
        self.metrics.missed.add(missed);
        self.metrics.gaps.add(1);
        if now >= self.next_gap_line {
            self.next_gap_line = now + GAP_LINE_EVERY;
            let restarted = before.is_some_and(|before| before.link != head.link);
            match restarted {
                true => warn!(
                    target: TARGET,
                    "publications of the node {id} are missing here: the two had lost each other for longer than cluster_node_timeout_ms"
                ),
                false => warn!(
                    target: TARGET,
                    missed,
                    "publications of the node {id} are missing here: its queue was full (cluster_queue_bytes_max), or NATS has dropped them"
                ),
            }
        }
        true
    }

    /// Takes a greeting in.
    pub(super) fn take_greeting(&mut self, bytes: &[u8], now: Uptime) {
        let greeting = match Greeting::read(bytes) {
            Ok(greeting) => greeting,
            Err(unread) => return self.unread(unread),
        };
        if greeting.sender == self.incarnation {
            return;
        }
        if greeting.is_farewell {
            if let Some(place) = self.find(greeting.sender) {
                info!(target: TARGET, "the node {} has ended", greeting.node_id);
                self.forget(place);
            }
            return;
        }
        let Some(place) = self.place_of(greeting.sender, now) else {
            return;
        };
        let Some(peer) = &mut self.peers[place] else {
            return;
        };
        peer.heard = now;
        if peer.id.is_empty() {
            peer.id = greeting.node_id;
            info!(target: TARGET, "the node {} is there, version {}", peer.id, greeting.version);
        }
        peer.version = greeting.version;
        peer.is_draining = greeting.is_draining;
        if peer.digests != Some(greeting.digests) {
            peer.digests = Some(greeting.digests);
            warn_of_difference(&peer.id, self.digests, greeting.digests);
        }
    }

    /// The greeting that is due: at each beat, and when another node may not know this one.
    pub(super) fn greeting(&mut self, is_farewell: bool) -> Vec<u8> {
        self.greets = false;
        let greeting = Greeting {
            sender: self.incarnation,
            is_farewell,
            is_draining: self.is_draining,
            digests: self.digests,
            node_id: self.id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        greeting.to_bytes()
    }

    /// This node drains: another process may have its id from now on.
    pub(super) fn drain(&mut self) {
        self.is_draining = true;
        self.greets = true;
    }

    /// Greets the others at the next opportunity.
    pub(super) fn greet_soon(&mut self) {
        self.greets = true;
    }

    /// Whether others want more than at the last call.
    pub(super) fn take_new_interest(&mut self) -> bool {
        std::mem::take(&mut self.has_new_interest)
    }

    /// Whether [`Node::greeting`] is due before the next beat.
    pub(super) fn has_to_greet(&self) -> bool {
        self.greets
    }

    /// What is done at each beat: nodes that are silent are forgotten, the others get a ping.
    pub(super) fn tend(&mut self, now: Now, now_ns: u64) {
        for place in 0..NODES_MAX {
            let Some(peer) = &self.peers[place] else { continue };
            if now.uptime.since(peer.heard) > self.node_timeout {
                let seconds = now.uptime.since(peer.heard).as_secs_f64();
                warn!(target: TARGET, "nothing was heard of the node {} for {seconds:.1} s: it is taken for ended", peer.id);
                self.forget(place);
                continue;
            }
            let awaits_all = peer.awaits_all;
            let to = NodeSet::of(place);
            self.queue.push(to, &Item::Ping(now_ns));
            if awaits_all {
                self.queue.push(to, &Item::AskAll);
            }
        }
        self.look_for_shared_ids(now.uptime);
        let peers = || self.peers.iter().flatten();
        self.metrics.nodes.set(peers().count() as u64);
        let longest = peers().filter_map(|peer| peer.round_trip_ns).max();
        self.metrics.round_trip_ns.set(longest.unwrap_or(0));
        self.metrics.queue_bytes.set(self.queue.bytes as u64);
    }

    /// Two processes with one id for some beats are no restart, unless one of them drains.
    fn look_for_shared_ids(&mut self, now: Uptime) {
        let recent = self.beat() * 2;
        let alive: Vec<(usize, String)> = self
            .peers
            .iter()
            .enumerate()
            .filter_map(|(place, peer)| Some((place, peer.as_ref()?)))
            .filter(|(_, peer)| now.since(peer.heard) <= recent && !peer.id.is_empty() && !peer.is_draining)
            .map(|(place, peer)| (place, peer.id.clone()))
            .collect();
        let mut duplicates = 0;
        for (place, id) in &alive {
            let is_own = *id == self.id && !self.is_draining;
            let is_shared = is_own || alive.iter().any(|(other, same)| other != place && same == id);
            let Some(peer) = &mut self.peers[*place] else {
                continue;
            };
            peer.shared_id_beats = if is_shared { peer.shared_id_beats + 1 } else { 0 };
            duplicates += u64::from(peer.shared_id_beats >= SHARED_ID_BEATS);
            if peer.shared_id_beats == SHARED_ID_BEATS {
                error!(
                    target: TARGET,
                    "two processes are the node {id}: give each its own node_id, and its own data_dir; all publications still \
                     reach both"
                );
            }
        }
        self.metrics.duplicate_ids.set(duplicates);
    }

    fn unread(&mut self, unread: Unread) {
        match unread {
            Unread::Malformed => self.metrics.lost[ClusterLoss::Malformed.index()].add(1),
            Unread::Version(version) if !self.has_told_version => {
                self.has_told_version = true;
                warn!(
                    target: TARGET,
                    "a node speaks version {version} of the protocol between nodes, which this one does not know: its \
                     publications are not taken; run the same version of Ringcast on all nodes"
                );
            }
            Unread::Version(_) => {}
        }
    }

    // ---- nodes

    fn peers(&self) -> NodeSet {
        let mut set = NodeSet::EMPTY;
        let places = self.peers.iter().enumerate();
        places
            .filter(|(_, peer)| peer.is_some())
            .for_each(|(place, _)| set.insert(place));
        set
    }

    fn find(&self, incarnation: u64) -> Option<usize> {
        let is_it = |peer: &Option<Peer>| peer.as_ref().is_some_and(|peer| peer.incarnation == incarnation);
        self.peers.iter().position(is_it)
    }

    /// The place of a node, which gets one if it is new.
    fn place_of(&mut self, incarnation: u64, now: Uptime) -> Option<usize> {
        if let Some(place) = self.find(incarnation) {
            return Some(place);
        }
        let Some(place) = self.peers.iter().position(Option::is_none) else {
            if self.metrics.nodes_refused.value() == 0 {
                warn!(target: TARGET, "a node is ignored: there are {NODES_MAX} others, and no more are possible");
            }
            self.metrics.nodes_refused.add(1);
            return None;
        };
        self.next_link += 1;
        self.peers[place] = Some(Peer {
            incarnation,
            id: String::new(),
            version: String::new(),
            digests: None,
            is_draining: false,
            heard: now,
            out: Outgoing {
                link: self.next_link,
                number: 0,
                published: 0,
            },
            incoming: None,
            awaits_all: false,
            shared_id_beats: 0,
            round_trip_ns: None,
            sent: 0,
            received: 0,
            missed: 0,
            gaps: 0,
        });
        self.queue.lost[place] = 0;
        self.greets = true;
        self.name_all(place);
        self.metrics.nodes.set(self.peers.iter().flatten().count() as u64);
        Some(place)
    }

    fn forget(&mut self, place: usize) {
        self.peers[place] = None;
        self.queue.forget(place);
        self.interest.forget(place);
        self.metrics.nodes.set(self.peers.iter().flatten().count() as u64);
        self.metrics.wanted_by_others.set(self.interest.len() as u64);
    }

    /// This node and the others, for operators.
    pub(super) fn status(&self, now: Uptime) -> Value {
        let places = self.peers.iter().enumerate();
        let peers = places.filter_map(|(place, peer)| Some((place, peer.as_ref()?)));
        let nodes: Vec<Value> = peers
            .map(|(place, peer)| {
                json!({
                    "node_id": peer.id,
                    "incarnation": format!("{:016x}", peer.incarnation),
                    "version": peer.version,
                    "heard_ms_ago": u64::try_from(now.since(peer.heard).as_millis()).unwrap_or(u64::MAX),
                    "round_trip_us": peer.round_trip_ns.map(|ns| ns / 1000),
                    "sent": peer.sent,
                    "received": peer.received,
                    "missed": peer.missed,
                    "gaps": peer.gaps,
                    "wants": self.interest.len_of(place),
                    "shares_its_id": peer.shared_id_beats >= SHARED_ID_BEATS,
                    "differs_in": peer.digests.map(|digests| differences(self.digests, digests)),
                })
            })
            .collect();
        json!({
            "node_id": self.id,
            "incarnation": format!("{:016x}", self.incarnation),
            "wants": self.own.len(),
            "queue_bytes": self.queue.bytes,
            "nodes": nodes,
        })
    }
}

impl Queue {
    fn has_room(&self, bytes: usize) -> bool {
        // An empty queue takes any one publication.
        self.bytes == 0 || self.bytes + bytes + QUEUED_BYTES <= self.bytes_max
    }

    fn push(&mut self, to: NodeSet, item: &Item<'_>) {
        let mut bytes = Vec::with_capacity(item.bytes());
        item.write(&mut bytes);
        let queued = Queued {
            to,
            item: bytes.into(),
            is_publication: matches!(item, Item::Publication { .. }),
        };
        self.bytes += queued.bytes();
        self.items.push_back(queued);
    }

    /// Nothing goes to this place any more.
    fn forget(&mut self, place: usize) {
        self.lost[place] = 0;
        let bytes = &mut self.bytes;
        self.items.retain_mut(|queued| {
            queued.to.remove(place);
            if queued.to.is_empty() {
                *bytes -= queued.bytes();
            }
            !queued.to.is_empty()
        });
    }

    /// Gives memory back that it has needed for more.
    fn tidy(&mut self) {
        if self.items.is_empty() && self.items.capacity() > KEPT_ITEMS_MAX {
            self.items = VecDeque::new();
        }
    }
}

impl Queued {
    fn bytes(&self) -> usize {
        self.item.len() + QUEUED_BYTES
    }
}

/// In what two configurations differ that matters to clients.
fn differences(own: [u64; 2], other: [u64; 2]) -> Vec<&'static str> {
    let names = ["channels", "limits"];
    let pairs = names.into_iter().zip(own.into_iter().zip(other));
    pairs
        .filter(|(_, (own, other))| own != other)
        .map(|(name, _)| name)
        .collect()
}

fn warn_of_difference(id: &str, own: [u64; 2], other: [u64; 2]) {
    for difference in differences(own, other) {
        match difference {
            "channels" => warn!(
                target: TARGET,
                "the node {id} has other [[channels]] than this one: a channel that remembers on one of them has no publications \
                 of the other; give all nodes the same"
            ),
            _ => warn!(
                target: TARGET,
                "the node {id} has another message_bytes_max, channel_name_bytes_max or mqtt_payload than this one: what is \
                 larger than a node allows does not reach its clients; give all nodes the same"
            ),
        }
    }
}

/// The target of log lines about other nodes.
pub(super) const TARGET: &str = "ringcast::cluster";
/// Frames have about so many bytes at most, unless a publication alone has more.
const FRAME_BYTES: usize = 32 * 1024;
/// Bytes that one [`Node::take_frames`] takes out: the thread that reads the ring waits meanwhile.
const TAKEN_BYTES: usize = 256 * 1024;
/// What an item takes beside its bytes.
const QUEUED_BYTES: usize = size_of::<Queued>() + 16;
/// An empty queue with room for more items gives its memory back.
const KEPT_ITEMS_MAX: usize = 4096;
/// After so many beats in which two processes with one id were heard, they are two nodes.
const SHARED_ID_BEATS: u32 = 10;
/// How often lines about missing publications are written at most.
const GAP_LINE_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
