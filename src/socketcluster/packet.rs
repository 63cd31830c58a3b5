//! The packets that a client may send. Their data is still the bytes that arrived.
//!
//! Kinds and keys: wire reference, sections 1, 3 and 11.

use super::number::Number;
use super::string::StringSlice;

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// An event: a call if it has a call id, otherwise one-way.
    Event(Event<'a>),
    /// The answer to a call by the server.
    Response(Response<'a>),
    /// Anything else. The server ignores it after the handshake.
    Raw,
}

/// A packet whose `event` is a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The name of the event.
    pub name: StringSlice<'a>,
    /// The data; `None` if it is absent. `null` is data.
    pub data: Option<Value<'a>>,
    /// The call id, if it is a number. Any other value counts as absent.
    pub cid: Option<Number<'a>>,
}

/// A packet without an event whose `rid` is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The id of the call to which this is the answer.
    pub rid: Number<'a>,
    /// The data; `None` if it is absent.
    pub data: Option<Value<'a>>,
    /// The text of the error; `None` if it is absent.
    pub error: Option<&'a str>,
}

/// Scanned data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// The text of the data: valid JSON without white space around it.
    pub json: &'a str,
    /// True if the text may contain values that `rewrite` changes.
    pub rare: bool,
    /// The members that reserved events use; all absent if the data is not an object.
    pub members: Members<'a>,
}

/// Some members of an object, each as the text of its value. If a key occurs several times, the last one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Members<'a> {
    /// `channel`, if it is a string.
    pub channel: Option<StringSlice<'a>>,
    /// `data`.
    pub data: Option<&'a str>,
    /// `authToken`.
    pub auth_token: Option<&'a str>,
}

/// True if JavaScript treats the scanned JSON as false.
pub(super) fn is_falsy(json: &str) -> bool {
    matches!(json, "null" | "false" | "\"\"")
        || Number::in_value(json).is_some_and(|number| number.as_f64() == 0.0)
}

/// The events that the server itself handles. All other names, even those that begin with `#` or `$`, belong to the
/// application.
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
    /// `$presence`: the server's own only if some channel has presence.
    Presence,
    /// `$presence_info`: likewise.
    PresenceInfo,
}

impl Reserved {
    const NAMES: [(&'static str, Reserved); 8] = [
        ("#publish", Reserved::Publish),
        ("#subscribe", Reserved::Subscribe),
        ("#unsubscribe", Reserved::Unsubscribe),
        ("#handshake", Reserved::Handshake),
        ("#authenticate", Reserved::Authenticate),
        ("#removeAuthToken", Reserved::RemoveAuthToken),
        ("$presence", Reserved::Presence),
        ("$presence_info", Reserved::PresenceInfo),
    ];

    /// The reserved event with this name.
    pub fn named(name: &StringSlice<'_>) -> Option<Reserved> {
        // Nearly all names belong to the application, and are recognised here.
        if name.plain().is_some_and(|plain| !plain.starts_with(['#', '$'])) {
            return None;
        }
        Self::NAMES
            .iter()
            .find_map(|(text, reserved)| name.is(text).then_some(*reserved))
    }
}
