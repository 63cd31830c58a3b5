//! Reads the extensions that a client offers in `Sec-WebSocket-Extensions`, and decides which offer the server accepts.
//!
//! The client lists its offers in the order of its preference. The server accepts the first offer of permessage-deflate
//! that it can fulfil, and ignores other extensions. An offer with an unknown parameter, a parameter that occurs twice
//! or an illegal value is declined, and the next offer is tried (RFC 7692 section 7.1). Several header lines count as
//! one list (RFC 6455 section 9.1). If the header is not a list of extensions, the request is refused, as by the
//! reference's engine.

use super::{Compression, LARGE_WINDOW_BITS, SMALL_WINDOW_BITS};

/// The accepted offer, and the answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The compression that both sides may use now.
    pub compression: Compression,
    /// True if the client has asked for a window size. The answer then names one.
    names_window: bool,
}

/// The header is not a list of extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Agreement {
    /// Appends the header line of the answer. It tells the client not to keep its context between messages, which a
    /// client must support (section 7.1.1.2). The window of the client's compressor is the client's choice.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        );
        if self.names_window {
            out.extend_from_slice(match self.compression {
                Compression::Small => b"; server_max_window_bits=9",
                Compression::Large | Compression::Off => b"; server_max_window_bits=15",
            });
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Accepts the first offer of permessage-deflate that the server can fulfil, if there is one. `lines` are the values of
/// all headers of this name.
///
/// # Errors
/// One of the headers is not a list of extensions.
pub fn agree<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Option<Agreement>, Malformed> {
    let mut agreement = None;
    for extension in lines.flat_map(|line| line.split(|&byte| byte == b',')) {
        // Elements of a list may be empty: RFC 9110 section 5.6.1.2.
        if extension.trim_ascii().is_empty() {
            continue;
        }
        let offer = read(extension)?;
        agreement = agreement.or(offer);
    }
    Ok(agreement)
}

/// Reads one extension with its parameters; `None` if it is another extension, or if the server cannot fulfil the
/// offer.
fn read(extension: &[u8]) -> Result<Option<Agreement>, Malformed> {
    let mut parts = extension.split(|&byte| byte == b';');
    let name = token(parts.next().unwrap_or_default())?;
    let mut offer = Offer::default();
    let mut is_legal = name == b"permessage-deflate";
    for part in parts {
        let (name, value) = parameter(part)?;
        is_legal = is_legal && offer.take(name, value).is_some();
    }
    Ok(is_legal.then(|| offer.accept()).flatten())
}

/// The parameters of an offer: RFC 7692 section 7.1. Each may occur once.
#[derive(Debug, Default)]
struct Offer {
    server_no_context_takeover: Option<()>,
    client_no_context_takeover: Option<()>,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<()>,
}

impl Offer {
    /// Notes a parameter; `None` if the offer must be declined because of it.
    fn take(&mut self, name: &[u8], value: Option<Value<'_>>) -> Option<()> {
        let stood_before = match (name, value) {
            (b"server_no_context_takeover", None) => self.server_no_context_takeover.replace(()).is_some(),
            (b"client_no_context_takeover", None) => self.client_no_context_takeover.replace(()).is_some(),
            (b"server_max_window_bits", Some(value)) => {
                let bits = value.window_bits()?;
                self.server_max_window_bits.replace(bits).is_some()
            }
            (b"client_max_window_bits", value) => {
                // The client's window may have any size: our decompressor supports all of them.
                if let Some(value) = value {
                    value.window_bits()?;
                }
                self.client_max_window_bits.replace(()).is_some()
            }
            _ => return None,
        };
        (!stood_before).then_some(())
    }

    /// The agreement; `None` if our smallest window is larger than the one that the client asks for.
    fn accept(&self) -> Option<Agreement> {
        let compression = match self.server_max_window_bits {
            None => Compression::Large,
            Some(bits) if bits >= LARGE_WINDOW_BITS => Compression::Large,
            Some(bits) if bits >= SMALL_WINDOW_BITS => Compression::Small,
            Some(_) => return None,
        };
        Some(Agreement {
            compression,
            names_window: self.server_max_window_bits.is_some(),
        })
    }
}

/// The value of a parameter, after the `=`: a token, or one in quotes, in which any byte may have a backslash before
/// it.
#[derive(Clone, Copy, Debug)]
struct Value<'a>(&'a [u8]);

impl Value<'_> {
    fn parse(text: &[u8]) -> Result<Value<'_>, Malformed> {
        let Some(quoted) = text.strip_prefix(b"\"") else {
            return token(text).map(Value);
        };
        let inner = quoted.strip_suffix(b"\"").ok_or(Malformed)?;
        let mut is_escaped = false;
        for &byte in inner {
            if byte == b'\\' && !is_escaped {
                is_escaped = true;
            } else if is_token_byte(byte) {
                is_escaped = false;
            } else {
                return Err(Malformed);
            }
        }
        let is_whole = !inner.is_empty() && !is_escaped;
        is_whole.then_some(Value(inner)).ok_or(Malformed)
    }

    /// The bytes of the value without backslashes. A backslash is always an escape, because it cannot be part of a
    /// token.
    fn bytes(&self) -> impl Iterator<Item = u8> {
        self.0.iter().copied().filter(|&byte| byte != b'\\')
    }

    /// The value as a number from 8 to 15, without leading zeros.
    fn window_bits(&self) -> Option<u8> {
        let mut digits = self.bytes();
        let bits = match (digits.next()?, digits.next()) {
            (digit @ b'8'..=b'9', None) => digit - b'0',
            (b'1', Some(digit @ b'0'..=b'5')) => 10 + digit - b'0',
            _ => return None,
        };
        digits.next().is_none().then_some(bits)
    }
}

fn parameter(part: &[u8]) -> Result<(&[u8], Option<Value<'_>>), Malformed> {
    let mut sides = part.splitn(2, |&byte| byte == b'=');
    let name = token(sides.next().unwrap_or_default())?;
    let value = sides.next().map(|value| Value::parse(value.trim_ascii()));
    Ok((name, value.transpose()?))
}

fn token(text: &[u8]) -> Result<&[u8], Malformed> {
    let text = text.trim_ascii();
    let is_token = !text.is_empty() && text.iter().copied().all(is_token_byte);
    is_token.then_some(text).ok_or(Malformed)
}

/// True for a byte that may be part of a token: RFC 9110 section 5.6.2.
pub(in super::super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "permessage-deflate";

    fn agreed(lines: &[&str]) -> Result<Option<Agreement>, Malformed> {
        agree(lines.iter().map(|line| line.as_bytes()))
    }

    /// The part of the answer after the parameters that every answer has; `None` if nothing was agreed on.
    fn answer(lines: &[&str]) -> Option<String> {
        let agreement = agreed(lines).expect("a list of extensions")?;
        let mut out = Vec::new();
        agreement.write(&mut out);
        let line = String::from_utf8(out).unwrap();
        let rest = line
            .strip_prefix(
                "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            )
            .unwrap();
        Some(rest.strip_suffix("\r\n").unwrap().to_owned())
    }

    #[test]
    fn offers_are_accepted_with_what_they_ask_for() {
        for (parameters, said) in [
            ("", ""),
            ("; client_max_window_bits", ""),
            (" ;client_max_window_bits = 15", ""),
            ("; client_max_window_bits=8", ""),
            ("; client_max_window_bits=\"10\"", ""),
            ("; server_no_context_takeover", ""),
            ("; client_no_context_takeover; server_no_context_takeover", ""),
            ("; server_max_window_bits=15", "; server_max_window_bits=15"),
            ("; server_max_window_bits=14", "; server_max_window_bits=9"),
            ("; server_max_window_bits=10", "; server_max_window_bits=9"),
            ("; server_max_window_bits=9", "; server_max_window_bits=9"),
            ("; server_max_window_bits=\"1\\2\"", "; server_max_window_bits=9"),
            (
                ";\tserver_max_window_bits=\"15\" ; client_max_window_bits",
                "; server_max_window_bits=15",
            ),
        ] {
            assert_eq!(
                answer(&[&format!("{NAME}{parameters}")]).as_deref(),
                Some(said),
                "{parameters}"
            );
        }
    }

    #[test]
    fn offers_that_cannot_be_had_are_declined_and_the_next_is_looked_at() {
        for parameters in [
            "server_max_window_bits=8",
            "server_max_window_bits",
            "server_max_window_bits=16",
            "server_max_window_bits=7",
            "server_max_window_bits=09",
            "server_max_window_bits=015",
            "server_max_window_bits=150",
            "server_max_window_bits=1",
            "server_max_window_bits=ten",
            "server_max_window_bits=+9",
            "client_max_window_bits=7",
            "client_max_window_bits=16",
            "client_max_window_bits=08",
            "client_no_context_takeover=1",
            "server_no_context_takeover=\"true\"",
            "client_no_context_takeover; client_no_context_takeover",
            "server_no_context_takeover; server_no_context_takeover",
            "server_max_window_bits=10; server_max_window_bits=10",
            "client_max_window_bits; client_max_window_bits=9",
            "mux",
            "Client_max_window_bits",
        ] {
            let declined = format!("{NAME}; {parameters}");
            assert_eq!(answer(&[&declined]), None, "{parameters}");
            for next in [
                format!("{declined}, {NAME}; server_max_window_bits=10"),
                format!("{NAME}; server_max_window_bits=10, {declined}"),
            ] {
                assert_eq!(
                    answer(&[&next]).as_deref(),
                    Some("; server_max_window_bits=9"),
                    "{next}"
                );
            }
        }
    }

    #[test]
    fn the_first_that_can_be_had_wins_over_all_lines_and_other_extensions() {
        let small = "permessage-deflate; server_max_window_bits=9";
        for lines in [
            &[small, NAME][..],
            &["x-webkit-deflate-frame", "", small, NAME],
            &["foo; bar=\"baz\"; permessage-deflate", small],
            &[" , permessage-deflate; unknown , permessage-deflate; server_max_window_bits=9,"],
        ] {
            assert_eq!(
                answer(lines).as_deref(),
                Some("; server_max_window_bits=9"),
                "{lines:?}"
            );
        }
        for lines in [
            &[][..],
            &[""],
            &["permessage-deflate2"],
            &["Permessage-Deflate"],
            &["x"],
        ] {
            assert_eq!(answer(lines), None, "{lines:?}");
        }
    }

    #[test]
    fn a_header_that_is_no_list_of_extensions_is_malformed_wherever_the_fault_is() {
        for line in [
            ";",
            "; client_max_window_bits",
            "permessage deflate",
            "permessage-deflate;",
            "permessage-deflate; ;",
            "permessage-deflate; =1",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=\"",
            "permessage-deflate; server_max_window_bits=\"\"",
            "permessage-deflate; server_max_window_bits=\"10",
            "permessage-deflate; server_max_window_bits=\"1 0\"",
            "permessage-deflate; server_max_window_bits=\"10\\\"",
            "permessage-deflate; server_max_window_bits=\"1\\\\0\"",
            "permessage-deflate; server_max_window_bits=\"10\" 1",
            "permessage-deflate; server_max_window_bits=1 0",
            "permessage-deflate; a=b=c",
            "permessage-deflate, f(o",
            "permessage-deflate, \u{e9}",
        ] {
            assert_eq!(agreed(&[line]), Err(Malformed), "{line}");
            assert_eq!(agreed(&[NAME, line]), Err(Malformed), "{line}");
        }
    }
}
