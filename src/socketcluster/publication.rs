//! The message of a publication that comes from no client: from the program that embeds the server, or from an
//! operator. Its data is checked and passed on as a client's is.

use std::borrow::Cow;

use super::json::{Fault, Scanner};
use super::session::write_publish;
use super::{rewrite, string};
use crate::decision::{Epoch, Marks};

/// Data in the form in which it is passed on: as it is, or with the changes that the reference makes (`rewrite.rs`).
///
/// # Errors
/// The text is not JSON, or is nested too deep.
pub fn passed_on(json: &str) -> Result<Cow<'_, str>, Fault> {
    let mut scanner = Scanner::new(json);
    scanner.skip_space();
    let start = scanner.position();
    scanner.value()?;
    let value = scanner.since(start);
    scanner.finish()?;
    if !scanner.take_rare() {
        return Ok(Cow::Borrowed(value));
    }
    let mut rewritten = Vec::new();
    rewrite::write_passed_on(value, &mut rewritten);
    Ok(Cow::Owned(
        String::from_utf8(rewritten).expect("it is made of text"),
    ))
}

/// The whole message, as subscribers get it. `data` comes from [`passed_on`], and the marks from the policy of the
/// channel.
pub fn message(channel: &str, marks: Marks, epoch: Epoch, data: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    let name = |out: &mut Vec<u8>| string::write_json(channel.as_bytes(), out);
    write_publish(name, marks, epoch, data.map(str::as_bytes), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_checked_and_passed_on_as_data_of_clients_is() {
        for (json, expected) in [
            ("1", Ok("1")),
            (" {\"a\" : 1.0}\n", Ok("{\"a\" : 1.0}")),
            ("-0", Ok("0")),
            ("1e999", Ok("null")),
            (
                r#"{"type":"Buffer","data":[1,2]}"#,
                Ok(r#"{"base64":true,"data":"AQI="}"#),
            ),
            ("", Err(Fault::Malformed)),
            ("1 2", Err(Fault::Malformed)),
            ("{", Err(Fault::Malformed)),
            ("NaN", Err(Fault::Malformed)),
        ] {
            assert_eq!(
                passed_on(json).as_deref(),
                expected.as_ref().map(|text| *text),
                "{json}"
            );
        }
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        assert_eq!(passed_on(&deep), Err(Fault::TooDeep));
    }

    #[test]
    fn the_message_is_that_of_a_publish() {
        for (channel, data, expected) in [
            (
                "a",
                Some("1"),
                r##"{"event":"#publish","data":{"channel":"a","data":1}}"##,
            ),
            (
                "a\"b",
                None,
                r##"{"event":"#publish","data":{"channel":"a\"b"}}"##,
            ),
        ] {
            let epoch = Epoch::from_text(b"k3j9x0ab").unwrap();
            let message = message(channel, Marks::default(), epoch, data);
            assert_eq!(message, expected.as_bytes());
        }
    }
}
