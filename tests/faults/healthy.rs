//! Clients that use the server correctly and notice every fault: a call that is not answered, and a publication that is
//! missing, arrives twice, or arrives in another order than at the other clients.
//!
//! One thread runs all of them. Each client acts at fixed times, even if its earlier calls are not answered yet, and
//! latencies count from these times: so a server that stands still does not get less work.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::support::{Client, PATIENCE, TEXT, eventually, frame, now};

/// The channel to which all of them subscribe and half of them publish.
pub(crate) const CHANNEL: &str = "health";
/// Number of healthy clients. Half of them call.
pub(crate) const COUNT: usize = 8;
/// Time between two calls, or two publications, of one client.
const EVERY: Duration = Duration::from_millis(10);

/// The period to which a figure belongs: without a fault, beside a fault, or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Without = 0,
    Beside = 1,
    Between = 2,
}

/// The healthy clients, running on their thread.
pub(crate) struct Crew {
    board: Arc<Board>,
    thread: JoinHandle<Outcome>,
}

/// State that the thread and its owner share.
#[derive(Default)]
struct Board {
    stop: AtomicBool,
    window: AtomicUsize,
    answered: [AtomicU64; 3],
    received: [AtomicU64; 3],
}

/// The results of all clients.
pub(crate) struct Outcome {
    pub(crate) answered: u64,
    pub(crate) received: u64,
    /// Microseconds from the due time of a call to its answer, by client and window.
    pub(crate) calls: Vec<[Histogram<u64>; 3]>,
    /// Microseconds from the due time of a publication to its arrival, by subscriber and window.
    pub(crate) deliveries: Vec<[Histogram<u64>; 3]>,
}

impl Crew {
    /// Connects the clients, and lets them begin.
    pub(crate) fn begin(address: SocketAddr) -> Crew {
        let mut clients: Vec<Client> = (0..COUNT).map(|_| Client::connect(address)).collect();
        for client in &mut clients {
            client.upgrade();
            client.handshake();
            client.subscribe(CHANNEL);
        }
        let board = Arc::new(Board::default());
        let at_work = AtWork::new(clients, Arc::clone(&board));
        let thread = thread::spawn(move || at_work.run());
        Crew { board, thread }
    }

    /// Later figures belong to this window.
    pub(crate) fn enter(&self, window: Window) {
        self.board.window.store(window as usize, Ordering::Relaxed);
    }

    /// Waits for this number of answered calls and received publications that began in this window.
    #[track_caller]
    pub(crate) fn works(&self, window: Window, count: u64) {
        let both = [&self.board.answered, &self.board.received];
        let so_far = || both.map(|counts| counts[window as usize].load(Ordering::Relaxed));
        let target = so_far().map(|counted| counted + count);
        eventually("the healthy go on", || {
            assert!(!self.thread.is_finished(), "a healthy client was hurt, see above");
            so_far().iter().zip(target).all(|(now, target)| *now >= target)
        });
    }

    /// Stops the clients, and waits for all outstanding answers and publications.
    #[track_caller]
    pub(crate) fn finish(self) -> Outcome {
        self.board.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .expect("a healthy client has lost something, see above")
    }
}

/// The state of the thread.
struct AtWork {
    clients: Vec<Healthy>,
    board: Arc<Board>,
    poll: Poll,
    begin: Instant,
}

/// One healthy client.
struct Healthy {
    stream: TcpStream,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    /// The time of its next call or publication.
    due: Instant,
    /// True if it publishes, false if it calls.
    publishes: bool,
    begun: u64,
    /// Call ids that are not answered yet, each with its due time and window.
    awaited: VecDeque<(u64, Instant, usize)>,
    /// The number of the next publication expected from each client.
    expected: Vec<u64>,
    /// A hash of the received publications in their order.
    order: u64,
    calls: [Histogram<u64>; 3],
    deliveries: [Histogram<u64>; 3],
}

impl AtWork {
    fn new(clients: Vec<Client>, board: Arc<Board>) -> AtWork {
        let poll = Poll::new().unwrap();
        let begin = now();
        let clients = clients.into_iter().enumerate().map(|(index, client)| {
            client.stream.set_nonblocking(true).unwrap();
            let mut stream = TcpStream::from_std(client.stream);
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(index), both).unwrap();
            Healthy {
                stream,
                unread: Vec::new(),
                unsent: Vec::new(),
                // The clients act at different times.
                due: begin + EVERY * u32::try_from(index).unwrap() / u32::try_from(COUNT).unwrap(),
                publishes: index % 2 == 1,
                begun: 0,
                awaited: VecDeque::new(),
                expected: vec![0; COUNT],
                order: 0,
                calls: histograms(),
                deliveries: histograms(),
            }
        });
        AtWork {
            clients: clients.collect(),
            board,
            poll,
            begin,
        }
    }

    fn run(mut self) -> Outcome {
        let mut events = Events::with_capacity(COUNT);
        let mut deadline = None;
        loop {
            let stopping = self.board.stop.load(Ordering::Relaxed);
            if stopping {
                let deadline = *deadline.get_or_insert_with(|| now() + PATIENCE);
                if self.has_all() {
                    return self.outcome();
                }
                assert!(now() < deadline, "{}", self.missing());
            } else {
                self.handle_due_timers();
            }
            let next = self.clients.iter().map(|client| client.due).min().unwrap();
            let wait = next.saturating_duration_since(now()).min(EVERY);
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.unwrap(),
            }
            for event in &events {
                let client = &mut self.clients[event.token().0];
                client.flush();
                client.read(&self.board, self.begin);
            }
        }
    }

    fn handle_due_timers(&mut self) {
        let window = self.board.window.load(Ordering::Relaxed);
        for (index, client) in self.clients.iter_mut().enumerate() {
            while client.due <= now() {
                client.do_one(index, window, self.begin);
            }
        }
    }

    /// True if every call has been answered, and every publication has arrived at every client.
    fn has_all(&self) -> bool {
        let published = |index: usize| {
            if self.clients[index].publishes {
                self.clients[index].begun
            } else {
                0
            }
        };
        let mut all = self.clients.iter();
        all.all(|client| {
            let mut publishers = client.expected.iter().enumerate();
            client.awaited.is_empty() && publishers.all(|(index, next)| *next == published(index))
        })
    }

    fn missing(&self) -> String {
        let lines = self.clients.iter().enumerate().map(|(index, client)| {
            let (begun, awaited) = (client.begun, client.awaited.len());
            format!(
                "{index}: {awaited} of {begun} not answered, has {:?}",
                client.expected
            )
        });
        format!("not within {PATIENCE:?}: {:#?}", lines.collect::<Vec<_>>())
    }

    fn outcome(self) -> Outcome {
        let first = self.clients[0].order;
        assert!(
            self.clients.iter().all(|client| client.order == first),
            "all have the same publications, but not in the same order"
        );
        let total = |counts: &[AtomicU64; 3]| counts.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        Outcome {
            answered: total(&self.board.answered),
            received: total(&self.board.received),
            calls: self.clients.iter().map(|client| client.calls.clone()).collect(),
            deliveries: self.clients.into_iter().map(|client| client.deliveries).collect(),
        }
    }
}

impl Healthy {
    /// Makes the call or publication that is due.
    fn do_one(&mut self, index: usize, window: usize, begin: Instant) {
        // The handshake and the subscribe had call ids, too.
        let cid = self.begun + 10;
        let text = if self.publishes {
            let moment = (self.due - begin).as_micros();
            let data = format!("[{index},{},{moment},{window}]", self.begun);
            format!(r##"{{"event":"#publish","data":{{"channel":"{CHANNEL}","data":{data}}},"cid":{cid}}}"##)
        } else {
            format!(r#"{{"event":"ping","data":null,"cid":{cid}}}"#)
        };
        self.awaited.push_back((cid, self.due, window));
        self.begun += 1;
        self.due += EVERY;
        self.unsent.extend_from_slice(&frame(TEXT, text.as_bytes()));
        self.flush();
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("a healthy client cannot write: {error}"),
            }
        }
    }

    fn read(&mut self, board: &Board, begin: Instant) {
        let mut buffer = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("a healthy client was disconnected; left: {:?}", self.unread),
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("a healthy client was cut off: {error}"),
            }
        }
        let unread = std::mem::take(&mut self.unread);
        let mut rest = &unread[..];
        while let Some((message, behind)) = split_frame(rest) {
            self.take(message, board, begin);
            rest = behind;
        }
        self.unread = rest.to_vec();
    }

    fn take(&mut self, message: &str, board: &Board, begin: Instant) {
        if message.is_empty() {
            // The answer to a ping.
            self.unsent.extend_from_slice(&frame(TEXT, b""));
            return self.flush();
        }
        if let Some(rest) = message.strip_prefix(r#"{"rid":"#) {
            let rid: u64 = rest.split([',', '}']).next().unwrap().parse().unwrap();
            let (cid, moment, window) = self.awaited.pop_front().expect("an answer is to something");
            assert_eq!(cid, rid, "answers come in the order of the calls");
            assert!(!message.contains("error"), "{message}");
            record(&mut self.calls[window], now().saturating_duration_since(moment));
            board.answered[window].fetch_add(1, Ordering::Relaxed);
            return;
        }
        let start = format!(r##"{{"event":"#publish","data":{{"channel":"{CHANNEL}","data":["##);
        let Some(rest) = message.strip_prefix(&start) else {
            // A ping of version 1.
            assert_eq!(message, "#1", "nothing else is sent to a healthy client");
            return;
        };
        let mut numbers = rest
            .split([',', ']'])
            .map_while(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().unwrap_or(u64::MAX);
        let (publisher, number, moment, window) = (next(), next(), next(), next());
        let expected = &mut self.expected[usize::try_from(publisher).unwrap()];
        assert_eq!(number, *expected, "each of {publisher}'s, once and in order");
        *expected += 1;
        self.order = (self.order ^ publisher)
            .wrapping_mul(0x100_0000_01b3)
            .rotate_left(5);
        let window = usize::try_from(window).unwrap();
        let moment = begin + Duration::from_micros(moment);
        record(
            &mut self.deliveries[window],
            now().saturating_duration_since(moment),
        );
        board.received[window].fetch_add(1, Ordering::Relaxed);
    }
}

/// The first frame, a text message, and the bytes after it.
fn split_frame(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(
        first, TEXT,
        "a healthy client was sent something else than a text"
    );
    let (start, length) = match second {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())),
        short => (2, u16::from(short)),
    };
    let end = start + usize::from(length);
    let text = str::from_utf8(bytes.get(start..end)?).unwrap();
    Some((text, &bytes[end..]))
}

pub(crate) fn histograms() -> [Histogram<u64>; 3] {
    std::array::from_fn(|_| Histogram::new_with_bounds(1, 120_000_000, 3).unwrap())
}

fn record(histogram: &mut Histogram<u64>, took: Duration) {
    histogram.saturating_record(u64::try_from(took.as_micros()).unwrap());
}
