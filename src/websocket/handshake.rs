//! The opening handshake: decides whether a request is answered with 101 or refused.
//!
//! The checks are made in the order of the reference's engine, so that a request with two errors gets the same answer:
//! upgrade at all, method, protocol, key, version, path, subprotocol. [`Upgrade::check_origin`] checks the origin in a
//! step of its own, because the reference asks the application about the request before it checks the origin.
//!
//! [`Upgrade::agree_on_compression`] reads extensions, also in a step of its own. If it is not called, offers are
//! ignored, legal or not, as the reference does with its default options. RFC 6455 section 4.2; wire reference, section
//! 2.

use std::borrow::Cow;

use tungstenite::handshake::derive_accept_key;

use super::deflate::{self, Agreement, Compression};
use super::origins::{ORIGIN_HEADERS, Origins};
use crate::http::site::is_endpoint;
use crate::http::{Refusal, Request};

/// A request for a WebSocket that may be answered with 101.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade<'a> {
    key: &'a [u8],
    /// The subprotocol of the connection: the first one that the client offered, or the first one of MQTT.
    pub subprotocol: Option<&'a str>,
    /// The protocol of the messages.
    pub carries: Carries,
    /// The origin of the page that made the request.
    origin: Option<Cow<'a, str>>,
    /// The origin in the header that the other protocol version uses.
    other_origin: Option<Cow<'a, str>>,
    host: Option<&'a [u8]>,
    compression: Option<Agreement>,
}

/// The protocol of the messages on a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// SocketCluster, or a protocol of the application.
    SocketCluster,
    /// MQTT.
    Mqtt,
}

/// The paths at which WebSockets are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints<'p> {
    /// The endpoint for SocketCluster.
    pub socketcluster: &'p str,
    /// The endpoint for MQTT, if clients may speak it.
    pub mqtt: Option<&'p str>,
}

impl<'p> From<&'p str> for Endpoints<'p> {
    /// The endpoint for SocketCluster alone.
    fn from(socketcluster: &'p str) -> Endpoints<'p> {
        Endpoints {
            socketcluster,
            mqtt: None,
        }
    }
}

impl<'p> From<&'p String> for Endpoints<'p> {
    fn from(socketcluster: &'p String) -> Endpoints<'p> {
        Endpoints::from(socketcluster.as_str())
    }
}

impl Upgrade<'_> {
    /// Checks the origin as the reference does. If the header of the other version is there too, its origin must be
    /// allowed as well, because a proxy in front of the server may check a different header than the server.
    /// `is_secure` says that the request came over TLS that ends here.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn check_origin(&self, origins: Origins<'_>, is_secure: bool) -> Result<(), Refusal> {
        origins.check(self.origin.as_deref(), self.host, is_secure)?;
        if let Some(other) = &self.other_origin {
            origins.check(Some(other), self.host, is_secure)?;
        }
        Ok(())
    }

    /// Accepts compression, if the client offers it. `request` must be the request of this upgrade.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn agree_on_compression(&mut self, request: &Request<'_>) -> Result<Compression, Refusal> {
        self.compression = deflate::agree(request.header_values("sec-websocket-extensions"))
            .map_err(|deflate::Malformed| Refusal::Extensions)?;
        Ok(self
            .compression
            .map_or(Compression::Off, |agreement| agreement.compression))
    }

    /// Appends the 101 answer.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        );
        out.extend_from_slice(b"Sec-WebSocket-Accept: ");
        out.extend_from_slice(derive_accept_key(self.key).as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(subprotocol) = self.subprotocol {
            out.extend_from_slice(b"Sec-WebSocket-Protocol: ");
            out.extend_from_slice(subprotocol.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if let Some(agreement) = self.compression {
            agreement.write(out);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Checks everything about a request except its origin. The path of the request must be equal to that of an
/// endpoint, byte for byte, except for a slash at its end. Where clients may speak MQTT, a client that offers
/// a subprotocol of MQTT may use any path: libraries have different ones by default. At the endpoint for MQTT
/// a client need not offer any.
///
/// # Errors
/// The refusal to answer with.
pub fn upgrade<'a, 'p>(
    request: &Request<'a>,
    endpoints: impl Into<Endpoints<'p>>,
) -> Result<Upgrade<'a>, Refusal> {
    let endpoints = endpoints.into();
    if !request.is_upgrade() {
        return Err(Refusal::of_plain(request));
    }
    // The server would take the bytes of the body for frames, while a proxy in front of it takes them for a body.
    if request.has_body() {
        return Err(Refusal::Malformed);
    }
    if request.method() != "GET" {
        return Err(Refusal::Method);
    }
    let protocol = request.single_header("upgrade");
    if !protocol.is_some_and(|name| name.eq_ignore_ascii_case(b"websocket")) {
        return Err(Refusal::UpgradeHeader);
    }
    let key = request.single_header("sec-websocket-key");
    let key = key.filter(|key| is_key(key)).ok_or(Refusal::Key)?;
    let version = request.single_header("sec-websocket-version");
    let version = version.and_then(Version::parse).ok_or(Refusal::Version)?;
    let is_socketcluster = is_endpoint(endpoints.socketcluster, request.path());
    let is_mqtt = endpoints
        .mqtt
        .is_some_and(|path| !is_socketcluster && is_endpoint(path, request.path()));
    let offers_mqtt = endpoints.mqtt.and_then(|_| mqtt_subprotocol(request));
    if !is_socketcluster && !is_mqtt && offers_mqtt.is_none() {
        return Err(Refusal::Path);
    }
    let first = first_subprotocol(request.header_values("sec-websocket-protocol"))?;
    let (carries, subprotocol) = match (offers_mqtt, first) {
        (Some(_), _) => (Carries::Mqtt, offers_mqtt),
        (None, None) if is_mqtt => (Carries::Mqtt, None),
        (None, Some(_)) if is_mqtt => return Err(Refusal::Subprotocol),
        (None, first) => (Carries::SocketCluster, first),
    };
    let [origin, other_origin] = version.origin_headers();
    Ok(Upgrade {
        key,
        subprotocol,
        carries,
        origin: request.joined_header(origin),
        other_origin: request.joined_header(other_origin),
        host: request.host(),
        compression: None,
    })
}

/// The protocol versions that the server accepts. They differ only in the name of one header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// RFC 6455.
    Rfc6455,
    /// Version 8: drafts of RFC 6455.
    Draft8,
}

impl Version {
    /// Parses the version. The reference converts the header to a number, so `13.0` is 13 as well.
    fn parse(value: &[u8]) -> Option<Version> {
        let number: f64 = std::str::from_utf8(value).ok()?.parse().ok()?;
        if number == 13.0 {
            Some(Version::Rfc6455)
        } else if number == 8.0 {
            Some(Version::Draft8)
        } else {
            None
        }
    }

    /// The header in which this version gives the origin, and that of the other version.
    fn origin_headers(self) -> [&'static str; 2] {
        let [rfc6455, draft8] = ORIGIN_HEADERS;
        match self {
            Version::Rfc6455 => [rfc6455, draft8],
            Version::Draft8 => [draft8, rfc6455],
        }
    }
}

/// True for 16 bytes in base64: 22 characters and the padding.
fn is_key(key: &[u8]) -> bool {
    key.strip_suffix(b"==").is_some_and(|digits| {
        digits.len() == 22
            && digits
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    })
}

/// The first subprotocol offered. If one of them is not a token, or two are the same, the request is refused: RFC 6455
/// section 4.1, item 10. Several header lines count as one list.
fn first_subprotocol<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a str>, Refusal> {
    // It allocates only if the client offers subprotocols.
    let mut offered = Vec::new();
    for item in lines.flat_map(|line| line.split(|&byte| byte == b',')) {
        let item = item.trim_ascii();
        if item.is_empty() || !item.iter().copied().all(deflate::is_token_byte) {
            return Err(Refusal::Subprotocol);
        }
        offered.push(std::str::from_utf8(item).map_err(|_| Refusal::Subprotocol)?);
    }
    let first = offered.first().copied();
    offered.sort_unstable();
    if offered.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Refusal::Subprotocol);
    }
    Ok(first)
}

/// The first subprotocol of MQTT that is offered. `mqttv3.1` is what clients of MQTT 3.1 offer; the version itself
/// stands in CONNECT.
fn mqtt_subprotocol<'a>(request: &Request<'a>) -> Option<&'a str> {
    let offered = request.header_values("sec-websocket-protocol");
    let mut offered = offered.flat_map(|line| line.split(|&byte| byte == b','));
    let first = offered.find(|item| matches!(item.trim_ascii(), b"mqtt" | b"mqttv3.1"))?;
    std::str::from_utf8(first.trim_ascii()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::origin::AllowedOrigins;
    use crate::http::request;

    const PATH: &str = "/socketcluster/";
    const GOOD: &str = "Host: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

    fn answer(method: &str, target: &str, headers: &str) -> Result<String, Refusal> {
        let head = format!("{method} {target} HTTP/1.1\r\n{headers}\r\n");
        let (request, _) = request::parse(head.as_bytes(), 16 * 1024).unwrap().unwrap();
        let mut out = Vec::new();
        upgrade(&request, PATH)?.write(&mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    fn with(header_lines: &str) -> Result<String, Refusal> {
        answer("GET", PATH, &format!("{GOOD}{header_lines}"))
    }

    fn check_origin(header_lines: &str, origins: &str) -> Result<(), Refusal> {
        let head = format!("GET {PATH} HTTP/1.1\r\n{header_lines}\r\n");
        let (request, _) = request::parse(head.as_bytes(), 16 * 1024).unwrap().unwrap();
        let list = &AllowedOrigins::default();
        let origins = Origins {
            option: origins,
            list,
        };
        let upgrade = upgrade(&request, PATH).unwrap();
        upgrade.check_origin(origins, false)
    }

    #[test]
    fn the_answer_is_that_of_the_reference() {
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        assert_eq!(with(""), Ok(format!("{head}\r\n")));
        assert_eq!(
            answer("GET", "/socketcluster/?a=1", GOOD),
            Ok(format!("{head}\r\n"))
        );
        assert_eq!(with("Sec-WebSocket-Extensions:\r\n"), with(""));
        assert_eq!(
            with("Sec-WebSocket-Extensions: permessage-deflate; ;,=\r\n"),
            with("")
        );
        for offer in ["foo, bar", "foo", "foo ,bar\r\nSec-WebSocket-Protocol: baz"] {
            let answer = with(&format!("Sec-WebSocket-Protocol: {offer}\r\n"));
            assert_eq!(
                answer,
                Ok(format!("{head}Sec-WebSocket-Protocol: foo\r\n\r\n")),
                "{offer}"
            );
        }
    }

    #[test]
    fn a_websocket_carries_mqtt_where_the_client_offers_it_or_asks_at_its_path() {
        let both = Endpoints {
            socketcluster: PATH,
            mqtt: Some("/mqtt"),
        };
        let asked = |target: &str, offer: &str, endpoints: Endpoints<'_>| {
            let lines = match offer {
                "" => String::new(),
                offer => format!("Sec-WebSocket-Protocol: {offer}\r\n"),
            };
            let head = format!("GET {target} HTTP/1.1\r\n{GOOD}{lines}\r\n");
            let (request, _) = request::parse(head.as_bytes(), 16 * 1024).unwrap().unwrap();
            upgrade(&request, endpoints)
                .map(|upgrade| (upgrade.carries, upgrade.subprotocol.map(str::to_owned)))
        };
        let mqtt = |name: &str| Ok((Carries::Mqtt, Some(name.to_owned())));
        for target in ["/mqtt", "/mqtt/", "/", PATH, "/anything?a=b"] {
            for (offer, name) in [
                ("mqtt", "mqtt"),
                ("mqttv3.1", "mqttv3.1"),
                ("a, mqttv3.1 , mqtt", "mqttv3.1"),
            ] {
                assert_eq!(asked(target, offer, both), mqtt(name), "{target} {offer}");
                let expected = match target {
                    PATH => Ok(Carries::SocketCluster),
                    _ => Err(Refusal::Path),
                };
                let alone = asked(target, offer, Endpoints::from(PATH));
                assert_eq!(alone.map(|(carries, _)| carries), expected, "{target} {offer}");
            }
        }
        assert_eq!(asked("/mqtt", "", both), Ok((Carries::Mqtt, None)));
        assert_eq!(asked("/mqtt", "other", both), Err(Refusal::Subprotocol));
        assert_eq!(asked("/mqtt", "mqtt,mqtt", both), Err(Refusal::Subprotocol));
        assert_eq!(asked(PATH, "", both), Ok((Carries::SocketCluster, None)));
        assert_eq!(
            asked(PATH, "MQTT", both),
            Ok((Carries::SocketCluster, Some("MQTT".to_owned())))
        );
        assert_eq!(asked("/", "", both), Err(Refusal::Path));
    }

    #[test]
    fn each_fault_has_its_refusal() {
        for (from, to, expected) in [
            ("Connection: Upgrade\r\n", "", Refusal::NotImplemented),
            ("Upgrade: websocket", "Upgrade: h2c", Refusal::UpgradeHeader),
            (
                "Upgrade: websocket",
                "Upgrade: websocket\r\nUpgrade: websocket",
                Refusal::UpgradeHeader,
            ),
            (
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
                "",
                Refusal::Key,
            ),
            (
                "dGhlIHNhbXBsZSBub25jZQ==",
                "dGhlIHNhbXBsZSBub25jZQ=",
                Refusal::Key,
            ),
            (
                "dGhlIHNhbXBsZSBub25jZQ==",
                "dGhlIHNhbXBsZSBub25jZ==",
                Refusal::Key,
            ),
            (
                "dGhlIHNhbXBsZSBub25jZQ==",
                "dGhlIHNhbXBsZSBub25jZQA==",
                Refusal::Key,
            ),
            (
                "dGhlIHNhbXBsZSBub25jZQ==",
                "dGhlIHNhbXBsZSBub25j-Q==",
                Refusal::Key,
            ),
            ("Sec-WebSocket-Version: 13\r\n", "", Refusal::Version),
            ("Version: 13", "Version: 12", Refusal::Version),
            ("Version: 13", "Version: 13, 8", Refusal::Version),
            ("Version: 13", "Version: x", Refusal::Version),
            ("Version: 13", "Version:", Refusal::Version),
        ] {
            assert!(GOOD.contains(from));
            assert_eq!(
                answer("GET", PATH, &GOOD.replace(from, to)),
                Err(expected),
                "{to:?}"
            );
        }
        assert_eq!(answer("POST", PATH, GOOD), Err(Refusal::Method));
        assert!(answer("GET", "/socketcluster", GOOD).is_ok());
        assert!(answer("GET", "http://other.example/socketcluster/", GOOD).is_ok());
        for target in [
            "/socketcluster//",
            "ftp://h/socketcluster/",
            "http://h/",
            "/",
            "/socketcluster/x",
            "/SocketCluster/",
            "/?/socketcluster/",
        ] {
            assert_eq!(answer("GET", target, GOOD), Err(Refusal::Path), "{target}");
        }
        for offer in [
            "",
            ",",
            "foo,",
            ",foo",
            "foo,,bar",
            "foo bar",
            "foo, foo",
            "f(o",
            "é",
            "a\r\nSec-WebSocket-Protocol: a",
        ] {
            let answer = with(&format!("Sec-WebSocket-Protocol: {offer}\r\n"));
            assert_eq!(answer, Err(Refusal::Subprotocol), "{offer}");
        }
    }

    /// Removes one error after the other from a request: the sequence of refusals shows the order of the checks.
    #[test]
    fn of_several_faults_the_reference_names_this_one() {
        let mut method = "POST";
        let mut target = "/other";
        let mut headers =
            "Host: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Protocol: ,\r\n".to_owned();
        assert_eq!(answer(method, target, &headers), Err(Refusal::Method));
        method = "GET";
        assert_eq!(answer(method, target, &headers), Err(Refusal::UpgradeHeader));
        headers = headers.replace("h2c", "WebSocket");
        assert_eq!(answer(method, target, &headers), Err(Refusal::Key));
        headers += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        assert_eq!(answer(method, target, &headers), Err(Refusal::Version));
        headers += "Sec-WebSocket-Version: 13.0\r\n";
        assert_eq!(answer(method, target, &headers), Err(Refusal::Path));
        target = PATH;
        assert_eq!(answer(method, target, &headers), Err(Refusal::Subprotocol));
        headers = headers.replace("Protocol: ,", "Protocol: a");
        assert!(answer(method, target, &headers).is_ok());
    }

    #[test]
    fn the_origin_is_read_from_the_header_of_the_version() {
        let eight = GOOD.replace("Version: 13", "Version: 8");
        let (a, b) = (
            "Origin: http://a.com\r\n",
            "Sec-WebSocket-Origin: http://b.com\r\n",
        );
        let refused = |origin: &str| Err(Refusal::Origin(origin.to_owned()));
        assert_eq!(check_origin(&format!("{GOOD}{a}"), "a.com:80"), Ok(()));
        assert_eq!(check_origin(&format!("{eight}{b}"), "b.com:80"), Ok(()));
        assert_eq!(check_origin(&format!("{GOOD}{b}"), "b.com:80"), refused("*"));
        assert_eq!(check_origin(&format!("{eight}{a}"), "a.com:80"), refused("*"));
        // If a request has both headers, both origins must be allowed.
        for request in [format!("{GOOD}{a}{b}"), format!("{eight}{a}{b}")] {
            assert_eq!(check_origin(&request, "a.com:80 b.com:80"), Ok(()));
            assert_eq!(check_origin(&request, "a.com:80"), refused("http://b.com"));
            assert_eq!(check_origin(&request, "b.com:80"), refused("http://a.com"));
        }
    }

    #[test]
    fn an_upgrade_with_a_body_is_malformed() {
        for (line, expected) in [
            ("Content-Length: 0\r\n", true),
            ("Content-Length: 1\r\n", false),
            ("Transfer-Encoding: chunked\r\n", false),
        ] {
            let answer = with(line);
            assert_eq!(answer.is_ok(), expected, "{line}");
            assert!(expected || answer == Err(Refusal::Malformed), "{line}");
        }
    }

    #[test]
    fn a_missing_origin_is_refused_as_a_star() {
        let refused = Err(Refusal::Origin("*".to_owned()));
        assert_eq!(check_origin(GOOD, "a.com:80"), refused);
        assert_eq!(
            check_origin(&format!("{GOOD}Origin: null\r\n"), "a.com:80"),
            refused
        );
        assert_eq!(check_origin(GOOD, "*:*"), Ok(()));
    }
}
