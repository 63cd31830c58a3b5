//! Answers of the API as text for people.

use std::io::{self, Write};

use serde_json::Value;

use super::request::{Arguments, Name};

/// Writes the answer to a command.
pub(super) fn print(arguments: &Arguments, answer: &Value, out: &mut impl Write) -> io::Result<()> {
    match arguments.name {
        Name::Publish => writeln!(out, "published: {}", answer["published"]),
    }
}
