//! What a client may send: packets, with their data still as the bytes that came in.
//!
//! Kinds and keys: wire reference, sections 1, 3 and 11.

use super::number::Number;
use super::string::StringSlice;

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Something happens: a call if it has a call id, else one-way.
    Event(Event<'a>),
    /// The answer to a call of the server.
    Response(Response<'a>),
    /// Anything else. It is ignored once the handshake is done.
    Raw,
}

/// A packet whose `event` is a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The name of the event.
    pub name: StringSlice<'a>,
    /// The data, unless absent: `null` is data.
    pub data: Option<Value<'a>>,
    /// The call id, if it is a number; any other counts as absent.
    pub cid: Option<Number<'a>>,
}

/// A packet without an event whose `rid` is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The id of the call that is answered.
    pub rid: Number<'a>,
    /// The data, unless absent.
    pub data: Option<Value<'a>>,
    /// The error's text, unless absent.
    pub error: Option<&'a str>,
}

/// Scanned data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// Its text, valid JSON without space around it.
    pub json: &'a str,
    /// Whether it may hold values that `rewrite` changes.
    pub rare: bool,
    /// The members that the reserved events read; all absent if it is not an object.
    pub members: Members<'a>,
}

/// Members of an object, as their values' texts. The last of duplicate keys wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Members<'a> {
    /// `channel`, if it is a string.
    pub channel: Option<StringSlice<'a>>,
    /// `data`.
    pub data: Option<&'a str>,
    /// `authToken`.
    pub auth_token: Option<&'a str>,
}

/// Whether scanned JSON is what JavaScript takes for false.
pub(super) fn is_falsy(json: &str) -> bool {
    matches!(json, "null" | "false" | "\"\"")
        || Number::in_value(json).is_some_and(|number| number.as_f64() == 0.0)
}

/// The events that the server itself understands. Any other name, `#...` included, is the application's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// `#handshake`
    Handshake,
    /// `#authenticate`
    Authenticate,
    /// `#removeAuthToken`
    RemoveAuthToken,
    /// `#publish`
    Publish,
    /// `#subscribe`
    Subscribe,
    /// `#unsubscribe`
    Unsubscribe,
}

impl Reserved {
    const NAMES: [(&'static str, Reserved); 6] = [
        ("#publish", Reserved::Publish),
        ("#subscribe", Reserved::Subscribe),
        ("#unsubscribe", Reserved::Unsubscribe),
        ("#handshake", Reserved::Handshake),
        ("#authenticate", Reserved::Authenticate),
        ("#removeAuthToken", Reserved::RemoveAuthToken),
    ];

    /// The reserved event of that name.
    pub fn named(name: &StringSlice<'_>) -> Option<Reserved> {
        // Nearly all names are the application's and end here.
        if name.plain().is_some_and(|plain| !plain.starts_with('#')) {
            return None;
        }
        Self::NAMES
            .iter()
            .find_map(|(text, reserved)| name.is(text).then_some(*reserved))
    }
}
