//! The content of a call that a service gets: the data, and facts about the caller.

use super::environment::Asked;
use super::scratch::Scratch;
use crate::app::{Call, SessionId};
use crate::auth::Claims;
use crate::policy::services::Services;
use crate::services::{Order, Pattern, Question, ReplyTo, Token};

/// Appends `{"data":D,"caller":{"id":I,"user":U,"claims":C}}`. Data that is absent is left out; so are the user and the
/// claims of a client that is not authenticated.
fn write_service_call(data: Option<&[u8]>, id: SessionId, claims: Option<&Claims>, out: &mut Vec<u8>) {
    out.push(b'{');
    if let Some(data) = data {
        out.extend_from_slice(b"\"data\":");
        out.extend_from_slice(data);
        out.push(b',');
    }
    out.extend_from_slice(b"\"caller\":{\"id\":\"");
    out.extend_from_slice(id.write(&mut [0; SessionId::TEXT_BYTES]).as_bytes());
    out.push(b'"');
    if let Some(claims) = claims {
        let before = out.len();
        out.extend_from_slice(b",\"user\":");
        if !claims.write_user(out) {
            out.truncate(before);
        }
        out.extend_from_slice(b",\"claims\":");
        out.extend_from_slice(claims.json().as_bytes());
    }
    out.extend_from_slice(b"}}");
}

/// The client that calls a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceCaller<'a> {
    /// Its connection.
    pub(crate) connection: usize,
    /// The id of its session.
    pub(crate) id: SessionId,
    /// The claims of its token.
    pub(crate) claims: Option<&'a Claims>,
}

/// The number by which a pool recognises a caller: the random bytes of its id.
fn caller_number(id: SessionId) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id.as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

impl Scratch {
    /// Orders the core to carry a call, or an event (without a `token`), to a service. A call is also ordered
    /// if no service is there but a row of `[[services]]` says that there should be one: then the core ends
    /// the call for the caller. The caller's session needs `token` for that. Returns false if nothing is
    /// ordered.
    pub(crate) fn call_service(
        &mut self,
        call: &Call<'_>,
        caller: ServiceCaller<'_>,
        token: Option<Token>,
        rows: &Services,
    ) -> bool {
        let name = call.event.as_bytes();
        let entry = self.services.directory.find(name);
        let is_absent = || Pattern::parse(name).is_some_and(|pattern| rows.covering(pattern).is_some());
        if entry.is_none() && (token.is_none() || !is_absent()) {
            return false;
        }
        let mut carried = self.services.new_call();
        carried.event.extend_from_slice(name);
        carried.caller = caller_number(caller.id);
        let data = call.data.map(|data| data.as_str().as_bytes());
        write_service_call(data, caller.id, caller.claims, &mut carried.data);
        match (token, entry) {
            (Some(token), entry) => self.services.order(Order::Call {
                connection: caller.connection,
                reply: ReplyTo::Client(token),
                entry,
                timeout: None,
                call: carried,
            }),
            (None, Some(entry)) => self.services.order(Order::Event(entry, carried)),
            (None, None) => return false,
        }
        true
    }

    /// Asks a service about a client, on behalf of the server itself. `data` is JSON. The rules are not
    /// applied.
    pub fn ask_service(&mut self, question: Question<'_>, data: &[u8], client: Asked<'_>) {
        self.services.ask(question, caller_number(client.id), |out| {
            write_service_call(Some(data), client.id, client.claims, out);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(data: Option<&str>, claims: Option<&str>) -> String {
        let claims = claims.map(|json| Claims::trusted(json.to_owned(), None));
        let mut out = Vec::new();
        let id = SessionId::new([0; SessionId::BYTES]);
        write_service_call(data.map(str::as_bytes), id, claims.as_ref(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_service_gets_the_data_and_what_is_known_of_the_caller() {
        for (data, claims, expected) in [
            (None, None, r#"{"caller":{"id":"AAAAAAAAAAAAAAAAAAAA"}}"#),
            (
                Some("[1]"),
                None,
                r#"{"data":[1],"caller":{"id":"AAAAAAAAAAAAAAAAAAAA"}}"#,
            ),
            (
                Some("null"),
                Some(r#"{"sub":"a\"nn","x":1}"#),
                r#"{"data":null,"caller":{"id":"AAAAAAAAAAAAAAAAAAAA","user":"a\"nn","claims":{"sub":"a\"nn","x":1}}}"#,
            ),
            (
                Some("1"),
                Some(r#"{"x":1}"#),
                r#"{"data":1,"caller":{"id":"AAAAAAAAAAAAAAAAAAAA","claims":{"x":1}}}"#,
            ),
        ] {
            assert_eq!(written(data, claims), expected);
        }
    }
}
