//! Encodes packets of the server, byte for byte as the reference does: compact JSON with the keys in the reference's
//! order (wire reference, section 3).
//!
//! Nothing here allocates, except for strings that arrived with escapes. Names of channels and events are WTF-8.

use super::string::write_json;
use crate::decision::{BLANKS, Epoch, Marks, OFFSET_BYTES, Position, Recovered};

/// `{"event":E}` or `{"event":E,"data":D}`; `data` is JSON.
pub fn event(name: &[u8], data: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":");
    write_json(name, out);
    member(b",\"data\":", data, out);
    out.push(b'}');
}

/// `{"event":E,"data":D,"cid":N}`, as clients send it: the data and the number are written as they were
/// received.
pub(super) fn received(name: &[u8], data: Option<&[u8]>, cid: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":");
    write_json(name, out);
    member(b",\"data\":", data, out);
    member(b",\"cid\":", cid.map(str::as_bytes), out);
    out.push(b'}');
}

/// `{"event":E,"cid":N}` or `{"event":E,"cid":N,"data":D}`: a call by the server.
pub fn call(name: &[u8], cid: u64, data: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":");
    write_json(name, out);
    out.extend_from_slice(b",\"cid\":");
    out.extend_from_slice(itoa::Buffer::new().format(cid).as_bytes());
    member(b",\"data\":", data, out);
    out.push(b'}');
}

/// `{"event":"#publish","data":{"channel":C}}`, with `"data":D` if there is any. `channel` writes a JSON string.
pub fn publish(channel: impl FnOnce(&mut Vec<u8>), data: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":\"#publish\",\"data\":{\"channel\":");
    channel(out);
    member(b",\"data\":", data, out);
    // `broker::Origin` says how many bytes stand behind the data.
    out.extend_from_slice(b"}}");
}

/// As [`publish`], for a channel whose policy has marks: with blanks that become `,"replayed":true` in a
/// replay, and with `"position":{"epoch":E,"offset":O}` if the publication carries its position. The
/// publisher of the ring writes `O` into the blanks in its place (`broker/publication.rs`).
pub fn publish_marked(
    channel: impl FnOnce(&mut Vec<u8>),
    marks: Marks,
    epoch: Epoch,
    data: Option<&[u8]>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"event\":\"#publish\",\"data\":{\"channel\":");
    channel(out);
    if marks.positioned {
        out.extend_from_slice(b",\"position\":{\"epoch\":\"");
        out.extend_from_slice(epoch.as_bytes());
        out.extend_from_slice(b"\",\"offset\":");
        out.extend_from_slice(&[b' '; OFFSET_BYTES]);
        out.push(b'}');
    }
    out.extend_from_slice(&[b' '; BLANKS]);
    member(b",\"data\":", data, out);
    out.extend_from_slice(b"}}");
}

/// As [`publish`], for a publication that was made before its receiver subscribed: with `"replayed":true`
/// before the data.
pub fn publish_replayed(channel: &[u8], data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":\"#publish\",\"data\":{\"channel\":");
    write_json(channel, out);
    out.extend_from_slice(b",\"replayed\":true");
    member(b",\"data\":", Some(data), out);
    out.extend_from_slice(b"}}");
}

/// `{"event":"#kickOut","data":{"channel":C}}`, with `"message":M` if there is any.
pub fn kick_out(channel: &[u8], message: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":\"#kickOut\",\"data\":{\"channel\":");
    write_json(channel, out);
    member(b",\"message\":", message, out);
    out.extend_from_slice(b"}}");
}

/// `{"event":"$subscribed","data":{"channel":C}}`: the server has subscribed a client that has not asked for it.
pub fn subscribed(channel: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":\"$subscribed\",\"data\":{\"channel\":");
    write_json(channel, out);
    out.extend_from_slice(b"}}");
}

/// `{"event":"#setAuthToken","data":{"token":T}}`, with `"cid":N` before the data if it is a call.
pub fn set_auth_token(token: &str, cid: Option<u64>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":\"#setAuthToken\"");
    if let Some(cid) = cid {
        out.extend_from_slice(b",\"cid\":");
        out.extend_from_slice(itoa::Buffer::new().format(cid).as_bytes());
    }
    out.extend_from_slice(b",\"data\":{\"token\":");
    write_json(token.as_bytes(), out);
    out.extend_from_slice(b"}}");
}

/// `{"event":"#removeAuthToken"}`
pub const REMOVE_AUTH_TOKEN: &[u8] = b"{\"event\":\"#removeAuthToken\"}";

/// `{"rid":N}` or `{"rid":N,"data":D}`. `cid` is the call id as printed text, `data` is JSON.
pub fn response(cid: &[u8], data: Option<&[u8]>, out: &mut Vec<u8>) {
    rid(cid, out);
    member(b",\"data\":", data, out);
    out.push(b'}');
}

/// `{"rid":N,"data":{"recovered":true,"position":{"epoch":E,"offset":O},"publications":P}}`, with `"reason":R` if not
/// everything was recovered.
pub fn recovered(cid: &[u8], told: &Recovered, out: &mut Vec<u8>) {
    rid(cid, out);
    out.extend_from_slice(b",\"data\":{\"recovered\":");
    write_bool(told.gap.is_none(), out);
    if let Some(gap) = told.gap {
        out.extend_from_slice(b",\"reason\":");
        write_json(gap.label().as_bytes(), out);
    }
    out.extend_from_slice(b",\"position\":");
    position(told.position, out);
    out.extend_from_slice(b",\"publications\":");
    out.extend_from_slice(itoa::Buffer::new().format(told.publications).as_bytes());
    out.extend_from_slice(b"}}");
}

/// `{"event":"$position","data":{"channel":C,"position":P}}`: the client has all of the channel up to there that it is to
/// have.
pub fn position_told(channel: &[u8], told: Position, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":\"$position\",\"data\":{\"channel\":");
    write_json(channel, out);
    out.extend_from_slice(b",\"position\":");
    position(told, out);
    out.extend_from_slice(b"}}");
}

/// The beginning of the answer to a call of `$history`.
#[derive(Clone, Copy, Debug)]
pub struct HistoryHead {
    /// The position up to which the history was read.
    pub position: Position,
    /// Whether everything after the requested position is there; `None` if the client has not asked for that.
    pub recovered: Option<bool>,
    /// The reason why the client does not get the history that it asked for.
    pub reason: Option<&'static str>,
    /// Whether the history has more than the answer.
    pub has_more: bool,
    /// The offset behind which the client asks for more, if it is not that of the last publication.
    pub after: Option<u64>,
}

/// `{"rid":N,"data":{"position":P,"publications":[`, with `"recovered"`, `"reason"`, `"more":true` and `"after"` before the
/// publications if they apply. [`remembered`] writes each publication; then `]}}` follows.
pub fn history(cid: &[u8], head: &HistoryHead, out: &mut Vec<u8>) {
    rid(cid, out);
    out.extend_from_slice(b",\"data\":{\"position\":");
    position(head.position, out);
    if let Some(recovered) = head.recovered {
        out.extend_from_slice(b",\"recovered\":");
        write_bool(recovered, out);
    }
    if let Some(reason) = head.reason {
        out.extend_from_slice(b",\"reason\":");
        write_json(reason.as_bytes(), out);
    }
    if head.has_more {
        out.extend_from_slice(b",\"more\":true");
    }
    if let Some(after) = head.after {
        out.extend_from_slice(b",\"after\":");
        out.extend_from_slice(itoa::Buffer::new().format(after).as_bytes());
    }
    out.extend_from_slice(b",\"publications\":[");
}

/// `{"offset":O,"time":T}` or `{"offset":O,"time":T,"data":D}`; an empty payload means no data.
pub fn remembered(offset: u64, unix_ms: u64, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"offset\":");
    out.extend_from_slice(itoa::Buffer::new().format(offset).as_bytes());
    out.extend_from_slice(b",\"time\":");
    out.extend_from_slice(itoa::Buffer::new().format(unix_ms).as_bytes());
    member(b",\"data\":", (!payload.is_empty()).then_some(payload), out);
    out.push(b'}');
}

/// `{"epoch":E,"offset":O}`
fn position(position: Position, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"epoch\":");
    write_json(position.epoch.as_bytes(), out);
    out.extend_from_slice(b",\"offset\":");
    out.extend_from_slice(itoa::Buffer::new().format(position.offset).as_bytes());
    out.push(b'}');
}

/// `{"event":"$cancel","data":{"rid":N}}`: the caller no longer waits for the answer to this call.
pub fn cancelled(cid: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":\"$cancel\",\"data\":{\"rid\":");
    out.extend_from_slice(itoa::Buffer::new().format(cid).as_bytes());
    out.extend_from_slice(b"}}");
}

/// `{"event":"$unserved","data":{"procedure":P}}`: the client may not serve this pattern any more.
pub fn unserved(pattern: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":\"$unserved\",\"data\":{\"procedure\":");
    write_json(pattern, out);
    out.extend_from_slice(b"}}");
}

/// `{"rid":N,"data":{"procedure":P,"weight":W,"window":W}}`: the answer to `$serve`.
pub fn serving(cid: &[u8], pattern: &[u8], weight: u32, window: u32, out: &mut Vec<u8>) {
    rid(cid, out);
    out.extend_from_slice(b",\"data\":{\"procedure\":");
    write_json(pattern, out);
    out.extend_from_slice(b",\"weight\":");
    out.extend_from_slice(itoa::Buffer::new().format(weight).as_bytes());
    out.extend_from_slice(b",\"window\":");
    out.extend_from_slice(itoa::Buffer::new().format(window).as_bytes());
    out.extend_from_slice(b"}}");
}

/// `{"rid":N,"error":E}`; `error` writes JSON.
pub fn error(cid: &[u8], error: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    rid(cid, out);
    out.extend_from_slice(b",\"error\":");
    error(out);
    out.push(b'}');
}

/// `{"rid":N,"error":E,"data":{"code":C}}`: a refused handshake. Clients up to major 14 read the code from the data,
/// later clients read it from the error.
pub fn handshake_refused(cid: &[u8], write_error: impl FnOnce(&mut Vec<u8>), code: u16, out: &mut Vec<u8>) {
    error(cid, write_error, out);
    out.pop();
    out.extend_from_slice(b",\"data\":{\"code\":");
    out.extend_from_slice(itoa::Buffer::new().format(code).as_bytes());
    out.extend_from_slice(b"}}");
}

/// The answer to `#handshake`; `auth_error` writes JSON.
pub fn handshake_response(
    cid: &[u8],
    id: &str,
    ping_timeout_ms: u64,
    auth_error: Option<impl FnOnce(&mut Vec<u8>)>,
    is_authenticated: bool,
    out: &mut Vec<u8>,
) {
    rid(cid, out);
    out.extend_from_slice(b",\"data\":{\"id\":");
    write_json(id.as_bytes(), out);
    out.extend_from_slice(b",\"pingTimeout\":");
    out.extend_from_slice(itoa::Buffer::new().format(ping_timeout_ms).as_bytes());
    if let Some(auth_error) = auth_error {
        out.extend_from_slice(b",\"authError\":");
        auth_error(out);
    }
    out.extend_from_slice(b",\"isAuthenticated\":");
    write_bool(is_authenticated, out);
    out.extend_from_slice(b"}}");
}

/// The answer to `#authenticate`, if the token is good; `auth_error` writes JSON.
pub fn authenticate_response(
    cid: &[u8],
    is_authenticated: bool,
    auth_error: Option<impl FnOnce(&mut Vec<u8>)>,
    out: &mut Vec<u8>,
) {
    rid(cid, out);
    out.extend_from_slice(b",\"data\":{\"isAuthenticated\":");
    write_bool(is_authenticated, out);
    out.extend_from_slice(b",\"authError\":");
    match auth_error {
        Some(auth_error) => auth_error(out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b"}}");
}

/// `{"message":M,"name":N}`; both texts are WTF-8.
pub fn named_error(name: &str, message: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"message\":");
    write_json(message, out);
    out.extend_from_slice(b",\"name\":");
    write_json(name.as_bytes(), out);
    out.push(b'}');
}

fn rid(cid: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"rid\":");
    out.extend_from_slice(cid);
}

fn member(key: &[u8], json: Option<&[u8]>, out: &mut Vec<u8>) {
    if let Some(json) = json {
        out.extend_from_slice(key);
        out.extend_from_slice(json);
    }
}

fn write_bool(value: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn packets_have_the_keys_of_the_recordings_in_their_order() {
        let none = None::<fn(&mut Vec<u8>)>;
        let name = |out: &mut Vec<u8>| out.extend_from_slice(b"\"c\"");
        let epoch = Epoch::from_text(b"k3j9x0ab").expect("eight characters");
        let error_body = |out: &mut Vec<u8>| named_error("N", b"m", out);
        for (packet, expected) in [
            (written(|out| event(b"a\"", None, out)), r#"{"event":"a\""}"#),
            (
                written(|out| event(b"a", Some(b"[1]"), out)),
                r#"{"event":"a","data":[1]}"#,
            ),
            (
                written(|out| publish(|out| out.extend_from_slice(b"\"c\""), Some(b"1"), out)),
                r##"{"event":"#publish","data":{"channel":"c","data":1}}"##,
            ),
            (
                written(|out| publish(|out| out.extend_from_slice(b"\"c\""), None, out)),
                r##"{"event":"#publish","data":{"channel":"c"}}"##,
            ),
            (
                written(|out| {
                    publish_marked(
                        name,
                        Marks {
                            remembered: true,
                            positioned: true,
                        },
                        epoch,
                        Some(b"1"),
                        out,
                    )
                }),
                concat!(
                    r##"{"event":"#publish","data":{"channel":"c","position":{"epoch":"k3j9x0ab","offset":"##,
                    r#"                }                ,"data":1}}"#
                ),
            ),
            (
                written(|out| {
                    publish_marked(
                        name,
                        Marks {
                            remembered: true,
                            positioned: false,
                        },
                        epoch,
                        None,
                        out,
                    )
                }),
                r##"{"event":"#publish","data":{"channel":"c"                }}"##,
            ),
            (
                written(|out| kick_out(b"c", Some(b"\"m\""), out)),
                r##"{"event":"#kickOut","data":{"channel":"c","message":"m"}}"##,
            ),
            (
                written(|out| kick_out(b"c", None, out)),
                r##"{"event":"#kickOut","data":{"channel":"c"}}"##,
            ),
            (written(|out| response(b"1", None, out)), r#"{"rid":1}"#),
            (
                written(|out| response(b"1", Some(b"null"), out)),
                r#"{"rid":1,"data":null}"#,
            ),
            (
                written(|out| error(b"1", error_body, out)),
                r#"{"rid":1,"error":{"message":"m","name":"N"}}"#,
            ),
            (
                written(|out| handshake_refused(b"1", error_body, 4501, out)),
                r#"{"rid":1,"error":{"message":"m","name":"N"},"data":{"code":4501}}"#,
            ),
            (
                written(|out| handshake_response(b"1", "ID", 30000, none, false, out)),
                r#"{"rid":1,"data":{"id":"ID","pingTimeout":30000,"isAuthenticated":false}}"#,
            ),
            (
                written(|out| authenticate_response(b"2", true, none, out)),
                r#"{"rid":2,"data":{"isAuthenticated":true,"authError":null}}"#,
            ),
            (
                written(|out| authenticate_response(b"2", false, Some(error_body), out)),
                r#"{"rid":2,"data":{"isAuthenticated":false,"authError":{"message":"m","name":"N"}}}"#,
            ),
            (
                written(|out| set_auth_token("T", None, out)),
                r##"{"event":"#setAuthToken","data":{"token":"T"}}"##,
            ),
            (
                written(|out| set_auth_token("T", Some(1), out)),
                r##"{"event":"#setAuthToken","cid":1,"data":{"token":"T"}}"##,
            ),
            (
                written(|out| call(b"a", 7, Some(b"[1]"), out)),
                r#"{"event":"a","cid":7,"data":[1]}"#,
            ),
            (
                written(|out| call(b"a", 7, None, out)),
                r#"{"event":"a","cid":7}"#,
            ),
        ] {
            assert_eq!(packet, expected);
        }
    }
}
