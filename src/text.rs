//! Decodes text files that operators have written, on any system and with any editor.
//!
//! Every text file is decoded here: the configuration, password files, keys, sets of keys, certificates,
//! revocations and secrets. A byte order mark is removed. UTF-16, a NUL or a lone carriage return is an error
//! that names the line: otherwise a name or a key with an invisible character would silently match nothing.
//! CR LF is kept: each reader accepts it as the end of a line.
//!
//! Not here: opening files (`config::text_file`).

use std::fmt;

/// Why bytes are not a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextFault {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub kind: TextFaultKind,
}

/// The contents that no text file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFaultKind {
    /// A byte order mark of UTF-16 or UTF-32.
    Utf16,
    /// Bytes that are not UTF-8.
    NotUtf8,
    /// A NUL byte: UTF-16 without a byte order mark, or not a text at all.
    Nul,
    /// A carriage return without a line feed after it: the text after it looks like a line of its own, but is
    /// not.
    CarriageReturn,
}

/// Decodes a text, without a byte order mark.
///
/// # Errors
/// The first fault in the text.
pub fn decode(bytes: &[u8]) -> Result<&str, TextFault> {
    let bytes = without_mark(bytes)?;
    let fault = |at: usize, kind| TextFault {
        line: 1 + count_line_feeds(&bytes[..at]),
        kind,
    };
    let text = str::from_utf8(bytes).map_err(|error| fault(error.valid_up_to(), TextFaultKind::NotUtf8))?;
    if let Some(at) = lone_carriage_return(bytes) {
        return Err(fault(at, TextFaultKind::CarriageReturn));
    }
    Ok(text)
}

/// Decodes a PEM file (RFC 7468), without a byte order mark and without blanks at the ends of lines. Text
/// between its sections may have any encoding.
///
/// # Errors
/// The file is UTF-16, or contains a NUL, as DER does.
pub fn decode_pem(bytes: &[u8]) -> Result<Vec<u8>, TextFault> {
    let bytes = without_mark(bytes)?;
    let mut text = Vec::with_capacity(bytes.len());
    for line in bytes.split(|byte| *byte == b'\n') {
        text.extend_from_slice(line.trim_ascii());
        text.push(b'\n');
    }
    Ok(text)
}

/// The secret in a file of its own: its only line, without the line break that an editor may have added.
///
/// # Errors
/// The text is not one line, or the line is empty, or has invisible characters at its ends, which would be
/// part of the key.
pub fn secret(text: &str) -> Result<&str, SecretFault> {
    let mut lines = text.trim_end_matches(['\r', '\n']).lines();
    let line = lines.next().unwrap_or_default();
    if line.is_empty() {
        return Err(SecretFault::Empty);
    }
    if lines.next().is_some() {
        return Err(SecretFault::SecondLine);
    }
    if has_unseen_ends(line) {
        return Err(SecretFault::Blanks);
    }
    Ok(line)
}

/// True if a text begins or ends with an invisible character: a blank, a control character, or a character
/// without width, which copying from web pages or chats may add.
pub fn has_unseen_ends(text: &str) -> bool {
    let is_unseen = |character: char| {
        let is_without_width = matches!(
            character,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        );
        is_without_width || character.is_whitespace() || character.is_control()
    };
    text.starts_with(is_unseen) || text.ends_with(is_unseen)
}

/// Why a text is not a secret. No variant contains any of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretFault {
    /// The text is empty.
    Empty,
    /// There is more after the first line.
    SecondLine,
    /// It begins or ends with blanks or characters without width.
    Blanks,
}

fn without_mark(bytes: &[u8]) -> Result<&[u8], TextFault> {
    const UTF_8: &[u8] = b"\xef\xbb\xbf";
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(TextFault {
            line: 1,
            kind: TextFaultKind::Utf16,
        });
    }
    let bytes = bytes.strip_prefix(UTF_8).unwrap_or(bytes);
    match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => Err(TextFault {
            line: 1 + count_line_feeds(&bytes[..at]),
            kind: TextFaultKind::Nul,
        }),
        None => Ok(bytes),
    }
}

/// The position of a carriage return that does not end a line. The last byte of a file may be one.
fn lone_carriage_return(bytes: &[u8]) -> Option<usize> {
    let mut returns = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\r');
    returns
        .find(|(at, _)| bytes.get(at + 1).is_some_and(|next| *next != b'\n'))
        .map(|(at, _)| at)
}

fn count_line_feeds(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

impl fmt::Display for TextFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.kind)
    }
}

impl fmt::Display for TextFaultKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            TextFaultKind::Utf16 => "the file is UTF-16: save it as UTF-8",
            TextFaultKind::NotUtf8 => "it is not UTF-8: save the file as UTF-8",
            TextFaultKind::Nul => "a NUL byte: the file is UTF-16 or not a text; save it as UTF-8",
            TextFaultKind::CarriageReturn => {
                "a carriage return (CR) without a line feed (LF): end lines with LF or CR LF"
            }
        })
    }
}

impl std::error::Error for TextFault {}

impl fmt::Display for SecretFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            SecretFault::Empty => "line 1: the secret is empty",
            SecretFault::SecondLine => "line 2: a secret must be one line and nothing else",
            SecretFault::Blanks => {
                "line 1: the secret begins or ends with a blank, or with a character that has no width, which would be \
                 part of the key: remove it"
            }
        })
    }
}

impl std::error::Error for SecretFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_marks_and_line_ends_of_editors_are_accepted() {
        for (bytes, text) in [
            (&b"\xef\xbb\xbfann:x\r\n"[..], "ann:x\r\n"),
            (b"a\r\n\r\nb\r", "a\r\n\r\nb\r"),
            (b"", ""),
            (b"\xef\xbb\xbf", ""),
            ("é\n".as_bytes(), "é\n"),
        ] {
            assert_eq!(decode(bytes), Ok(text));
        }
    }

    #[test]
    fn a_file_that_is_not_a_text_is_an_error_with_its_line() {
        for (bytes, line, kind) in [
            (&b"\xff\xfea\0"[..], 1, TextFaultKind::Utf16),
            (b"\xfe\xff\0a", 1, TextFaultKind::Utf16),
            (b"a\0n\0", 1, TextFaultKind::Nul),
            (b"a\nb\0", 2, TextFaultKind::Nul),
            (b"a\nb\xffc\n", 2, TextFaultKind::NotUtf8),
            (b"# users\rann:x\r", 1, TextFaultKind::CarriageReturn),
            (b"a\r\nb\r\r\n", 2, TextFaultKind::CarriageReturn),
        ] {
            assert_eq!(decode(bytes), Err(TextFault { line, kind }));
        }
    }

    #[test]
    fn pem_may_have_marks_blanks_and_other_encodings_around_its_sections() {
        let text = b"\xef\xbb\xbfsubject=M\xfcller\r\n  -----BEGIN X----- \t\r\nAAAA \r\n-----END X-----";
        assert_eq!(
            decode_pem(text).unwrap(),
            b"subject=M\xfcller\n-----BEGIN X-----\nAAAA\n-----END X-----\n"
        );
        for der in [&b"0\x82\0"[..], b"\xff\xfe-\0"] {
            assert!(decode_pem(der).is_err());
        }
    }

    #[test]
    fn a_secret_is_one_line_without_blanks_around_it() {
        for text in ["key", "key\n", "key\r\n", "key\n\n", "key\r\n\r\n"] {
            assert_eq!(secret(text), Ok("key"), "{text:?}");
        }
        assert_eq!(secret("two words\n"), Ok("two words"));
        for (text, fault) in [
            ("", SecretFault::Empty),
            ("\r\n", SecretFault::Empty),
            ("key \n", SecretFault::Blanks),
            ("\tkey\n", SecretFault::Blanks),
            ("key\u{a0}", SecretFault::Blanks),
            ("\u{2003}key", SecretFault::Blanks),
            ("key\u{200b}\n", SecretFault::Blanks),
            ("\u{feff}key\n", SecretFault::Blanks),
            ("key\u{2060}", SecretFault::Blanks),
            ("key\u{1a}", SecretFault::Blanks),
            ("top\nsecret\n", SecretFault::SecondLine),
            ("\nkey\n", SecretFault::Empty),
        ] {
            assert_eq!(secret(text), Err(fault), "{text:?}");
        }
    }
}
