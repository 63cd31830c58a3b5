//! A driver: the clients of one server on one thread, and the loop that drives them.
//!
//! A driver keeps its connections between runs. [`Driver::run`] runs a plan, waits for all messages that are on their
//! way, and returns its counts; [`Driver::hold`] keeps the connections alive between plans. A driver starts no thread;
//! several drivers of different servers can take turns on one thread.
//!
//! A turn: wait → read, answer, send the next messages → report deliveries to the crowd → open, ping and publish what
//! is due. Latencies count from due times. A timer wakes the loop for due events, because the timeout of a poll has a
//! resolution of a millisecond.

mod turn;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

use super::client::{Client, Protocol, Stage};
use super::clock::{SECOND, nanoseconds, now_ns};
use super::crowd::{Crowd, Role};
use super::mqtt::Speech;
use super::order::Orders;
use super::plan::{Pings, Plan, Publishing, Reading, Then, Until};
use super::schedule::Schedule;
use super::sources::Sources;
use super::tally::{Digests, Tally, Times};
use super::wire;

/// The address of a server, and options of its clients.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// The path of the WebSocket.
    pub(crate) path: String,
    /// Size of the receive buffers of the sockets; `None` for the system's choice.
    pub(crate) receive_buffer_bytes: Option<usize>,
    /// How the clients speak MQTT; `None` if they speak SocketCluster.
    pub(crate) mqtt: Option<Speech>,
}

/// The clients of a crowd that belong to a driver: every `step`th from `first` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) first: u32,
    pub(crate) step: u32,
}

/// Clients of one server.
pub(crate) struct Driver {
    crowd: Arc<Crowd>,
    share: Share,
    protocol: Protocol,
    sources: Sources,
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    timer: TimerFd,
    timer_due: u64,
    clients: Vec<Client>,
    /// Places without a connection. The last one is used next.
    vacant: Vec<u32>,
    publishers: Vec<Publisher>,
    orders: Orders,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    delivered: Vec<(u32, u32)>,
    tally: Tally,
    /// There was a fault in an earlier run.
    has_failed: bool,
    latency_of_second: Times,
    open: u32,
    pending: u32,
    closing: u32,
    in_flight: u64,
    stretch: Stretch,
    /// Wakers of all drivers that publish, so that deliveries here can wake them; empty if this driver is the only one.
    publishing_elsewhere: Vec<Arc<Waker>>,
    pub(crate) gauges: Arc<Gauges>,
    /// Ends a run without an end of its own. The thread that sets it must also wake the driver.
    pub(crate) enough: Arc<AtomicBool>,
    /// Receives the latencies of each second.
    seconds: Option<Sender<Times>>,
    second_ends: u64,
    messages_told: u64,
}

/// Counts that other threads can read while a driver runs. The driver writes them after each turn; all accesses are
/// relaxed, because no other data depends on them.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) connections: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) cpu_ns: AtomicU64,
}

/// A client that publishes.
#[derive(Debug)]
struct Publisher {
    client: u32,
    /// Number of publications so far, in all runs.
    published: u64,
    /// Number of publications in the current run.
    in_run: u64,
}

/// The state of the current plan.
#[derive(Debug)]
struct Stretch {
    draining: bool,
    /// Number of pings that each client keeps in flight.
    depth: u32,
    then: Then,
    reading: Reading,
    pings: Schedule,
    openings: Schedule,
    pending_max: u32,
    publications: Schedule,
    publishing: Option<Publishing>,
}

impl Driver {
    /// A driver without connections. If other threads must be able to wake it, create it before its thread gets a
    /// descriptor table of its own. `thread` distinguishes the drivers of a process.
    pub(crate) fn new(target: &Target, crowd: Arc<Crowd>, share: Share, thread: u32) -> io::Result<Driver> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let timer = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        let timer_fd = timer.as_fd().as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&timer_fd), TIMER, Interest::READABLE)?;
        let count = crowd
            .sizes()
            .clients()
            .saturating_sub(share.first)
            .div_ceil(share.step);
        let mut sources = Sources::new(target.address, thread, count);
        if let Some(bytes) = target.receive_buffer_bytes {
            sources.receive_buffer(bytes);
        }
        let mut driver = Driver {
            protocol: match target.mqtt {
                Some(speech) => Protocol::Mqtt {
                    speech,
                    group: thread,
                },
                None => {
                    let host = target.address.to_string();
                    Protocol::SocketCluster(wire::upgrade_request(&host, &target.path))
                }
            },
            sources,
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN_MAX),
            waker,
            timer,
            timer_due: 0,
            clients: Vec::with_capacity(count as usize),
            vacant: (0..count).rev().collect(),
            publishers: Vec::new(),
            orders: Orders::default(),
            inbox: vec![0; INBOX_BYTES],
            outbox: Vec::new(),
            delivered: Vec::new(),
            tally: Tally::new(),
            has_failed: false,
            latency_of_second: Times::new(),
            open: 0,
            pending: 0,
            closing: 0,
            in_flight: 0,
            stretch: Stretch::idle(),
            publishing_elsewhere: Vec::new(),
            gauges: Arc::default(),
            enough: Arc::default(),
            seconds: None,
            second_ends: 0,
            messages_told: 0,
            crowd,
            share,
        };
        for place in 0..count {
            let number = driver.share.first + place * driver.share.step;
            let role = driver.crowd.role(number);
            driver.clients.push(Client::vacant(number, role));
            if role == Role::Publisher {
                driver.publishers.push(Publisher {
                    client: place,
                    published: 0,
                    in_run: 0,
                });
            }
        }
        Ok(driver)
    }

    /// Ends a [`Driver::hold`] from another thread.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// True if it has publishers, which wait for deliveries on other threads.
    pub(crate) fn publishes(&self) -> bool {
        !self.publishers.is_empty()
    }

    /// Sets the drivers to wake when publications have reached all subscribers.
    pub(crate) fn wakes(&mut self, publishers: Vec<Arc<Waker>>) {
        self.publishing_elsewhere = publishers;
    }

    /// Sends the latencies of each second to this channel, while it has room.
    pub(crate) fn reports_to(&mut self, seconds: Sender<Times>) {
        self.seconds = Some(seconds);
    }

    /// Runs a plan, waits for messages that are on their way, and returns the counts. Errors come from the system.
    pub(crate) fn run(&mut self, plan: &Plan) -> io::Result<Tally> {
        let cpu_before = thread_cpu_ns()?;
        let started = now_ns();
        let unread = self.stretch.reading == Reading::Never && plan.reading == Reading::Always;
        self.stretch = self.stretch(plan, started);
        for publisher in &mut self.publishers {
            publisher.in_run = 0;
        }
        if unread {
            self.read_all();
        }
        self.refill_all();
        self.do_due();
        let mut progress = Progress::new(started);
        match plan.until {
            Until::Elapsed(time) => {
                while now_ns() < started + nanoseconds(time) {
                    self.turn(started + nanoseconds(time))?;
                }
            }
            // Relaxed: no other data depends on it.
            Until::Told => {
                while !self.enough.swap(false, Ordering::Relaxed) {
                    self.turn(u64::MAX)?;
                }
            }
            Until::Done | Until::Messages(_) => {
                while !self.is_over(plan) && progress.goes_on(self) {
                    self.turn(progress.gives_up_at(self))?;
                }
            }
        }
        self.stretch.draining = true;
        self.stretch.depth = 0;
        let mut progress = Progress::new(now_ns());
        while self.is_waiting() && progress.goes_on(self) {
            // The last delivery may arrive on another thread, which wakes only drivers that publish.
            self.turn(progress.gives_up_at(self).min(now_ns() + DRAINING_TURN_NS))?;
        }
        // The time includes the wait, because the awaited messages count.
        let elapsed_ns = now_ns() - started;
        self.stretch = Stretch::idle();
        self.stretch.reading = plan.reading;
        self.end_second(now_ns());
        self.messages_told = 0;
        let mut tally = std::mem::replace(&mut self.tally, Tally::new());
        self.has_failed |= !tally.faults.is_empty();
        tally.elapsed_ns = elapsed_ns;
        tally.cpu_ns = vec![thread_cpu_ns()? - cpu_before];
        Ok(tally)
    }

    /// Keeps connections alive: answers heartbeats and checks deliveries as long as `goes_on` returns true. It is
    /// called after each turn; every wake-up causes a turn.
    pub(crate) fn hold(&mut self, goes_on: impl Fn() -> bool) -> io::Result<()> {
        while goes_on() {
            self.turn(u64::MAX)?;
        }
        Ok(())
    }

    /// Drops all connections at once, without close frames.
    pub(crate) fn drop_all(&mut self) {
        for place in 0..self.clients.len() {
            if self.clients[place].stage() != Stage::Vacant {
                self.tally.counts.closed += 1;
                self.vacate(place);
                self.vacant.push(place_u32(place));
            }
        }
    }

    /// The order of publications on each channel of which this driver's subscribers have received any.
    pub(crate) fn digests(&self) -> Digests {
        self.orders.digests().collect()
    }

    /// Texts about subscribers of this driver that have not received exactly the publications of their channel.
    pub(crate) fn behind(&self) -> Vec<String> {
        self.clients
            .iter()
            .filter(|client| client.stage() == Stage::Open)
            .filter_map(|client| match client.role() {
                Role::Subscriber(channel) => {
                    let (place, published) = (u64::from(client.place()), self.crowd.published_to(channel));
                    (place != published).then(|| {
                        format!(
                            "client {} received {place} of {published} publications of channel {channel}",
                            client.number()
                        )
                    })
                }
                Role::Publisher | Role::Plain => None,
            })
            .collect()
    }

    fn stretch(&self, plan: &Plan, now: u64) -> Stretch {
        let opening = plan.opening.as_ref();
        let publishers = self.publishers.len() as f64;
        Stretch {
            depth: match plan.pings {
                Pings::InFlight(depth) => depth,
                Pings::None | Pings::Every(_) => 0,
            },
            then: opening.map_or(Then::Stay, |opening| opening.then),
            reading: plan.reading,
            pings: match plan.pings {
                Pings::Every(period) => Schedule::every(now, period, self.clients.len(), self.share),
                Pings::None | Pings::InFlight(_) => Schedule::never(),
            },
            openings: opening.map_or_else(Schedule::never, |opening| {
                Schedule::per_second(now, opening.per_second)
            }),
            pending_max: opening.map_or(0, |opening| opening.pending_max),
            publications: plan
                .publishing
                .and_then(|publishing| publishing.per_second)
                .map_or_else(Schedule::never, |rate| {
                    Schedule::per_second(now, Some(rate * publishers))
                }),
            publishing: plan.publishing,
            ..Stretch::idle()
        }
    }

    fn is_over(&self, plan: &Plan) -> bool {
        match plan.until {
            Until::Done | Until::Told | Until::Elapsed(_) => self.has_opened() && self.has_published(),
            Until::Messages(count) => self.tally.counts.replies + self.tally.counts.deliveries >= count,
        }
    }

    fn has_opened(&self) -> bool {
        self.stretch.openings.is_never() || (self.vacant.is_empty() && self.pending == 0)
    }

    fn has_published(&self) -> bool {
        let count = self.stretch.publishing.and_then(|publishing| publishing.count);
        let done = |wanted| self.publishers.iter().all(|publisher| publisher.in_run >= wanted);
        count.is_none_or(done)
    }

    /// True if a message is on its way for which a run must wait.
    fn is_waiting(&self) -> bool {
        if self.stretch.reading == Reading::Never {
            return self.pending > 0;
        }
        self.in_flight > 0 || self.pending > 0 || self.closing > 0 || self.crowd.missing() > 0
    }
}

impl Stretch {
    /// A state in which the driver only answers.
    fn idle() -> Stretch {
        Stretch {
            draining: false,
            depth: 0,
            then: Then::Stay,
            reading: Reading::Always,
            pings: Schedule::never(),
            openings: Schedule::never(),
            pending_max: 0,
            publications: Schedule::never(),
            publishing: None,
        }
    }
}

/// Ends a run without progress.
struct Progress {
    received_bytes: u64,
    since: u64,
}

impl Progress {
    fn new(now: u64) -> Progress {
        Progress {
            received_bytes: 0,
            since: now,
        }
    }

    fn gives_up_at(&self, driver: &Driver) -> u64 {
        // After a fault, missing messages will probably not come.
        let is_right = driver.tally.faults.is_empty() && !driver.has_failed;
        self.since
            + if is_right {
                PATIENCE_NS
            } else {
                PATIENCE_AFTER_FAULT_NS
            }
    }

    /// True if the driver should go on waiting; otherwise adds a fault.
    fn goes_on(&mut self, driver: &mut Driver) -> bool {
        let received_bytes = driver.tally.counts.received_bytes;
        let now = now_ns();
        if received_bytes != self.received_bytes {
            self.received_bytes = received_bytes;
            self.since = now;
        }
        if now < self.gives_up_at(driver) {
            return true;
        }
        let (pings, openings, missing) = (driver.in_flight, driver.pending, driver.crowd.missing());
        driver.tally.faults.add(|| {
            format!(
                "nothing came for {:.1} s; unanswered are {pings} pings and {openings} openings, \
                 deliveries missing on all threads {missing}",
                (now - self.since) as f64 / SECOND as f64
            )
        });
        false
    }
}

fn place_u32(place: usize) -> u32 {
    u32::try_from(place).expect("places are counted in 32 bits")
}

/// CPU time of the calling thread.
fn thread_cpu_ns() -> io::Result<u64> {
    let time = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID.now()?;
    Ok(nanoseconds(Duration::from(time)))
}

const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);
/// Shortest time of a timer; 0 would switch it off.
const TIMER_GRAIN_NS: u64 = 1;
const EVENTS_PER_TURN_MAX: usize = 1024;
const INBOX_BYTES: usize = 64 * 1024;
/// Longest wait of a driver that has finished and looks whether the others have.
const DRAINING_TURN_NS: u64 = 20_000_000;
/// Longest time without any awaited message.
const PATIENCE_NS: u64 = 20 * SECOND;
const PATIENCE_AFTER_FAULT_NS: u64 = SECOND / 2;
