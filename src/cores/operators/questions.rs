//! The questions that a core answers about its connections, and the ways of their answers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::{ChannelHash, Sequence};
use crate::client::ClientAddress;
use crate::decision::CloseCode;
use crate::history::{Query, Reading};
use crate::presence;
use crate::session::{ClientProtocol, SessionId};

pub(crate) use crate::cores::delivery::followers::{Copied, Follower, FollowerNotifier, FollowerState};
use crate::cores::lifecycle::recent_ends::End;
use crate::cores::lifecycle::tally::Tally;
pub(crate) use crate::cores::operators::outcomes::{
    ANSWER_BYTES_MAX, CALLED_MAX, CallsDone, CoreCalls, Outcomes, Until,
};
use crate::cores::operators::selection::Selecting;
use crate::cores::operators::service_lists::{DescribeMembers, ListServices};

/// A question to a core, or an operation whose result it reports; with the core's progress.
#[derive(Debug)]
pub(crate) enum Question {
    /// The connections that hold the most bytes, of output and of input, the largest first.
    Slow(LargestSearch),
    /// The connections that ended last, the latest first.
    Closed { answer: Answer<Vec<End>> },
    /// Connections of a selection, in the order of their places.
    ConnectionSearch(ConnectionSearch),
    /// The channels of a connection.
    ChannelsOf(ChannelsOf),
    /// The channels that have subscribers, in the order of their names.
    Channels(Channels),
    /// The patterns of services that the core owns, in their order.
    Services(ListServices),
    /// The connections and the offers of some services of this core.
    DescribeMembers(DescribeMembers),
    /// Call clients.
    Call(Calling),
    /// Copy publications on a channel to a subscriber of the program, from now on.
    Follow {
        follower: Box<Follower>,
        answer: Answer<()>,
    },
    /// Stop copying to this subscriber.
    Unfollow { id: u64 },
    /// The history of a channel that this core owns.
    History(AskHistory),
    /// A page of the members of a channel that the core owns; with a limit of 0, only their number.
    Members {
        channel: Box<[u8]>,
        after: u32,
        limit: usize,
        answer: Answer<presence::Page>,
    },
    /// Act on the connections of a selection, and report on how many.
    Act(Acting),
}

/// A search for connections.
#[derive(Debug)]
pub(crate) struct ConnectionSearch {
    pub(super) selecting: Selecting,
    pub(super) count_max: usize,
    pub(super) found: Found,
    pub(super) answer: Answer<Found>,
}

/// Connections that were found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) rows: Vec<ConnectionRow>,
    /// The place at which to continue; `None` if there are no more.
    pub(crate) next: Option<u32>,
}

/// A connection that was found.
#[derive(Debug)]
pub(crate) struct ConnectionRow {
    pub(crate) id: SessionId,
    pub(crate) protocol: ClientProtocol,
    pub(crate) client: ClientAddress,
    /// As JSON.
    pub(crate) user: Option<Box<str>>,
    pub(crate) since_unix_ms: u64,
    pub(crate) subscriptions: usize,
    pub(crate) waiting_bytes: usize,
}

/// A search for a connection, to name its channels.
#[derive(Debug)]
pub(crate) struct ChannelsOf {
    pub(super) selecting: Selecting,
    /// The number of the channel at which to begin.
    pub(super) from: u32,
    pub(super) count_max: usize,
    pub(super) found: Option<NamedChannels>,
    pub(super) answer: Answer<Option<NamedChannels>>,
}

/// Names of channels, and the place at which to continue, if there are more.
pub(crate) type NamedChannels = (Vec<Box<[u8]>>, Option<u32>);

/// A walk through the channels.
#[derive(Debug)]
pub(crate) struct Channels {
    pub(super) prefix: Box<[u8]>,
    /// Only names behind this one.
    pub(super) after: Option<Box<[u8]>>,
    pub(super) count_max: usize,
    /// The next place of the table.
    pub(super) next: u32,
    /// The first names found so far, with their subscribers.
    pub(super) found: BTreeMap<Box<[u8]>, u32>,
    pub(super) answer: Answer<Vec<ChannelRow>>,
}

/// A channel of this core.
#[derive(Debug)]
pub(crate) struct ChannelRow {
    pub(crate) name: Box<[u8]>,
    pub(crate) subscribers: u32,
}

/// Calls to the clients of a selection.
#[derive(Debug)]
pub(crate) struct Calling {
    pub(super) selecting: Selecting,
    pub(super) event: Arc<str>,
    /// JSON.
    pub(super) data: Option<Arc<str>>,
    pub(super) calls: Arc<CoreCalls>,
}

/// A question about the history of a channel.
#[derive(Debug)]
pub(crate) struct AskHistory {
    /// The channel.
    pub(crate) name: Box<[u8]>,
    pub(crate) hash: ChannelHash,
    /// The place in the ring up to which the core must have read; `None` until the core has looked at the question.
    pub(crate) before: Option<Sequence>,
    pub(crate) asked: HistoryAsked,
}

/// The part of a question that says what to do with a history.
#[derive(Debug)]
pub(crate) enum HistoryAsked {
    /// Read publications.
    Read {
        query: Query,
        publications_max: u32,
        answer: Answer<Reading>,
    },
    /// Remove the history, and report how many publications it had.
    Remove { answer: Answer<usize> },
}

/// A step of an operation on connections.
#[derive(Debug)]
pub(crate) struct Acting {
    pub(super) selecting: Selecting,
    pub(super) act: Act,
    /// The effort that the step may still spend before its answer is given.
    pub(super) effort_left: u32,
    /// Whether there are no more connections.
    pub(super) is_at_end: bool,
    pub(super) counts: ActCounts,
    pub(super) answer: Answer<ActStep>,
}

/// The result of a step of an operation on connections.
#[derive(Debug)]
pub(crate) struct ActStep {
    pub(crate) counts: ActCounts,
    /// The place at which the next step continues; `None` if there are no more connections.
    pub(crate) next: Option<u32>,
}

/// On how many connections an operation was done, and on how many it was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ActCounts {
    pub(crate) done: u64,
    /// Connections on which there was nothing to do, or on which it was not allowed.
    pub(crate) not_done: u64,
    /// Connections whose protocol has no such operation.
    pub(crate) not_in_protocol: u64,
    /// Clients that may serve the event.
    pub(crate) services: u64,
    /// Connections for which no token with these claims can be signed.
    pub(crate) not_signed: u64,
}

impl AddAssign for ActCounts {
    fn add_assign(&mut self, other: ActCounts) {
        self.done += other.done;
        self.not_done += other.not_done;
        self.not_in_protocol += other.not_in_protocol;
        self.services += other.services;
        self.not_signed += other.not_signed;
    }
}

/// An action of an operator on a connection.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Close it.
    Disconnect { code: CloseCode, reason: Arc<str> },
    /// Send it an event. The data is JSON.
    Transmit { event: Arc<str>, data: Option<Arc<str>> },
    /// Subscribe it to a channel, if the rules allow it.
    Subscribe { channel: Arc<str> },
    /// End its subscription to a channel, or to all, and tell it. The message is JSON.
    Unsubscribe {
        channel: Option<Arc<str>>,
        message: Option<Arc<str>>,
    },
    /// Sign a token for it, and send it the token. Time is in seconds; `None` is `auth_default_expiry`.
    SetToken {
        claims: NewClaims,
        expires_in: Option<u64>,
    },
    /// Take its token away.
    RemoveToken,
}

/// The claims of a new token.
#[derive(Clone, Debug)]
pub(crate) enum NewClaims {
    /// These claims: the text of a JSON object.
    Given(Arc<str>),
    /// The claims of the token that the client holds: the server issues that token again.
    AsBefore,
}

/// Carries an answer back. If the question is dropped, its sender learns that there is no answer.
pub(crate) struct Answer<T>(Box<dyn FnOnce(T) + Send>);

/// A connection that holds bytes: output that waits for its socket, or input that is not handled completely.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slow {
    /// The protocol of its session; `None` before the upgrade, and after the end of the session.
    pub(crate) protocol: Option<ClientProtocol>,
    /// The socket's id; `None` before the upgrade, and after the end of the session.
    pub(crate) id: Option<SessionId>,
    pub(crate) client: ClientAddress,
    /// Bytes that have not been written, with the conflated publications.
    pub(crate) waiting_bytes: usize,
    /// The other bytes that it holds: input, partial messages, decisions, records of TLS.
    pub(crate) input_bytes: usize,
    /// The number of conflated publications, one for each channel.
    pub(crate) conflated: usize,
    /// For how long the socket has not taken all bytes.
    pub(crate) blocked_for: Option<Duration>,
    pub(crate) subscriptions: usize,
    pub(crate) tally: Tally,
    pub(crate) age: Duration,
}

/// A search for the connections that hold most bytes. It goes through a part of the table in each turn.
#[derive(Debug)]
pub(crate) struct LargestSearch {
    pub(super) count_max: usize,
    pub(super) answer: Answer<Vec<Slow>>,
    /// The next place of the table.
    pub(super) at: u32,
    /// The bytes and places of the connections found so far. The connection that holds least is on top.
    pub(super) longest: BinaryHeap<Reverse<(usize, u32)>>,
}

impl<T> Answer<T> {
    /// An answer that is given by calling `give` on the core. The call must be short, since the core waits for it.
    pub(crate) fn new(give: impl FnOnce(T) + Send + 'static) -> Answer<T> {
        Answer(Box::new(give))
    }

    pub(super) fn give(self, value: T) {
        (self.0)(value);
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Slow {
    /// All bytes that the connection holds; the list of connections is sorted by this number.
    pub(crate) fn held_bytes(&self) -> usize {
        self.waiting_bytes + self.input_bytes
    }
}

impl ConnectionSearch {
    /// A search for at most `count_max`.
    pub(crate) fn new(selecting: Selecting, count_max: usize, answer: Answer<Found>) -> ConnectionSearch {
        ConnectionSearch {
            selecting,
            count_max,
            found: Found::default(),
            answer,
        }
    }
}

impl ChannelsOf {
    /// A search for at most `count_max` channels, from this number on, of the connection that is selected.
    pub(crate) fn new(
        selecting: Selecting,
        from: u32,
        count_max: usize,
        answer: Answer<Option<NamedChannels>>,
    ) -> ChannelsOf {
        ChannelsOf {
            selecting,
            from,
            count_max,
            found: None,
            answer,
        }
    }
}

impl Channels {
    /// A search for the first `count_max` channels that begin with `prefix` and come behind `after`.
    pub(crate) fn new(
        prefix: &[u8],
        after: Option<&[u8]>,
        count_max: usize,
        answer: Answer<Vec<ChannelRow>>,
    ) -> Channels {
        Channels {
            prefix: prefix.into(),
            after: after.map(Box::from),
            count_max,
            next: 0,
            found: BTreeMap::new(),
            answer,
        }
    }

    /// Keeps the channel if it matches the question and its name is among the first.
    pub(super) fn note(&mut self, name: &[u8], subscribers: u32) {
        if !name.starts_with(&self.prefix) || self.after.as_deref().is_some_and(|after| name <= after) {
            return;
        }
        let is_full = self.found.len() >= self.count_max;
        if is_full && self.found.last_key_value().is_none_or(|(last, _)| name > &**last) {
            return;
        }
        self.found.insert(name.into(), subscribers);
        if self.found.len() > self.count_max {
            self.found.pop_last();
        }
    }

    /// Answers with the channels that were found.
    pub(super) fn conclude(self) {
        let rows = self.found.into_iter();
        self.answer.give(
            rows.map(|(name, subscribers)| ChannelRow { name, subscribers })
                .collect(),
        );
    }
}

impl Calling {
    /// Calls to the selected clients, whose outcomes go into `outcomes`. `answer` tells when the core has
    /// finished.
    pub(crate) fn new(
        selecting: Selecting,
        (event, data): (Arc<str>, Option<Arc<str>>),
        outcomes: Arc<Outcomes>,
        until: Until,
        answer: Answer<CallsDone>,
    ) -> Calling {
        Calling {
            selecting,
            event,
            data,
            calls: CoreCalls::new(outcomes, until, answer),
        }
    }
}

impl Acting {
    /// A step of an operation on the connections of the selection.
    pub(crate) fn new(selecting: Selecting, act: Act, answer: Answer<ActStep>) -> Acting {
        Acting {
            selecting,
            act,
            effort_left: EFFORT_PER_STEP_MAX,
            is_at_end: false,
            counts: ActCounts::default(),
            answer,
        }
    }

    /// Answers with the result of the step.
    pub(super) fn conclude(self) {
        let next = (!self.is_at_end).then_some(self.selecting.next);
        let counts = self.counts;
        self.answer.give(ActStep { counts, next });
    }
}

impl LargestSearch {
    /// A search for at most `count_max`.
    pub(crate) fn new(count_max: usize, answer: Answer<Vec<Slow>>) -> LargestSearch {
        LargestSearch {
            count_max,
            answer,
            at: 0,
            longest: BinaryHeap::new(),
        }
    }

    pub(super) fn note(&mut self, held_bytes: usize, index: u32) {
        self.longest.push(Reverse((held_bytes, index)));
        if self.longest.len() > self.count_max {
            self.longest.pop();
        }
    }
}

/// Places of a table that one turn looks at for questions. A place that is not in the caches costs 0.1 µs.
pub(super) const EFFORT_PER_TURN_MAX: u32 = 2048;
/// The effort that a step of an operation on connections may spend before it is answered: it signs 64 tokens,
/// or acts on 2048 connections, or looks at 65,536 places of the table. That takes 32 turns. Each of them may
/// take a tenth of a second before the time limit of the step is over.
const EFFORT_PER_STEP_MAX: u32 = 32 * EFFORT_PER_TURN_MAX;
