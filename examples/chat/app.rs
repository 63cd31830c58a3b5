//! The application of the chat: procedures, permissions, a login, and an answer that comes from another thread.
//!
//! | client does | server does |
//! |---|---|
//! | calls `login` with `{"name":N}` | gives it a token that says who it is |
//! | subscribes to `room/...` | lets it, if it is logged in |
//! | publishes text to `room/...` | publishes `{"from":N,"text":T}` instead |
//! | calls `history` with `{"room":R}` | answers from a thread that may wait, here the archive |
//! | calls `roll` with `{"dice":N}` | tells the room's text and answers, both in one message |
//! | calls `poll` with a question | calls `question` on the same client, and publishes what it answers |

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use ringcast::app::{
    Answer, AnswerError, App, AppError, Call, CallId, Deferred, Name, Peer, Publication, RawJson, Refusal,
    SessionId,
};
use ringcast::decision::{CloseCode, CloseReason};
use serde::{Deserialize, Serialize};

/// The chat on one core. What cores share they share by threads of their own, here the archive.
#[derive(Debug)]
pub(crate) struct Chat {
    archive: SyncSender<Request>,
    /// Questions that were asked of clients and not answered yet.
    questions: HashMap<(SessionId, CallId), String>,
}

/// What the archive is asked.
#[derive(Debug)]
pub(crate) enum Request {
    /// Keep a line of a room.
    Keep { room: String, line: String },
    /// Tell the lines of a room.
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
    /// The chat on one more core, with the archive of all.
    pub(crate) fn new(archive: SyncSender<Request>) -> Chat {
        Chat {
            archive,
            questions: HashMap::new(),
        }
    }

    /// Gives the client a token, so that it is known from now on, and when it comes back.
    fn login(data: Option<RawJson<'_>>, peer: &mut Peer<'_>) -> Answer {
        match data.map(|data| data.parse::<Login>(peer)) {
            Some(Ok(login)) if !login.name.is_empty() => {
                peer.set_auth_token(&Identity { name: login.name }, None);
                peer.reply_empty()
            }
            Some(_) | None => peer.refuse(&AppError::new("a name is wanted").named("LoginError")),
        }
    }

    /// The archive may take its time: this core goes on meanwhile.
    fn history(&self, data: Option<RawJson<'_>>, peer: &mut Peer<'_>) -> Answer {
        let Some(Ok(History { room })) = data.map(|data| data.parse(peer)) else {
            return peer.refuse(&AppError::new("a room is wanted"));
        };
        let (answer, to) = peer.defer();
        match self.archive.try_send(Request::Tell { room, to }) {
            Ok(()) => answer,
            Err(_) => peer.refuse(&AppError::new("the archive is busy").named("BusyError")),
        }
    }

    /// The client gets the event and the answer in one message.
    fn roll(data: Option<RawJson<'_>>, peer: &mut Peer<'_>) -> Answer {
        match data.map(|data| data.parse::<Roll>(peer)) {
            Some(Ok(Roll { dice: dice @ 1..=100 })) => {
                peer.batch();
                peer.transmit("rolling", &dice);
                peer.reply(&(dice * 6))
            }
            Some(_) | None => peer.refuse(&AppError::new("from 1 to 100 dice are wanted")),
        }
    }

    /// Asks the client itself; `answered` hears what it says.
    fn poll(&mut self, data: Option<RawJson<'_>>, peer: &mut Peer<'_>) -> Answer {
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
    ) -> Result<Publication, Refusal> {
        let Some(room) = channel.as_str().filter(|_| is_room(channel)) else {
            return Err(AppError::new("only rooms can be published to").into());
        };
        let Some(name) = name_of(peer) else {
            return Err(AppError::new("log in first").named("NotLoggedInError").into());
        };
        let Some(Ok(text)) = data.map(|data| data.parse::<String>(peer)) else {
            return Err(AppError::new("text is wanted").into());
        };
        // A full archive forgets: talking goes before keeping.
        let _ = self.archive.try_send(Request::Keep {
            room: room.to_owned(),
            line: format!("{name}: {text}"),
        });
        Ok(peer.rewrite(&Line {
            from: &name,
            text: &text,
        }))
    }

    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> Answer {
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

    fn disconnected(&mut self, id: SessionId, _reason: CloseReason) {
        // Every question has been answered or has failed by now.
        debug_assert!(self.questions.keys().all(|(asked, _)| *asked != id));
    }
}

/// Starts the thread that keeps what is said, and may wait for as long as it likes.
pub(crate) fn archive() -> SyncSender<Request> {
    let (sender, requests) = mpsc::sync_channel::<Request>(1024);
    thread::spawn(move || {
        let mut rooms: HashMap<String, VecDeque<String>> = HashMap::new();
        for request in requests {
            match request {
                // Clients name the rooms: what they may make us keep has an end.
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
                    // A core that has more answers waiting than it takes lets this client's call time out.
                    let _ = to.reply(rooms.get(&room).unwrap_or(&none));
                }
            }
        }
    });
    sender
}

/// Rooms whose talk is kept, and lines of each.
const ROOMS_MAX: usize = 1000;
const LINES_MAX: usize = 100;

fn is_room(channel: Name<'_>) -> bool {
    channel.as_bytes().starts_with(b"room/")
}

/// Who a client is, by its token.
fn name_of(peer: &Peer<'_>) -> Option<String> {
    let claims = peer.claims()?;
    let identity: Identity = serde_json::from_str(claims.json()).ok()?;
    Some(identity.name)
}
