//! A user's name and password, as a client sends them: in a JSON object, or in the fields of a form.
//!
//! Input that is not valid text to the last byte is refused, since repairing it would change the password.
//!
//! A password is copied only once out of the received bytes, into memory that is wiped when it is dropped;
//! the same holds for other fields that are decoded before it. The core wipes the received bytes, which it
//! owns.

use std::fmt;

use zeroize::Zeroizing;

use super::json::{Json, Kind};
use crate::config::secret::Secret;

/// The accepted names of the fields of a login. If several are present, the first in the list counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFields {
    users: Vec<String>,
    passwords: Vec<String>,
}

/// The name and the password in a login.
#[derive(Debug)]
pub struct Credentials {
    /// The name as it was sent.
    pub user: String,
    /// The password as it was sent.
    pub password: Password,
}

/// A password in memory: never printed, and wiped when it is dropped.
pub struct Password(Zeroizing<Vec<u8>>);

/// The input does not contain a name and a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCredentials;

impl Password {
    /// Takes ownership of the bytes. The caller has to wipe copies made before.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Password {
        Password(Zeroizing::new(bytes.into()))
    }

    /// The bytes, only for checking the password.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Zeroizing<String>> for Password {
    /// Keeps the same memory.
    fn from(mut text: Zeroizing<String>) -> Password {
        Password::new(std::mem::take(&mut *text))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(Secret::HIDDEN)
    }
}

impl Default for CredentialFields {
    /// The names that common forms and examples use.
    fn default() -> CredentialFields {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        CredentialFields {
            users: list(&["email", "user", "username"]),
            passwords: list(&["pw", "password"]),
        }
    }
}

impl CredentialFields {
    /// Fields with these names.
    pub fn new(users: Vec<String>, passwords: Vec<String>) -> CredentialFields {
        CredentialFields { users, passwords }
    }

    /// Reads a JSON object, and ignores its other members.
    ///
    /// # Errors
    /// The text is not a JSON object, lacks a field, or has a field that is not a string.
    pub fn in_json(&self, text: &str) -> Result<Credentials, NoCredentials> {
        let object = Json::parse(text).ok_or(NoCredentials)?;
        self.found(|name| {
            Some(match object.member(name)?.kind() {
                Kind::String(text) => text.text(),
                Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Array | Kind::Object => None,
            })
        })
    }

    /// Reads `application/x-www-form-urlencoded` (URL standard, section 5.1). Of equal names the last counts.
    ///
    /// # Errors
    /// A field is missing, or an escape sequence or a character is invalid.
    pub fn in_form(&self, text: &str) -> Result<Credentials, NoCredentials> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((unescaped(name)?, unescaped(value)?))
        });
        let mut fields = pairs.collect::<Result<Vec<_>, _>>()?;
        self.found(|name| {
            let (_, value) = fields.iter_mut().rfind(|(found, _)| **found == name)?;
            Some(Some(std::mem::take(value)))
        })
    }

    /// The first names in each list for which there is a field; `Some(None)` for a field that is not a
    /// string.
    fn found(
        &self,
        mut field: impl FnMut(&str) -> Option<Option<Zeroizing<String>>>,
    ) -> Result<Credentials, NoCredentials> {
        let mut first = |names: &[String]| names.iter().find_map(|name| field(name)).flatten();
        match (first(&self.users), first(&self.passwords)) {
            (Some(mut user), Some(password)) => Ok(Credentials {
                user: std::mem::take(&mut *user),
                password: password.into(),
            }),
            (Some(_) | None, Some(_) | None) => Err(NoCredentials),
        }
    }
}

fn unescaped(text: &str) -> Result<Zeroizing<String>, NoCredentials> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
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
    str::from_utf8(&bytes).map_err(|_| NoCredentials)?;
    let text = String::from_utf8(std::mem::take(&mut *bytes));
    text.map(Zeroizing::new).map_err(|_| NoCredentials)
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
        found.ok().map(|found| {
            let password = String::from_utf8(found.password.expose().to_vec()).unwrap();
            (found.user, password)
        })
    }

    #[track_caller]
    fn finds(found: Result<Credentials, NoCredentials>, user: &str, password: &str) {
        assert_eq!(read(found), Some((user.to_owned(), password.to_owned())));
    }

    #[test]
    fn a_name_and_a_password_are_found_by_any_of_the_field_names() {
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
        // Of several fields the first in the list counts, of equal names the last.
        finds(
            fields.in_json(r#"{"user":"b","pw":"1","email":"a","pw":"2"}"#),
            "a",
            "2",
        );
        finds(fields.in_form("user=b&pw=1&email=a&pw=2"), "a", "2");
    }

    #[test]
    fn escaped_names_and_values_are_decoded() {
        finds(
            fields().in_json(r#"{"\u0065mail":"\u0061nn","p\u0077":"\u00e9\u0000\ud83d\ude00"}"#),
            "ann",
            "\u{e9}\0\u{1F600}",
        );
        finds(fields().in_form("%65mail=%61nn&p%77=x"), "ann", "x");
    }

    #[test]
    fn input_without_text_in_both_fields_is_refused() {
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
