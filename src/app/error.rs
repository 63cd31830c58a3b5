//! Errors an application sends, in the form they have on the wire (wire reference, section 10).

use serde::Serialize;
use serde_json::Value;

use super::deferred_decision::DecisionNumber;
use crate::decision::CloseCode;

/// An error for a client: an object with a message, or a bare string.
#[derive(Clone, Debug, PartialEq)]
pub struct AppError(Body);

#[derive(Clone, Debug, PartialEq)]
enum Body {
    Text(String),
    Object {
        message: String,
        name: Option<String>,
        fields: Vec<(String, Value)>,
    },
}

impl AppError {
    /// `{"message":MESSAGE}`
    pub fn new(message: impl Into<String>) -> AppError {
        AppError(Body::Object {
            message: message.into(),
            name: None,
            fields: Vec::new(),
        })
    }

    /// The error that a client has sent: an object or a string as it is, any other value as the reference
    /// reads it.
    pub(crate) fn received(json: &str) -> AppError {
        const MALFORMED: &str = "Invalid error message format";
        match serde_json::from_str(json) {
            Ok(Value::String(text)) => AppError::text(text),
            Ok(Value::Object(fields)) => {
                let text = |key| fields.get(key).and_then(Value::as_str);
                let mut error = AppError::new(text("message").unwrap_or(MALFORMED));
                if let Some(name) = text("name") {
                    error = error.named(name);
                }
                let rest = fields
                    .iter()
                    .filter(|(key, _)| !matches!(key.as_str(), "message" | "name"));
                rest.fold(error, |error, (key, value)| error.with(key, value.clone()))
            }
            Ok(_) | Err(_) => AppError::text(json),
        }
    }

    /// An error that is a bare string.
    pub fn text(text: impl Into<String>) -> AppError {
        AppError(Body::Text(text.into()))
    }

    /// Gives the error a name; a bare string has none.
    #[must_use]
    pub fn named(mut self, new_name: impl Into<String>) -> AppError {
        if let Body::Object { name, .. } = &mut self.0 {
            *name = Some(new_name.into());
        }
        self
    }

    /// Adds a field after the fields that the error has; a bare string has none.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> AppError {
        if let Body::Object { fields, .. } = &mut self.0 {
            fields.push((key.into(), value.into()));
        }
        self
    }

    /// Makes the client drop the token that the error is about.
    #[must_use]
    pub fn bad_token(self) -> AppError {
        self.with("isBadToken", true)
    }

    /// The message.
    pub fn message(&self) -> &str {
        match &self.0 {
            Body::Text(text) => text,
            Body::Object { message, .. } => message,
        }
    }

    fn field(&self, wanted: &str) -> Option<&Value> {
        match &self.0 {
            Body::Text(_) => None,
            Body::Object { fields, .. } => fields
                .iter()
                .find(|(key, _)| key == wanted)
                .map(|(_, value)| value),
        }
    }

    /// Appends it as JSON: the message, the name, then the rest in the order they were set.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Body::Text(text) => write(text, out),
            Body::Object {
                message,
                name,
                fields,
            } => {
                out.extend_from_slice(b"{\"message\":");
                write(message, out);
                if let Some(name) = name {
                    out.extend_from_slice(b",\"name\":");
                    write(name, out);
                }
                for (key, value) in fields {
                    out.push(b',');
                    write(key, out);
                    out.push(b':');
                    write(value, out);
                }
                out.push(b'}');
            }
        }
    }
}

/// The kinds of actions that an application may refuse, with the names that the reference uses in a refusal
/// without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A handshake.
    Handshake,
    /// A token.
    Authenticate,
    /// A subscribe.
    Subscribe,
    /// A publish.
    Publish,
    /// A call.
    Invoke,
}

impl Refused {
    /// The type of the action, and the middleware line that blocks it.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Refused::Handshake => ("handshakeSC", "handshake"),
            Refused::Authenticate => ("authenticate", "inbound"),
            Refused::Subscribe => ("subscribe", "inbound"),
            Refused::Publish => ("publishIn", "inbound"),
            Refused::Invoke => ("invoke", "inbound"),
        }
    }
}

/// A refusal: made from an [`AppError`], or [silent](Refusal::silent).
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    reason: Reason,
    code: Option<CloseCode>,
}

/// The reason for a refusal.
#[derive(Clone, Debug, PartialEq)]
enum Reason {
    /// The application gives no reason.
    Silent,
    /// The error that the client gets.
    Error(AppError),
    /// Nothing is decided yet: the decision with this number will come.
    Deferred(DecisionNumber),
    /// The decision has not come in time.
    TooLate,
}

impl Refusal {
    /// The code that a refused handshake closes with, unless another is given.
    const HANDSHAKE_CODE: CloseCode = CloseCode::new(4008).expect("it may stand in a close frame");

    /// A refusal without an error of the application: the client gets the error of a middleware that blocks.
    pub fn silent() -> Refusal {
        Refusal::because(Reason::Silent)
    }

    /// Nothing has been decided yet.
    pub(super) fn deferred(number: DecisionNumber) -> Refusal {
        Refusal::because(Reason::Deferred(number))
    }

    /// The application has not decided in time.
    pub(crate) fn too_late() -> Refusal {
        Refusal::because(Reason::TooLate)
    }

    const fn because(reason: Reason) -> Refusal {
        Refusal { reason, code: None }
    }

    /// The number of the decision that will come, if nothing is decided yet.
    pub(crate) fn decision_number(&self) -> Option<DecisionNumber> {
        match self.reason {
            Reason::Deferred(number) => Some(number),
            Reason::Silent | Reason::Error(_) | Reason::TooLate => None,
        }
    }

    /// Whether the application has not decided in time.
    pub(crate) fn is_too_late(&self) -> bool {
        matches!(self.reason, Reason::TooLate)
    }

    fn error(&self) -> Option<&AppError> {
        match &self.reason {
            Reason::Error(error) => Some(error),
            Reason::Silent | Reason::Deferred(_) | Reason::TooLate => None,
        }
    }

    /// Closes the connection of a refused handshake with `code` instead of 4008. Other refusals ignore it.
    #[must_use]
    pub fn with_code(mut self, code: CloseCode) -> Refusal {
        self.code = Some(code);
        self
    }

    /// The code for a refused handshake.
    pub(crate) fn handshake_code(&self) -> CloseCode {
        self.code.unwrap_or(Self::HANDSHAKE_CODE)
    }

    /// Whether the client is to drop the token that was refused.
    pub(crate) fn is_bad_token(&self) -> bool {
        self.error()
            .and_then(|error| error.field("isBadToken"))
            .is_some_and(|value| *value == Value::Bool(true))
    }

    /// Appends the error that the client gets.
    pub(crate) fn write_json(&self, refused: Refused, out: &mut Vec<u8>) {
        match &self.reason {
            Reason::Error(error) => error.write_json(out),
            Reason::Silent | Reason::Deferred(_) => write_silent(refused, out),
            Reason::TooLate => AppError::new("The application did not decide in time")
                .named("TimeoutError")
                .write_json(out),
        }
    }

    /// The same for a handshake, whose error carries the code too.
    pub(crate) fn write_handshake_json(&self, out: &mut Vec<u8>) {
        self.write_json(Refused::Handshake, out);
        let has_code = self
            .error()
            .is_some_and(|error| error.field("statusCode").is_some());
        // A bare string has no place for the code.
        if !has_code && out.last() == Some(&b'}') {
            out.pop();
            out.extend_from_slice(b",\"statusCode\":");
            write(&self.handshake_code().as_u16(), out);
            out.push(b'}');
        }
    }
}

impl From<AppError> for Refusal {
    fn from(error: AppError) -> Refusal {
        Refusal::because(Reason::Error(error))
    }
}

/// Appends the error for a refusal without one.
pub(super) fn write_silent(refused: Refused, out: &mut Vec<u8>) {
    let (action, line) = refused.names();
    out.extend_from_slice(b"{\"message\":\"The ");
    out.extend_from_slice(action.as_bytes());
    out.extend_from_slice(b" AGAction was blocked by ");
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b" middleware\",\"name\":\"SilentMiddlewareBlockedError\",\"type\":\"");
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\"}");
}

fn write(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("strings and values have a JSON form, and a Vec takes it");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_message_comes_first_then_the_name_then_the_rest_as_set() {
        let error = AppError::new("no \"way\"")
            .with("z", 1)
            .with("a", "x")
            .named("Nope")
            .bad_token();
        assert_eq!(
            written(|out| error.write_json(out)),
            r#"{"message":"no \"way\"","name":"Nope","z":1,"a":"x","isBadToken":true}"#
        );
        assert!(Refusal::from(error).is_bad_token());
        assert_eq!(
            written(|out| AppError::text("just a string").write_json(out)),
            r#""just a string""#
        );
        assert!(!Refusal::from(AppError::new("m").with("isBadToken", false)).is_bad_token());
    }

    #[test]
    fn a_refusal_without_an_error_names_what_was_blocked() {
        assert_eq!(
            written(|out| Refusal::silent().write_json(Refused::Publish, out)),
            "{\"message\":\"The publishIn AGAction was blocked by inbound middleware\",\
             \"name\":\"SilentMiddlewareBlockedError\",\"type\":\"inbound\"}"
        );
    }

    #[test]
    fn a_refused_handshake_carries_its_code_once() {
        let json = |refusal: &Refusal| written(|out| refusal.write_handshake_json(out));
        let refusal = Refusal::from(AppError::new("m"));
        assert_eq!(json(&refusal), r#"{"message":"m","statusCode":4008}"#);
        let refusal = refusal.with_code(CloseCode::new(4501).unwrap());
        assert_eq!(json(&refusal), r#"{"message":"m","statusCode":4501}"#);
        let own = Refusal::from(AppError::new("m").with("statusCode", 4444));
        assert_eq!(json(&own), r#"{"message":"m","statusCode":4444}"#);
        assert_eq!(json(&AppError::text("s").into()), r#""s""#);
    }
}
