//! Counts the core of a whole server that MQTT clients use, and the cost of SocketCluster clients of such a server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use ringcast::config::Config;
use ringcast::server::Server;

use super::client::Client;
use super::counting;
use super::server::{
    CONNECTS, FAN_OUT_ROUNDS, Marked, ROUNDS, SUBSCRIBERS, WARM_UP_ROUNDS, connect, fan_out, publish, section,
};

pub(crate) fn measure_all(change: impl FnOnce(&mut Config)) -> io::Result<()> {
    let server = counting::start(
        1,
        |config| {
            change(config);
            config.mqtt.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        },
        Marked::new,
    );
    let address = server
        .mqtt_address()
        .ok_or_else(|| io::Error::other("the server has an address for MQTT"))?;
    let mut marker = connect(server.address());
    connect_and_leave(&mut marker, &server, address)?;
    for qos in [0, 1] {
        for in_flight in [1, 16] {
            let name = format!("server: MQTT publish to one, QoS {qos}, {in_flight} in flight");
            deliver(&mut marker, address, &name, qos, in_flight, 1)?;
        }
        let name = format!("server: MQTT delivery, 1 to {SUBSCRIBERS}, QoS {qos}, 8 in flight");
        deliver(&mut marker, address, &name, qos, 8, SUBSCRIBERS)?;
    }
    publish(
        &mut marker,
        server.address(),
        " beside MQTT",
        super::parts::PUBLISH,
    )?;
    fan_out(&mut marker, server.address(), " beside MQTT", 8)?;
    server.drain();
    server.wait().map_err(io::Error::other)?;
    Ok(())
}

/// A client of MQTT 3.1.1 that knows how long the packets are that it gets.
struct Mqtt(TcpStream);

impl Mqtt {
    fn connect(address: SocketAddr, client_id: &str) -> io::Result<Mqtt> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Mqtt(stream);
        client.0.write_all(&connect_packet(client_id))?;
        let connack: [u8; 4] = client.receive()?;
        assert_eq!(connack, [0x20, 2, 0, 0], "the server accepts the client");
        Ok(client)
    }

    fn subscribe(&mut self, qos: u8) -> io::Result<()> {
        let mut packet = vec![0x82, 0, 0, 1];
        put_string(TOPIC, &mut packet);
        packet.push(qos);
        self.0.write_all(&with_length(packet))?;
        let suback: [u8; 5] = self.receive()?;
        assert_eq!(suback, [0x90, 3, 0, 1, qos], "the server accepts the filter");
        Ok(())
    }

    fn receive<const BYTES: usize>(&mut self) -> io::Result<[u8; BYTES]> {
        let mut bytes = [0; BYTES];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Takes so many publications, and acknowledges them with one write if they ask for it.
    fn take(&mut self, qos: u8, count: usize) -> io::Result<()> {
        let packet_bytes = publish_packet(qos, 1).len();
        let mut packets = vec![0; packet_bytes * count];
        self.0.read_exact(&mut packets)?;
        if qos > 0 {
            let id_at = 2 + 2 + TOPIC.len();
            let acks = packets
                .chunks_exact(packet_bytes)
                .flat_map(|packet| [0x40, 2, packet[id_at], packet[id_at + 1]]);
            let acks: Vec<u8> = acks.collect();
            self.0.write_all(&acks)?;
        }
        Ok(())
    }
}

fn connect_and_leave(marker: &mut Client, server: &Server, address: SocketAddr) -> io::Result<()> {
    let round = || -> io::Result<()> {
        let mut client = Mqtt::connect(address, "client")?;
        client.0.write_all(&[0xe0, 0])?;
        assert_eq!(client.0.read(&mut [0])?, 0, "the server closes the connection");
        drop(client);
        // The core must have noticed the end before the next step begins.
        while server.cores()[0].metrics().connections.value() > 1 {
            thread::yield_now();
        }
        Ok(())
    };
    rounds(WARM_UP_ROUNDS, round)?;
    let name = "server: MQTT connect, CONNACK, DISCONNECT";
    section(marker, name, CONNECTS, || (0..CONNECTS).try_for_each(|_| round()))
}

/// Publications of one client to one topic that `subscribers` clients have subscribed to.
fn deliver(
    marker: &mut Client,
    address: SocketAddr,
    name: &str,
    qos: u8,
    in_flight: usize,
    subscribers: usize,
) -> io::Result<()> {
    let mut publisher = Mqtt::connect(address, "publisher")?;
    let mut receivers = Vec::new();
    for index in 0..subscribers {
        let mut client = Mqtt::connect(address, &format!("subscriber {index:03}"))?;
        client.subscribe(qos)?;
        receivers.push(client);
    }
    let packets: Vec<u8> = (1..)
        .take(in_flight)
        .flat_map(|packet_id| publish_packet(qos, packet_id))
        .collect();
    let mut round = || -> io::Result<()> {
        publisher.0.write_all(&packets)?;
        if qos > 0 {
            publisher.0.read_exact(&mut vec![0; 4 * in_flight])?;
        }
        receivers
            .iter_mut()
            .try_for_each(|client| client.take(qos, in_flight))
    };
    rounds(WARM_UP_ROUNDS, &mut round)?;
    let counted = if subscribers == 1 { ROUNDS } else { FAN_OUT_ROUNDS };
    let deliveries = counted * in_flight * subscribers;
    section(marker, name, deliveries as u64, || rounds(counted, &mut round))
}

fn rounds(count: usize, mut round: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    (0..count).try_for_each(|_| round())
}

/// CONNECT of MQTT 3.1.1 with a clean session and without keep alive, which depends on the clock.
fn connect_packet(client_id: &str) -> Vec<u8> {
    let mut packet = vec![0x10, 0];
    packet.splice(2.., *b"\x00\x04MQTT\x04\x02\x00\x00");
    put_string(client_id, &mut packet);
    with_length(packet)
}

fn publish_packet(qos: u8, packet_id: u8) -> Vec<u8> {
    let mut packet = vec![0x30 | qos << 1, 0];
    put_string(TOPIC, &mut packet);
    if qos > 0 {
        packet.extend_from_slice(&[0, packet_id]);
    }
    packet.extend_from_slice(&[b'x'; PAYLOAD_BYTES]);
    with_length(packet)
}

fn put_string(text: &str, packet: &mut Vec<u8>) {
    packet.extend_from_slice(&[0, short(text.len())]);
    packet.extend_from_slice(text.as_bytes());
}

/// Writes the length of a packet that is shorter than 128 bytes.
fn with_length(mut packet: Vec<u8>) -> Vec<u8> {
    packet[1] = short(packet.len() - 2);
    packet
}

fn short(length: usize) -> u8 {
    u8::try_from(length).expect("packets and names here are short")
}

const TOPIC: &str = "load/c00000";
const PAYLOAD_BYTES: usize = 64;
/// How long an answer may take before the bench fails.
const PATIENCE: Duration = Duration::from_secs(60);
