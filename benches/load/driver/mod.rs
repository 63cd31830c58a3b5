//! One thread's clients of one server, and the loop that drives them.
//!
//! A driver holds its connections between runs. [`Driver::run`] carries out a plan, waits for all that is on its way,
//! and returns what it counted; [`Driver::hold`] keeps connections alive meanwhile. It starts no thread and needs none:
//! several drivers of different servers can take turns on one thread.
//!
//! A turn: wait → read what came, answer it, send the next → tell the crowd what was delivered → open, ping and
//! publish what is due. Times of calls are those at which they were due. What is due is woken for by a timer, since
//! the timeout of a poll is good to a millisecond only.

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

use super::client::{Client, Stage};
use super::clock::{SECOND, nanoseconds, now_ns};
use super::crowd::{Crowd, Role};
use super::order::Orders;
use super::plan::{Pings, Plan, Publishing, Reading, Then, Until};
use super::schedule::Schedule;
use super::sources::Sources;
use super::tally::{Digests, Tally, Times};
use super::wire;

/// Where a server is, and what its clients are like.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Of the WebSocket.
    pub(crate) path: String,
    /// What sockets hold before they are read; the system's choice without a number.
    pub(crate) receive_buffer_bytes: Option<usize>,
}

/// Which of a crowd's clients a driver has: every `step`th from `first` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) first: u32,
    pub(crate) step: u32,
}

/// Clients of one server.
pub(crate) struct Driver {
    crowd: Arc<Crowd>,
    share: Share,
    upgrade_request: Vec<u8>,
    sources: Sources,
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    timer: TimerFd,
    timer_due: u64,
    clients: Vec<Client>,
    /// Places without a connection, the next to be used last.
    vacant: Vec<u32>,
    publishers: Vec<Publisher>,
    orders: Orders,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    delivered: Vec<(u32, u32)>,
    tally: Tally,
    latency_of_second: Times,
    open: u32,
    pending: u32,
    closing: u32,
    in_flight: u64,
    stretch: Stretch,
    /// Of all drivers that publish, so that deliveries here can wake them; empty if they are all here.
    publishing_elsewhere: Vec<Arc<Waker>>,
    pub(crate) gauges: Arc<Gauges>,
    /// Ends a run that lasts until it is told to end; whoever sets it wakes the driver as well.
    pub(crate) enough: Arc<AtomicBool>,
    /// Where the latencies of each second go.
    seconds: Option<Sender<Times>>,
    second_ends: u64,
    messages_told: u64,
}

/// What others may see of a driver while it runs: written by it after each turn, relaxed, since nothing hangs on them.
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
    /// Publications so far, in all runs.
    published: u64,
    /// In the present one.
    in_run: u64,
}

/// The plan that is being carried out.
#[derive(Debug)]
struct Stretch {
    draining: bool,
    /// Pings that each client keeps in flight.
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
    /// With no connection yet. Call it before the thread that will run it splits its descriptor table off, if others
    /// are to wake it; `thread` tells drivers of one process apart.
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
            upgrade_request: wire::upgrade_request(&target.address.to_string(), &target.path),
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

    /// Whether it has publishers, who wait for deliveries elsewhere.
    pub(crate) fn publishes(&self) -> bool {
        !self.publishers.is_empty()
    }

    /// Whom to wake when publications have reached everybody.
    pub(crate) fn wakes(&mut self, publishers: Vec<Arc<Waker>>) {
        self.publishing_elsewhere = publishers;
    }

    /// Sends the latencies of each second there, while there is room; without it they are not kept apart.
    pub(crate) fn reports_to(&mut self, seconds: Sender<Times>) {
        self.seconds = Some(seconds);
    }

    /// Carries out a plan and waits for what is on its way; what came meanwhile. Errors are the system's.
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
            // Relaxed: nothing is read on its word.
            Until::Told => {
                while !self.enough.swap(false, Ordering::Relaxed) {
                    self.turn(u64::MAX)?;
                }
            }
            Until::Done | Until::Messages(_) => {
                while !self.is_over(plan) && progress.goes_on(self) {
                    self.turn(progress.gives_up_at())?;
                }
            }
        }
        self.stretch.draining = true;
        self.stretch.depth = 0;
        let mut progress = Progress::new(now_ns());
        while self.is_waiting() && progress.goes_on(self) {
            self.turn(progress.gives_up_at())?;
        }
        // What was waited for is counted, so the waiting is as well.
        let elapsed_ns = now_ns() - started;
        self.stretch = Stretch::idle();
        self.stretch.reading = plan.reading;
        self.end_second(now_ns());
        self.messages_told = 0;
        let mut tally = std::mem::replace(&mut self.tally, Tally::new());
        tally.elapsed_ns = elapsed_ns;
        tally.cpu_ns = vec![thread_cpu_ns()? - cpu_before];
        Ok(tally)
    }

    /// Keeps connections alive, heartbeats answered and deliveries checked, as long as `goes_on` says so; it is asked
    /// after each turn, and a turn comes with every wake.
    pub(crate) fn hold(&mut self, goes_on: impl Fn() -> bool) -> io::Result<()> {
        while goes_on() {
            self.turn(u64::MAX)?;
        }
        Ok(())
    }

    /// Drops all connections at once, without a word to the server.
    pub(crate) fn drop_all(&mut self) {
        for place in 0..self.clients.len() {
            if self.clients[place].stage() != Stage::Vacant {
                self.tally.counts.closed += 1;
                self.vacate(place);
                self.vacant.push(place_u32(place));
            }
        }
    }

    /// For each channel that this driver's subscribers heard of, the order of its publications.
    pub(crate) fn digests(&self) -> Digests {
        self.orders.digests().collect()
    }

    /// Subscribers here that have not received exactly what was published, in words.
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

    /// Whether something is on its way that a run does not end without.
    fn is_waiting(&self) -> bool {
        if self.stretch.reading == Reading::Never {
            return self.pending > 0;
        }
        self.in_flight > 0 || self.pending > 0 || self.closing > 0 || self.crowd.missing() > 0
    }
}

impl Stretch {
    /// Nothing to do but to answer.
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

/// Ends a run in which nothing comes any more.
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

    fn gives_up_at(&self) -> u64 {
        self.since + PATIENCE_NS
    }

    /// Whether waiting still makes sense; if not, that is a fault.
    fn goes_on(&mut self, driver: &mut Driver) -> bool {
        let received_bytes = driver.tally.counts.received_bytes;
        let now = now_ns();
        if received_bytes != self.received_bytes {
            self.received_bytes = received_bytes;
            self.since = now;
        }
        if now < self.gives_up_at() {
            return true;
        }
        let (pings, openings, missing) = (driver.in_flight, driver.pending, driver.crowd.missing());
        driver.tally.faults.add(|| {
            format!(
                "nothing came for {} s; unanswered are {pings} pings and {openings} openings, \
                 deliveries missing on all threads {missing}",
                PATIENCE_NS / SECOND
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
/// A timer of 0 is none.
const TIMER_GRAIN_NS: u64 = 1;
const EVENTS_PER_TURN_MAX: usize = 1024;
const INBOX_BYTES: usize = 64 * 1024;
/// How long nothing may come that is waited for.
const PATIENCE_NS: u64 = 20 * SECOND;
