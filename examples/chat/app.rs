//! The application of the chat: procedures, permissions, a login, and an answer that comes from another thread.
//!
//! | the client | the server |
//! |---|---|
//! | calls `login` with `{"name":N}` | gives the client a token with this name |
//! | subscribes to `room/...` | allows it, if the client is logged in |
//! | publishes text to `room/...` | publishes `{"from":N,"text":T}` instead |
//! | calls `history` with `{"room":R}` | answers from another thread, the archive, which may wait |
//! | calls `roll` with `{"dice":N}` | sends the result as an event and as the answer, both in one message |
//! | calls `poll` with a question | calls `question` on the same client, and publishes the client's answer |

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use ringcast::app::{
    AllowedPublish, AnswerError, App, AppError, Call, CallAnswer, CallId, Client, CloseCode, CloseReason,
    Deferred, Name, Peer, RawJson, Refusal, SessionId,
};
use serde::{Deserialize, Serialize};

/// The chat on one core. The cores share the archive, a thread of its own.
#[derive(Debug)]
pub(crate) struct Chat {
    archive: SyncSender<Request>,
    /// Questions that clients have been asked and have not answered yet.
    questions: HashMap<(SessionId, CallId), String>,
}

/// A request to the archive.
#[derive(Debug)]
pub(crate) enum Request {
    /// Keep a line of a room.
    Keep { room: String, line: String },
    /// Send the lines of a room to the client.
    Tell { room: String, to: Deferred },
}

#[derive(Deserialize)]
struct Login {
    name: String,
}

#[derive(Deserialize, Serialize)]
struct Identity {
    name: String,
}

#[derive(Deserialize)]
struct History {
    room: String,
}

#[derive(Deserialize)]
struct Roll {
    dice: u32,
}

#[derive(Serialize)]
struct Line<'a> {
    from: &'a str,
    text: &'a str,
}

impl Chat {
    /// The chat on one more core. All cores use the same archive.
    pub(crate) fn new(archive: SyncSender<Request>) -> Chat {
        Chat {
            archive,
            questions: HashMap::new(),
        }
    }

    /// Gives the client a token with its name; the client can also use it when it reconnects.
    fn login(data: Option<RawJson<'_>>, peer: &mut Peer<'_>) -> CallAnswer {
        match data.map(|data| data.parse::<Login>(peer)) {
            Some(Ok(login)) if !login.name.is_empty() => {
                peer.set_auth_token(&Identity { name: login.name }, None);
                peer.reply_empty()
            }
            Some(_) | None => peer.refuse(&AppError::new("a name is wanted").named("LoginError")),
        }
    }

    /// Asks the archive, which answers later; this core goes on meanwhile.
    fn history(&self, data: Option<RawJson<'_>>, peer: &mut Peer<'_>) -> CallAnswer {
        let Some(Ok(History { room })) = data.map(|data| data.parse(peer)) else {
            return peer.refuse(&AppError::new("a room is wanted"));
        };
        let (answer, to) = peer.defer();
        match self.archive.try_send(Request::Tell { room, to }) {
            Ok(()) => answer,
            Err(_) => peer.refuse(&AppError::new("the archive is busy").named("BusyError")),
        }
    }

    /// Sends an event and the answer in one message.
    fn roll(data: Option<RawJson<'_>>, peer: &mut Peer<'_>) -> CallAnswer {
        match data.map(|data| data.parse::<Roll>(peer)) {
            Some(Ok(Roll { dice: dice @ 1..=100 })) => {
                peer.batch();
                peer.transmit("rolling", &dice);
                peer.reply(&(dice * 6))
            }
            Some(_) | None => peer.refuse(&AppError::new("from 1 to 100 dice are wanted")),
        }
    }

    /// Calls the same client; `answered` receives the client's answer.
    fn poll(&mut self, data: Option<RawJson<'_>>, peer: &mut Peer<'_>) -> CallAnswer {
        let question = data.map_or("null", RawJson::as_str).to_owned();
        match peer.invoke("question", &question) {
            Ok(call) => {
                self.questions.insert((peer.id(), call), question);
                peer.reply_empty()
            }
            Err(_) => peer.refuse(&AppError::new("answer the other questions first")),
        }
    }
}

impl App for Chat {
    fn subscribe(
        &mut self,
        channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<(), Refusal> {
        if peer.claims().is_none() && is_room(channel) {
            return Err(AppError::new("log in first").named("NotLoggedInError").into());
        }
        Ok(())
    }

    fn publish(
        &mut self,
        channel: Name<'_>,
        data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        let Some(room) = channel.as_str().filter(|_| is_room(channel)) else {
            return Err(AppError::new("only rooms can be published to").into());
        };
        let Some(name) = name_of(peer) else {
            return Err(AppError::new("log in first").named("NotLoggedInError").into());
        };
        let Some(Ok(text)) = data.map(|data| data.parse::<String>(peer)) else {
            return Err(AppError::new("text is wanted").into());
        };
        // If the archive's queue is full, the line is not kept: the chat goes on.
        let _ = self.archive.try_send(Request::Keep {
            room: room.to_owned(),
            line: format!("{name}: {text}"),
        });
        Ok(peer.rewrite(&Line {
            from: &name,
            text: &text,
        }))
    }

    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        match call.event.as_str() {
            Some("login") => Chat::login(call.data, peer),
            Some("history") => self.history(call.data, peer),
            Some("roll") => Chat::roll(call.data, peer),
            Some("poll") => self.poll(call.data, peer),
            Some("leave") => {
                if let Some(code) = CloseCode::new(4100) {
                    peer.disconnect(code, "until soon");
                }
                peer.reply_empty()
            }
            _ => peer.refuse(&AppError::new("there is no such procedure").named("NoSuchProcedureError")),
        }
    }

    fn answered(
        &mut self,
        call: CallId,
        answer: Result<Option<RawJson<'_>>, AnswerError<'_>>,
        peer: &mut Peer<'_>,
    ) {
        let Some(question) = self.questions.remove(&(peer.id(), call)) else {
            return;
        };
        if let Ok(answer) = answer {
            peer.publish("polls", &(question, answer));
        }
    }

    fn disconnected(&mut self, client: &mut Client<'_>, _reason: CloseReason) {
        // By now every question has been answered or has failed.
        debug_assert!(self.questions.keys().all(|(asked, _)| *asked != client.id()));
    }
}

/// Starts the archive: a thread that keeps lines. It may wait as long as it likes.
pub(crate) fn archive() -> SyncSender<Request> {
    let (sender, requests) = mpsc::sync_channel::<Request>(1024);
    thread::spawn(move || {
        let mut rooms: HashMap<String, VecDeque<String>> = HashMap::new();
        for request in requests {
            match request {
                // Clients choose the names of rooms, so the number of rooms that are kept has a limit.
                Request::Keep { room, line } if rooms.len() < ROOMS_MAX || rooms.contains_key(&room) => {
                    let lines = rooms.entry(room).or_default();
                    lines.push_back(line);
                    if lines.len() > LINES_MAX {
                        lines.pop_front();
                    }
                }
                Request::Keep { .. } => {}
                Request::Tell { room, to } => {
                    let none = VecDeque::new();
                    // If too many answers wait on the core already, this one is dropped, and the client's call times
                    // out.
                    let _ = to.reply(rooms.get(&room).unwrap_or(&none));
                }
            }
        }
    });
    sender
}

/// Number of rooms that are kept, and of lines in each.
const ROOMS_MAX: usize = 1000;
const LINES_MAX: usize = 100;

fn is_room(channel: Name<'_>) -> bool {
    channel.as_bytes().starts_with(b"room/")
}

/// The client's name, by its token.
fn name_of(peer: &Peer<'_>) -> Option<String> {
    let claims = peer.claims()?;
    claims.value::<Identity>().ok().map(|identity| identity.name)
}
