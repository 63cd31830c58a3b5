//! The reports and questions of a core to the core that owns a room, and the answers.

use super::identity::Identity;
use super::page::Page;
use super::rooms::{Client, Departure, InfoRefused, Joined, Rooms};
use crate::app::SessionId;
use crate::broker::ChannelHash;
use crate::clock::{Now, Uptime};

/// A report of a core to the owner of a room, about one of its connections.
#[derive(Debug)]
pub struct RoomMessage {
    /// The name of the room's channel.
    pub channel: Box<[u8]>,
    /// Its hash.
    pub hash: ChannelHash,
    /// The connection.
    pub session: SessionId,
    /// The content.
    pub message: Message,
}

/// The content of a report.
#[derive(Debug)]
pub enum Message {
    /// The connection joins, as this user.
    Joins(Option<Box<str>>),
    /// The connection leaves, as the member that it joined as.
    Leaves(Identity, Departure),
    /// The connection, which is in the room as this member, sets its info: JSON.
    Says(Identity, Box<[u8]>),
    /// A client's call about presence.
    Asks(Ask),
}

/// A question of a client, on its way to the owner.
#[derive(Debug)]
pub struct Ask {
    /// The core of the client.
    pub asker: usize,
    /// The number of the question on that core.
    pub number: u64,
    /// After this time the client has got a `TimeoutError`.
    pub deadline: Uptime,
    /// The question.
    pub request: Request,
}

/// A question of a client to the owner of a room.
#[derive(Debug)]
pub enum Request {
    /// A page of the members.
    Page {
        /// The place at which the page begins.
        after: u32,
        /// Most members of the page.
        limit: usize,
    },
    /// To set the info of the member as which the connection has joined.
    SetInfo(Identity, Option<Box<[u8]>>),
}

/// The answer of an owner.
#[derive(Debug)]
pub struct Answered {
    /// The core of the client.
    pub asker: usize,
    /// The number of the question.
    pub number: u64,
    /// The answer.
    pub answer: Answer,
}

/// The content of an answer.
#[derive(Debug)]
pub enum Answer {
    /// A page of the members.
    Page(Page),
    /// The info was set, or not.
    Info(Result<(), InfoRefused>),
}

/// The outcome of a report of a core.
#[derive(Debug, Default)]
pub struct Done {
    /// The answer to a question, unless it is too late.
    pub answered: Option<Answered>,
    /// The cost of the report, in changes of one member.
    pub effort: usize,
    /// The part for which there was no room; the core may report it again.
    pub refused: Option<Refused>,
}

/// There was no room for a member, a connection, or an info.
#[derive(Debug)]
pub struct Refused {
    /// The name of the room's channel.
    pub channel: Box<[u8]>,
    /// How much room it needs.
    pub weight: u64,
}

impl Rooms {
    /// Applies a report of a core.
    pub fn receive(&mut self, told: RoomMessage, now: Now) -> Done {
        let RoomMessage {
            channel,
            hash,
            session,
            message,
        } = told;
        let Ask {
            asker,
            number,
            deadline,
            request,
        } = match message {
            Message::Joins(user) => {
                let user = user.as_deref();
                return match self.join(&channel, hash, Client { session, user }, now) {
                    Joined::Joined => Done::of_change(),
                    Joined::Refused => self.refuse(channel),
                };
            }
            Message::Leaves(identity, departure) => {
                self.leave((&channel, hash), session, identity, departure, now.uptime);
                return Done::of_change();
            }
            Message::Says(identity, info) => {
                // Without room for its info, a member is in the room all the same.
                return match self.set_info((&channel, hash), session, identity, Some(&info), now.uptime) {
                    Ok(()) | Err(InfoRefused::NotThere) => Done::of_change(),
                    Err(InfoRefused::Full) => self.refuse(channel),
                };
            }
            Message::Asks(ask) => ask,
        };
        if deadline <= now.uptime {
            return Done::of_change();
        }
        let (answer, effort) = match request {
            Request::Page { after, limit } => {
                let page = self.page(&channel, hash, after, limit);
                let effort = PAGE_EFFORT + page.members.len();
                (Answer::Page(page), effort)
            }
            Request::SetInfo(identity, info) => {
                let key = (&*channel, hash);
                let result = self.set_info(key, session, identity, info.as_deref(), now.uptime);
                (Answer::Info(result), 1)
            }
        };
        let answered = Answered {
            asker,
            number,
            answer,
        };
        Done {
            answered: Some(answered),
            effort,
            refused: None,
        }
    }

    fn refuse(&mut self, channel: Box<[u8]>) -> Done {
        let weight = self.refused_weight;
        self.refusals.note(weight);
        Done {
            refused: Some(Refused { channel, weight }),
            ..Done::of_change()
        }
    }
}

impl Done {
    /// Nothing but a change of one member.
    fn of_change() -> Done {
        Done {
            effort: 1,
            ..Done::default()
        }
    }
}

/// What a page costs beside its members: it may look at many places without any.
const PAGE_EFFORT: usize = 32;
