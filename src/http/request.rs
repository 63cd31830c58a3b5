//! Parses the head of an HTTP request.
//!
//! In: the bytes that a connection has received so far. Out: a [`Request`] that borrows them, or the
//! [`Refusal`] to answer with. Nothing is allocated.
//!
//! Invariants
//! 1. A `Request` exists only for a head that httparse and the checks of [`parse`] have accepted. Its header
//!    block consists of lines of `name:value`, each ended by CR LF, so [`Headers`] needs no second check.
//! 2. Everything that the HTTP parser of Node.js refuses is refused here, since it is the parser of the
//!    reference server. In addition, a request must name exactly one legal host, and there must be only one
//!    way to find the end of its body (`Framing`): so no proxy in front can read it as a different request.
//!
//! Not here: bodies. A plain request is answered at once and its connection closed; only a login has a body
//! that is read (`body`, `login_pages`).
//!
//! Limits: the head's bytes (`head_bytes_max`) and `HEADERS_MAX`, both answered with 431. RFC 9112.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use httparse::{Error, Header, ParserConfig, Status};

use super::authority;
use super::response::Refusal;

/// Most header lines of one request; they are parsed on the stack.
const HEADERS_MAX: usize = 2000;

/// The methods that Node's parser knows. Any other method makes a request malformed.
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
    /// The target before its first `?`, without a host.
    path: &'a str,
    /// The target after its first `?`.
    query: Option<&'a str>,
    minor_version: u8,
    /// The value of the only `Host` line, or the host of an absolute target.
    host: Option<&'a [u8]>,
    framing: Framing,
    is_upgrade: bool,
    headers: &'a [u8],
    /// The number of lines in `headers`.
    header_count: usize,
    indexed: Indexed<'a>,
}

/// The values of the headers that an upgrade looks up. [`DecisiveHeaders::collect`] finds all of them in one walk.
#[derive(Clone, Copy, Debug, Default)]
struct Indexed<'a> {
    /// For each name in [`INDEXED`] the value of its first line.
    first: [Option<&'a [u8]>; INDEXED.len()],
    /// One bit for each name: whether it has more than one line.
    repeated: u8,
}

const INDEXED: [&str; 7] = [
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "origin",
    "sec-websocket-origin",
];

/// How the end of a request's body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// The request announces no body.
    None,
    /// After this many bytes; a larger announcement counts as the largest number.
    Length(u64),
    /// After the last of its chunks.
    Chunked,
}

/// What a client expects before it sends a body (RFC 9110 section 10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Nothing.
    None,
    /// It waits for permission to send the body.
    Continue,
    /// Something that this server does not support.
    Unknown,
}

impl<'a> Request<'a> {
    /// The method as it is written in the request line.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The request target as it is written in the request line; printable ASCII.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// The target before the first `?`, without the host of an absolute target. Escapes are not decoded:
    /// paths are compared as they are written.
    pub fn path(&self) -> &'a str {
        // `http://example.com` and `http://example.com?query` request the root.
        if self.path.is_empty() { "/" } else { self.path }
    }

    /// The target after the first `?`.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The requested host, with its port if there is one: from an absolute target, otherwise from the `Host`
    /// header (RFC 9112 section 3.2.2). Only a request of HTTP/1.0 may have none.
    pub fn host(&self) -> Option<&'a [u8]> {
        self.host
    }

    /// All header lines, in order.
    pub fn headers(&self) -> Headers<'a> {
        Headers {
            lines: Lines { rest: self.headers },
        }
    }

    /// The values of all lines with this header name, in order. The case of `name` does not matter.
    #[inline(always)]
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        // Callers pass literals, so the compiler finds the index.
        let index = INDEXED.iter().position(|indexed| *indexed == name);
        let (only, rest) = match index {
            Some(index) if self.indexed.repeated & (1 << index) == 0 => (self.indexed.first[index], &[][..]),
            Some(_) | None => (None, self.headers),
        };
        only.into_iter()
            .chain((Lines { rest }).filter_map(move |line| value_of(line, name)))
    }

    /// The number of header lines.
    pub fn header_count(&self) -> usize {
        self.header_count
    }

    /// The value of a header that occurs on exactly one line. Several lines mean one value joined by commas
    /// (RFC 9110 section 5.3), which is never valid for a header with a single item.
    #[inline]
    pub fn single_header(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.header_values(name);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    /// The value of a header as an application on the reference server sees it: several lines are joined by
    /// `, `, and each byte is one character (ISO 8859-1).
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

    /// True if the request asks for another protocol, by the rule of Node's parser: it has a non-empty
    /// `Upgrade` header, and `upgrade` is one of the words between the commas of a `Connection` header.
    pub fn is_upgrade(&self) -> bool {
        self.is_upgrade
    }

    /// True if one of the offered protocols is WebSocket.
    pub fn offers_websocket(&self) -> bool {
        let is_websocket = |offer: &[u8]| {
            let name = offer.split(|&byte| byte == b'/').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(b"websocket")
        };
        self.is_upgrade()
            && self
                .header_values("upgrade")
                .flat_map(|value| value.split(|&byte| byte == b','))
                .any(is_websocket)
    }

    /// True if the request announces a body that is not empty.
    pub fn has_body(&self) -> bool {
        match self.framing {
            Framing::None | Framing::Length(0) => false,
            Framing::Length(_) | Framing::Chunked => true,
        }
    }

    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    /// What the client expects before it sends the body. HTTP/1.0 has no expectations.
    pub fn expectation(&self) -> Expectation {
        if self.minor_version == 0 {
            return Expectation::None;
        }
        let members = self
            .header_values("expect")
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty());
        let mut found = Expectation::None;
        for member in members {
            if !member.eq_ignore_ascii_case(b"100-continue") {
                return Expectation::Unknown;
            }
            found = Expectation::Continue;
        }
        found
    }
}

/// The header lines of a request: the names as written, the values without surrounding white space.
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

/// The header lines as they are. A request is searched for a dozen headers, and this iterator does that.
#[derive(Clone, Debug)]
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.rest)?;
        let (line, rest) = self.rest.split_at(end + 1);
        self.rest = rest;
        Some(line)
    }
}

/// Parses a request head. `None` while it is not complete; otherwise the request, and the length of its head
/// in bytes. The bytes after it may already be WebSocket frames.
///
/// # Errors
/// The answer to send before the connection is closed.
pub fn parse(input: &[u8], head_bytes_max: usize) -> Result<Option<(Request<'_>, usize)>, Refusal> {
    let mut uninit = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
    // httparse wants an initialised array first; it is replaced by the uninitialised one.
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
    // httparse is more lenient than Node: it accepts any method, any target, and lines ended by LF alone.
    let head = skip_line_ends(&input[..head_bytes]);
    if !METHODS.contains(&method) || !target_is_legal(method, target) || has_bare_line_feed(head) {
        return Err(Refusal::Malformed);
    }
    let line_end = memchr::memchr(b'\n', head).ok_or(Refusal::Malformed)?;
    let headers = head[line_end + 1..]
        .strip_suffix(b"\r\n")
        .ok_or(Refusal::Malformed)?;
    let header_count = request.headers.len();
    let decisive = DecisiveHeaders::collect(request.headers)?;
    if minor_version == 1 && decisive.host.is_none() {
        return Err(Refusal::Malformed);
    }
    let (authority, resource) = match absolute_form(method, target) {
        None => (None, target),
        Some((authority, _)) if !authority::is_legal(authority.as_bytes()) => return Err(Refusal::Malformed),
        Some((authority, resource)) => (Some(authority.as_bytes()), resource),
    };
    let (path, query) = match memchr::memchr(b'?', resource.as_bytes()) {
        None => (resource, None),
        Some(at) => (&resource[..at], Some(&resource[at + 1..])),
    };
    let request = Request {
        method,
        target,
        path,
        query,
        minor_version,
        host: authority.or(decisive.host),
        framing: decisive.framing(minor_version)?,
        is_upgrade: decisive.offers_protocol && decisive.wants_upgrade,
        headers,
        header_count,
        indexed: decisive.indexed,
    };
    Ok(Some((request, head_bytes)))
}

/// The header lines that decide about the whole request, collected in one pass.
#[derive(Default)]
struct DecisiveHeaders<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    codings: Codings,
    /// There is a non-empty `Upgrade`.
    offers_protocol: bool,
    /// `upgrade` is one of the words of `Connection`.
    wants_upgrade: bool,
    indexed: Indexed<'a>,
}

/// The contents of the `Transfer-Encoding` lines.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Codings {
    /// There is no such line.
    #[default]
    Absent,
    /// `chunked`, once.
    Chunked,
    /// A coding that this server does not support.
    Unknown,
    /// Empty, or `chunked` twice.
    Invalid,
}

impl<'a> DecisiveHeaders<'a> {
    /// Collects them. There may be at most one `Host`, which must be a legal host, and at most one
    /// `Content-Length`, which must be a number.
    fn collect(headers: &[Header<'a>]) -> Result<DecisiveHeaders<'a>, Refusal> {
        let mut decisive = DecisiveHeaders::default();
        for header in headers {
            let value = header.value.trim_ascii();
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("host") {
                if !authority::is_legal(value) || decisive.host.replace(value).is_some() {
                    return Err(Refusal::Malformed);
                }
            } else if is("content-length") {
                let length = content_length(value).ok_or(Refusal::Malformed)?;
                if decisive.length.replace(length).is_some() {
                    return Err(Refusal::Malformed);
                }
            } else if is("transfer-encoding") {
                decisive.codings = decisive.codings.with(value);
            } else if is("connection") {
                decisive.wants_upgrade |= value
                    .split(|&byte| byte == b',')
                    .any(|word| word.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
            } else if let Some(index) = INDEXED.iter().position(|name| is(name)) {
                decisive.indexed.add(index, value);
                decisive.offers_protocol |= INDEXED[index] == "upgrade" && !value.is_empty();
            }
        }
        Ok(decisive)
    }

    /// The framing on which all readers agree (RFC 9112 section 6.3, as strict as Node).
    fn framing(&self, minor_version: u8) -> Result<Framing, Refusal> {
        match (self.codings, self.length) {
            (Codings::Absent, None) => Ok(Framing::None),
            (Codings::Absent, Some(length)) => Ok(Framing::Length(length)),
            (Codings::Chunked, None) if minor_version == 1 => Ok(Framing::Chunked),
            (Codings::Unknown, None) if minor_version == 1 => Err(Refusal::TransferCoding),
            (Codings::Chunked | Codings::Unknown | Codings::Invalid, _) => Err(Refusal::Malformed),
        }
    }
}

impl<'a> Indexed<'a> {
    fn add(&mut self, index: usize, value: &'a [u8]) {
        match &mut self.first[index] {
            first @ None => *first = Some(value),
            Some(_) => self.repeated |= 1 << index,
        }
    }
}

impl Codings {
    /// These codings and those of one more line. Empty items of the list are ignored.
    fn with(self, line: &[u8]) -> Codings {
        let items = line
            .split(|&byte| byte == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|item| !item.is_empty());
        let codings = items.fold(self, |codings, item| {
            match (codings, item.eq_ignore_ascii_case(b"chunked")) {
                (Codings::Unknown, _) | (_, false) => Codings::Unknown,
                (Codings::Absent, true) => Codings::Chunked,
                (Codings::Chunked | Codings::Invalid, true) => Codings::Invalid,
            }
        });
        match codings {
            Codings::Absent => Codings::Invalid,
            Codings::Chunked | Codings::Unknown | Codings::Invalid => codings,
        }
    }
}

/// Only digits; `None` for anything else.
fn content_length(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    let legal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    legal.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// The value of a header line if it has this name, compared without case.
fn value_of<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    // A name contains no colon: at the position after the wanted name, a longer name of another line goes on,
    // and a shorter one has already ended.
    let (key, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    key.eq_ignore_ascii_case(name.as_bytes())
        .then(|| value.trim_ascii())
}

/// The authority and the rest of an absolute target whose scheme can be served here. A URL with another
/// scheme names nothing on this server and is left whole.
fn absolute_form<'a>(method: &str, target: &'a str) -> Option<(&'a str, &'a str)> {
    if target.starts_with(['/', '*']) || method == "CONNECT" {
        return None;
    }
    let (scheme, rest) = target.split_once("://")?;
    let is_ours = ["http", "https", "ws", "wss"]
        .iter()
        .any(|ours| scheme.eq_ignore_ascii_case(ours));
    is_ours.then(|| rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())))
}

/// Empty lines before the request line are allowed (RFC 9112 section 2.2).
fn skip_line_ends(head: &[u8]) -> &[u8] {
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    &head[start.unwrap_or(head.len())..]
}

/// Checks the four forms of RFC 9112 section 3.2 as far as Node does: a path, `*`, a URL, and for CONNECT any
/// text.
fn target_is_legal(method: &str, target: &str) -> bool {
    target.is_ascii()
        && (target.starts_with(['/', '*'])
            || method == "CONNECT"
            || target.split_once("://").is_some_and(|(scheme, _)| {
                !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphabetic())
            }))
}

fn has_bare_line_feed(head: &[u8]) -> bool {
    // Without a branch, so that the compiler compares sixteen bytes at a time.
    let pairs = head.iter().zip(head.iter().skip(1));
    pairs.fold(false, |found, (&before, &byte)| {
        found | ((byte == b'\n') & (before != b'\r'))
    })
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
        request(&format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n")).is_upgrade()
    }

    #[test]
    fn a_request_is_refused_if_readers_could_disagree_about_the_end_of_its_body() {
        let framing = |version: &str, headers: &str| {
            let head = format!("POST / HTTP/{version}\r\nHost: h\r\n{headers}\r\n");
            parse(head.as_bytes(), LIMIT).map(|found| found.unwrap().0.framing())
        };
        for (headers, expected) in [
            ("", Framing::None),
            ("Content-Length: 0\r\n", Framing::Length(0)),
            ("Content-Length: 12\r\n", Framing::Length(12)),
            (
                "Content-Length: 99999999999999999999999999\r\n",
                Framing::Length(u64::MAX),
            ),
            ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
            ("transfer-encoding:\tChunked \r\n", Framing::Chunked),
            ("Transfer-Encoding: , chunked,\r\n", Framing::Chunked),
        ] {
            assert_eq!(framing("1.1", headers), Ok(expected), "{headers}");
        }
        for unclear in [
            "Content-Length: \r\n",
            "Content-Length: -1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: 1\r\ncontent-length: 1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: gzip\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
        ] {
            assert_eq!(framing("1.1", unclear), Err(Refusal::Malformed), "{unclear}");
        }
        for unknown in [
            "gzip",
            "identity",
            "gzip, chunked",
            "chunked, gzip",
            "chunked\r\nTransfer-Encoding: identity",
            "xchunked",
            "chunked;q=1",
            "\"chunked\"",
            "chunked\u{b}",
        ] {
            let headers = format!("Transfer-Encoding: {unknown}\r\n");
            let refused = framing("1.1", &headers).unwrap_err();
            let control = unknown.contains('\u{b}');
            let expected = if control {
                Refusal::Malformed
            } else {
                Refusal::TransferCoding
            };
            assert_eq!(refused, expected, "{unknown}");
        }
        // HTTP/1.0 has no transfer codings: a proxy in between may not have understood it.
        assert_eq!(
            framing("1.0", "Transfer-Encoding: chunked\r\n"),
            Err(Refusal::Malformed)
        );
    }

    #[test]
    fn a_request_names_one_host_and_an_absolute_target_replaces_it() {
        let host = |line: &str, headers: &str| {
            let head = format!("{line}\r\n{headers}\r\n");
            parse(head.as_bytes(), LIMIT).map(|found| {
                let request = found.unwrap().0;
                let host = request
                    .host()
                    .map(|host| String::from_utf8(host.to_vec()).unwrap());
                (
                    host,
                    request.path().to_owned(),
                    request.query().map(str::to_owned),
                )
            })
        };
        for (line, headers, expected) in [
            (
                "GET /a?b HTTP/1.1",
                "Host: h:1\r\n",
                (Some("h:1"), "/a", Some("b")),
            ),
            ("GET /a HTTP/1.0", "", (None, "/a", None)),
            ("GET /a HTTP/1.0", "host: h\r\n", (Some("h"), "/a", None)),
            (
                "GET http://x/a?b HTTP/1.1",
                "Host: h\r\n",
                (Some("x"), "/a", Some("b")),
            ),
            ("GET HTTP://x:1 HTTP/1.1", "Host: h\r\n", (Some("x:1"), "/", None)),
            (
                "GET https://x?b HTTP/1.1",
                "Host: h\r\n",
                (Some("x"), "/", Some("b")),
            ),
            ("GET ws://[::1]:8/ HTTP/1.0", "", (Some("[::1]:8"), "/", None)),
            // A scheme that this server does not serve.
            (
                "GET ftp://x/a HTTP/1.1",
                "Host: h\r\n",
                (Some("h"), "ftp://x/a", None),
            ),
            ("CONNECT x:1 HTTP/1.1", "Host: h\r\n", (Some("h"), "x:1", None)),
            ("OPTIONS * HTTP/1.1", "Host: h\r\n", (Some("h"), "*", None)),
        ] {
            let (name, path, query) = expected;
            let expected = (name.map(str::to_owned), path.to_owned(), query.map(str::to_owned));
            assert_eq!(host(line, headers), Ok(expected), "{line} {headers}");
        }
        for (line, headers) in [
            ("GET / HTTP/1.1", ""),
            ("GET http://x/ HTTP/1.1", ""),
            ("GET / HTTP/1.1", "Host: a\r\nHost: b\r\n"),
            ("GET / HTTP/1.1", "Host: a\r\nhost: a\r\n"),
            ("GET / HTTP/1.0", "Host: a\r\nHost: a\r\n"),
            ("GET / HTTP/1.1", "Host:\r\n"),
            ("GET / HTTP/1.1", "Host: a b\r\n"),
            ("GET / HTTP/1.1", "Host: a, b\r\n"),
            ("GET / HTTP/1.1", "Host: u@h\r\n"),
            ("GET / HTTP/1.0", "Host: h/\r\n"),
            ("GET http:///a HTTP/1.1", "Host: h\r\n"),
            ("GET http://u@x/a HTTP/1.1", "Host: h\r\n"),
            ("GET http://x:y/a HTTP/1.1", "Host: h\r\n"),
            ("GET http://x/a HTTP/1.1", "Host: h i\r\n"),
        ] {
            assert_eq!(host(line, headers), Err(Refusal::Malformed), "{line} {headers}");
        }
    }

    #[test]
    fn an_offer_of_websocket_is_distinguished_from_others() {
        for (headers, offered) in [
            ("Connection: Upgrade\r\nUpgrade: websocket\r\n", true),
            ("Connection: Upgrade\r\nUpgrade: h2c, WebSocket/13\r\n", true),
            (
                "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
                true,
            ),
            ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n", false),
            ("Connection: Upgrade\r\nUpgrade: TLS/1.0, HTTP/2.0\r\n", false),
            ("Connection: Upgrade\r\nUpgrade: websockets\r\n", false),
            ("Upgrade: websocket\r\n", false),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
            assert_eq!(request(&head).offers_websocket(), offered, "{headers}");
        }
    }

    #[test]
    fn only_the_expectation_100_continue_is_supported() {
        let expectation = |version: &str, headers: &str| {
            request(&format!("POST / HTTP/{version}\r\nHost: h\r\n{headers}\r\n")).expectation()
        };
        for (headers, expected) in [
            ("", Expectation::None),
            ("Expect:\r\n", Expectation::None),
            ("Expect: 100-continue\r\n", Expectation::Continue),
            ("expect: 100-Continue\r\n", Expectation::Continue),
            (
                "Expect: 100-continue, 100-continue\r\nExpect: 100-continue\r\n",
                Expectation::Continue,
            ),
            ("Expect: 200-ok\r\n", Expectation::Unknown),
            ("Expect: 100-continue, x\r\n", Expectation::Unknown),
            ("Expect: 100-continue\r\nExpect: x\r\n", Expectation::Unknown),
            ("Expect: 100-continue=1\r\n", Expectation::Unknown),
        ] {
            assert_eq!(expectation("1.1", headers), expected, "{headers}");
            assert_eq!(expectation("1.0", headers), Expectation::None, "{headers}");
        }
    }

    #[test]
    fn a_head_is_parsed_and_the_bytes_after_it_are_left() {
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
        // A prefix of a name does not match, and neither does a longer name.
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
        let head = |lines: usize| {
            format!(
                "GET / HTTP/1.1\r\nHost: h\r\n{}\r\n",
                "a: b\r\n".repeat(lines - 1)
            )
        };
        assert_eq!(request(&head(HEADERS_MAX)).headers().count(), HEADERS_MAX);
        let refusal = parse(head(HEADERS_MAX + 1).as_bytes(), LIMIT).unwrap_err();
        assert_eq!(refusal, Refusal::HeadTooLarge);
    }

    /// Each was sent to an HTTP server of Node 20, which answered 400.
    #[test]
    fn heads_that_node_refuses_are_refused() {
        for head in [
            "FOO / HTTP/1.1\r\nHost: h\r\n\r\n",
            "get / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET foo HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /é HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\n\n",
            "GET / HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nX: a\x01b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nX@: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nnovalue\r\n\r\n",
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

    /// Each was sent to an HTTP server of Node 20, which accepted it.
    #[test]
    fn heads_that_node_accepts_are_accepted() {
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
        let input = b"GET / HTTP/1.1\r\nHost: h\r\nX: \xe9\r\n\r\n";
        let (request, _) = parse(input, LIMIT).unwrap().unwrap();
        assert_eq!(request.joined_header("x").as_deref(), Some("é"));
    }

    #[test]
    fn an_indexed_header_has_the_values_that_a_walk_over_all_lines_finds() {
        let lines = [
            "",
            "Upgrade: websocket\r\n",
            "upgrade:h2c\r\nUPGRADE: websocket\r\n",
            "Sec-WebSocket-Key:  a b \t\r\nsec-websocket-version: 13\r\nSec-WebSocket-Protocol: a, b\r\n",
            "Origin: \r\nx-origin: o\r\nSec-WebSocket-Origin: p\r\nOrigin:q\r\nSec-WebSocket-Extensions: x\r\n",
        ];
        for (first, second) in lines
            .iter()
            .flat_map(|first| lines.iter().map(move |second| (first, second)))
        {
            let head = format!("GET /path?query HTTP/1.1\r\nHost: h\r\n{first}Accept: */*\r\n{second}\r\n");
            let request = request(&head);
            assert_eq!(request.header_count(), request.headers().count());
            for name in INDEXED.iter().chain(&["accept", "host", "cookie"]) {
                let walked = request
                    .headers()
                    .filter(|(key, _)| key.eq_ignore_ascii_case(name));
                let walked: Vec<&[u8]> = walked.map(|(_, value)| value).collect();
                assert_eq!(request.header_values(name).collect::<Vec<_>>(), walked, "{head}");
                let single = (walked.len() == 1).then(|| walked[0]);
                assert_eq!(request.single_header(name), single, "{head}");
            }
        }
    }
}
