//! Why an operation of a handle was not done.

use std::fmt;

/// Why an operation of a [`Handle`](super::Handle) was not done, or not completely.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleError {
    /// The data is not JSON, has no JSON form, or is nested deeper than 4096 levels.
    NotJson,
    /// The name of the channel is longer than `channel_name_bytes_max`.
    NameTooLong {
        /// The bytes of the name.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The channel belongs to the server, which alone publishes there.
    Reserved {
        /// Why.
        reason: &'static str,
    },
    /// No publication of the channel can be retained. Nothing was published.
    NotRetained {
        /// Why.
        reason: &'static str,
    },
    /// The message is larger than `message_bytes_max`.
    TooLarge {
        /// The bytes of the message.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The ring had no room for the publication within the time limit. Nothing was published.
    RingFull,
    /// The channel is remembered on disk, and the server cannot write to the disk now. Nothing was published.
    NotStored,
    /// The channel is remembered on disk, and another process has the store now. Nothing was published.
    Elsewhere,
    /// The publication was published, and could not be stored: a crash may lose it.
    PublishedNotStored,
    /// Too many operations of handles wait already: 4096 answers, or 1024 publications for room. Nothing was done.
    Busy,
    /// These cores have not answered within 5 s: they stand still or are overloaded, and may still carry the operation
    /// out. The other cores have done it. An operation on many connections goes in steps, and each step has 5 s.
    Unanswered {
        /// The indexes of the cores.
        cores: Vec<usize>,
    },
    /// No client that has completed its handshake has a session with this id.
    NoSuchConnection,
    /// The client has answered a call with this error.
    ClientRefused {
        /// The error, as JSON.
        error: String,
    },
    /// The client has not answered a call in time, or its connection has ended before.
    NoAnswer,
    /// `calls_per_connection_max` calls wait for the client's answers: it was not called.
    TooManyCalls,
    /// The protocol of the connections does not have this operation: MQTT has no events and no calls to clients.
    /// Nothing was done.
    NotInProtocol,
    /// The rules allow these clients to serve the procedure or the event: they would take the program's call or event
    /// for one of a client, and trust the claims in its data. Nothing was sent.
    IsService,
    /// No token with these claims can be signed: they are no JSON object, a time among them is no number, or the server
    /// has no key that signs. No client got a token.
    NotSigned,
    /// The cursor was not returned by an earlier page.
    BadCursor,
    /// The server has ended.
    Ended,
    /// The operation was begun on the thread of a core, which must not wait. An application has its
    /// [`Peer`](crate::app::Peer) there.
    OnCore,
}

impl fmt::Display for HandleError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandleError::NotJson => formatter.write_str(
                "the data is not JSON or is nested too deep; send one JSON value, nested at most 4096 levels deep",
            ),
            HandleError::NameTooLong { bytes, bytes_max } => write!(
                formatter,
                "the name of the channel has {bytes} bytes, and channel_name_bytes_max is {bytes_max}; use a shorter name"
            ),
            HandleError::Reserved { reason } => write!(formatter, "{reason}; publish to another channel"),
            HandleError::NotRetained { reason } => write!(formatter, "{reason}; nothing was published"),
            HandleError::TooLarge { bytes, bytes_max } => write!(
                formatter,
                "the message has {bytes} bytes, and message_bytes_max is {bytes_max}; send less at a time"
            ),
            HandleError::RingFull => formatter.write_str(
                "not published: the ring had no room in time; publish more slowly, or raise outside_bytes_max",
            ),
            HandleError::NotStored => formatter.write_str(
                "not published: the disk of data_dir takes nothing now; make room there, and try again",
            ),
            HandleError::Elsewhere => formatter.write_str(
                "not published: another process has taken data_dir over; publish at that process, and end this one",
            ),
            HandleError::PublishedNotStored => formatter.write_str(
                "published, but not stored: the disk of data_dir takes nothing now, so that a crash may lose it",
            ),
            HandleError::Busy => formatter.write_str("not done: too many operations wait already; try again later"),
            HandleError::Unanswered { cores } => write!(
                formatter,
                "no answer within 5 s from core {}; see ringcast_core_stuck_seconds, and ask again",
                cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
            ),
            HandleError::NoSuchConnection => {
                formatter.write_str("no client has a session with this id; list the connections to find its id")
            }
            HandleError::ClientRefused { error } => {
                write!(formatter, "the client has answered with an error: {error}")
            }
            HandleError::NoAnswer => formatter
                .write_str("no answer from the client: it has not answered in time, or its connection has ended"),
            HandleError::TooManyCalls => formatter.write_str(
                "not called: calls_per_connection_max calls wait for this client's answers; call it more rarely",
            ),
            HandleError::NotInProtocol => formatter.write_str(
                "not done: the connections speak MQTT, which has no events and no calls to clients; publish to a topic \
                 that they subscribe to",
            ),
            HandleError::IsService => formatter.write_str(
                "not sent: the rules allow these clients to serve this name, and they would take it for a call or an event \
                 of a client; use a name that no rule with the action serve allows them",
            ),
            HandleError::NotSigned => formatter.write_str(
                "no token can be signed: the claims must be a JSON object whose iat, nbf and exp are numbers, and the \
                 server needs a key that signs (auth_key, or auth_private_key_file)",
            ),
            HandleError::BadCursor => formatter
                .write_str("the cursor is not one that a page has returned; pass the `next` of the page before"),
            HandleError::Ended => formatter.write_str("the server has ended"),
            HandleError::OnCore => formatter.write_str(
                "not done: this is the thread of a core, which must not wait; use the peer there, or another thread",
            ),
        }
    }
}

impl std::error::Error for HandleError {}
