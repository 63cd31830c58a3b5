//! The load on one server for one measure: its connections, driven for one slice after the other.
//!
//! The load is a closed loop (each answer causes the next message), because the servers have very different speeds.
//! Between slices no message is on its way, so that a server does not work during the slice of another one.

mod stored;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use nix::time::{ClockId, clock_gettime};

use super::super::clock::{SECOND, nanoseconds, now_ns};
use super::super::mqtt::wire::PAYLOAD_BYTES_MIN;
use super::super::mqtt::{Filters, Qos};
use super::super::sources::Sources;
use super::super::wire::{self, Publication};
use super::link::{Dialect, Link, Progress, Shared};

/// The work of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Each client always has this many pings in flight.
    Ping { clients: u32, in_flight: u32 },
    /// Each channel has one publisher, which sends `in_flight` publications at once when all subscribers have received
    /// the last, and the server has acknowledged them if it must.
    Publish {
        channels: u32,
        /// Of all channels together, which have equally many.
        subscribers: u32,
        in_flight: u32,
    },
    /// This many clients at a time connect, complete the handshake, and close.
    Churn { at_a_time: u32 },
    /// Connected and silent; with MQTT each has a subscription to a topic of its own.
    Idle { clients: u32 },
    /// One MQTT publisher, which publishes `each` messages on every topic, `in_flight` at a time: nobody receives them
    /// now, the server stores them.
    Store { topics: u32, each: u32, in_flight: u32 },
}

impl Load {
    /// Number of connections at a time.
    fn links(self) -> u32 {
        match self {
            Load::Ping { clients, .. } | Load::Idle { clients } => clients,
            Load::Publish {
                channels,
                subscribers,
                ..
            } => channels + subscribers,
            Load::Churn { at_a_time } => at_a_time,
            Load::Store { .. } => 1,
        }
    }

    fn channel_of(self, link: u32, dialect: Dialect) -> Option<u32> {
        match (self, dialect) {
            // Publishers come first.
            (Load::Publish { channels, .. }, _) => (link >= channels).then_some(link % channels),
            (Load::Idle { .. }, Dialect::Mqtt(_)) => Some(link),
            (Load::Ping { .. } | Load::Churn { .. } | Load::Idle { .. } | Load::Store { .. }, _) => None,
        }
    }
}

/// The cost and the result of a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    /// Replies, deliveries or connections.
    pub(crate) done: u64,
    pub(crate) elapsed_ns: u64,
    pub(crate) cpu_ns: u64,
    /// The part of `cpu_ns` that the kernel's network thread used.
    pub(crate) deferred_ns: u64,
    pub(crate) generator_ns: u64,
}

/// The server's CPU clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    pub(crate) processes_ns: u64,
    pub(crate) deferred_ns: u64,
}

/// The length of a slice, and of the part at its start that does not count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    pub(crate) whole: Duration,
    pub(crate) warm_up: Duration,
}

pub(crate) struct Drive {
    load: Load,
    poll: Poll,
    events: Events,
    sources: Sources,
    links: Vec<Option<Link>>,
    channels: Vec<Channel>,
    /// Channels whose last publications have reached all subscribers.
    due: Vec<u32>,
    shared: Shared,
    /// Replies, deliveries, connections or stored messages so far.
    done: u64,
    opened: u32,
    /// Pings, deliveries, acknowledgements or connections on their way.
    awaited: u64,
    sending: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Channel {
    published: u32,
    awaited: u32,
}

impl Drive {
    /// Opens all connections; `index` keeps those of several servers apart.
    pub(crate) fn open(load: Load, address: SocketAddr, dialect: Dialect) -> Result<Drive, String> {
        let channels = match load {
            Load::Publish { channels, .. } => channels,
            Load::Ping { .. } | Load::Churn { .. } | Load::Idle { .. } | Load::Store { .. } => 0,
        };
        let mut drive = Drive {
            load,
            poll: Poll::new().map_err(in_words)?,
            events: Events::with_capacity(EVENTS_MAX),
            sources: Sources::new(address, 0, load.links()),
            links: Vec::new(),
            channels: vec![Channel::default(); channels as usize],
            due: Vec::new(),
            shared: Shared {
                dialect,
                request: wire::upgrade_request(&address.to_string(), "/socketcluster/"),
                inbox: vec![0; INBOX_BYTES],
                outbox: Vec::new(),
                delivered: Vec::new(),
                group: GROUPS.fetch_add(1, Ordering::Relaxed),
                pad: match dialect {
                    Dialect::SocketCluster | Dialect::Echo => String::new(),
                    Dialect::Mqtt(_) => "x".repeat(MQTT_PAYLOAD_BYTES - PAYLOAD_BYTES_MIN),
                },
            },
            done: 0,
            opened: 0,
            awaited: 0,
            sending: false,
        };
        if !matches!(load, Load::Churn { .. }) {
            drive.open_more(load.links())?;
        }
        Ok(drive)
    }

    /// Opens this many further connections.
    pub(crate) fn open_more(&mut self, count: u32) -> Result<(), String> {
        let mut next = u32::try_from(self.links.len()).unwrap_or(u32::MAX);
        let (last, wanted) = (next + count, self.opened + count);
        let mut patience = Patience::new();
        while self.opened < wanted {
            if next < last && (wanted - self.opened) - (last - next) < OPENING_MAX {
                self.links.push(None);
                self.connect(next)?;
                next += 1;
            } else {
                self.turn(TURN)?;
                patience.with(u64::from(self.opened))?;
            }
        }
        Ok(())
    }

    /// Answers heartbeats of the server for this time.
    pub(crate) fn rest(&mut self, time: Duration) -> Result<(), String> {
        let end = now_ns() + nanoseconds(time);
        while now_ns() < end {
            self.turn(TURN)?;
        }
        Ok(())
    }

    /// Drives the server for one slice; `clocks` reads its CPU clocks.
    pub(crate) fn slice(
        &mut self,
        length: Length,
        clocks: impl Fn() -> Result<Clocks, String>,
    ) -> Result<Slice, String> {
        let start = now_ns();
        let (warm, end) = (
            start + nanoseconds(length.warm_up),
            start + nanoseconds(length.whole),
        );
        let mut patience = Patience::new();
        let mut from: Option<Mark> = None;
        self.begin()?;
        let slice = loop {
            self.turn(TURN)?;
            patience.with(self.done)?;
            let now = now_ns();
            if self.is_between() {
                match from {
                    None if now >= warm => from = Some(self.mark(now, &clocks)?),
                    Some(from) if now >= end && self.done > from.done => {
                        break self.mark(now, &clocks)?.since(&from);
                    }
                    None | Some(_) => {}
                }
            }
            self.publish_due()?;
        };
        self.finish()?;
        Ok(slice)
    }

    /// Drives the server for this time; returns the number of replies, deliveries or connections.
    pub(crate) fn count(&mut self, time: Duration) -> Result<u64, String> {
        let before = self.done;
        let end = now_ns() + nanoseconds(time);
        let mut patience = Patience::new();
        self.begin()?;
        while now_ns() < end {
            self.turn(TURN)?;
            self.publish_due()?;
            patience.with(self.done)?;
        }
        self.finish()?;
        Ok(self.done - before)
    }

    /// True between publications. A slice ends only there, because a publication of a slow server may last longer than
    /// a slice.
    fn is_between(&self) -> bool {
        self.channels.len() != 1 || self.awaited == 0
    }

    fn mark(&self, now: u64, clocks: impl Fn() -> Result<Clocks, String>) -> Result<Mark, String> {
        let own = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_err(|error| error.to_string())?;
        Ok(Mark {
            now,
            clocks: clocks()?,
            own: nanoseconds(Duration::from(own)),
            done: self.done,
        })
    }

    fn begin(&mut self) -> Result<(), String> {
        self.sending = true;
        match self.load {
            Load::Ping { in_flight, .. } => {
                for index in 0..self.links.len() {
                    self.ping(index, in_flight)?;
                }
            }
            Load::Publish { channels, .. } => {
                self.due.extend(0..channels);
                self.publish_due()?;
            }
            Load::Churn { at_a_time } => {
                self.links.resize_with(at_a_time as usize, || None);
                for index in 0..at_a_time {
                    self.awaited += 1;
                    self.connect(index)?;
                }
            }
            Load::Idle { .. } | Load::Store { .. } => {}
        }
        Ok(())
    }

    /// Waits for all messages that are on their way.
    fn finish(&mut self) -> Result<(), String> {
        self.sending = false;
        self.due.clear();
        let mut patience = Patience::new();
        while self.awaited > 0 {
            self.turn(TURN)?;
            self.due.clear();
            patience.with(self.done)?;
        }
        Ok(())
    }

    fn connect(&mut self, index: u32) -> Result<(), String> {
        let stream = self.sources.connect().map_err(in_words)?;
        let channel = self.load.channel_of(index, self.shared.dialect);
        self.links[index as usize] = Some(Link::new(stream, index, channel));
        self.begin_link(index as usize)
    }

    fn begin_link(&mut self, index: usize) -> Result<(), String> {
        let Some(link) = &mut self.links[index] else {
            return Ok(());
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut link.stream, Token(index), interest)
            .map_err(in_words)?;
        link.connected(&mut self.shared)
    }

    fn ping(&mut self, index: usize, count: u32) -> Result<(), String> {
        if let Some(link) = &mut self.links[index] {
            for _ in 0..count {
                link.ping(&mut self.shared);
            }
            self.awaited += u64::from(count);
            link.flush(&mut self.shared)?;
        }
        Ok(())
    }

    fn publish_due(&mut self) -> Result<(), String> {
        let Load::Publish {
            channels,
            subscribers,
            in_flight,
        } = self.load
        else {
            return Ok(());
        };
        let (receivers, answers) = match self.shared.dialect {
            Dialect::SocketCluster | Dialect::Echo => (subscribers / channels, 0),
            Dialect::Mqtt(speech) => (
                match speech.filters {
                    Filters::Everything => subscribers,
                    Filters::Exact | Filters::Wildcard | Filters::Prefix => subscribers / channels,
                },
                u32::from(speech.qos != Qos::Zero),
            ),
        };
        while let Some(channel) = self.due.pop() {
            let Some(publisher) = &mut self.links[channel as usize] else {
                continue;
            };
            let state = &mut self.channels[channel as usize];
            for _ in 0..in_flight {
                let publication = Publication {
                    channel,
                    from: channel,
                    number: state.published,
                    at: 0,
                };
                publisher.publish(&publication, &mut self.shared);
                state.published += 1;
            }
            state.awaited = in_flight * (receivers + answers);
            self.awaited += u64::from(state.awaited);
            publisher.flush(&mut self.shared)?;
        }
        Ok(())
    }

    /// Handles events, or waits for one.
    fn turn(&mut self, wait: Duration) -> Result<(), String> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let outcome = match self.poll.poll(&mut events, Some(wait)) {
            Ok(()) => events.iter().try_for_each(|event| self.ready(event.token().0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(in_words(error)),
        };
        self.events = events;
        outcome
    }

    fn ready(&mut self, index: usize) -> Result<(), String> {
        let Some(link) = &mut self.links[index] else {
            return Ok(());
        };
        link.connected(&mut self.shared)?;
        let progress = link.readable(&mut self.shared)?;
        if progress.opened {
            self.opened += 1;
        }
        match self.load {
            Load::Churn { .. } => return self.churned(index, progress),
            Load::Ping { .. } => {
                self.done += u64::from(progress.replies);
                self.awaited -= u64::from(progress.replies);
                if self.sending {
                    // One write sends this together with the bytes that are in the outbox already.
                    return self.ping(index, progress.replies);
                }
            }
            Load::Publish { .. } => {
                self.done += u64::from(progress.deliveries);
                link.flush(&mut self.shared)?;
                if progress.acknowledged > 0 {
                    // Only publishers are acknowledged, and each has the number of its channel.
                    let channel = u32::try_from(index).unwrap_or(u32::MAX);
                    self.arrived(channel, progress.acknowledged);
                }
                for index in 0..self.shared.delivered.len() {
                    let (channel, count) = self.shared.delivered[index];
                    self.arrived(channel, count);
                }
                self.shared.delivered.clear();
                return Ok(());
            }
            Load::Idle { .. } | Load::Store { .. } => {
                self.done += u64::from(progress.acknowledged + progress.deliveries);
                self.shared.delivered.clear();
                if progress.ended {
                    self.opened -= 1;
                }
            }
        }
        link.flush(&mut self.shared)
    }

    /// Counts deliveries of a channel, or acknowledgements of its publisher.
    fn arrived(&mut self, channel: u32, count: u32) {
        self.awaited -= u64::from(count);
        let state = &mut self.channels[channel as usize];
        state.awaited -= count;
        if state.awaited == 0 {
            self.due.push(channel);
        }
    }

    fn churned(&mut self, index: usize, progress: Progress) -> Result<(), String> {
        let Some(link) = &mut self.links[index] else {
            return Ok(());
        };
        if progress.opened {
            link.close(&mut self.shared);
        }
        if !progress.ended {
            return link.flush(&mut self.shared);
        }
        self.shared.outbox.clear();
        self.links[index] = None;
        self.done += 1;
        self.awaited -= 1;
        if self.sending {
            self.awaited += 1;
            self.connect(u32::try_from(index).unwrap_or(u32::MAX))?;
        }
        Ok(())
    }
}

struct Mark {
    now: u64,
    clocks: Clocks,
    own: u64,
    done: u64,
}

impl Mark {
    fn since(&self, from: &Mark) -> Slice {
        let deferred_ns = self.clocks.deferred_ns - from.clocks.deferred_ns;
        Slice {
            done: self.done - from.done,
            elapsed_ns: self.now - from.now,
            cpu_ns: self.clocks.processes_ns - from.clocks.processes_ns + deferred_ns,
            deferred_ns,
            generator_ns: self.own - from.own,
        }
    }
}

/// Ends a wait without progress.
struct Patience {
    done: u64,
    until: u64,
}

impl Patience {
    fn new() -> Patience {
        Patience {
            done: 0,
            until: now_ns() + PATIENCE_NS,
        }
    }

    fn with(&mut self, done: u64) -> Result<(), String> {
        if done != self.done {
            *self = Patience {
                done,
                ..Patience::new()
            };
        } else if now_ns() > self.until {
            return Err(format!("no further message arrived after {done}"));
        }
        Ok(())
    }
}

fn in_words(error: io::Error) -> String {
    error.to_string()
}

/// The next number of a group of MQTT clients. Relaxed: no other data depends on it.
static GROUPS: AtomicU32 = AtomicU32::new(0);
const MQTT_PAYLOAD_BYTES: usize = 64;
const EVENTS_MAX: usize = 1024;
const INBOX_BYTES: usize = 64 * 1024;
/// Below the backlog of every server. If a backlog is full, the kernel repeats the connect only a second later.
const OPENING_MAX: u32 = 100;
const TURN: Duration = Duration::from_millis(20);
const PATIENCE_NS: u64 = 10 * SECOND;
