//! The body of a request: a number of bytes, or chunks (RFC 9112 section 7.1), as far as it has come.
//!
//! The caller calls again with the whole input whenever more of it has come. Chunks are read strictly:
//! hexadecimal digits, extensions and trailers of printable characters, each line ended by CR LF. If this
//! reader were more lenient than a proxy in front, requests could be smuggled in bodies.
//!
//! Limits: the caller's for the bytes of the body, [`CHUNK_FRAMING_BYTES_MAX`] for everything around them.

use std::ops::Deref;

use zeroize::Zeroizing;

use super::request::{Framing, Request};

/// A complete body. It may contain a password, so chunks are joined in memory that is wiped afterwards.
#[derive(Debug)]
pub(super) enum Body<'a> {
    Whole(&'a [u8]),
    Joined(Zeroizing<Vec<u8>>),
}

/// Why a body is not read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// The request announces no body.
    None,
    /// The body is or will be over a limit.
    TooLarge,
    /// Its chunks are malformed.
    Malformed,
}

impl Deref for Body<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Body::Whole(bytes) => bytes,
            Body::Joined(bytes) => bytes,
        }
    }
}

/// The body of a request, which begins at the start of `input`; `None` while it is not complete.
pub(super) fn read<'a>(
    request: &Request<'_>,
    input: &'a [u8],
    bytes_max: u64,
) -> Result<Option<Body<'a>>, BodyError> {
    match request.framing() {
        Framing::None => Err(BodyError::None),
        Framing::Length(length) if length > bytes_max => Err(BodyError::TooLarge),
        Framing::Length(length) => {
            let length = usize::try_from(length).map_err(|_| BodyError::TooLarge)?;
            Ok(input.get(..length).map(Body::Whole))
        }
        Framing::Chunked => {
            let bytes_max = usize::try_from(bytes_max).map_err(|_| BodyError::TooLarge)?;
            Ok(join(input, bytes_max)?.map(Body::Joined))
        }
    }
}

/// Joins chunks up to the end of the trailers after the last chunk.
fn join(input: &[u8], bytes_max: usize) -> Result<Option<Zeroizing<Vec<u8>>>, BodyError> {
    // Allocated at its largest possible size, since memory left behind by growth would not be wiped.
    let mut body = Zeroizing::new(Vec::with_capacity(bytes_max.min(input.len())));
    let mut rest = input;
    loop {
        let framing_bytes = input.len() - rest.len() - body.len();
        let Some((line, after)) = line(rest, framing_bytes)? else {
            return Ok(None);
        };
        let size = chunk_size(line)?;
        if size == 0 {
            rest = after;
            break;
        }
        if size > bytes_max - body.len() {
            return Err(BodyError::TooLarge);
        }
        let Some((data, after)) = after.split_at_checked(size) else {
            return Ok(None);
        };
        body.extend_from_slice(data);
        rest = match after {
            [b'\r', b'\n', rest @ ..] => rest,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(BodyError::Malformed),
        };
    }
    // Trailers have no meaning here: only their end is looked for.
    loop {
        let framing_bytes = input.len() - rest.len() - body.len();
        match line(rest, framing_bytes)? {
            None => return Ok(None),
            Some(([], _)) => return Ok(Some(body)),
            Some((trailer, after)) if is_trailer(trailer) => rest = after,
            Some(_) => return Err(BodyError::Malformed),
        }
    }
}

/// A line without its end, and the rest of the input. `None` while the line is not complete.
fn line(input: &[u8], framing_bytes: usize) -> Result<Option<Line<'_>>, BodyError> {
    let room = CHUNK_FRAMING_BYTES_MAX.saturating_sub(framing_bytes);
    match memchr::memchr2(b'\r', b'\n', input) {
        Some(end) if end >= room => Err(BodyError::TooLarge),
        None if input.len() >= room => Err(BodyError::TooLarge),
        None => Ok(None),
        Some(end) => match &input[end..] {
            [b'\r', b'\n', rest @ ..] => Ok(Some((&input[..end], rest))),
            [b'\r'] => Ok(None),
            _ => Err(BodyError::Malformed),
        },
    }
}

/// A line, and the rest of the input.
type Line<'a> = (&'a [u8], &'a [u8]);

/// The size in the line before a chunk. More digits than a size can have are refused, even if they are zeros.
fn chunk_size(line: &[u8]) -> Result<usize, BodyError> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extensions) = line.split_at(digits);
    let extensions_are_legal = extensions.is_empty()
        || (extensions.trim_ascii_start().starts_with(b";") && extensions.iter().all(|&byte| is_text(byte)));
    if !(1..=SIZE_DIGITS_MAX).contains(&digits) || !extensions_are_legal {
        return Err(BodyError::Malformed);
    }
    let size = std::str::from_utf8(size).map_err(|_| BodyError::Malformed)?;
    usize::from_str_radix(size, 16).map_err(|_| BodyError::TooLarge)
}

/// True for `name: value`, as in a head.
fn is_trailer(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return false;
    };
    let (name, value) = line.split_at(colon);
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(is_token) && value.iter().all(|&byte| is_text(byte))
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Most bytes of sizes, extensions, trailers and line ends in one body.
const CHUNK_FRAMING_BYTES_MAX: usize = 16 * 1024;
/// The hexadecimal digits of 64 bits.
const SIZE_DIGITS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(input: &str) -> Result<Option<String>, BodyError> {
        let body = join(input.as_bytes(), 20)?;
        Ok(body.map(|body| String::from_utf8(body.to_vec()).unwrap()))
    }

    #[test]
    fn chunks_are_joined_without_their_framing() {
        for input in [
            "5\r\nhello\r\n0\r\n\r\n",
            "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
            "0005\r\nhello\r\n000\r\n\r\n",
            "5;a\r\nhello\r\n0;b=c\r\n\r\n",
            "5 ; a = \"b;\\\"\" \r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
        ] {
            assert_eq!(joined(input), Ok(Some("hello".to_owned())), "{input:?}");
        }
        assert_eq!(joined("0\r\n\r\n"), Ok(Some(String::new())));
        assert_eq!(
            joined("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n").map(|body| body.map(|body| body.len())),
            Ok(Some(20))
        );
    }

    #[test]
    fn chunks_may_be_cut_anywhere() {
        let input = "3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n";
        for cut in 0..input.len() {
            assert_eq!(joined(&input[..cut]), Ok(None), "cut at {cut}");
        }
        assert_eq!(joined(input), Ok(Some("hello".to_owned())));
    }

    #[test]
    fn chunks_that_another_reader_could_end_elsewhere_are_malformed() {
        for input in [
            "\r\n",
            "x\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "-1\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5,\r\nhello\r\n0\r\n\r\n",
            "5\nhello\n0\n\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhelloo\r\n0\r\n\r\n",
            "5\rhello\r\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "5;a\0\r\nhello\r\n0\r\n\r\n",
            "5;\x7f\r\nhello\r\n0\r\n\r\n",
            "00000000000000005\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
            "5\r\nhello\r\n0\r\n: no name\r\n\r\n",
            "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
            "5\r\nhello\r\n0\r\nX: \x01\r\n\r\n",
            "5\r\nhello\r\n0\r\n\n",
        ] {
            assert_eq!(joined(input), Err(BodyError::Malformed), "{input:?}");
        }
    }

    #[test]
    fn the_limits_of_chunks_are_exact() {
        for too_large in [
            "15\r\n",
            "ffffffffffffffff\r\n",
            "14\r\n01234567890123456789\r\n1\r\n",
        ] {
            assert_eq!(joined(too_large), Err(BodyError::TooLarge), "{too_large:?}");
        }
        let with_extension = |bytes: usize| format!("0;{}\r\n\r\n", "x".repeat(bytes));
        let most = CHUNK_FRAMING_BYTES_MAX - "0;\r\n".len() - 1;
        assert_eq!(joined(&with_extension(most)), Ok(Some(String::new())));
        assert_eq!(joined(&with_extension(most + 1)), Err(BodyError::TooLarge));
        let endless = "x".repeat(CHUNK_FRAMING_BYTES_MAX);
        assert_eq!(joined(&format!("0;{endless}")), Err(BodyError::TooLarge));
        let trailers = "A: b\r\n".repeat(CHUNK_FRAMING_BYTES_MAX / 6 + 1);
        assert_eq!(joined(&format!("0\r\n{trailers}")), Err(BodyError::TooLarge));
    }
}
