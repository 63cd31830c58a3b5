//! The head of one HTTP request.
//!
//! In: the bytes that a connection has received so far. Out: a [`Request`] that borrows them, or the [`Refusal`] to
//! answer with. Nothing is allocated.
//!
//! Invariants
//! 1. A `Request` exists only for a head that httparse and the checks of [`parse`] have accepted, so that its header
//!    block is lines of `name:value`, each ended by CR LF; [`Headers`] walks it without a second check.
//! 2. What is refused here is what the HTTP parser of Node.js refuses: it is the one in front of the reference server.
//!
//! Not here: bodies. A plain request is answered at once and its connection closed; only a login has a body that is
//! read (`account`).
//!
//! Limits: the head's bytes (`head_bytes_max`) and `HEADERS_MAX`, both answered with 431. RFC 9112.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use httparse::{Error, Header, ParserConfig, Status};

use super::response::Refusal;

/// Most header lines of one request; they are parsed on the stack.
const HEADERS_MAX: usize = 2000;

/// The methods that Node's parser knows; another one is a malformed request.
const METHODS: [&str; 35] = [
    "GET",
    "POST",
    "HEAD",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "CONNECT",
    "TRACE",
    "ACL",
    "BIND",
    "CHECKOUT",
    "COPY",
    "LINK",
    "LOCK",
    "M-SEARCH",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "NOTIFY",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    method: &'a str,
    target: &'a str,
    minor_version: u8,
    headers: &'a [u8],
}

impl<'a> Request<'a> {
    /// The method, in the letters of the request line.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The request target as it stands in the request line; printable ASCII.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// The target before the first `?`. No escape is decoded: paths are compared as they are written.
    pub fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// The target after the first `?`.
    pub fn query(&self) -> Option<&'a str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// All header lines, in order.
    pub fn headers(&self) -> Headers<'a> {
        Headers {
            lines: Lines { rest: self.headers },
        }
    }

    /// The values of all lines of one header, in order; `name` in any case.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers().lines.filter_map(move |line| {
            // A name holds no colon: where the wanted one would end, that of another line is longer or has ended.
            let (key, rest) = line.split_at_checked(name.len())?;
            let value = rest.strip_prefix(b":")?;
            key.eq_ignore_ascii_case(name.as_bytes())
                .then(|| value.trim_ascii())
        })
    }

    /// The value of a header that stands on exactly one line. Several lines are one value joined by commas (RFC 9110
    /// section 5.3), which is never right for a header that holds one item.
    pub fn single_header(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.header_values(name);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    /// The value of a header as the reference's application sees it: several lines joined by `, `, each byte one
    /// character (ISO 8859-1).
    pub fn joined_header(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut values = self.header_values(name);
        let mut joined = latin1(values.next()?);
        for value in values {
            let text = joined.to_mut();
            text.push_str(", ");
            text.push_str(&latin1(value));
        }
        Some(joined)
    }

    /// Whether this asks for another protocol, by the rule of Node's parser: there is an `Upgrade` header that is not
    /// empty, and `upgrade` is one of the words that commas separate in a `Connection` header.
    pub fn is_upgrade(&self) -> bool {
        self.header_values("upgrade").any(|value| !value.is_empty())
            && self
                .header_values("connection")
                .flat_map(|value| value.split(|&byte| byte == b','))
                .any(|word| word.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    }

    /// The bytes of the body, if they are announced; as many as can be counted, if they are more.
    pub(super) fn content_length(&self) -> Option<u64> {
        let digits = self.single_header("content-length")?;
        // Checked to be digits when the head was parsed.
        let digits = std::str::from_utf8(digits).ok()?;
        Some(digits.parse().unwrap_or(u64::MAX))
    }

    /// Whether the client waits to be told that it may send the body (RFC 9110 section 10.1.1).
    pub(super) fn expects_continue(&self) -> bool {
        self.minor_version == 1
            && self
                .single_header("expect")
                .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
    }

    /// Whether nobody could disagree about where the body ends: one legal `Content-Length` at most, and none beside a
    /// `Transfer-Encoding` (RFC 9112 section 6.3, as strict as Node).
    fn body_length_is_clear(&self) -> bool {
        let mut lengths = self.header_values("content-length");
        let Some(length) = lengths.next() else {
            return true;
        };
        let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
        digits && lengths.next().is_none() && self.header_values("transfer-encoding").next().is_none()
    }

    /// Refuses a request without the `Host` header that HTTP/1.1 demands.
    ///
    /// # Errors
    /// It lacks it.
    pub fn require_host(&self) -> Result<(), Refusal> {
        if self.lacks_host() {
            Err(Refusal::Malformed)
        } else {
            Ok(())
        }
    }

    /// Whether the request lacks the `Host` header that HTTP/1.1 demands (RFC 9112 section 3.2).
    pub(super) fn lacks_host(&self) -> bool {
        self.minor_version == 1 && self.header_values("host").next().is_none()
    }
}

/// The header lines of a request: name as written, value without the white space around it.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    lines: Lines<'a>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.lines.next()?;
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name = std::str::from_utf8(&line[..colon]).ok()?;
        Some((name, line[colon + 1..].trim_ascii()))
    }
}

/// The header lines as they are. A request is asked for a dozen headers, so this is what walks.
#[derive(Clone, Debug)]
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr::memchr(b'\n', self.rest)?;
        let (line, rest) = self.rest.split_at(end + 1);
        self.rest = rest;
        Some(line)
    }
}

/// Reads a request head. `None` while it is not complete; otherwise the request and the bytes its head takes. What
/// follows them may already be WebSocket frames.
///
/// # Errors
/// The answer to send before the connection is closed.
pub fn parse(input: &[u8], head_bytes_max: usize) -> Result<Option<(Request<'_>, usize)>, Refusal> {
    let mut uninit = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
    // Only to be replaced by the uninitialised array; httparse wants an initialised one first.
    let mut request = httparse::Request::new(&mut []);
    let mut config = ParserConfig::default();
    config.allow_multiple_spaces_in_request_line_delimiters(true);
    let head_bytes = match config.parse_request_with_uninit_headers(&mut request, input, &mut uninit) {
        Ok(Status::Complete(head_bytes)) => head_bytes,
        Ok(Status::Partial) if input.len() >= head_bytes_max => return Err(Refusal::HeadTooLarge),
        Ok(Status::Partial) => return Ok(None),
        Err(Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        Err(_) => return Err(Refusal::Malformed),
    };
    if head_bytes > head_bytes_max {
        return Err(Refusal::HeadTooLarge);
    }
    let (Some(method), Some(target), Some(minor_version)) = (request.method, request.path, request.version)
    else {
        return Err(Refusal::Malformed);
    };
    // httparse is more lenient than Node: any method, any target, lines ended by LF alone.
    let head = skip_line_ends(&input[..head_bytes]);
    if !METHODS.contains(&method) || !target_is_legal(method, target) || has_bare_line_feed(head) {
        return Err(Refusal::Malformed);
    }
    let line_end = memchr::memchr(b'\n', head).ok_or(Refusal::Malformed)?;
    let headers = head[line_end + 1..]
        .strip_suffix(b"\r\n")
        .ok_or(Refusal::Malformed)?;
    let request = Request {
        method,
        target,
        minor_version,
        headers,
    };
    if !request.body_length_is_clear() {
        return Err(Refusal::Malformed);
    }
    Ok(Some((request, head_bytes)))
}

/// Empty lines before the request line are allowed (RFC 9112 section 2.2).
fn skip_line_ends(head: &[u8]) -> &[u8] {
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    &head[start.unwrap_or(head.len())..]
}

/// The four forms of RFC 9112 section 3.2, as far as Node looks: a path, `*`, a URL, and for CONNECT whatever it is.
fn target_is_legal(method: &str, target: &str) -> bool {
    target.is_ascii()
        && (target.starts_with(['/', '*'])
            || method == "CONNECT"
            || target.split_once("://").is_some_and(|(scheme, _)| {
                !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphabetic())
            }))
}

fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| at > 0 && head[at - 1] != b'\r')
}

fn latin1(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => Cow::Borrowed(text),
        _ => Cow::Owned(bytes.iter().map(|&byte| char::from(byte)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 16 * 1024;

    fn request(head: &str) -> Request<'_> {
        parse(head.as_bytes(), LIMIT).unwrap().unwrap().0
    }

    fn upgrades(headers: &str) -> bool {
        request(&format!("GET / HTTP/1.1\r\n{headers}\r\n")).is_upgrade()
    }

    #[test]
    fn a_request_whose_body_could_end_in_two_places_is_malformed() {
        let verdict = |headers: &str| {
            let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
            parse(head.as_bytes(), LIMIT).map(|found| found.is_some())
        };
        for clear in [
            "",
            "Content-Length: 0\r\n",
            "Content-Length: 12\r\n",
            "Transfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(verdict(clear), Ok(true), "{clear}");
        }
        for unclear in [
            "Content-Length: \r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: 1\r\ncontent-length: 1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(verdict(unclear), Err(Refusal::Malformed), "{unclear}");
        }
    }

    #[test]
    fn a_head_is_read_whole_and_what_follows_is_left() {
        let input =
            b"GET /socketcluster/?a=1?b HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a:\t 2 \r\n\r\n\x81\x80abcd";
        let (request, head_bytes) = parse(input, LIMIT).unwrap().unwrap();
        assert_eq!(&input[head_bytes..], b"\x81\x80abcd");
        assert_eq!(request.method(), "GET");
        assert_eq!(request.target(), "/socketcluster/?a=1?b");
        assert_eq!(request.path(), "/socketcluster/");
        assert_eq!(request.query(), Some("a=1?b"));
        assert_eq!(request.header_values("X-a").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(request.single_header("HOST"), Some(&b"h"[..]));
        assert_eq!(request.single_header("x-a"), None);
        // Neither the beginning of a name nor one that goes on is the name.
        for name in ["x-", "x-a:", "x-a: 1", "hos", ""] {
            assert_eq!(request.header_values(name).count(), 0, "{name:?}");
        }
        assert_eq!(request.joined_header("x-a").as_deref(), Some("1, 2"));
        assert_eq!(request.headers().count(), 3);
    }

    #[test]
    fn every_shorter_prefix_is_incomplete() {
        let head = b"\r\nGET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        for cut in 0..head.len() {
            assert!(matches!(parse(&head[..cut], LIMIT), Ok(None)), "cut at {cut}");
        }
        assert_eq!(parse(head, LIMIT).unwrap().unwrap().1, head.len());
    }

    #[test]
    fn the_limit_of_the_head_is_exact() {
        let head = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        assert!(parse(head, head.len()).unwrap().is_some());
        assert_eq!(parse(head, head.len() - 1).unwrap_err(), Refusal::HeadTooLarge);
        assert!(parse(&head[..10], 11).unwrap().is_none());
        assert_eq!(parse(&head[..10], 10).unwrap_err(), Refusal::HeadTooLarge);
    }

    #[test]
    fn the_limit_of_header_lines_is_exact() {
        let head = |lines: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(lines));
        assert_eq!(request(&head(HEADERS_MAX)).headers().count(), HEADERS_MAX);
        let refusal = parse(head(HEADERS_MAX + 1).as_bytes(), LIMIT).unwrap_err();
        assert_eq!(refusal, Refusal::HeadTooLarge);
    }

    /// Each was sent to an HTTP server of Node 20, which answered 400.
    #[test]
    fn what_node_calls_malformed_is_malformed() {
        for head in [
            "FOO / HTTP/1.1\r\n\r\n",
            "get / HTTP/1.1\r\n\r\n",
            "GET foo HTTP/1.1\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET /é HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\n\n",
            "GET / HTTP/1.1\r\nX : a\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\x01b\r\n\r\n",
            "GET / HTTP/1.1\r\nX@: a\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nnovalue\r\n\r\n",
            "GARBAGE\r\n\r\n",
            "\x16\x03\x01\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            assert_eq!(
                parse(head.as_bytes(), LIMIT).unwrap_err(),
                Refusal::Malformed,
                "{head:?}"
            );
        }
    }

    /// Each was sent to an HTTP server of Node 20, which took it.
    #[test]
    fn what_node_takes_is_taken() {
        for line in [
            "GET  / HTTP/1.1",
            "GET * HTTP/1.1",
            "GET /#f HTTP/1.1",
            "GET http://x/y?z HTTP/1.1",
            "QUERY / HTTP/1.1",
            "M-SEARCH / HTTP/1.1",
            "GET / HTTP/1.0",
            "\r\n\nGET / HTTP/1.1",
        ] {
            request(&format!("{line}\r\nHost: h\r\n\r\n"));
        }
    }

    #[test]
    fn an_upgrade_needs_both_headers_and_the_whole_word() {
        for (headers, expected) in [
            ("Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
            ("Connection: keep-alive,  UPGRADE\r\nUpgrade: x\r\n", true),
            (
                "Connection: keep-alive\r\nconnection: upgrade\r\nUpgrade: x\r\n",
                true,
            ),
            ("Connection: close, upgrade\r\nUpgrade: x\r\n", true),
            ("Connection: upgrade\r\n", false),
            ("Upgrade: websocket\r\n", false),
            ("Connection: upgrade\r\nUpgrade:\r\n", false),
            ("Connection: upgradefoo\r\nUpgrade: x\r\n", false),
            ("Connection: foo upgrade\r\nUpgrade: x\r\n", false),
            ("Connection: upgrade;q=1\r\nUpgrade: x\r\n", false),
        ] {
            assert_eq!(upgrades(headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn bytes_beyond_ascii_are_characters_of_iso_8859_1() {
        let input = b"GET / HTTP/1.1\r\nX: \xe9\r\n\r\n";
        let (request, _) = parse(input, LIMIT).unwrap().unwrap();
        assert_eq!(request.joined_header("x").as_deref(), Some("é"));
    }
}
