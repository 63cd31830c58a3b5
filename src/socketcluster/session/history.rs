//! The call `$history`: reads earlier publications of a channel, without a subscription.
//!
//! ```text
//!   {"event":"$history","data":{"channel":"room.a","last":10},"cid":5}
//!   {"rid":5,"data":{"position":{"epoch":"k3j9x0ab","offset":123},"publications":[{"offset":…,"time":…,"data":…},…]}}
//! ```
//! The data has the channel, one of the members that a subscribe may have (`recovery.rs`), and `limit`. The
//! core asks the owner of the channel, and gives the session the answer. If no channel has a policy, the call
//! is the application's.
//!
//! Limits: [`LIMIT_DEFAULT`], [`LOOKS_MAX`], `recovery_publications_max`; [`ANSWER_BYTES_MAX`]; the core has more
//! (`cores/lifecycle/owner_calls.rs`).

use super::recovery::{asked, each_member, whole};
use super::{Environment, Session, invalid_action, refuse};
use crate::app::{App, OutboundKind, Refusal, Refused};
use crate::config::rules::Action;
use crate::decision::{Decision, Decisions, HistoryCall, HistoryFailure, Wanted};
use crate::history::{Reading, Remembered, Unknown};
use crate::socketcluster::encode;
use crate::socketcluster::json::Scanner;
use crate::socketcluster::number::Number;
use crate::socketcluster::packet::Event;
use crate::socketcluster::string::StringSlice;

/// The name of the call.
pub(super) const HISTORY: &str = "$history";

impl Session {
    /// Decides to read a history, if the client may.
    pub(super) fn read_history<A: App>(
        &mut self,
        event: &Event<'_>,
        env: &mut Environment<'_, '_, A>,
        decisions: &mut Decisions,
    ) {
        self.expire(env.common.now, decisions);
        let Some(cid) = event.cid.map(Number::text) else {
            // Without a call id there is no answer, so nothing is read.
            return;
        };
        let (name, call) = match parse(event.data.map_or("", |data| data.json)) {
            Ok(parsed) => parsed,
            Err(text) => return invalid_action(Some(cid), text, decisions),
        };
        let channel = decisions.write(|out| name.write_decoded(out));
        if !self.may(Action::History, decisions.bytes(channel), env) {
            return refuse(Some(cid), &Refusal::silent(), Refused::Invoke, decisions);
        }
        match self.may_read_channel(event, decisions.bytes(channel), env) {
            Some(Ok(())) => {}
            Some(Err(refusal)) => return refuse(Some(cid), &refusal, Refused::Invoke, decisions),
            None => return,
        }
        let token = decisions.write(|out| out.extend_from_slice(cid.as_bytes()));
        let call = decisions.write(|out| call.write(out));
        decisions.push(Decision::ReadHistory { channel, token, call });
    }

    /// Appends the answer to a [`Decision::ReadHistory`]. `token` is the call id. `look` says what the client gets of each
    /// publication; without it, it gets all as they were published.
    pub(crate) fn history_read(
        &self,
        token: &[u8],
        call: HistoryCall,
        reading: &Reading,
        look: Option<&mut HistoryLook<'_>>,
        out: &mut Vec<u8>,
    ) {
        let told = match look {
            None => Told::of(reading, call),
            Some(look) => Told::looked_at(reading, call, look),
        };
        let unknown = match call.wanted {
            Wanted::OtherEpoch => Some(Unknown::OtherEpoch),
            Wanted::Position
            | Wanted::After(_)
            | Wanted::Last(_)
            | Wanted::Since(_)
            | Wanted::LastValue
            | Wanted::Retained
            | Wanted::Forbidden => reading.why_unknown(),
        };
        let is_recovery = matches!(
            call.wanted,
            Wanted::After(_) | Wanted::OtherEpoch | Wanted::Since(_)
        );
        let head = encode::HistoryHead {
            position: reading.up_to(),
            recovered: is_recovery.then_some(unknown.is_none()),
            reason: unknown.map(Unknown::text),
            has_more: told.has_more,
            after: told.after,
        };
        encode::history(token, &head, out);
        for (at, (publication, instead)) in told.publications.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let payload = instead
                .as_ref()
                .map_or(publication.payload, |json| json.as_bytes());
            encode::remembered(publication.offset, publication.unix_ms, payload, out);
        }
        out.extend_from_slice(b"]}}");
    }

    /// The answer to a [`Decision::ReadHistory`] that was not carried out.
    pub fn history_failed(&self, token: &[u8], failure: HistoryFailure, out: &mut Vec<u8>) {
        let (name, message) = match failure {
            HistoryFailure::Busy => (
                "InvalidActionError",
                "Too many calls of $history are open: call again when one was answered",
            ),
            HistoryFailure::TimedOut => (
                "TimeoutError",
                "The history of the channel was not read in time: try again",
            ),
        };
        let error = |out: &mut Vec<u8>| encode::named_error(name, message.as_bytes(), out);
        encode::error(token, error, out);
    }
}

/// What a client gets of a publication of a history.
pub(crate) type HistoryLook<'a> = dyn FnMut(&Remembered<'_>) -> OutboundKind + 'a;

/// What an answer has of a history.
struct Told<'r> {
    /// Oldest first; with the data that the client gets instead, if it gets other data.
    publications: Vec<(Remembered<'r>, Option<Box<str>>)>,
    /// Whether there is more than that.
    has_more: bool,
    /// The offset behind which the client is to go on, if it is not that of the last publication.
    after: Option<u64>,
}

impl<'r> Told<'r> {
    /// As much as fits, as it was published.
    fn of(reading: &'r Reading, call: HistoryCall) -> Told<'r> {
        let mut publications: Vec<_> = reading.publications().map(|one| (one, None)).collect();
        let sizes = publications
            .iter()
            .map(|(one, _)| one.payload.len() + ENTRY_BYTES);
        let (read, limit) = (publications.len(), call.limit as usize);
        if tells_from_beginning(call) {
            let count = fitting(sizes, limit);
            publications.truncate(count);
        } else {
            let count = fitting(sizes.rev(), limit);
            publications.drain(..read - count);
        }
        Told {
            has_more: publications.len() < read || reading.left_out() > 0,
            publications,
            after: None,
        }
    }

    /// As much as fits of what the client is to have, of as many as one answer looks at.
    fn looked_at(reading: &'r Reading, call: HistoryCall, look: &mut HistoryLook<'_>) -> Told<'r> {
        let from_beginning = tells_from_beginning(call);
        let mut all: Vec<_> = reading.publications().collect();
        if !from_beginning {
            all.reverse();
        }
        let (mut publications, mut bytes, mut passed) = (Vec::new(), 0, 0);
        for publication in all.iter().take(LOOKS_MAX) {
            if publications.len() >= call.limit as usize {
                break;
            }
            let instead = match look(publication) {
                OutboundKind::Pass => None,
                OutboundKind::Instead(json) => Some(json),
                OutboundKind::Withhold => {
                    passed += 1;
                    continue;
                }
            };
            let payload_bytes = instead
                .as_ref()
                .map_or(publication.payload.len(), |json| json.len());
            bytes += payload_bytes + ENTRY_BYTES;
            if !publications.is_empty() && bytes > ANSWER_BYTES_MAX {
                break;
            }
            passed += 1;
            publications.push((*publication, instead));
        }
        let has_more = passed < all.len() || reading.left_out() > 0;
        let last_told = publications.last().map(|(last, _)| last.offset);
        let last_passed = all[..passed].last().map(|last| last.offset);
        if !from_beginning {
            publications.reverse();
        }
        Told {
            publications,
            has_more,
            after: last_passed.filter(|_| has_more && from_beginning && last_passed != last_told),
        }
    }
}

/// Publications after a position are returned from the oldest on, so that the client can continue behind
/// them. Of the newest publications, the oldest are left out.
fn tells_from_beginning(call: HistoryCall) -> bool {
    matches!(call.wanted, Wanted::After(_))
}

/// The channel, and the part of its history that is requested.
fn parse(data: &str) -> Result<(StringSlice<'_>, HistoryCall), &'static str> {
    let (mut channel, mut limit) = (None, Ok(u64::from(LIMIT_DEFAULT)));
    let scanned = each_member(data, |key, value| match key {
        "channel" => channel = Scanner::new(value).string().ok(),
        "limit" => limit = whole(value, u64::from(u32::MAX)).ok_or("The limit of $history was malformatted"),
        _ => {}
    });
    let channel = channel.filter(|_| scanned.is_ok());
    let name = channel.ok_or("The channel name of $history was malformatted")?;
    let wanted = asked(data)?.ok_or("$history needs one of recover, last and since")?;
    let limit = u32::try_from(limit?).unwrap_or(u32::MAX);
    Ok((name, HistoryCall { wanted, limit }))
}

/// How many of the first publications fit into an answer, at most `limit`; at least one.
fn fitting(sizes: impl Iterator<Item = usize>, limit: usize) -> usize {
    let mut bytes = 0;
    let fit = sizes.take(limit).take_while(|size| {
        let is_first = bytes == 0;
        bytes += *size;
        is_first || bytes <= ANSWER_BYTES_MAX
    });
    fit.count()
}

/// About how many bytes a publication takes in an answer besides its data.
const ENTRY_BYTES: usize = 64;
/// Most publications of one answer at which the application looks: the answer is made in one step. Then the client asks
/// again.
const LOOKS_MAX: usize = 1000;
/// Most publications of an answer if the client sets no limit.
const LIMIT_DEFAULT: u32 = 100;
/// Most bytes of the publications of an answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_needs_a_channel_and_one_thing_that_is_asked() {
        for (data, expected) in [
            (
                r#"{"channel":"a","last":3}"#,
                Some((Wanted::Last(3), LIMIT_DEFAULT)),
            ),
            (
                r#"{"limit":7,"since":5,"channel":"a"}"#,
                Some((Wanted::Since(5), 7)),
            ),
            (
                r#"{"channel":"a","recover":null}"#,
                Some((Wanted::Position, LIMIT_DEFAULT)),
            ),
            (r#"{"channel":"a"}"#, None),
            (r#"{"last":3}"#, None),
            (r#"{"channel":5,"last":3}"#, None),
            (r#"{"channel":"a","last":3,"limit":-1}"#, None),
            (r#"{"channel":"a","last":3,"since":1}"#, None),
            ("", None),
            ("[]", None),
        ] {
            let parsed = parse(data).ok();
            let parsed = parsed.map(|(name, call)| {
                assert!(name.is("a"));
                (call.wanted, call.limit)
            });
            assert_eq!(parsed, expected, "{data}");
        }
    }

    #[test]
    fn an_answer_has_as_many_as_fit_and_at_least_one() {
        let large = ANSWER_BYTES_MAX + 1;
        for (sizes, limit, expected) in [
            (&[1, 1, 1][..], 2, 2),
            (&[large, 1], 2, 1),
            (&[1, large, 1], 3, 1),
            (&[ANSWER_BYTES_MAX - 1, 1, 1], 3, 2),
            (&[1], 0, 0),
            (&[], 5, 0),
        ] {
            assert_eq!(fitting(sizes.iter().copied(), limit), expected, "{sizes:?}");
        }
    }
}
