//! The content of a call for a service, `{"data":D,"caller":{"id":I,"user":U,"claims":C}}`
//! (`session/services.rs`), in its parts: a service that speaks MQTT gets them as payload and properties.

use std::borrow::Cow;

use crate::json::Scanner;

/// The parts of a call for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServiceCallParts<'a> {
    /// The data; empty if there is none.
    pub(super) data: &'a str,
    /// The id of the caller.
    pub(super) id: &'a str,
    /// Its user.
    pub(super) user: Option<Cow<'a, str>>,
    /// The claims of its token, as JSON.
    pub(super) claims: Option<&'a str>,
}

impl<'a> ServiceCallParts<'a> {
    /// Reads the content that sessions of all protocols write for a call.
    pub(super) fn read(call: &'a [u8]) -> Option<ServiceCallParts<'a>> {
        let mut rest = str::from_utf8(call).ok()?.strip_prefix('{')?;
        let mut data = "";
        if let Some(behind) = rest.strip_prefix("\"data\":") {
            (data, rest) = take_value(behind)?;
            rest = rest.strip_prefix(',')?;
        }
        rest = rest.strip_prefix("\"caller\":{\"id\":")?;
        let id;
        (id, rest) = take_value(rest)?;
        let (mut user, mut claims) = (None, None);
        if let Some(behind) = rest.strip_prefix(",\"user\":") {
            let text;
            (text, rest) = take_value(behind)?;
            user = Some(match Scanner::new(text).string().ok()?.plain() {
                Some(plain) => Cow::Borrowed(plain),
                None => Cow::Owned(serde_json::from_str(text).ok()?),
            });
        }
        if let Some(behind) = rest.strip_prefix(",\"claims\":") {
            let text;
            (text, rest) = take_value(behind)?;
            claims = Some(text);
        }
        (rest == "}}").then_some(ServiceCallParts {
            data,
            id: id.trim_matches('"'),
            user,
            claims,
        })
    }
}

/// The JSON value at the beginning of a text, and the text behind it.
fn take_value(text: &str) -> Option<(&str, &str)> {
    let mut scanner = Scanner::new(text);
    scanner.value().ok()?;
    text.split_at_checked(scanner.position())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_in_its_parts() {
        for (call, data, user, claims) in [
            (r#"{"caller":{"id":"AAA"}}"#, "", None, None),
            (
                r#"{"data":[1,"}"],"caller":{"id":"AAA"}}"#,
                r#"[1,"}"]"#,
                None,
                None,
            ),
            (
                r#"{"data":null,"caller":{"id":"AAA","user":"a\"nn","claims":{"sub":"a\"nn","x":1}}}"#,
                "null",
                Some("a\"nn"),
                Some(r#"{"sub":"a\"nn","x":1}"#),
            ),
            (
                r#"{"data":1,"caller":{"id":"AAA","claims":{"x":1}}}"#,
                "1",
                None,
                Some(r#"{"x":1}"#),
            ),
        ] {
            let parts = ServiceCallParts::read(call.as_bytes()).expect("it is one");
            assert_eq!(
                (parts.data, parts.id, parts.claims),
                (data, "AAA", claims),
                "{call}"
            );
            assert_eq!(parts.user.as_deref(), user, "{call}");
        }
        for wrong in ["", "{}", r#"{"data":1}"#, r#"{"caller":{"id":"AAA"}"#] {
            assert_eq!(ServiceCallParts::read(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
