//! The kinds of letters.
//!
//! Each kind says how many letters of it a core may have to keep while the box of a core is full, and what becomes of
//! it if the receiver has stopped.

use std::sync::Arc;

use crate::app::SessionId;
use crate::broker::Sequence;
use crate::clock::Uptime;
use crate::cores::CoreId;
use crate::cores::lifecycle::moving::Moving;
use crate::cores::post::service_letter::ServiceLetter;
use crate::decision::HistoryCall;
use crate::history::{Question, Reading};
use crate::mqtt::shares::News;
use crate::presence::{Answer, Told};
use crate::retained::{Filter, Page};
use crate::wills::{SessionKey, Will};

/// A letter from one core to another.
#[derive(Debug)]
pub(crate) enum Letter {
    /// The last letter of this core: it has stopped. The receiver drops what it has kept for that core, and gives up
    /// what waits for an answer of it. Never kept: each box has a slot for it.
    Stopped(CoreId),
    /// A connection that moves to the receiver, without its socket (`arrivals/moving.rs`). It is sent if there is room,
    /// so that one is kept at most for each core which fills the box at the same moment. If the receiver has stopped, the
    /// connection ends.
    Moved(Box<Moving>),
    /// News of a session with a will, for the owner of its key. Kept: one for each such will, when it is taken
    /// back or its connection ends; a new will is refused meanwhile (`input/wills.rs`). If the receiver has stopped, its clients go as well, and the will is dropped with it.
    Will(Box<WillLetter>),
    /// This core follows other policies of channels from a place on. Each core sends it to all, itself too, when it
    /// adopts them: one for each reload.
    PoliciesFollowed {
        /// The sender.
        core: CoreId,
        /// The version of the policies.
        version: u32,
        /// The first place that the sender may have published by them.
        place: Sequence,
    },
    /// A question to the owner of a channel. The asker bounds how many questions of its own are open; those to a core
    /// that has stopped are never answered.
    HistoryQuestion(Box<HistoryQuestion>),
    /// The answer to such a question.
    HistoryAnswer(Box<HistoryAnswer>),
    /// A question about retained publications, to a core that may own some. The asker has one open for each of 32 MQTT
    /// and 64 SocketCluster subscriptions at most; those to a core that has stopped are never answered.
    RetainedQuestion(Box<RetainedQuestion>),
    /// The answer to such a question.
    RetainedAnswer(Box<RetainedAnswer>),
    /// What a core tells the owner of channels about its connections (`cores/presence`). It is sent only if there is
    /// room. If the receiver has stopped, so has presence.
    PresenceTold { from: usize, told: Vec<Told> },
    /// The owner has done so much of what it was told. As many may be kept as letters were told.
    PresenceDone {
        owner: usize,
        count: usize,
        /// The channels of subscribers for which it had no room, at most as many as it was told.
        refused: Vec<Box<[u8]>>,
    },
    /// The owner has room for some of these subscribers: the receiver tells about them again. One may be kept for each
    /// core, since the next one follows only on what the receiver tells then.
    PresenceRoom { owner: usize },
    /// News about groups of shared subscriptions and their members (`lifecycle/mqtt_shares.rs`). It is sent only if there
    /// is room, one for each core and turn. If the receiver has stopped, so have its groups and its sessions.
    MqttShares { from: usize, news: Vec<News> },
    /// The answer of an owner to the call with this number. As many may be kept as calls of a core may wait.
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
    /// What is asked.
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
    /// What the history has.
    pub(crate) reading: Reading,
}

/// What an answer is for; its asker gets it back.
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
    },
}

/// News of a session with a will.
#[derive(Debug)]
pub(crate) struct WillLetter {
    pub(crate) key: SessionKey,
    /// The connection that uses the key.
    pub(crate) generation: SessionId,
    pub(crate) news: WillNews,
}

/// What has become of a connection that uses the key of a session.
#[derive(Debug)]
pub(crate) enum WillNews {
    /// It has begun to use the key, or uses it again, at this time.
    Claimed(Uptime),
    /// It no longer uses the key.
    Released,
    /// It has ended and leaves a will.
    Ended(Will),
}

/// A letter is moved into its slot: what is larger is boxed by its sender.
const _: () = assert!(size_of::<Letter>() <= 64);
