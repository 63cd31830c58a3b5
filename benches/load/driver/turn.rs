//! One turn of a driver's loop: its steps in order.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::{Events, Interest, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{Expiration, TimerSetTimeFlags};

use super::super::client::{Client, Ended, Shared, Stage};
use super::super::clock::{SECOND, now_ns};
use super::super::crowd::Role;
use super::super::plan::{Reading, Then};
use super::super::tally::Times;
use super::super::wire::Publication;
use super::{Driver, TIMER_GRAIN_NS, place_u32, thread_cpu_ns};

impl Driver {
    /// Waits for an event or a due time, at the latest until `deadline`, and handles it.
    pub(super) fn turn(&mut self, deadline: u64) -> io::Result<()> {
        self.wait(self.next_due().min(deadline))?;
        // Moved out, so that handling an event can change the driver.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let place = event.token().0;
            if place < self.clients.len() {
                self.serve(place, event.is_writable(), event.is_read_closed());
            }
        }
        self.events = events;
        self.tell_deliveries()?;
        if !self.stretch.draining {
            self.do_due();
        }
        self.tell_gauges()
    }

    /// Opens, pings and publishes what is due. A run calls it before its first wait too, because no event would end
    /// that wait.
    pub(super) fn do_due(&mut self) {
        self.open_due();
        self.ping_due();
        self.publish_due();
    }

    /// Sends pings until every client has as many in flight as planned.
    pub(super) fn refill_all(&mut self) {
        if self.stretch.depth > 0 {
            for place in 0..self.clients.len() {
                self.touch(place, |_, _| Ok(()));
            }
        }
    }

    /// Reads input that arrived while connections were not read; no further event will report it.
    pub(super) fn read_all(&mut self) {
        for place in 0..self.clients.len() {
            self.serve(place, false, false);
        }
    }

    /// Drops the connection at a place, without a close frame.
    pub(super) fn vacate(&mut self, place: usize) {
        let client = &mut self.clients[place];
        match client.stage() {
            Stage::Vacant => {}
            Stage::Open => self.open -= 1,
            Stage::Closing => self.closing -= 1,
            Stage::Connecting | Stage::Upgrading | Stage::Handshaking | Stage::Subscribing => {
                self.pending -= 1
            }
        }
        if matches!(client.stage(), Stage::Open | Stage::Closing) {
            self.in_flight -= u64::from(client.in_flight());
        }
        client.vacate();
    }

    /// Sends the latencies of the last second to the receiver, if there is one, and begins the next second.
    pub(super) fn end_second(&mut self, now: u64) {
        self.second_ends = now + SECOND;
        if let Some(seconds) = &self.seconds
            && !self.latency_of_second.is_empty()
        {
            // If the channel is full, this second is missing in the plot.
            let _ = seconds.try_send(std::mem::replace(&mut self.latency_of_second, Times::new()));
        }
    }

    fn next_due(&self) -> u64 {
        if self.stretch.draining {
            return u64::MAX;
        }
        let openings = if self.may_open() {
            self.stretch.openings.due()
        } else {
            u64::MAX
        };
        openings
            .min(self.stretch.pings.due())
            .min(self.stretch.publications.due())
    }

    fn wait(&mut self, due: u64) -> io::Result<()> {
        let now = now_ns();
        let timeout = if due <= now {
            Some(Duration::ZERO)
        } else if due == u64::MAX {
            None
        } else {
            self.set_timer(due, due - now)?;
            None
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            outcome => outcome,
        }
    }

    /// Sets the timer; the timeout of the poll has a resolution of only a millisecond.
    fn set_timer(&mut self, due: u64, from_now: u64) -> io::Result<()> {
        if self.timer_due != due {
            let time = TimeSpec::from_duration(Duration::from_nanos(from_now.max(TIMER_GRAIN_NS)));
            self.timer
                .set(Expiration::OneShot(time), TimerSetTimeFlags::empty())?;
            self.timer_due = due;
        }
        Ok(())
    }

    fn serve(&mut self, place: usize, writable: bool, to_the_end: bool) {
        let unread = self.stretch.reading == Reading::Never && self.clients[place].stage() == Stage::Open;
        self.touch(place, |client, shared| {
            if writable {
                client.writable(shared)?;
            }
            if unread {
                return Ok(());
            }
            client.readable(to_the_end, shared)
        });
    }

    /// Lets a client act, sends its messages and further pings if it should have some in flight, and updates the
    /// counts.
    fn touch(
        &mut self,
        place: usize,
        action: impl FnOnce(&mut Client, &mut Shared<'_>) -> Result<(), Ended>,
    ) {
        let client = &mut self.clients[place];
        let before = (client.stage(), client.in_flight());
        let mut shared = Shared {
            crowd: &self.crowd,
            orders: &mut self.orders,
            tally: &mut self.tally,
            latency_of_second: &mut self.latency_of_second,
            delivered: &mut self.delivered,
            protocol: &self.protocol,
            inbox: &mut self.inbox,
            outbox: &mut self.outbox,
            now: now_ns(),
        };
        let outcome = action(client, &mut shared).and_then(|()| {
            if client.stage() == Stage::Open && client.role() != Role::Publisher {
                if self.stretch.then == Then::Close {
                    client.close(&mut shared);
                }
                // If bytes are waiting, the server does not read; then the client sends nothing more.
                while client.in_flight() < self.stretch.depth && !client.is_writing() {
                    let now = shared.now;
                    client.ping(now, &mut shared);
                }
            }
            client.flush(&mut shared)
        });
        self.outbox.clear();
        if self.stretch.depth == 0 {
            client.slim();
        }
        let after = (client.stage(), client.in_flight());
        self.count(before, after);
        if let Err(ended) = outcome {
            self.end(place, ended);
        }
    }

    /// Updates the counts of open connections, of connections being opened, and of unanswered calls.
    fn count(&mut self, before: (Stage, u32), after: (Stage, u32)) {
        for (stage, in_flight, sign) in [(before.0, before.1, -1), (after.0, after.1, 1)] {
            match stage {
                Stage::Vacant => {}
                Stage::Connecting | Stage::Upgrading | Stage::Handshaking | Stage::Subscribing => {
                    self.pending = self.pending.wrapping_add_signed(sign);
                }
                Stage::Open | Stage::Closing => {
                    let count = if stage == Stage::Open {
                        &mut self.open
                    } else {
                        &mut self.closing
                    };
                    *count = count.wrapping_add_signed(sign);
                    self.in_flight = self
                        .in_flight
                        .wrapping_add_signed(i64::from(in_flight) * i64::from(sign));
                }
            }
        }
    }

    fn end(&mut self, place: usize, ended: Ended) {
        let client = &self.clients[place];
        let (number, stage) = (client.number(), client.stage());
        match ended {
            Ended::Closed => {
                self.tally.counts.closed += 1;
                self.vacate(place);
                self.vacant.push(place_u32(place));
                return;
            }
            Ended::ByServer(code) => {
                self.tally.counts.closed_by_server += 1;
                if self.stretch.reading == Reading::Always {
                    let code =
                        code.map_or_else(|| "no close frame".to_owned(), |code| format!("code {code}"));
                    self.tally.faults.add(|| {
                        format!("client {number} was closed by the server with {code} while {stage:?}")
                    });
                }
            }
            Ended::Fault(text) => self.tally.faults.add(|| text),
        }
        // Do not try again, so that a server that refuses is not flooded with attempts.
        self.vacate(place);
    }

    fn tell_deliveries(&mut self) -> io::Result<()> {
        let mut delivered = std::mem::take(&mut self.delivered);
        let mut reached_all = false;
        for (channel, count) in delivered.drain(..) {
            reached_all |= self.crowd.delivered(channel, count);
            if self.orders.wants_trimming(channel) {
                self.trim(channel);
            }
        }
        self.delivered = delivered;
        if reached_all || (self.crowd.missing() == 0 && self.stretch.draining) {
            for waker in &self.publishing_elsewhere {
                waker.wake()?;
            }
        }
        Ok(())
    }

    fn trim(&mut self, channel: u32) {
        let places = self
            .clients
            .iter()
            .filter(|client| client.role() == Role::Subscriber(channel) && client.stage() == Stage::Open)
            .map(Client::place);
        if let Some(place) = places.min() {
            self.orders.trim(channel, place);
        }
    }

    fn may_open(&self) -> bool {
        self.pending < self.stretch.pending_max && !self.vacant.is_empty()
    }

    fn open_due(&mut self) {
        let mut begun = 0;
        while begun < OPENINGS_PER_TURN_MAX && self.may_open() && self.stretch.openings.due() <= now_ns() {
            begun += 1;
            self.stretch.openings.take();
            let Some(place) = self.vacant.pop() else { return };
            let place = place as usize;
            if let Err(error) = self.connect(place) {
                self.tally.faults.add(|| format!("socket: {error}"));
            }
        }
    }

    fn connect(&mut self, place: usize) -> io::Result<()> {
        let mut stream = self.sources.connect()?;
        self.poll
            .registry()
            .register(&mut stream, Token(place), Interest::READABLE | Interest::WRITABLE)?;
        self.touch(place, |client, shared| client.connecting(stream, shared));
        Ok(())
    }

    fn ping_due(&mut self) {
        while self.stretch.pings.due() <= now_ns() {
            let due = self.stretch.pings.due();
            // The number is below the number of clients.
            let place = usize::try_from(self.stretch.pings.take()).unwrap_or(0);
            let client = &self.clients[place];
            if client.stage() != Stage::Open || client.role() == Role::Publisher {
                continue;
            }
            if client.in_flight() >= UNANSWERED_MAX || client.is_writing() {
                self.tally.counts.withheld += 1;
                continue;
            }
            self.touch(place, |client, shared| {
                shared.tally.lateness.note(due, shared.now);
                client.ping(due, shared);
                Ok(())
            });
        }
    }

    fn publish_due(&mut self) {
        let Some(publishing) = self.stretch.publishing else {
            return;
        };
        loop {
            let mut sent = false;
            for index in 0..self.publishers.len() {
                let publisher = &self.publishers[index];
                let client = &self.clients[publisher.client as usize];
                let number = client.number();
                let (channel, count) = self.crowd.place(number, publisher.published);
                // The end of its connection was a fault already.
                let wanted = client.stage() == Stage::Open
                    && publishing.count.is_none_or(|count| publisher.in_run < count);
                let due = self.stretch.publications.due();
                let at = if publishing.per_second.is_some() {
                    due
                } else {
                    now_ns()
                };
                // With MQTT, a publication may have reached all subscribers before it is acknowledged.
                let has_room = client.in_flight() < publishing.in_flight
                    && self.crowd.has_room(channel, publishing.in_flight);
                if !wanted || at > now_ns() || !has_room {
                    continue;
                }
                if publishing.per_second.is_some() {
                    self.stretch.publications.take();
                }
                self.publish(
                    index,
                    Publication {
                        channel,
                        from: number,
                        number: count,
                        at,
                    },
                );
                sent = true;
            }
            if !sent {
                return;
            }
        }
    }

    fn publish(&mut self, index: usize, publication: Publication) {
        let publisher = &mut self.publishers[index];
        publisher.published += 1;
        publisher.in_run += 1;
        let place = publisher.client as usize;
        self.crowd.published(publication.channel);
        self.tally.counts.publications += 1;
        self.touch(place, |client, shared| {
            shared.tally.lateness.note(publication.at, shared.now);
            client.publish(&publication, shared);
            Ok(())
        });
    }

    fn tell_gauges(&mut self) -> io::Result<()> {
        let now = now_ns();
        if now >= self.second_ends {
            self.end_second(now);
            self.gauges.cpu_ns.store(thread_cpu_ns()?, Ordering::Relaxed);
        }
        let messages = self.tally.counts.messages();
        self.gauges.connections.store(self.open.into(), Ordering::Relaxed);
        self.gauges
            .messages
            .fetch_add(messages - self.messages_told, Ordering::Relaxed);
        self.messages_told = messages;
        Ok(())
    }
}

const OPENINGS_PER_TURN_MAX: u32 = 64;
/// Largest number of unanswered pings of one client; beyond it the server determines the rate.
const UNANSWERED_MAX: u32 = 1000;
