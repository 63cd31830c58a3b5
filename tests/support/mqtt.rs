//! An MQTT client that sends whatever bytes a test wants, over TCP, TLS or a WebSocket; and the bytes of packets, put
//! together without the server's codec.

use std::net::SocketAddr;
use std::sync::Arc;

use ringcast::app::App;
use ringcast::config::{ClientProtocols, Config};
use ringcast::internals::app::builtin::Builtin;
use ringcast::server::CoreId;

use super::secure::{self, Authority, Files};
use super::{BINARY, Client, Received, Server, UPGRADE, frame};

/// The name of a client, its packets so far, and its connection.
pub(crate) struct Mqtt {
    pub(crate) client: Client,
    over: Over,
    version: u8,
    /// Bytes that came in binary frames and were not asked for.
    unread: Vec<u8>,
}

/// The transport of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Tcp,
    Tls,
    WebSocket,
}

/// A server that speaks MQTT over everything.
pub(crate) struct MqttServer {
    pub(crate) server: Server,
    trust: Arc<rustls::ClientConfig>,
    _files: Files,
}

impl MqttServer {
    pub(crate) fn start(change: impl FnOnce(&mut Config)) -> MqttServer {
        MqttServer::start_with(change, |_| Builtin::new())
    }

    /// Starts a server with an application of the test.
    pub(crate) fn start_with<A: App + Send + 'static>(
        change: impl FnOnce(&mut Config),
        app: impl FnMut(CoreId) -> A,
    ) -> MqttServer {
        let authority = Authority::new("authority");
        let files = Files::new();
        let configure = |config: &mut Config| {
            secure::speak_tls(config, &files, &[authority.server(&["localhost"])]);
            config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
            config.mqtt.tls_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
            config.mqtt.client_protocols = ClientProtocols::SocketClusterAndMqtt;
            change(config);
        };
        let server = Server::start_with(configure, app);
        let trust = Arc::new(authority.trust(&[&rustls::version::TLS13], None));
        MqttServer {
            server,
            trust,
            _files: files,
        }
    }

    /// A connection on which nothing has been sent.
    pub(crate) fn open(&self, over: Over, version: u8) -> Mqtt {
        let running = self.server.running();
        let client = match over {
            Over::Tcp => Client::connect(running.mqtt_address().unwrap()),
            Over::Tls => secure::connect(running.mqtt_tls_address().unwrap(), &self.trust, "localhost"),
            Over::WebSocket => {
                let mut client = self.server.connect();
                let offer = "\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
                let request = UPGRADE
                    .replace("/socketcluster/", "/mqtt")
                    .replace("\r\n\r\n", offer);
                client.send_bytes(request.as_bytes());
                assert!(client.read_head().starts_with("HTTP/1.1 101 "));
                client
            }
        };
        Mqtt::over(client, over, version)
    }

    /// A client over TCP that is connected with a clean start.
    #[track_caller]
    pub(crate) fn connect(&self, version: u8, id: &str) -> Mqtt {
        self.connect_over(Over::Tcp, version, id)
    }

    #[track_caller]
    pub(crate) fn connect_over(&self, over: Over, version: u8, id: &str) -> Mqtt {
        self.connect_with(over, version, &connect(version, id))
    }

    /// A client that sends this CONNECT and is accepted.
    #[track_caller]
    pub(crate) fn connect_with(&self, over: Over, version: u8, connect: &[u8]) -> Mqtt {
        let mut client = self.open(over, version);
        client.send(connect);
        client.accepted();
        client
    }
}

impl Mqtt {
    /// A client on a TCP connection on which nothing has been sent.
    pub(crate) fn over_tcp(client: Client, version: u8) -> Mqtt {
        Mqtt::over(client, Over::Tcp, version)
    }

    /// A client on a connection on which no packet has been sent.
    pub(crate) fn over(client: Client, over: Over, version: u8) -> Mqtt {
        Mqtt {
            client,
            over,
            version,
            unread: Vec::new(),
        }
    }

    /// A client over TCP, whose CONNECT with a clean start the server at this address accepts.
    #[track_caller]
    pub(crate) fn at(address: SocketAddr, version: u8, id: &str) -> Mqtt {
        let mut client = Mqtt::over(Client::connect(address), Over::Tcp, version);
        client.send(&connect(version, id));
        client.accepted();
        client
    }

    /// The next packet must be a CONNACK that accepts the client.
    #[track_caller]
    pub(crate) fn accepted(&mut self) {
        let answer = self.packet();
        assert_eq!((answer[0], body(&answer)[1]), (0x20, 0), "{answer:x?}");
    }

    /// Sends bytes; over a WebSocket as one binary frame.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.client.send_bytes(&self.framed(bytes));
    }

    /// Sends bytes, which may fail: the server may have ended the connection.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.client.try_send_bytes(&self.framed(bytes)).is_ok()
    }

    fn framed(&self, bytes: &[u8]) -> Vec<u8> {
        match self.over {
            Over::Tcp | Over::Tls => bytes.to_vec(),
            Over::WebSocket => frame(BINARY, bytes),
        }
    }

    /// The next packet; `None` if the connection has ended.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = packet_length(&self.unread)
                && length <= self.unread.len()
            {
                return Some(self.unread.drain(..length).collect());
            }
            match self.over {
                Over::WebSocket => match self.client.next() {
                    Received::Binary(bytes) => self.unread.extend(bytes),
                    Received::Close(..) => {}
                    Received::End => return None,
                    other => panic!("instead of a binary frame came {other:?}"),
                },
                Over::Tcp | Over::Tls => {
                    self.client.consumed = self.client.unread.len();
                    if !self.client.fill() {
                        assert!(self.unread.is_empty(), "the end in a packet: {:x?}", self.unread);
                        return None;
                    }
                    self.unread.extend_from_slice(&self.client.unread);
                }
            }
        }
    }

    /// The next packet.
    #[track_caller]
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        match self.next() {
            Some(packet) => packet,
            None => panic!("the end instead of a packet"),
        }
    }

    /// The next packet must be this one.
    #[track_caller]
    pub(crate) fn expect(&mut self, packet: &[u8]) {
        let came = self.next();
        assert_eq!(
            came.as_deref(),
            Some(packet),
            "came {came:x?} instead of {packet:x?}"
        );
    }

    /// The server ends the connection, in MQTT 5 with DISCONNECT and this code.
    #[track_caller]
    pub(crate) fn expect_end(&mut self, code: u8) {
        if self.version == 5 {
            let packet = self.next();
            let came = packet.as_deref().map(|packet| (packet[0], body(packet)[0]));
            assert_eq!(came, Some((0xe0, code)), "{packet:x?}");
        }
        let after = self.next();
        assert_eq!(after, None, "{after:x?}");
    }

    /// The server has handled all packets so far, and the connection lives.
    #[track_caller]
    pub(crate) fn ping(&mut self) {
        self.send(PINGREQ);
        self.expect(PINGRESP);
    }

    /// Subscribes to one filter with options; the server grants it.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filter: &str, options: u8) {
        self.send(&subscribe(self.version, 1, &[], &[(filter, options)]));
        let answer = self.packet();
        assert_eq!(answer[0], 0x90, "{answer:x?}");
        assert!(answer.last().is_some_and(|code| *code <= 2), "{answer:x?}");
    }

    /// The next packet, which must be a message.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Message {
        let packet = self.packet();
        Message::read(self.version, &packet)
    }
}

/// A message as a client got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    pub(crate) id: u16,
    pub(crate) properties: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Message {
    #[track_caller]
    pub(crate) fn read(version: u8, packet: &[u8]) -> Message {
        assert_eq!(packet[0] >> 4, 3, "no message: {packet:x?}");
        let qos = packet[0] >> 1 & 3;
        let rest = body(packet);
        let (topic, mut rest) = rest[2..].split_at(usize::from(u16::from_be_bytes([rest[0], rest[1]])));
        let mut id = 0;
        if qos > 0 {
            id = u16::from_be_bytes([rest[0], rest[1]]);
            rest = &rest[2..];
        }
        let mut properties = &[][..];
        if version == 5 {
            let (length, width) = variable(rest).unwrap();
            (properties, rest) = rest[width..].split_at(length);
        }
        Message {
            dup: packet[0] & 8 != 0,
            qos,
            retain: packet[0] & 1 != 0,
            topic: String::from_utf8(topic.to_vec()).unwrap(),
            id,
            properties: properties.to_vec(),
            payload: rest.to_vec(),
        }
    }
}

pub(crate) const PINGREQ: &[u8] = &[0xc0, 0];
pub(crate) const DISCONNECT: &[u8] = &[0xe0, 0];
pub(crate) const PINGRESP: &[u8] = &[0xd0, 0];

/// The next packet on a connection over TCP or TLS of which a test uses the bytes.
#[track_caller]
pub(crate) fn read_packet(client: &mut Client) -> Vec<u8> {
    let mut packet = client.read_bytes(2);
    while packet.last().is_some_and(|byte| *byte > 0x7f) {
        packet.extend(client.read_bytes(1));
    }
    let (length, _) = variable(&packet[1..]).unwrap();
    packet.extend(client.read_bytes(length));
    packet
}

/// A packet of this first byte.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    put_variable(body.len(), &mut packet);
    packet.extend_from_slice(body);
    packet
}

/// A string, or binary data.
pub(crate) fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text);
    bytes
}

/// The properties of a packet with their length; nothing before MQTT 5.
pub(crate) fn properties(version: u8, properties: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if version == 5 {
        put_variable(properties.len(), &mut bytes);
        bytes.extend_from_slice(properties);
    }
    bytes
}

/// CONNECT with a clean start, without keep alive.
pub(crate) fn connect(version: u8, id: &str) -> Vec<u8> {
    connect_with(version, 0x02, 0, &[], &string(id))
}

/// CONNECT; `payload` begins with the client identifier.
pub(crate) fn connect_with(version: u8, flags: u8, keep_alive: u16, props: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = string(if version == 3 { "MQIsdp" } else { "MQTT" });
    body.extend_from_slice(&[version, flags]);
    body.extend_from_slice(&keep_alive.to_be_bytes());
    body.extend(properties(version, props));
    body.extend_from_slice(payload);
    packet(0x10, &body)
}

/// PUBLISH; `flags` are DUP, QoS and RETAIN; `id` is used if there is a QoS.
pub(crate) fn publish(version: u8, flags: u8, topic: &str, id: u16, props: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = string(topic);
    if flags & 0x06 != 0 {
        body.extend_from_slice(&id.to_be_bytes());
    }
    body.extend(properties(version, props));
    body.extend_from_slice(payload);
    packet(0x30 | flags, &body)
}

pub(crate) fn subscribe(version: u8, id: u16, props: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(properties(version, props));
    for (filter, options) in filters {
        body.extend(string(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

pub(crate) fn unsubscribe(version: u8, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(properties(version, &[]));
    body.extend(filters.iter().flat_map(string));
    packet(0xa2, &body)
}

/// PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70) of success.
pub(crate) fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

/// The bytes behind the fixed header.
pub(crate) fn body(packet: &[u8]) -> &[u8] {
    let (_, width) = variable(&packet[1..]).unwrap();
    &packet[1 + width..]
}

/// The size of the packet at the start; `None` if that is not known yet.
fn packet_length(bytes: &[u8]) -> Option<usize> {
    let (length, width) = variable(bytes.get(1..)?)?;
    Some(1 + width + length)
}

fn variable(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.iter().position(|byte| *byte < 0x80)?;
    let value = bytes[..=end]
        .iter()
        .rev()
        .fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    Some((value, end + 1))
}

fn put_variable(mut value: usize, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}
