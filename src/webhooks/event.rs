//! The events, and their JSON as `docs/webhooks.md` describes it.
//!
//! A core makes an [`Event`] from data that it has at hand; the thread of the webhooks writes the JSON. Text that
//! clients have chosen (users, channels) is written as `JSON.stringify` writes it; data of publications is JSON
//! already, and is passed on as it is.

use std::net::IpAddr;

use crate::app::SessionId;
use crate::broker::Position;
use crate::config::webhooks::WebhookEvent;
use crate::decision::CloseReason;
use crate::json::string::write_json;

/// An event for webhooks, or a change from which one is made.
#[derive(Debug)]
pub enum Event {
    /// Channels have got their first subscribers on a core, or have lost their last. Made into events about the channel
    /// by `occupancy.rs`.
    Occupancy(Vec<Occupied>),
    /// A channel is occupied or vacated, over all cores.
    Channel(Occupied),
    /// A member has joined or left a channel.
    Member(MembershipEvent),
    /// A client has connected.
    Connected(Box<Client>),
    /// The connection of a client has ended.
    Disconnected(Box<Client>, Box<Ended>),
    /// The will of a client was published.
    WillSent {
        /// The channel, in WTF-8.
        channel: Box<[u8]>,
        /// The data: JSON.
        data: Option<Box<[u8]>>,
        /// The connection that has left it.
        connection: SessionId,
    },
    /// A publication.
    Publication {
        /// The channel, in WTF-8.
        channel: Box<[u8]>,
        /// The data: JSON, or nothing.
        data: Box<[u8]>,
        /// Its position, if the policy of the channel has positions.
        position: Option<Position>,
    },
    /// A client reads too slowly.
    SlowConsumer(Box<Client>, Slow),
    /// A limit was reached.
    LimitHit {
        /// Its name.
        limit: &'static str,
        /// How often, since the last such event.
        hits: u64,
    },
}

/// Whether a channel has subscribers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupied {
    /// The channel, in WTF-8.
    pub channel: Box<[u8]>,
    /// The kind of subscribers.
    pub by: SubscriberKind,
    /// Whether there are any.
    pub is_occupied: bool,
}

/// The subscribers of one kind that a core may have on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriberKind {
    /// SocketCluster clients.
    SocketCluster,
    /// Sessions of MQTT clients.
    Mqtt,
}

/// A member that has joined or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipEvent {
    /// The channel, in WTF-8.
    pub channel: Box<[u8]>,
    /// The user; `None` for a client without one.
    pub user: Option<Box<str>>,
    /// The connection of a client without a user.
    pub connection: Option<SessionId>,
    /// Whether it is a member now.
    pub is_there: bool,
    /// How many members the channel has now.
    pub count: u32,
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The id of its session.
    pub connection: SessionId,
    /// The name of its protocol.
    pub protocol: &'static str,
    /// Its address, if it is known.
    pub address: Option<IpAddr>,
    /// Its user, if it is authenticated.
    pub user: Option<Box<str>>,
}

/// How a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub reason: CloseReason,
    /// How long it was open.
    pub age_ms: u64,
    /// Messages received and sent.
    pub messages: [u32; 2],
    /// Bytes received and sent.
    pub bytes: [u64; 2],
}

/// The treatment of publications for a client that reads too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slow {
    /// Its connection is closed.
    Closed,
    /// It misses publications.
    Skipped,
    /// It gets the newest publication of each channel later.
    Conflated,
}

impl Slow {
    const fn label(self) -> &'static str {
        match self {
            Slow::Closed => "closed",
            Slow::Skipped => "skipped",
            Slow::Conflated => "conflated",
        }
    }
}

impl Event {
    /// The kind of event for webhooks; `None` for changes that are no event yet.
    pub(crate) fn kind(&self) -> Option<WebhookEvent> {
        Some(match self {
            Event::Occupancy(_) => return None,
            Event::Channel(occupied) if occupied.is_occupied => WebhookEvent::ChannelOccupied,
            Event::Channel(_) => WebhookEvent::ChannelVacated,
            Event::Member(event) if event.is_there => WebhookEvent::MemberJoined,
            Event::Member(_) => WebhookEvent::MemberLeft,
            Event::Connected(_) => WebhookEvent::Connected,
            Event::Disconnected(..) => WebhookEvent::Disconnected,
            Event::WillSent { .. } => WebhookEvent::WillSent,
            Event::Publication { .. } => WebhookEvent::Publication,
            Event::SlowConsumer(..) => WebhookEvent::SlowConsumer,
            Event::LimitHit { .. } => WebhookEvent::LimitHit,
        })
    }

    /// The channel that it is about, if it is about one.
    pub(crate) fn channel(&self) -> Option<&[u8]> {
        match self {
            Event::Channel(Occupied { channel, .. })
            | Event::Member(MembershipEvent { channel, .. })
            | Event::WillSent { channel, .. }
            | Event::Publication { channel, .. } => Some(channel),
            Event::Occupancy(_)
            | Event::Connected(_)
            | Event::Disconnected(..)
            | Event::SlowConsumer(..)
            | Event::LimitHit { .. } => None,
        }
    }

    /// Bytes of memory that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        let client = |client: &Client| client.user.as_ref().map_or(0, |user| user.len());
        EVENT_BYTES
            + match self {
                Event::Occupancy(changes) => changes
                    .iter()
                    .map(|change| EVENT_BYTES + change.channel.len())
                    .sum(),
                Event::Channel(occupied) => occupied.channel.len(),
                Event::Member(event) => {
                    event.channel.len() + event.user.as_ref().map_or(0, |user| user.len())
                }
                Event::Connected(of) | Event::Disconnected(of, _) | Event::SlowConsumer(of, _) => client(of),
                Event::WillSent { channel, data, .. } => {
                    channel.len() + data.as_ref().map_or(0, |data| data.len())
                }
                Event::Publication { channel, data, .. } => channel.len() + data.len(),
                Event::LimitHit { .. } => 0,
            }
    }

    /// Writes it as a JSON object. `id` is its id; it has happened at `unix_ms`.
    pub(crate) fn write(&self, id: &str, unix_ms: u64, out: &mut Vec<u8>) {
        let Some(kind) = self.kind() else { return };
        let mut object = Object::begin(out);
        object.text("id", id.as_bytes());
        object.number("time", unix_ms);
        object.text("event", kind.label().as_bytes());
        match self {
            Event::Occupancy(_) => {}
            Event::Channel(occupied) => object.text("channel", &occupied.channel),
            Event::Member(event) => {
                object.text("channel", &event.channel);
                object.optional_text("user", event.user.as_deref());
                if let Some(connection) = event.connection {
                    object.connection(connection);
                }
                object.number("count", u64::from(event.count));
            }
            Event::Connected(client) => object.client(client),
            Event::Disconnected(client, ended) => {
                object.client(client);
                object.text("reason", ended.reason.label().as_bytes());
                match ended.reason.code() {
                    Some(code) => object.number("code", u64::from(code.as_u16())),
                    None => object.raw("code", b"null"),
                }
                object.number("lasted_ms", ended.age_ms);
                object.number("messages_in", u64::from(ended.messages[0]));
                object.number("messages_out", u64::from(ended.messages[1]));
                object.number("bytes_in", ended.bytes[0]);
                object.number("bytes_out", ended.bytes[1]);
            }
            Event::WillSent {
                channel,
                data,
                connection,
            } => {
                object.text("channel", channel);
                object.raw("data", data.as_deref().unwrap_or(b"null"));
                object.connection(*connection);
            }
            Event::Publication {
                channel,
                data,
                position,
            } => {
                object.text("channel", channel);
                object.raw("data", if data.is_empty() { b"null" } else { data });
                if let Some(position) = position {
                    object.text("epoch", position.epoch.as_bytes());
                    object.number("offset", position.offset);
                }
            }
            Event::SlowConsumer(client, slow) => {
                object.client(client);
                object.text("outcome", slow.label().as_bytes());
            }
            Event::LimitHit { limit, hits } => {
                object.text("limit", limit.as_bytes());
                object.number("hits", *hits);
            }
        }
        object.end();
    }

    /// One event of each kind, for `ringcast hooks test`.
    pub(crate) fn samples() -> Vec<Event> {
        let channel = || Box::from(&b"ringcast.test"[..]);
        let data = || Box::from(&br#"{"text":"This is a test of `ringcast hooks test`"}"#[..]);
        let connection = SessionId::new([0; SessionId::BYTES]);
        let client = || {
            Box::new(Client {
                connection,
                protocol: "socketcluster",
                address: Some(IpAddr::from([192, 0, 2, 1])),
                user: Some("alice".into()),
            })
        };
        let occupied = |is_occupied| {
            Event::Channel(Occupied {
                channel: channel(),
                by: SubscriberKind::SocketCluster,
                is_occupied,
            })
        };
        let member = |is_there| {
            Event::Member(MembershipEvent {
                channel: channel(),
                user: Some("alice".into()),
                connection: None,
                is_there,
                count: u32::from(is_there),
            })
        };
        let ended = Ended {
            reason: CloseReason::PeerClosed,
            age_ms: 61_000,
            messages: [3, 4],
            bytes: [512, 1024],
        };
        vec![
            Event::Connected(client()),
            occupied(true),
            member(true),
            Event::Publication {
                channel: channel(),
                data: data(),
                position: None,
            },
            Event::SlowConsumer(client(), Slow::Closed),
            Event::LimitHit {
                limit: "outbox_bytes",
                hits: 1,
            },
            member(false),
            Event::WillSent {
                channel: channel(),
                data: Some(data()),
                connection,
            },
            Event::Disconnected(client(), Box::new(ended)),
            occupied(false),
        ]
    }
}

/// Writes the members of a JSON object.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    begin: usize,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        let begin = out.len();
        Object { out, begin }
    }

    fn key(&mut self, name: &str) {
        if self.out.len() > self.begin {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, text: &[u8]) {
        self.key(name);
        write_json(text, self.out);
    }

    fn optional_text(&mut self, name: &str, text: Option<&str>) {
        match text {
            Some(text) => self.text(name, text.as_bytes()),
            None => self.raw(name, b"null"),
        }
    }

    fn raw(&mut self, name: &str, json: &[u8]) {
        self.key(name);
        self.out.extend_from_slice(json);
    }

    fn number(&mut self, name: &str, number: u64) {
        self.key(name);
        self.out
            .extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn connection(&mut self, connection: SessionId) {
        let mut buffer = [0; SessionId::TEXT_BYTES];
        self.text("connection", connection.write(&mut buffer).as_bytes());
    }

    fn client(&mut self, client: &Client) {
        self.connection(client.connection);
        self.text("protocol", client.protocol.as_bytes());
        let address = client.address.map(|address| address.to_string());
        self.optional_text("address", address.as_deref());
        self.optional_text("user", client.user.as_deref());
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

/// The bytes of an event beside its text.
const EVENT_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn json(event: &Event) -> String {
        let mut out = Vec::new();
        event.write("k3j9x0ab-7", 1_764_469_356_123, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_event_is_an_object_with_its_id_time_and_word() {
        let samples = Event::samples();
        let mut words: Vec<String> = Vec::new();
        for event in &samples {
            let parsed: serde_json::Value = serde_json::from_str(&json(event)).unwrap();
            assert_eq!(parsed["id"], "k3j9x0ab-7");
            assert_eq!(parsed["time"], 1_764_469_356_123_u64);
            assert_eq!(parsed["channel"].is_string(), event.channel().is_some());
            words.push(parsed["event"].as_str().unwrap().to_owned());
            assert_eq!(event.kind().unwrap().label(), words.last().unwrap());
        }
        let mut wanted = WebhookEvent::LABELS.map(str::to_owned);
        wanted.sort_unstable();
        words.sort_unstable();
        assert_eq!(words, wanted, "one sample of each");
    }

    #[test]
    fn names_that_clients_choose_cannot_break_the_json() {
        let name = "a\"\\\u{2028}\n}é";
        let event = Event::Member(MembershipEvent {
            channel: name.as_bytes().into(),
            user: Some(name.into()),
            connection: None,
            is_there: false,
            count: 3,
        });
        let parsed: serde_json::Value = serde_json::from_str(&json(&event)).unwrap();
        assert_eq!(
            (parsed["channel"].as_str(), parsed["user"].as_str()),
            (Some(name), Some(name))
        );
        assert_eq!(
            (&parsed["event"], &parsed["count"]),
            (&"member_left".into(), &3.into())
        );
        // Half of a surrogate pair is written as an escape.
        let half = Event::Channel(Occupied {
            channel: [0xed, 0xa0, 0x80][..].into(),
            by: SubscriberKind::Mqtt,
            is_occupied: true,
        });
        assert!(json(&half).contains(r#""channel":"\ud800""#), "{}", json(&half));
    }

    #[test]
    fn a_publication_has_its_data_as_it_came() {
        let publication = |data: &[u8], position| {
            json(&Event::Publication {
                channel: b"x"[..].into(),
                data: data.into(),
                position,
            })
        };
        let position = crate::broker::Numbering::new().position(crate::broker::Sequence(5));
        assert!(publication(b"{\"a\" : 1}", None).ends_with(r#""channel":"x","data":{"a" : 1}}"#));
        assert!(publication(b"", Some(position)).ends_with(r#""offset":5}"#));
        assert!(publication(b"", None).ends_with(r#""data":null}"#));
    }
}
