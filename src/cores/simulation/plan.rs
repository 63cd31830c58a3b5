//! The settings that a seed chooses before a run: the number of clients, and limits low enough to be met.

use std::time::Duration;

use super::Scale;
use super::policies::Memory;
use super::random::Random;
use crate::config::channels::{ChannelSpec, PresencePolicy};
use crate::config::limits::{Limits, MemoryMax};
use crate::config::rules::{Action, Audience, Effect, RuleSpec};
use crate::config::services::{ServiceSpec, Terms};
use crate::config::{AcceptExcess, Protocol, QueueFull, SlowConsumer};
use crate::protocols::MqttBounds;

/// The settings of one run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) cores: usize,
    pub(super) limits: Limits,
    pub(super) slow_consumer: SlowConsumer,
    pub(super) accept_excess: AcceptExcess,
    pub(super) protocol: Protocol,
    pub(super) ping_interval: Option<Duration>,
    pub(super) ping_timeout: Duration,
    pub(super) drain: Duration,
    pub(super) scale: Scale,
    /// Events of one wait.
    pub(super) events_max: usize,
    /// By how much a reading of the clock moves it.
    pub(super) creep_ns_max: u64,
    pub(super) send_buffer: usize,
    pub(super) addresses: u16,
    pub(super) channels: usize,
    pub(super) memory: Memory,
    pub(super) clients_max: usize,
    pub(super) steps: usize,
    /// Most bytes of a publication's padding.
    pub(super) padding_max: usize,
    /// Whether all channels have presence.
    pub(super) presence: bool,
    /// Whether events report members that join and leave.
    pub(super) presence_events: bool,
    /// Whether clients may speak MQTT.
    pub(super) mqtt: bool,
    /// Whether there is a strict store, which commits when the scenario says so.
    pub(super) store: bool,
    /// Whether the application defers some decisions.
    pub(super) defers: bool,
    /// How many clients speak MQTT.
    pub(super) devices: usize,
    pub(super) mqtt_bounds: MqttBounds,
    /// The longest time for which a session of MQTT outlives its connection.
    pub(super) session_expiry_s_max: u32,
    /// Most publications that an MQTT client may have in flight.
    pub(super) receive_max: u16,
    /// Whether clients call and serve procedures.
    pub(super) services: bool,
    /// How long a call of a service may take.
    pub(super) call_timeout: Duration,
    /// Most calls that wait for a service with room.
    pub(super) queue_calls: u32,
    /// Whether a webhook gets events.
    pub(super) webhooks: bool,
}

/// Bytes for only a few wills at a time.
pub(super) const WILLS_TIGHT: u32 = 700;

/// A limit of members that refuses clients.
const MEMBERS_FEW: u32 = 3;
/// A limit of members that refuses no client.
const MEMBERS_MANY: u32 = 250_000;

/// More clients than a core serves in one turn.
pub(super) const CROWD: usize = 30;

impl Default for Plan {
    /// Two cores with the server's own limits, and nothing left to chance: for scenarios that are written out.
    fn default() -> Plan {
        Plan {
            cores: 2,
            limits: Limits {
                ring_slots: 64,
                ..Limits::default()
            },
            slow_consumer: SlowConsumer::Close,
            accept_excess: AcceptExcess::Wait,
            protocol: Protocol::Auto,
            ping_interval: Some(Duration::from_secs(8)),
            ping_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(2),
            scale: Scale::default(),
            events_max: 1024,
            creep_ns_max: 1,
            send_buffer: 200_000,
            addresses: 1000,
            channels: 4,
            memory: Memory::Nothing,
            clients_max: 10,
            steps: 0,
            padding_max: 100,
            presence: false,
            presence_events: false,
            mqtt: false,
            store: false,
            defers: false,
            devices: 0,
            mqtt_bounds: MqttBounds {
                sessions_max: 1000,
                queue_messages_max: 100,
                queue_bytes_max: 1 << 20,
                queues_bytes_max: 1 << 24,
                in_flight_max: 100,
                wills_bytes_max: 1 << 20,
                queue_full: QueueFull::DropNewest,
                queues_qos0: false,
            },
            session_expiry_s_max: 100,
            receive_max: 1024,
            services: false,
            call_timeout: Duration::from_secs(3),
            queue_calls: 1000,
            webhooks: false,
        }
    }
}

impl Plan {
    /// Whether all clients that are subscribed to a channel with presence are members.
    pub(super) fn has_room_for_members(&self) -> bool {
        self.limits.presence_members_max >= MEMBERS_MANY
    }

    /// The policies of channels, which a reload chooses anew.
    pub(super) fn policies(&self, random: &mut Random) -> Vec<ChannelSpec> {
        let mut policies = self.memory.policies(self.channels, random);
        if self.presence {
            policies.push(ChannelSpec {
                names: vec!["**".to_owned()],
                ..ChannelSpec::default()
            });
            for spec in &mut policies {
                spec.policy.presence = match self.presence_events {
                    true => PresencePolicy::MembersAndEvents,
                    false => PresencePolicy::Members,
                };
            }
        }
        policies
    }

    /// The rules: everything is allowed, except that perhaps not all clients may serve.
    pub(super) fn rules(&self, serving: Audience) -> Vec<RuleSpec> {
        let of = |actions, who| RuleSpec {
            effect: Effect::Allow,
            actions,
            to: vec![who],
            ..RuleSpec::default()
        };
        let but_serve = Action::ALL.into_iter().filter(|&action| action != Action::Serve);
        match self.services {
            true => vec![
                of(but_serve.collect(), Audience::Anyone),
                of(vec![Action::Serve], serving),
            ],
            false => Vec::new(),
        }
    }

    /// The terms of all calls of services.
    pub(super) fn service_terms(&self) -> Vec<ServiceSpec> {
        let spec = ServiceSpec {
            pattern: "p/*".to_owned(),
            terms: Terms {
                timeout: self.call_timeout,
                queue_calls: self.queue_calls,
                ..Terms::default()
            },
            file: None,
            line: 0,
        };
        self.services.then_some(spec).into_iter().collect()
    }

    /// Whether a call may be refused since there are too many.
    pub(super) fn services_may_be_busy(&self) -> bool {
        let (limits, defaults) = (&self.limits, Limits::default());
        self.queue_calls < 1000
            || limits.service_calls_per_connection_max < defaults.service_calls_per_connection_max
            || limits.service_call_bytes_per_core_max < defaults.service_call_bytes_per_core_max
    }

    /// Whether a service may be refused since there are too many.
    pub(super) fn services_are_few(&self) -> bool {
        let (limits, defaults) = (&self.limits, Limits::default());
        limits.services_per_connection_max < defaults.services_per_connection_max
            || limits.service_members_max < defaults.service_members_max
            || limits.service_patterns_max < defaults.service_patterns_max
    }

    pub(super) fn of(random: &mut Random) -> Plan {
        let ms = Duration::from_millis;
        let (ping_interval, ping_timeout) = random.of(&[
            (Some(500), 1800),
            (Some(1000), 4000),
            (Some(8000), 30_000),
            (None, 30_000),
        ]);
        let some = |random: &mut Random, value: u32| if random.chance(1, 8) { value } else { 0 };
        let mut limits = Limits {
            handshake_timeout: ms(random.of(&[1000, 10_000])),
            request_timeout: ms(random.of(&[1000, 20_000])),
            close_timeout: ms(random.of(&[500, 5000])),
            connections_max: some(random, 6),
            connections_per_core_max: some(random, 4),
            connections_per_address_max: some(random, 3),
            accepts_per_second_max: some(random, 20),
            channels_per_connection_max: random.of(&[2, 1000, 1000]),
            outbox_bytes_max: random.of(&[500, 2000, 10_000, 1_000_000]),
            outbox_bytes_total_max: random.of(&[
                MemoryMax::Off,
                MemoryMax::Off,
                MemoryMax::Bytes(2000),
                MemoryMax::Bytes(20_000),
            ]),
            write_timeout: ms(random.of(&[0, 1500, 10_000])),
            messages_per_second_max: some(random, 30),
            bytes_per_second_max: some(random, 3000).into(),
            rate_burst: ms(1000),
            rate_grace: ms(random.of(&[0, 3000])),
            idle_timeout: if random.chance(1, 8) { ms(7000) } else { ms(0) },
            client_calls_max: random.of(&[3, 1000]),
            calls_per_connection_max: random.of(&[2, 1000]),
            ring_slots: random.of(&[1, 2, 4, 16, 64, 256]),
            ring_bytes_max: random.of(&[500, 4000, 100_000, 10_000_000]),
            abandoned_bytes_max: random.of(&[0, 1000, 1_000_000]),
            presence_grace: ms(random.of(&[0, 700])),
            presence_tick: ms(random.of(&[10, 500])),
            presence_sampled_over: random.of(&[1, 1000, 1000]),
            presence_members_max: random.of(&[MEMBERS_FEW, MEMBERS_MANY, MEMBERS_MANY]),
            wills_bytes_max: random.of(&[16 << 20, 16 << 20, 16 << 20, WILLS_TIGHT]),
            recovery_publications_max: random.of(&[1, 5, 10_000]),
            recovery_bytes_max: random.of(&[1000, 64 << 20]),
            service_cancel_time: ms(random.of(&[0, 300, 1000])),
            service_calls_per_connection_max: random.of(&[2, 256, 256, 256]),
            service_call_bytes_per_core_max: random.of(&[1000, 1 << 28, 1 << 28, 1 << 28]),
            services_per_connection_max: random.of(&[1, 64, 64, 64]),
            service_members_max: random.of(&[1, 256, 256, 256]),
            service_patterns_max: random.of(&[1, 1000, 1000, 1000]),
            webhook_events_waiting_max: random.of(&[2, 20, 100_000]),
            ..Limits::default()
        };
        let mqtt = random.chance(1, 3);
        let memory = random.of(&[Memory::Nothing, Memory::Nothing, Memory::Everything, Memory::Some]);
        if memory == Memory::Some {
            limits.history_bytes_max = random.of(&[3000, 30_000, 256 << 20]);
            limits.history_channels_max = random.of(&[1, 3, 100_000]);
        }
        Plan {
            cores: random.of(&[1, 2, 2, 3, 4]),
            limits,
            slow_consumer: random.of(&[SlowConsumer::Close, SlowConsumer::Skip, SlowConsumer::Conflate]),
            accept_excess: random.of(&[AcceptExcess::Wait, AcceptExcess::Refuse]),
            protocol: Protocol::Auto,
            ping_interval: ping_interval.map(ms),
            ping_timeout: ms(ping_timeout),
            drain: ms(random.of(&[0, 100, 3000])),
            scale: Scale {
                copies_per_turn_max: random.of(&[1, 3, 10, 16_384]),
                unflushed_bytes_max: random.of(&[100, 3000, 4_000_000]),
                buffers_max: random.of(&[1, 4, 8192]),
                read_bytes_per_turn_max: random.of(&[100, 1000, 256 * 1024]),
                frames_per_turn_max: random.of(&[1, 5, 256]),
                places_per_turn_max: random.of(&[3, 10, 256]),
                channels_per_turn_max: random.of(&[1, 2, 256]),
                letters_waiting_max: random.of(&[1, 2, 1024]),
                letters_per_turn_max: random.of(&[1, 3, 256]),
            },
            events_max: random.of(&[1, 2, 8, 1024]),
            creep_ns_max: random.of(&[1, 1000, 30_000, 400_000]),
            send_buffer: random.of(&[1, 8192, 40_000, 200_000]),
            addresses: random.of(&[1, 3, 1000]),
            channels: 1 + random.below(3),
            memory,
            clients_max: if random.chance(1, 32) {
                CROWD
            } else {
                2 + random.below(12)
            },
            steps: 30 + random.below(270),
            padding_max: random.of(&[10, 100, 1000, 6000]),
            presence: random.chance(1, 2),
            presence_events: random.chance(1, 2),
            mqtt,
            store: false,
            // MQTT clients are to be answered at rest.
            defers: random.chance(1, 3) && !mqtt,
            devices: if mqtt { 1 + random.below(4) } else { 0 },
            mqtt_bounds: MqttBounds {
                queue_messages_max: random.of(&[1, 5, 1000]),
                queue_bytes_max: random.of(&[300, 10_000, 1 << 20]),
                queues_bytes_max: random.of(&[1000, 1 << 24, 1 << 24]),
                in_flight_max: random.of(&[1, 3, 100]),
                queue_full: random.of(&[QueueFull::DropNewest, QueueFull::DropOldest]),
                queues_qos0: random.chance(1, 4),
                ..Plan::default().mqtt_bounds
            },
            receive_max: random.of(&[1, 3, 1024]),
            session_expiry_s_max: 100,
            services: random.chance(1, 3),
            call_timeout: ms(random.of(&[200, 3000])),
            queue_calls: random.of(&[0, 2, 1000]),
            webhooks: random.chance(1, 3),
        }
    }
}
