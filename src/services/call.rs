//! A call on its way, and the names by which cores speak of it.

use crate::clock::Uptime;
use crate::labels::labels;

/// Names an open call: the core of its caller, and the slot there with the slot's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

impl CallId {
    pub(super) fn new(core: usize, slot: u32, generation: u32) -> CallId {
        debug_assert!(core < 1 << CORE_BITS && slot < 1 << SLOT_BITS);
        CallId((core as u64) << (32 + SLOT_BITS) | u64::from(slot) << 32 | u64::from(generation))
    }

    /// The core of the caller.
    pub fn core(self) -> usize {
        usize::try_from(self.0 >> (32 + SLOT_BITS)).unwrap_or(usize::MAX)
    }

    pub(super) fn slot(self) -> usize {
        usize::try_from(self.0 >> 32).unwrap_or(usize::MAX) & ((1 << SLOT_BITS) - 1)
    }

    pub(super) fn generation(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(u32::MAX)
    }
}

/// Bytes that a buffer of a call keeps until the answer comes.
const BYTES_KEPT_MAX: usize = 1024;
const CORE_BITS: u32 = 7;
pub(super) const SLOT_BITS: u32 = 25;

/// Names a pool of its owner. A later pool at the same place has another token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// Names a member of pools: a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemberKey {
    /// The core of the connection.
    pub core: usize,
    /// The name of the connection on its core.
    pub connection: usize,
}

/// A call or a one-way event on its way to a service, and the answer on its way back. It is boxed, and its buffers are
/// used again.
#[derive(Debug, Default)]
pub struct ServiceCall {
    /// The open call; `None` for an event without an answer.
    pub id: Option<CallId>,
    /// The pool to which the call belongs.
    pub pool: Option<PoolId>,
    /// The core that owns the pool.
    pub owner: usize,
    /// The name of the procedure or the event, in WTF-8.
    pub event: Vec<u8>,
    /// The data for the service: `{"data":…,"caller":{…}}`. On the way back, the data of the answer, or the error.
    pub data: Vec<u8>,
    /// The same for all calls of one caller.
    pub caller: u64,
    /// The deadline of the caller. After `$cancel`: when the window of its service is free again without an answer.
    pub deadline: Uptime,
    /// Whether its service got `$cancel`.
    pub is_cancelled: bool,
    /// The outcome, on the way back.
    pub outcome: Outcome,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// There is none yet.
    #[default]
    Open,
    /// Answered with data.
    Answered,
    /// Answered without data.
    AnsweredNothing,
    /// Answered with an error.
    Refused,
    /// Not answered.
    Failed(Failure),
}

labels! {
    /// Why a call was not answered.
    pub enum Failure {
        /// The service has disconnected before its answer.
        Gone = "gone",
        /// No answer in time.
        TimedOut = "timed_out",
        /// There is no service.
        NoService = "no_service",
        /// All services are busy, and too many calls wait.
        Busy = "busy",
    }
}

impl Failure {
    /// The name of the error for the caller.
    pub const fn name(self) -> &'static str {
        match self {
            Failure::Gone => "ServiceGoneError",
            Failure::TimedOut => "TimeoutError",
            Failure::NoService => "NoServiceError",
            Failure::Busy => "ServiceBusyError",
        }
    }

    /// Its message.
    pub const fn message(self) -> &'static str {
        match self {
            Failure::Gone => {
                "The service that had the call has disconnected before its answer: it may have carried the call out"
            }
            Failure::TimedOut => "The service has not answered in time",
            Failure::NoService => "No service is there for the procedure: try again later",
            Failure::Busy => "All services for the procedure are busy: try again later",
        }
    }
}

/// The end of a call, as its caller learns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended<'a> {
    /// Answered, with the data if there is some.
    Answered(Option<&'a [u8]>),
    /// Answered with this error, which is JSON.
    Refused(&'a [u8]),
    /// Not answered.
    Failed(Failure),
}

impl ServiceCall {
    /// Its end; `None` if it is open.
    pub fn ended(&self) -> Option<Ended<'_>> {
        Some(match self.outcome {
            Outcome::Open => return None,
            Outcome::Answered => Ended::Answered(Some(&self.data)),
            Outcome::AnsweredNothing => Ended::Answered(None),
            Outcome::Refused => Ended::Refused(&self.data),
            Outcome::Failed(failure) => Ended::Failed(failure),
        })
    }

    /// The call has been sent to the service. Its name and data are no longer needed, and large buffers are freed,
    /// since the service may take long to answer.
    pub fn note_sent(&mut self) {
        for buffer in [&mut self.event, &mut self.data] {
            buffer.clear();
            buffer.shrink_to(BYTES_KEPT_MAX);
        }
    }

    /// The service has answered.
    pub fn answer(&mut self, answer: Result<Option<&str>, &str>) {
        self.data.clear();
        let (outcome, text) = match answer {
            Ok(Some(data)) => (Outcome::Answered, data),
            Ok(None) => (Outcome::AnsweredNothing, ""),
            Err(error) => (Outcome::Refused, error),
        };
        self.data.extend_from_slice(text.as_bytes());
        self.outcome = outcome;
    }

    /// It is not answered.
    pub fn fail(&mut self, failure: Failure) {
        self.outcome = Outcome::Failed(failure);
    }

    /// How many bytes it takes while it waits.
    pub fn bytes(&self) -> usize {
        self.event.len() + self.data.len() + size_of::<ServiceCall>()
    }

    pub(super) fn clear(&mut self) {
        (self.id, self.pool, self.outcome) = (None, None, Outcome::Open);
        self.is_cancelled = false;
        self.event.clear();
        self.data.clear();
    }
}

/// Bytes that a session needs to answer its client later, such as a call id. Short ones need no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// At most 31 bytes, and how many there are.
    Inline([u8; 31], u8),
    /// More.
    Boxed(Box<[u8]>),
}

impl Token {
    /// A copy of these bytes.
    pub fn new(bytes: &[u8]) -> Token {
        let mut inline = [0; 31];
        match (inline.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(bytes);
                Token::Inline(inline, length)
            }
            _ => Token::Boxed(bytes.into()),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Token::Inline(bytes, length) => &bytes[..usize::from(*length)],
            Token::Boxed(bytes) => bytes,
        }
    }
}
