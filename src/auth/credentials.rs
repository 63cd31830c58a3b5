//! A user's name and password, as a client sends them: a JSON object, or the fields of a form.
//!
//! What is not text to the last byte is refused rather than mended: a mended password is another one.

use serde_json::{Map, Value};

/// How the fields of a login may be called. Of those that are there, the first name listed counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFields {
    users: Vec<String>,
    passwords: Vec<String>,
}

/// Who somebody claims to be, and what is to prove it. Has no `Debug`.
pub struct Credentials {
    /// The name, as it was sent.
    pub user: String,
    /// The password, as it was sent.
    pub password: String,
}

/// What was sent does not hold a name and a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCredentials;

impl Default for CredentialFields {
    /// What the usual forms and examples call them.
    fn default() -> CredentialFields {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        CredentialFields {
            users: list(&["email", "user", "username"]),
            passwords: list(&["pw", "password"]),
        }
    }
}

impl CredentialFields {
    /// Fields by these names.
    pub fn new(users: Vec<String>, passwords: Vec<String>) -> CredentialFields {
        CredentialFields { users, passwords }
    }

    /// Reads a JSON object. Its other members are not looked at.
    ///
    /// # Errors
    /// It is none, or lacks a field, or holds something other than text in one.
    pub fn in_json(&self, text: &str) -> Result<Credentials, NoCredentials> {
        let mut members: Map<String, Value> = serde_json::from_str(text).map_err(|_| NoCredentials)?;
        let mut take = |names: &[String]| {
            let name = names.iter().find(|name| members.contains_key(*name))?;
            match members.remove(name) {
                Some(Value::String(text)) => Some(text),
                Some(
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_),
                )
                | None => None,
            }
        };
        match (take(&self.users), take(&self.passwords)) {
            (Some(user), Some(password)) => Ok(Credentials { user, password }),
            (Some(_) | None, Some(_) | None) => Err(NoCredentials),
        }
    }

    /// Reads `application/x-www-form-urlencoded` (URL standard, section 5.1). Of equal names the last counts.
    ///
    /// # Errors
    /// A field is lacking, or an escape or a character is broken.
    pub fn in_form(&self, text: &str) -> Result<Credentials, NoCredentials> {
        let mut fields = Map::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            fields.insert(unescaped(name)?, unescaped(value)?.into());
        }
        let take = |names: &[String]| {
            let value = names.iter().find_map(|name| fields.get(name))?;
            value.as_str().map(str::to_owned)
        };
        match (take(&self.users), take(&self.passwords)) {
            (Some(user), Some(password)) => Ok(Credentials { user, password }),
            (Some(_) | None, Some(_) | None) => Err(NoCredentials),
        }
    }
}

fn unescaped(text: &str) -> Result<String, NoCredentials> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, after) = rest.split_at_checked(2).ok_or(NoCredentials)?;
                rest = after;
                hex(digits[0])? << 4 | hex(digits[1])?
            }
            plain => *plain,
        });
    }
    String::from_utf8(bytes).map_err(|_| NoCredentials)
}

fn hex(digit: u8) -> Result<u8, NoCredentials> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(NoCredentials),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> CredentialFields {
        CredentialFields::default()
    }

    fn read(found: Result<Credentials, NoCredentials>) -> Option<(String, String)> {
        found.ok().map(|found| (found.user, found.password))
    }

    #[track_caller]
    fn finds(found: Result<Credentials, NoCredentials>, user: &str, password: &str) {
        assert_eq!(read(found), Some((user.to_owned(), password.to_owned())));
    }

    #[test]
    fn a_name_and_a_password_are_found_by_any_of_their_names() {
        let fields = fields();
        finds(
            fields.in_json(r#"{"email":"aaa@bbb.com","pw":"cccc"}"#),
            "aaa@bbb.com",
            "cccc",
        );
        finds(
            fields.in_json(" {\"x\":[{}],\"user\":\"\\u00e9\",\"password\":\"\"}\n"),
            "é",
            "",
        );
        finds(
            fields.in_form("email=aaa%40bbb.com&pw=c+c%2Bc"),
            "aaa@bbb.com",
            "c c+c",
        );
        finds(fields.in_form("&password=%C3%a9=&user=a&x&"), "a", "é=");
        // Of several the first in the list, of equals the last.
        finds(
            fields.in_json(r#"{"user":"b","pw":"1","email":"a","pw":"2"}"#),
            "a",
            "2",
        );
        finds(fields.in_form("user=b&pw=1&email=a&pw=2"), "a", "2");
    }

    #[test]
    fn what_is_not_text_in_both_fields_is_refused() {
        let fields = fields();
        for text in [
            "",
            "null",
            "[]",
            "{}",
            "\"user\"",
            r#"{"user":"a"}"#,
            r#"{"pw":"a"}"#,
            r#"{"user":1,"pw":"a"}"#,
            r#"{"user":"a","pw":null}"#,
            r#"{"email":{},"user":"a","pw":"b"}"#,
            r#"{"user":"a","pw":"\ud800"}"#,
            r#"{"user":"a","pw":"b"} x"#,
            r#"{"user":"a","pw":"b""#,
        ] {
            assert_eq!(read(fields.in_json(text)), None, "{text}");
        }
        for text in [
            "",
            "user=a",
            "pw=b",
            "user=a&pw=%",
            "user=a&pw=%4",
            "user=a&pw=%4g",
            "user=%ff&pw=b",
            "%=&user=a&pw=b",
        ] {
            assert_eq!(read(fields.in_form(text)), None, "{text}");
        }
    }
}
