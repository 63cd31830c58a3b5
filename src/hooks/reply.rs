//! The answer of a target, and its effects in a session.
//!
//! `docs/hooks.md` has the schema. An answer with an unknown member is invalid as a whole: a misspelt word must not
//! allow more than was meant.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::app::{AllowedPublish, AppError, Claims, CloseCode, Peer, Refusal};
use crate::config::hooks::HookAction;

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    verdict: Verdict,
    claims: Option<Box<RawValue>>,
    token: Option<Token>,
    subscribe: Vec<String>,
    bytes: usize,
}

#[derive(Debug)]
enum Verdict {
    Allow,
    /// With this data in the place of the client's.
    Rewrite(Box<RawValue>),
    /// The answer to a call.
    Answer(Box<RawValue>),
    Refuse(Refusal),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    claims: Box<RawValue>,
    expires_in: Option<u64>,
}

/// The answer as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    allow: Option<bool>,
    error: Option<Value>,
    code: Option<u16>,
    /// `null` is data.
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    answer: Option<Box<RawValue>>,
    claims: Option<Box<RawValue>>,
    token: Option<Token>,
    #[serde(default)]
    subscribe: Vec<String>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// Why an answer is invalid.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotReply(String);

impl Reply {
    /// Reads an answer.
    pub(super) fn of_json(json: &[u8]) -> Result<Reply, NotReply> {
        let wrong = |why: &str| NotReply(why.to_owned());
        let written: Written = serde_json::from_slice(json).map_err(|error| not_json(&error))?;
        let mut claims = written
            .claims
            .iter()
            .chain(written.token.iter().map(|token| &token.claims));
        if claims.any(|json| Claims::of_object(json.get()).is_none()) {
            return Err(wrong("claims are no object, or their exp is no number"));
        }
        if written.subscribe.len() > SUBSCRIBE_MAX {
            return Err(NotReply(format!(
                "subscribe has more than {SUBSCRIBE_MAX} channels"
            )));
        }
        let code = match written.code {
            None => None,
            Some(code) => {
                Some(CloseCode::new(code).ok_or_else(|| wrong("code cannot stand in a close frame"))?)
            }
        };
        let verdict = match (written.allow, written.error, written.data, written.answer) {
            (None | Some(false), Some(error), None, None) => Verdict::Refuse(refusal(error, code)?),
            (Some(false), None, None, None) => {
                let silent = Refusal::silent();
                Verdict::Refuse(match code {
                    Some(code) => silent.with_code(code),
                    None => silent,
                })
            }
            (Some(true), None, None, None) => Verdict::Allow,
            (Some(true), None, Some(data), None) => Verdict::Rewrite(data),
            (None | Some(true), None, None, Some(answer)) => Verdict::Answer(answer),
            (None, None, _, None) => return Err(wrong("it says neither allow nor error nor answer")),
            (_, _, _, _) => return Err(wrong("its members contradict each other")),
        };
        Ok(Reply {
            verdict,
            claims: written.claims,
            token: written.token,
            subscribe: written.subscribe,
            bytes: json.len(),
        })
    }

    /// Reads the answers to so many questions about this action: an array in the order of the questions. One of the
    /// answers can be wrong, and the others right.
    pub(super) fn of_array(
        json: &[u8],
        count: usize,
        action: HookAction,
    ) -> Result<Vec<Result<Reply, NotReply>>, NotReply> {
        let written: Vec<&RawValue> = serde_json::from_slice(json).map_err(|error| not_json(&error))?;
        if written.len() != count {
            let found = written.len();
            return Err(NotReply(format!("{found} answers to {count} questions")));
        }
        let replies = written.iter().map(|json| {
            Reply::of_json(json.get().as_bytes()).and_then(|reply| reply.suits(action).map(|()| reply))
        });
        let replies: Vec<Result<Reply, NotReply>> = replies.collect();
        // If no answer is valid, the request has failed, as with a single question.
        match replies.iter().all(Result::is_err) {
            true => Err(NotReply("none of the answers of the array is right".to_owned())),
            false => Ok(replies),
        }
    }

    /// The answer to a `disconnect`, which has no effect whatever it says.
    pub(super) fn allowing() -> Reply {
        Reply {
            verdict: Verdict::Allow,
            claims: None,
            token: None,
            subscribe: Vec::new(),
            bytes: 0,
        }
    }

    /// Whether it can be an answer about this action.
    pub(super) fn suits(&self, action: HookAction) -> Result<(), NotReply> {
        let is_right = match self.verdict {
            Verdict::Allow | Verdict::Refuse(_) => true,
            Verdict::Rewrite(_) => action == HookAction::Publish || action.is_on_procedure(),
            Verdict::Answer(_) => action == HookAction::Invoke,
        };
        if is_right {
            return Ok(());
        }
        let action = action.label();
        Err(NotReply(format!("data or an answer does not belong to {action}")))
    }

    /// Whether it refuses the action.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.verdict, Verdict::Refuse(_))
    }

    /// The bytes of its JSON.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Carries the answer out, on the core of the client.
    pub(super) fn apply(&self, peer: &mut Peer<'_>) -> Result<AllowedPublish, Refusal> {
        if let Verdict::Refuse(refusal) = &self.verdict {
            return Err(refusal.clone());
        }
        if let Some(claims) = &self.claims {
            peer.authenticate_as(claims);
        }
        if let Some(token) = &self.token {
            peer.set_auth_token(&token.claims, token.expires_in);
        }
        for channel in &self.subscribe {
            peer.subscribe(channel);
        }
        Ok(match &self.verdict {
            Verdict::Allow | Verdict::Refuse(_) => AllowedPublish::as_sent(),
            Verdict::Rewrite(data) => peer.rewrite(data),
            Verdict::Answer(answer) => peer.answered(answer),
        })
    }
}

/// The text of the error may hold a value of the answer, such as a token.
fn not_json(error: &serde_json::Error) -> NotReply {
    let (line, column) = (error.line(), error.column());
    NotReply(format!(
        "{:?} error at line {line}, column {column}",
        error.classify()
    ))
}

fn refusal(error: Value, code: Option<CloseCode>) -> Result<Refusal, NotReply> {
    let error = match error {
        Value::String(text) => AppError::text(text),
        Value::Object(fields) => error_of(fields)?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            return Err(NotReply("error is neither a text nor an object".to_owned()));
        }
    };
    let refusal = Refusal::from(error);
    Ok(match code {
        Some(code) => refusal.with_code(code),
        None => refusal,
    })
}

/// An error that is an object: its message, its name, and whatever else it has.
fn error_of(fields: Map<String, Value>) -> Result<AppError, NotReply> {
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    let message = text("message").ok_or_else(|| NotReply("error has no message".to_owned()))?;
    let mut error = AppError::new(message);
    if let Some(name) = text("name") {
        error = error.named(name);
    }
    let rest = fields
        .iter()
        .filter(|(key, _)| !matches!(key.as_str(), "message" | "name"));
    Ok(rest.fold(error, |error, (key, value)| error.with(key, value.clone())))
}

impl fmt::Display for NotReply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Most channels that one answer subscribes a client to.
const SUBSCRIBE_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Reply, NotReply> {
        Reply::of_json(json.as_bytes())
    }

    #[test]
    fn an_answer_is_right_as_a_whole_or_wrong_as_a_whole() {
        for json in [
            r#"{"allow":true}"#,
            r#"{"allow":false}"#,
            r#"{"allow":false,"error":"no","code":4501}"#,
            r#"{"error":{"message":"m","name":"n","retry":1}}"#,
            r#"{"allow":true,"data":null}"#,
            r#"{"answer":null}"#,
            r#"{"allow":true,"claims":{"sub":"ann","exp":1.5},"subscribe":["a"]}"#,
            r#"{"allow":true,"token":{"claims":{"sub":"ann"},"expires_in":60}}"#,
        ] {
            assert!(read(json).is_ok(), "{json}: {:?}", read(json));
        }
        for json in [
            "",
            "[]",
            "{}",
            "{\"allow\":true} x",
            r#"{"alow":true}"#,
            r#"{"allow":"true"}"#,
            r#"{"allow":1}"#,
            r#"{"allow":true,"error":"no"}"#,
            r#"{"allow":false,"answer":1}"#,
            r#"{"data":1}"#,
            r#"{"allow":true,"data":1,"answer":2}"#,
            r#"{"error":{"name":"n"}}"#,
            r#"{"error":1}"#,
            r#"{"error":"no","code":1005}"#,
            r#"{"allow":true,"claims":"ann"}"#,
            r#"{"allow":true,"claims":{"exp":"soon"}}"#,
            r#"{"allow":true,"token":{"sub":"ann"}}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
        let many = serde_json::json!({"allow": true, "subscribe": vec!["a"; SUBSCRIBE_MAX + 1]});
        assert!(read(&many.to_string()).is_err());
    }

    #[test]
    fn an_answer_to_a_call_is_none_to_a_publication() {
        let rewrite = read(r#"{"allow":true,"data":1}"#).unwrap();
        let answer = read(r#"{"answer":1}"#).unwrap();
        for action in HookAction::ALL {
            assert!(read(r#"{"allow":true}"#).unwrap().suits(action).is_ok());
            let on_data = [HookAction::Publish, HookAction::Invoke, HookAction::Transmit];
            assert_eq!(
                rewrite.suits(action).is_ok(),
                on_data.contains(&action),
                "{action:?}"
            );
            assert_eq!(
                answer.suits(action).is_ok(),
                action == HookAction::Invoke,
                "{action:?}"
            );
        }
    }
}
