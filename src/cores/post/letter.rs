//! The kinds of letters.
//!
//! The documentation of each kind says how many letters of the kind a core may have to keep while the box of
//! a core is full, and what happens to the letter if the receiver has stopped.

use std::sync::Arc;

use crate::app::SessionId;
use crate::broker::Sequence;
use crate::clock::Uptime;
use crate::cores::CoreId;
use crate::cores::lifecycle::moving::Moving;
use crate::cores::post::service_letter::ServiceLetter;
use crate::decision::HistoryCall;
use crate::history::{Question, Reading};
use crate::mqtt::shares::ShareMessage;
use crate::presence::{Answer, RoomMessage};
use crate::retained::{Filter, Page};
use crate::wills::{SessionKey, Will};

/// A letter from one core to another.
#[derive(Debug)]
pub(crate) enum Letter {
    /// The last letter of this core: it has stopped. The receiver drops the letters that it has kept for that
    /// core, and ends everything that waits for an answer of it. Never kept: each box has a slot for it.
    Stopped(CoreId),
    /// A connection that moves to the receiver, without its socket (`arrivals/moving.rs`). It is sent only if
    /// there is room, so at most one is kept for each core that fills the box at the same moment. If the
    /// receiver has stopped, the connection ends.
    Moved(Box<Moving>),
    /// A change of a session with a will, for the owner of its key. Kept: one for each such will, when it is
    /// taken back or its connection ends; a new will is refused meanwhile (`input/wills.rs`). If the receiver
    /// has stopped, so do its clients, and the will is dropped.
    Will(Box<WillLetter>),
    /// This core follows other policies of channels from a place on. Each core sends this letter to all
    /// cores, including itself, when it adopts the policies: one for each reload.
    PoliciesFollowed {
        /// The sender.
        core: CoreId,
        /// The version of the policies.
        version: u32,
        /// The first place that the sender may have published by them.
        place: Sequence,
    },
    /// A question to the owner of a channel. The asker bounds the number of its open questions. A core that
    /// has stopped answers none of them.
    HistoryQuestion(Box<HistoryQuestion>),
    /// The answer to such a question.
    HistoryAnswer(Box<HistoryAnswer>),
    /// A question about retained publications, to a core that may own some. The asker has one open for each
    /// of 32 MQTT and 64 SocketCluster subscriptions at most. A core that has stopped answers none of them.
    RetainedQuestion(Box<RetainedQuestion>),
    /// The answer to such a question.
    RetainedAnswer(Box<RetainedAnswer>),
    /// Changes of a core's connections for the owner of their channels (`cores/presence`). Sent only if there
    /// is room. If the receiver has stopped, so has presence.
    PresenceMessages { from: usize, messages: Vec<RoomMessage> },
    /// The owner has handled this many of the changes it was told. At most one is kept for each such letter.
    PresenceDone {
        owner: usize,
        count: usize,
        /// The channels of subscribers for which it had no room: at most one for each change.
        refused: Vec<Box<[u8]>>,
    },
    /// The owner has room for some of these subscribers: the receiver sends their changes again. One may be
    /// kept for each core, since the owner sends the next one only after those changes.
    PresenceRoom { owner: usize },
    /// Changes of groups of shared subscriptions and of their members (`lifecycle/mqtt_shares.rs`). Sent only
    /// if there is room, one for each core and turn. If the receiver has stopped, so have its groups and its
    /// sessions.
    MqttShares {
        from: usize,
        messages: Vec<ShareMessage>,
    },
    /// The answer of an owner to the call with this number. At most one is kept for each waiting call of a
    /// core.
    PresenceAnswered(u64, Box<Answer>),
    /// About services.
    Service(ServiceLetter),
}

/// A question about a channel's history, to the owner of the channel.
#[derive(Debug)]
pub(crate) struct HistoryQuestion {
    /// The core that gets the answer.
    pub(crate) asker: CoreId,
    /// The purpose of the answer.
    pub(crate) purpose: HistoryPurpose,
    /// The question itself.
    pub(crate) question: Question,
}

/// A question about retained publications.
#[derive(Debug)]
pub(crate) struct RetainedQuestion {
    /// The core that gets the answer.
    pub(crate) asker: CoreId,
    /// The purpose of the answer.
    pub(crate) purpose: RetainedPurpose,
    pub(crate) filter: Arc<Filter>,
    /// Where the page begins; `None`: with the first topic.
    pub(crate) from: Option<Box<[u8]>>,
    /// The end of the publications that are considered.
    pub(crate) before: Sequence,
    /// The owner answers when it has read all publications before this place: the asker has passed them, and has not
    /// noted all of their topics.
    pub(crate) read_up_to: Sequence,
    /// Most publications in the answer.
    pub(crate) entries_max: usize,
}

/// A page of retained publications.
#[derive(Debug)]
pub(crate) struct RetainedAnswer {
    /// The purpose of the answer.
    pub(crate) purpose: RetainedPurpose,
    pub(crate) page: Page,
    /// The owner had read everything before this place.
    pub(crate) read_at: Sequence,
}

/// The purpose of an answer about retained publications; its asker gets it back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RetainedPurpose {
    /// The subscription of an MQTT session with this number among those that are sent retained publications.
    Filter(u64),
    /// The question with this number of a SocketCluster subscription that is not live yet.
    Recovery(u64),
}

/// The answer of a channel's owner.
#[derive(Debug)]
pub(crate) struct HistoryAnswer {
    /// The purpose of the answer.
    pub(crate) purpose: HistoryPurpose,
    /// The part of the history that was read.
    pub(crate) reading: Reading,
}

/// The purpose of an answer; its asker gets it back.
#[derive(Debug)]
pub(crate) enum HistoryPurpose {
    /// The question with this number of a subscription that is not live yet.
    Recovery(u64),
    /// A client's call of `$history`.
    Call {
        /// The asker's number for the call.
        number: u64,
        /// The call.
        call: HistoryCall,
        /// The name of the channel, for an application that looks at what clients get of it.
        channel: Option<Box<[u8]>>,
    },
}

/// A change of a session with a will.
#[derive(Debug)]
pub(crate) struct WillLetter {
    pub(crate) key: SessionKey,
    /// The connection that uses the key.
    pub(crate) generation: SessionId,
    pub(crate) event: WillKeyEvent,
}

/// The change of a connection that uses the key of a session.
#[derive(Debug)]
pub(crate) enum WillKeyEvent {
    /// It has begun to use the key, or uses it again, at this time.
    Claimed(Uptime),
    /// It no longer uses the key.
    Released,
    /// It has ended and leaves a will.
    Ended(Will),
}

/// A letter is moved into its slot, so its sender boxes large contents.
const _: () = assert!(size_of::<Letter>() <= 64);
