//! MQTT clients of a simulation: they connect to any core, and their connections must come to the core that
//! owns their client id, with their wills, even if connections are cut or lost and sockets are full or slow
//! meanwhile. The clients of `device/` have sessions.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::Scale;
use super::device::packets::{self, Connect, Version, Will};
use super::lives::Asked;
use super::log::{Sender, channel_name};
use super::plan::Plan;
use super::random::Random;
use super::wire::{push_frame, response_head, take_frame};
use super::world::{GroundTruth, World};
use crate::broker::ChannelHasher;
use crate::config::limits::Limits;
use crate::cores::lifecycle::connection::Phase;

/// One client.
#[derive(Debug)]
struct Device {
    socket: Option<UnixStream>,
    client_id: String,
    in_websocket: bool,
    /// All bytes that it sends: CONNECT, then pings.
    script: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    pings: usize,
}

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: simulation\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
     Sec-WebSocket-Version: 13\r\n\r\n";

impl Device {
    fn new(index: usize, socket: UnixStream, random: &mut Random, truth: &mut GroundTruth) -> Device {
        let client_id = format!("device {index}");
        let mut packets = Vec::new();
        connect(&client_id, index, random, truth, &mut packets);
        let pings = random.below(4);
        packets.extend([0xc0, 0].repeat(pings));
        let in_websocket = random.chance(1, 2);
        let script = if in_websocket {
            let mut script = REQUEST.as_bytes().to_vec();
            let mut rest = &packets[..];
            while !rest.is_empty() {
                let (part, behind) = rest.split_at(random.below(rest.len() + 1));
                push_frame(&mut script, random, 0x82, part);
                rest = behind;
            }
            script
        } else {
            packets
        };
        Device {
            socket: Some(socket),
            client_id,
            in_websocket,
            script,
            sent: 0,
            received: Vec::new(),
            pings,
        }
    }

    fn write(&mut self, bytes_max: usize) {
        let Some(socket) = &mut self.socket else { return };
        let rest = &self.script[self.sent..];
        match socket.write(&rest[..rest.len().min(bytes_max)]) {
            Ok(count) => self.sent += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{self:?}"),
        }
    }

    /// Reads the bytes that have come. True at the end of the connection.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.as_mut().map(|socket| socket.read(&mut buffer)) {
                Some(Ok(count @ 1..)) => self.received.extend_from_slice(&buffer[..count]),
                Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => return false,
                Some(Ok(0) | Err(_)) | None => return true,
            }
        }
    }

    /// The first bytes of the packets that have come.
    fn packets(&self) -> Vec<u8> {
        let mut bytes = &self.received[..];
        let mut payload = Vec::new();
        if self.in_websocket {
            let Some((status, end)) = response_head(bytes) else {
                return Vec::new();
            };
            assert_eq!(status, 101, "{self:?}");
            bytes = &bytes[end..];
            while let Some((frame, length)) = take_frame(bytes).expect("frames of a server") {
                bytes = &bytes[length..];
                if frame.opcode == 2 {
                    payload.extend(frame.payload);
                }
            }
            bytes = &payload;
        }
        let mut types = Vec::new();
        while let [first, length, ..] = *bytes {
            assert!(length < 0x80, "a short packet");
            types.push(first);
            bytes = bytes.get(2 + usize::from(length)..).unwrap_or_default();
        }
        types
    }
}

/// Writes CONNECT, half of the time with a will. The world judges the fate of the connection (`lives.rs`).
fn connect(client_id: &str, index: usize, random: &mut Random, truth: &mut GroundTruth, out: &mut Vec<u8>) {
    let channel = random.below(truth.plan.channels);
    let will = random
        .chance(1, 2)
        .then(|| truth.log.begin(Sender::Will, channel));
    truth.log.end_message();
    let (expiry_s, delay_s) = random.of(&[(0, 0), (2, 0), (2, 1)]);
    let connection = truth.lives.ask(
        index,
        Asked {
            is_clean: true,
            expiry_s,
            will: will.map(|number| (number, delay_s)),
        },
    );
    let claims = format!(r#"{{"sub":"{client_id}","connection":{connection}}}"#);
    let unix_ms = truth.time.peek().unix_ms;
    let token = truth.tokens.sign(&claims, None, unix_ms).expect("there is a key");
    let topic = channel_name(channel);
    let payload = will.map_or_else(String::new, |number| format!("\"{number}:w\""));
    packets::connect(
        Version::V5,
        &Connect {
            client_id,
            is_clean: true,
            expiry_s,
            keep_alive_s: 0,
            receive_maximum: None,
            topic_aliases: 0,
            will: will.map(|_| Will {
                topic: &topic,
                payload: payload.as_bytes(),
                qos: random.of(&[0, 1, 2]),
                retain: false,
                delay_s,
            }),
            token: &token,
        },
        out,
    );
}

/// A run with boxes that hold one letter, and turns that do little work.
fn run(seed: u64) -> (u64, u64) {
    let mut random = Random::new(seed);
    let plan = Plan {
        cores: 2 + random.below(3),
        mqtt: true,
        limits: Limits {
            connections_per_core_max: random.of(&[0, 0, 3]),
            ..Limits::default()
        },
        scale: Scale {
            letters_waiting_max: 1,
            letters_per_turn_max: random.of(&[1, 3]),
            frames_per_turn_max: random.of(&[1, 256]),
            read_bytes_per_turn_max: random.of(&[20, 256 * 1024]),
            ..Scale::default()
        },
        events_max: random.of(&[1, 1024]),
        ..Plan::default()
    };
    let (cores, is_limited) = (plan.cores, plan.limits.connections_per_core_max > 0);
    let mut world = World::new(Some(seed), plan, Random::new(seed));
    let mut devices: Vec<Device> = Vec::new();
    for _ in 0..150 {
        match random.below(10) {
            0 | 1 if devices.len() < 12 => {
                let core = random.below(cores);
                let socket = world.seats[core].listener_address.connect().expect("it listens");
                let device = Device::new(devices.len(), socket, &mut random, &mut world.truth);
                devices.push(device);
            }
            2 if !devices.is_empty() && random.chance(1, 4) => {
                let index = random.below(devices.len());
                devices[index].socket = None;
            }
            3 if random.chance(1, 4) => {
                let seat = &mut world.seats[random.below(cores)];
                seat.stands_still = !seat.stands_still;
            }
            4 => world
                .truth
                .time
                .advance(Duration::from_millis(random.below(20) as u64)),
            5..=7 if !devices.is_empty() => {
                let index = random.below(devices.len());
                let bytes_max = random.of(&[40, 400]);
                devices[index].write(1 + random.below(bytes_max));
            }
            _ => {
                let core = random.below(cores);
                if !world.seats[core].stands_still {
                    world.turn(core);
                }
            }
        }
    }
    for seat in &mut world.seats {
        seat.stands_still = false;
    }
    for _ in 0..8 {
        world.settle();
        for device in &mut devices {
            device.write(usize::MAX);
        }
    }
    world.settle();
    let hasher = ChannelHasher::with_key(seed);
    let mut expected = vec![0; cores];
    for device in &mut devices {
        let is_over = device.read();
        if device.socket.is_none() {
            continue;
        }
        let packets = device.packets();
        if is_limited && (is_over || packets.is_empty()) {
            // The owner of its client id had no room, or no core had any before.
            device.socket = None;
            continue;
        }
        let mut wanted = vec![0x20];
        wanted.extend([0xd0].repeat(device.pings));
        assert_eq!(packets, wanted, "seed {seed}: {device:?}");
        let owner = hasher.hash(device.client_id.as_bytes()).owner(cores);
        expected[owner] += 1;
    }
    world.settle();
    let mut moves = 0;
    for (index, seat) in world.seats.iter().enumerate() {
        let core = seat.core.as_ref().expect("it runs");
        let is_open = |id: &_| {
            let phase = core.connections.get(*id).map(|connection| &connection.phase);
            matches!(phase, Some(Phase::Open(open)) if open.session.is_open())
        };
        let open = core.connections.ids().filter(is_open).count();
        assert_eq!(open, expected[index], "seed {seed}, core {index}");
        assert_eq!(core.moves.len(), 0, "seed {seed}, core {index}");
        moves += core.metrics.moves.value();
    }
    // More devices arrive, and the server drains while their connections are on their way.
    for core in 0..cores {
        let socket = world.seats[core].listener_address.connect().expect("it listens");
        let mut device = Device::new(100 + core, socket, &mut random, &mut world.truth);
        device.write(usize::MAX);
        devices.push(device);
    }
    for _ in 0..random.below(8) {
        world.turn(random.below(cores));
    }
    let wills = world.truth.lives.wills_published;
    world.drain();
    for _ in 0..80 {
        world.pass(Duration::from_millis(500));
        for device in &mut devices {
            if device.read() {
                device.socket = None;
            }
        }
    }
    let left: Vec<_> = world
        .seats
        .iter()
        .filter_map(|seat| seat.core.as_ref())
        .map(|core| {
            let connections = core.connections.ids().filter_map(|id| core.connections.get(id));
            let phases: Vec<_> = connections.map(|connection| &connection.phase).collect();
            let is_empty = core.acceptor.is_closed_and_empty();
            (phases, is_empty, core.moves.len(), core.post.kept_count())
        })
        .collect();
    assert!(left.is_empty(), "seed {seed}: cores that wait: {left:#?}");
    assert!(
        devices.iter().all(|device| device.socket.is_none()),
        "seed {seed}: {devices:?}"
    );
    (moves, wills)
}

#[test]
fn connections_come_to_the_core_that_owns_their_client_id_whatever_the_seed() {
    let runs: Vec<_> = (0..100).map(run).collect();
    let moves: u64 = runs.iter().map(|&(moves, _)| moves).sum();
    let wills: u64 = runs.iter().map(|&(_, wills)| wills).sum();
    assert!(moves > 100 && wills > 20, "{moves}, {wills}");
}
