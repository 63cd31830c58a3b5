//! The part of a channel's history that a client requests in the data of its subscribe, and the answer to it.
//!
//! ```text
//!   {"recover":{"epoch":"k3j9x0ab","offset":123}}   {"recover":null}   {"last":10}   {"since":1764430000000}
//! ```
//! At most one of these members. They have this meaning only on a channel whose policy has a history. On a
//! channel that remembers nothing, `last` asks for the retained publication, if the server retains any. In
//! all other cases the data belongs to the application alone, as in the reference. The application gets the
//! data in any case.

use super::{Environment, Session};
use crate::app::App;
use crate::config::rules::Action;
use crate::decision::{Epoch, Position, Recovered, Wanted};
use crate::session;
use crate::socketcluster::encode;
use crate::socketcluster::json::{Fault, Scanner};
use crate::socketcluster::number::Number;

impl Session {
    /// The part of the channel's past that a subscriber is to get; `None` if there is none. `data` is the
    /// data of the subscribe.
    ///
    /// # Errors
    /// The request has a wrong form. The error is the text of the refusal.
    pub(super) fn wanted<A: App>(
        &mut self,
        channel: &[u8],
        data: Option<&str>,
        env: &mut Environment<'_, '_, A>,
    ) -> Result<Option<Wanted>, &'static str> {
        let policy = env.common.policy;
        let channel_policy = policy.channels.find(channel);
        let Some(channel_policy) = channel_policy.filter(|policy| policy.remembers()) else {
            let wants_retained = env.common.settings.mqtt.retains()
                && session::is_topic(channel)
                && data.is_some_and(|data| matches!(asked(data), Ok(Some(Wanted::Last(1..)))));
            return Ok(wants_retained.then_some(Wanted::Retained));
        };
        let last_value = channel_policy.last_value.then_some(Wanted::LastValue);
        let asked = match (&channel_policy.history, data) {
            (Some(_), Some(data)) => asked(data)?,
            (Some(_), None) | (None, _) => None,
        };
        let Some(asked) = asked else {
            return Ok(last_value);
        };
        if !self.may(Action::History, channel, env) {
            return Ok(Some(Wanted::Forbidden));
        }
        Ok(Some(match (asked, last_value) {
            (Wanted::Position, Some(_)) => Wanted::Last(1),
            (asked, _) => asked,
        }))
    }

    /// Appends the answer to a [`Decision::SubscribeFrom`](crate::decision::Decision::SubscribeFrom) whose
    /// history was read; `told` is `None` if the client has not asked for any history. `token` is the call
    /// id.
    pub fn recovered(&self, token: &[u8], told: Option<&Recovered>, out: &mut Vec<u8>) {
        match told {
            None => encode::response(token, None, out),
            Some(told) => encode::recovered(token, told, out),
        }
    }
}

/// The part of the history that the data of a subscribe requests.
pub(super) fn asked(data: &str) -> Result<Option<Wanted>, &'static str> {
    let mut found = None;
    let mut wrong = None;
    let scanned = members(data, |key, value| {
        let wanted = match key {
            Key::Recover => recover(value).ok_or("Subscribe option recover was malformatted"),
            Key::Last => whole(value, LAST_MAX)
                .map(|count| Wanted::Last(u32::try_from(count).unwrap_or(u32::MAX)))
                .ok_or("Subscribe option last was malformatted"),
            Key::Since => whole(value, MOMENT_MAX)
                .map(Wanted::Since)
                .ok_or("Subscribe option since was malformatted"),
        };
        match wanted {
            Ok(_) if found.is_some_and(|(other, _)| other != key) => {
                wrong = Some("Subscribe options recover, last and since exclude each other");
            }
            // As everywhere, the last of equal keys counts.
            Ok(wanted) => found = Some((key, wanted)),
            Err(text) => wrong = Some(text),
        }
    });
    if scanned.is_err() {
        // The whole message was scanned before; data that is not an object requests nothing.
        return Ok(None);
    }
    match wrong {
        Some(text) => Err(text),
        None => Ok(found.map(|(_, wanted)| wanted)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Recover,
    Last,
    Since,
}

/// Calls `found` for each member of an object that requests a part of the history.
fn members(json: &str, mut found: impl FnMut(Key, &str)) -> Result<(), Fault> {
    each_member(json, |key, value| {
        let key = match key {
            "recover" => Key::Recover,
            "last" => Key::Last,
            "since" => Key::Since,
            _ => return,
        };
        found(key, value);
    })
}

/// Calls `found` with the key and the text of each member of an object. A key with escapes is skipped: no
/// client writes these keys with escapes.
pub(super) fn each_member<'a>(json: &'a str, mut found: impl FnMut(&'a str, &'a str)) -> Result<(), Fault> {
    let mut scanner = Scanner::new(json);
    scanner.expect(b'{')?;
    scanner.skip_space();
    if scanner.pass(b'}') {
        return Ok(());
    }
    loop {
        scanner.skip_space();
        let key = scanner.key()?;
        scanner.skip_space();
        let start = scanner.position();
        scanner.value()?;
        if let Some(key) = key.plain() {
            found(key, scanner.since(start));
        }
        scanner.skip_space();
        if !scanner.pass(b',') {
            return scanner.expect(b'}');
        }
    }
}

/// `null`, or a position.
fn recover(value: &str) -> Option<Wanted> {
    if value == "null" {
        return Some(Wanted::Position);
    }
    let (mut epoch, mut offset) = (None, None);
    each_member(value, |key, value| match key {
        "epoch" => epoch = Scanner::new(value).string().ok(),
        "offset" => offset = whole(value, OFFSET_MAX),
        _ => {}
    })
    .ok()?;
    let (epoch, offset) = (epoch?, offset?);
    // Its text may be that of another server's epoch.
    let epoch = epoch.plain().and_then(|text| Epoch::from_text(text.as_bytes()));
    Some(epoch.map_or(Wanted::OtherEpoch, |epoch| {
        Wanted::After(Position { epoch, offset })
    }))
}

/// A whole number from 0 to `max`; a greater one counts as `max`.
pub(super) fn whole(value: &str, max: u64) -> Option<u64> {
    let number = Number::in_value(value)?.as_f64();
    if number < 0.0 || number.fract() != 0.0 {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number, not negative; a cast saturates"
    )]
    let number = number as u64;
    Some(number.min(max))
}

/// Highest offset: numbers of JavaScript are exact up to here.
const OFFSET_MAX: u64 = (1 << 53) - 1;
/// Highest number of publications that a client can request. `recovery_publications_max` bounds it further.
const LAST_MAX: u64 = u32::MAX as u64;
const MOMENT_MAX: u64 = OFFSET_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(epoch: &[u8; 8], offset: u64) -> Result<Option<Wanted>, &'static str> {
        let epoch = Epoch::from_text(epoch).unwrap();
        Ok(Some(Wanted::After(Position { epoch, offset })))
    }

    #[test]
    fn the_members_that_ask_are_found_and_others_are_the_applications() {
        for (data, expected) in [
            (
                r#"{"recover":{"epoch":"k3j9x0ab","offset":123}}"#,
                after(b"k3j9x0ab", 123),
            ),
            (
                r#"{ "x" : [1] , "recover" : { "offset" : 9007199254740993 , "epoch" : "12345678" , "y" : 1 } }"#,
                after(b"12345678", OFFSET_MAX),
            ),
            (
                r#"{"recover":{"epoch":"short","offset":1}}"#,
                Ok(Some(Wanted::OtherEpoch)),
            ),
            (r#"{"recover":null}"#, Ok(Some(Wanted::Position))),
            (r#"{"last":10}"#, Ok(Some(Wanted::Last(10)))),
            (r#"{"last":0}"#, Ok(Some(Wanted::Last(0)))),
            (r#"{"last":1e20}"#, Ok(Some(Wanted::Last(u32::MAX)))),
            (
                r#"{"since":1764430000000}"#,
                Ok(Some(Wanted::Since(1_764_430_000_000))),
            ),
            (r#"{"last":1,"last":2}"#, Ok(Some(Wanted::Last(2)))),
            (r#"{"data":{"recover":5}}"#, Ok(None)),
            ("{}", Ok(None)),
            ("null", Ok(None)),
            ("[1]", Ok(None)),
            (r#""recover""#, Ok(None)),
        ] {
            assert_eq!(asked(data), expected, "{data}");
        }
    }

    #[test]
    fn a_wrong_form_is_refused() {
        for data in [
            r#"{"recover":5}"#,
            r#"{"recover":"k3j9x0ab"}"#,
            r#"{"recover":{}}"#,
            r#"{"recover":{"epoch":"k3j9x0ab"}}"#,
            r#"{"recover":{"offset":1}}"#,
            r#"{"recover":{"epoch":5,"offset":1}}"#,
            r#"{"recover":{"epoch":"k3j9x0ab","offset":-1}}"#,
            r#"{"recover":{"epoch":"k3j9x0ab","offset":1.5}}"#,
            r#"{"recover":{"epoch":"k3j9x0ab","offset":"1"}}"#,
            r#"{"last":-1}"#,
            r#"{"last":1.5}"#,
            r#"{"last":null}"#,
            r#"{"since":"yesterday"}"#,
            r#"{"since":true}"#,
            r#"{"last":1,"since":2}"#,
            r#"{"recover":null,"last":2}"#,
        ] {
            assert!(asked(data).is_err(), "{data}");
        }
    }
}
