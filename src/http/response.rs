//! The answers that refuse a request and end its connection.
//!
//! Callers choose a [`Refusal`], and only this file decides its bytes: status line and headers in the
//! reference's order (wire reference, section 2), without its `Date`, which no client needs.
//!
//! Invariants
//! 1. No text from a peer or from the application occurs before the blank line. Only bodies contain such
//!    text, and `Content-Length` counts their bytes: so an answer cannot be split.

use super::request::Request;

/// Why a request is not upgraded, with everything that the answer needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The head is not HTTP/1: 400 without a body, as Node's HTTP server answers.
    Malformed,
    /// A client speaks plain HTTP to a port that accepts only TLS: 400.
    NotTls,
    /// The head is over the limit in bytes or lines: 431 without a body.
    HeadTooLarge,
    /// A plain request for a path that does not exist here: 501.
    NotImplemented,
    /// A plain HEAD request: 501, the body announced but not sent.
    NotImplementedHead,
    /// The client expects something that this server does not support (RFC 9110 section 10.1.1): 417.
    Expectation,
    /// A body in a transfer coding that this server does not support (RFC 9112 section 6.1): 501.
    TransferCoding,
    /// An upgrade with another method than GET: 405.
    Method,
    /// An upgrade to another protocol: 400.
    UpgradeHeader,
    /// `Sec-WebSocket-Key` is missing or not 16 bytes in base64: 400.
    Key,
    /// `Sec-WebSocket-Version` is neither 13 nor 8: 400 with the supported versions.
    Version,
    /// The path is not that of the endpoint: 400.
    Path,
    /// `Sec-WebSocket-Protocol` is not a list of distinct tokens: 400.
    Subprotocol,
    /// `Sec-WebSocket-Extensions` is not a list of extensions, while extensions are enabled: 400.
    Extensions,
    /// The origin is not allowed: 403. Contains the origin as it was received, or `*` if there was none.
    Origin(String),
    /// There is no room for another connection at present: 503 with `Retry-After`.
    Busy,
    /// The client's address has as many connections as allowed: 429 with `Retry-After`.
    TooManyConnections,
    /// The application refused the handshake.
    Application {
        /// 401 in the reference.
        status: Status,
        /// The message; if it is empty, the name of the status is sent.
        body: String,
    },
}

impl Refusal {
    /// The refusal of a request that is not an upgrade.
    pub fn of_plain(request: &Request<'_>) -> Refusal {
        if request.method() == "HEAD" {
            Refusal::NotImplementedHead
        } else {
            Refusal::NotImplemented
        }
    }

    /// Appends the whole answer. The connection is closed once it has been sent.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Refusal::Malformed => write_bare(out, Status::BAD_REQUEST),
            Refusal::NotTls => {
                let body = "The plain HTTP request was sent to HTTPS port";
                write_html(out, Status::BAD_REQUEST, "", body);
            }
            Refusal::HeadTooLarge => write_bare(out, Status::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Refusal::Expectation => write_bare(out, Status::EXPECTATION_FAILED),
            Refusal::TransferCoding => write_bare(out, Status::NOT_IMPLEMENTED),
            Refusal::NotImplemented => {
                write_plain_head(out);
                out.extend_from_slice(Status::NOT_IMPLEMENTED.name().as_bytes());
            }
            Refusal::NotImplementedHead => write_plain_head(out),
            Refusal::Method => write_html(out, Status::METHOD_NOT_ALLOWED, "", "Invalid HTTP method"),
            Refusal::UpgradeHeader => write_html(out, Status::BAD_REQUEST, "", "Invalid Upgrade header"),
            Refusal::Key => {
                let body = "Missing or invalid Sec-WebSocket-Key header";
                write_html(out, Status::BAD_REQUEST, "", body);
            }
            Refusal::Version => {
                let body = "Missing or invalid Sec-WebSocket-Version header";
                write_html(out, Status::BAD_REQUEST, "Sec-WebSocket-Version: 13, 8\r\n", body);
            }
            Refusal::Path => write_html(out, Status::BAD_REQUEST, "", Status::BAD_REQUEST.name()),
            Refusal::Subprotocol => {
                write_html(
                    out,
                    Status::BAD_REQUEST,
                    "",
                    "Invalid Sec-WebSocket-Protocol header",
                );
            }
            Refusal::Extensions => {
                let body = "Invalid or unacceptable Sec-WebSocket-Extensions header";
                write_html(out, Status::BAD_REQUEST, "", body);
            }
            Refusal::Origin(origin) => {
                let body = format!("Failed to authorize socket handshake - Invalid origin: {origin}");
                write_html(out, Status::FORBIDDEN, "", &body);
            }
            Refusal::Busy => {
                let status = Status::SERVICE_UNAVAILABLE;
                write_html(out, status, RETRY_AFTER, status.name());
            }
            Refusal::TooManyConnections => {
                let status = Status::TOO_MANY_REQUESTS;
                write_html(out, status, RETRY_AFTER, status.name());
            }
            Refusal::Application { status, body } => {
                write_html(
                    out,
                    *status,
                    "",
                    if body.is_empty() { status.name() } else { body },
                );
            }
        }
    }
}

/// A status code that can refuse a request: one with a name in Node's table, from 400 to 511.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u16);

impl Status {
    /// 401, the default status when the application refuses a handshake.
    pub const UNAUTHORIZED: Status = Status(401);

    pub(super) const BAD_REQUEST: Status = Status(400);
    pub(super) const FORBIDDEN: Status = Status(403);
    pub(super) const METHOD_NOT_ALLOWED: Status = Status(405);
    pub(super) const LENGTH_REQUIRED: Status = Status(411);
    pub(super) const PAYLOAD_TOO_LARGE: Status = Status(413);
    pub(super) const UNSUPPORTED_MEDIA_TYPE: Status = Status(415);
    pub(super) const TOO_MANY_REQUESTS: Status = Status(429);
    const EXPECTATION_FAILED: Status = Status(417);
    const REQUEST_HEADER_FIELDS_TOO_LARGE: Status = Status(431);
    pub(super) const INTERNAL_SERVER_ERROR: Status = Status(500);
    const NOT_IMPLEMENTED: Status = Status(501);
    pub(super) const SERVICE_UNAVAILABLE: Status = Status(503);

    /// The status, if the code has a name.
    pub const fn new(code: u16) -> Option<Status> {
        match name(code) {
            Some(_) => Some(Status(code)),
            None => None,
        }
    }

    /// The code.
    pub const fn code(self) -> u16 {
        self.0
    }

    /// The reason phrase, as Node writes it.
    pub const fn name(self) -> &'static str {
        match name(self.0) {
            Some(name) => name,
            None => "",
        }
    }
}

/// RFC 9110 section 10.2.3. Long enough to keep a crowd of clients from returning at once.
const RETRY_AFTER: &str = "Retry-After: 5\r\n";

const fn name(code: u16) -> Option<&'static str> {
    Some(match code {
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a Teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        509 => "Bandwidth Limit Exceeded",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => return None,
    })
}

/// The answer of Node's HTTP server to a head that its parser refuses.
fn write_bare(out: &mut Vec<u8>, status: Status) {
    write_start(out, status);
    out.extend_from_slice(b"\r\n");
}

/// With Content-Length, where the reference sends chunks: fewer bytes with the same meaning for every client.
fn write_plain_head(out: &mut Vec<u8>) {
    write_start(out, Status::NOT_IMPLEMENTED);
    // Without a type a browser would offer the answer as a download.
    out.extend_from_slice(b"Content-Type: text/plain\r\n");
    write_length(out, Status::NOT_IMPLEMENTED.name());
    out.extend_from_slice(b"\r\n");
}

fn write_html(out: &mut Vec<u8>, status: Status, header_lines: &'static str, body: &str) {
    write_start(out, status);
    out.extend_from_slice(b"Content-Type: text/html\r\n");
    write_length(out, body);
    out.extend_from_slice(header_lines.as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body.as_bytes());
}

fn write_start(out: &mut Vec<u8>, status: Status) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status.code()).as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.name().as_bytes());
    out.extend_from_slice(b"\r\nConnection: close\r\n");
}

fn write_length(out: &mut Vec<u8>, body: &str) {
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(refusal: &Refusal) -> String {
        let mut out = Vec::new();
        refusal.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn html(status: &str, header_lines: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n{header_lines}\r\n{body}"
        )
    }

    /// Answers from recorded traffic of the reference server, and from the source of its WebSocket engine.
    #[test]
    fn refusals_are_the_bytes_of_the_reference() {
        for (refusal, expected) in [
            (
                Refusal::Malformed,
                "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_owned(),
            ),
            (
                Refusal::HeadTooLarge,
                "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n".to_owned(),
            ),
            (
                Refusal::Method,
                html("405 Method Not Allowed", "", "Invalid HTTP method"),
            ),
            (
                Refusal::UpgradeHeader,
                html("400 Bad Request", "", "Invalid Upgrade header"),
            ),
            (
                Refusal::Key,
                html(
                    "400 Bad Request",
                    "",
                    "Missing or invalid Sec-WebSocket-Key header",
                ),
            ),
            (
                Refusal::Version,
                html(
                    "400 Bad Request",
                    "Sec-WebSocket-Version: 13, 8\r\n",
                    "Missing or invalid Sec-WebSocket-Version header",
                ),
            ),
            (Refusal::Path, html("400 Bad Request", "", "Bad Request")),
            (
                Refusal::Subprotocol,
                html("400 Bad Request", "", "Invalid Sec-WebSocket-Protocol header"),
            ),
            (
                Refusal::Origin("http://evil.example".to_owned()),
                html(
                    "403 Forbidden",
                    "",
                    "Failed to authorize socket handshake - Invalid origin: http://evil.example",
                ),
            ),
            (
                Refusal::Busy,
                html(
                    "503 Service Unavailable",
                    "Retry-After: 5\r\n",
                    "Service Unavailable",
                ),
            ),
            (
                Refusal::TooManyConnections,
                html("429 Too Many Requests", "Retry-After: 5\r\n", "Too Many Requests"),
            ),
        ] {
            assert_eq!(written(&refusal), expected);
        }
    }

    #[test]
    fn a_plain_request_is_answered_501_and_head_without_the_body() {
        let head = "HTTP/1.1 501 Not Implemented\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 15\r\n\r\n";
        assert_eq!(
            written(&Refusal::NotImplemented),
            format!("{head}Not Implemented")
        );
        assert_eq!(written(&Refusal::NotImplementedHead), head);
    }

    #[test]
    fn a_plain_request_is_classified_by_its_method() {
        for (head, expected) in [
            ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::NotImplemented),
            ("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::NotImplementedHead),
            ("GET / HTTP/1.0\r\n\r\n", Refusal::NotImplemented),
        ] {
            let (request, _) = crate::http::request::parse(head.as_bytes(), 1024)
                .unwrap()
                .unwrap();
            assert_eq!(Refusal::of_plain(&request), expected, "{head:?}");
        }
    }

    #[test]
    fn the_length_counts_bytes_and_text_of_the_application_stays_after_the_blank_line() {
        let refusal = Refusal::Application {
            status: Status::UNAUTHORIZED,
            body: "nö\r\nSet-Cookie: a=b\r\n\r\n".to_owned(),
        };
        let answer = written(&refusal);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("Set-Cookie"));
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
        assert_eq!(body.len(), "no\r\nSet-Cookie: a=b\r\n\r\n".len() + 1);
    }

    #[test]
    fn an_empty_message_becomes_the_name_of_the_status() {
        let refusal = Refusal::Application {
            status: Status::UNAUTHORIZED,
            body: String::new(),
        };
        assert_eq!(written(&refusal), html("401 Unauthorized", "", "Unauthorized"));
    }

    #[test]
    fn only_codes_with_a_name_can_refuse() {
        assert_eq!(Status::new(400).map(Status::name), Some("Bad Request"));
        for code in [0, 101, 200, 301, 399, 420, 512, 599, 1000, u16::MAX] {
            assert_eq!(Status::new(code), None, "{code}");
        }
    }
}
