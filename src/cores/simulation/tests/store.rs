//! Clients of a strict server, whose disk is slow.

use super::*;

/// Two cores with two MQTT clients and a SocketCluster client. The disk accepts no writes yet.
fn begun(seed: u64) -> (World, usize) {
    let plan = Plan {
        mqtt: true,
        devices: 2,
        store: true,
        ..Plan::default()
    };
    let mut world = World::new(Some(seed), plan, Random::new(seed));
    world.commits = false;
    let client = world.connect(0, false).unwrap();
    world.with(client, |client, truth| client.ask(truth, Asked::Handshake));
    (world, client)
}

impl World {
    /// Connects an MQTT client while the disk accepts no writes.
    fn begin_to_connect(&mut self, index: usize, is_clean: bool, expiry_s: u32) {
        self.commits = false;
        self.device_connects(index, is_clean, expiry_s);
        self.devices[index].poll();
        self.settle();
    }

    /// From now on, the disk accepts all writes.
    fn commit(&mut self) {
        self.commits = true;
        self.settle();
    }

    fn are_open(&self) -> [bool; 2] {
        [0, 1].map(|index: usize| self.devices[index].is_open())
    }

    /// Whether the disk has the session of an MQTT client.
    fn has_session(&self, index: usize) -> bool {
        let store = self.store.as_ref().unwrap();
        store.has_session(&format!("device {index}"))
    }
}

/// The clients fail if a publication comes before CONNACK, or if a publication of a session is missing.
#[test]
fn connack_waits_for_the_commit_of_the_session_and_no_core_does() {
    for seed in 0..16 {
        let (mut world, client) = begun(seed);
        for index in [0, 1, 0] {
            // The third connection replaces the first one.
            world.begin_to_connect(index, false, 100);
            assert_eq!(world.are_open(), [false; 2], "seed {seed}");
        }
        world.with(client, |client, truth| client.ask(truth, Asked::Call));
        world.settle();
        assert!(!world.clients[client].is_owed_an_answer());
        assert!(!world.has_session(0) && !world.has_session(1));
        world.commit();
        assert_eq!(world.are_open(), [true; 2], "seed {seed}");
        assert!(world.has_session(0) && world.has_session(1));

        // Publications that wait for a client still wait when it has connected and disconnected again.
        world.devices[0].subscribe(&mut world.truth, &[(channel_name(0), 2)]);
        world.settle();
        world.devices[0].cut(false);
        world.settle();
        let published = world.truth.log.len();
        for qos in [1, 2] {
            // Now and then, the client clears the retained publication instead, with QoS 0.
            world.devices[1].publish_with(&mut world.truth, 0, qos);
        }
        world.settle();
        let published = world.truth.log.len() - published;
        let before = world.truth.device_deliveries;
        world.begin_to_connect(0, false, 100);
        let now = (world.are_open(), world.truth.device_deliveries);
        assert_eq!(now, ([false, true], before), "seed {seed}");
        world.commit();
        let now = (world.are_open(), world.truth.device_deliveries);
        assert_eq!(now, ([true; 2], before + published), "seed {seed}");
    }
}

/// At the end of the drain's time. They get a CONNACK that refuses them, or none.
#[test]
fn a_drain_ends_connections_whose_connack_waits() {
    for seed in 0..8 {
        let (mut world, _) = begun(seed);
        world.begin_to_connect(0, false, 100);
        assert!(world.devices[0].is_connecting());
        world.drain();
        world.pass(world.truth.plan.drain + Duration::from_secs(1));
        assert!(world.devices[0].is_gone(), "seed {seed}");
    }
}

/// Two cores that remember some channels and have a strict store, with a client on each core, and a channel that the first
/// core owns.
fn with_channels(seed: u64) -> (World, [usize; 2], usize) {
    let plan = Plan {
        memory: Memory::Some,
        store: true,
        channels: CHANNELS,
        ..Plan::default()
    };
    let mut world = World::new(Some(seed), plan, Random::new(seed));
    let hasher = ChannelHasher::with_key(seed);
    let is_of_0 = |channel: &usize| hasher.hash(channel_name(*channel).as_bytes()).owner(2) == 0;
    let channel = (1..CHANNELS).find(is_of_0).unwrap();
    world.remember(&[channel]);
    let clients = [0, 1].map(|core| world.connect(core, false).unwrap());
    for client in clients {
        world.ask(client, Asked::Handshake);
    }
    (world, clients, channel)
}

impl World {
    /// Has all cores remember these channels and no others.
    fn remember(&mut self, channels: &[usize]) {
        let names: Vec<String> = channels.iter().map(|&channel| channel_name(channel)).collect();
        let mut policies = Memory::Everything.policies(CHANNELS, &mut self.truth.random);
        policies.retain(|spec| names.contains(&spec.names[0]));
        let policy = self.apply_policy(policies);
        for handle in &self.handles {
            handle.send(Order::Adopt(Arc::clone(&policy))).unwrap();
        }
        self.settle();
    }

    fn ask(&mut self, client: usize, asked: Asked) {
        self.with(client, |client, truth| client.ask(truth, asked));
        self.settle();
    }
}

/// A reload has a channel remembered while a publication on it, which was decided before, waits behind one that waits for a
/// commit. A client that comes back must not be told that it has missed nothing.
#[test]
fn a_publication_that_waits_behind_a_commit_during_a_reload_is_not_passed_over() {
    for seed in 0..8 {
        let (mut world, [publisher, returning], channel) = with_channels(seed);
        // The answer has the epoch.
        world.ask(publisher, Asked::Recover(channel, Wanted::Position));
        world.commits = false;
        world.with(publisher, |client, truth| {
            client.ask_all(truth, &[Asked::Publish(channel), Asked::Publish(0)]);
        });
        world.settle();
        assert!(world.truth.log.of_channel(0).is_empty(), "seed {seed}: it waits");
        world.remember(&[channel, 0]);
        world.commit();
        assert!(!world.truth.log.of_channel(0)[0].remembered, "seed {seed}");
        let first = world.truth.log.of_channel(channel)[0].sequence;
        // The client compares the answer with what was published.
        world.ask(returning, Asked::Recover(0, Wanted::After(first)));
        assert!(!world.clients[returning].is_owed_an_answer());
        world.ask(publisher, Asked::Publish(0));
        assert!(!world.clients[publisher].is_owed_an_answer(), "seed {seed}");
    }
}

const CHANNELS: usize = 16;
