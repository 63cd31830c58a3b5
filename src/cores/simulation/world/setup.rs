//! Makes the server and the clients of a run, as its plan says.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::trace::Trace;
use super::{GroundTruth, SimulatedCore, World};
use crate::auth::{CredentialFields, Tokens};
use crate::broker::{ChannelHasher, Epoch, Numbering, RingBytes, RingPlan, broker_with_outside};
use crate::clock::simulated::Time;
use crate::clock::{Now, Uptime};
use crate::config::limits::MemoryMax;
use crate::config::rules::Audience;
use crate::config::secret::Secret;
use crate::config::tls::OnListen;
use crate::config::{Codec, Config};
use crate::cores::arrivals::admission::Admission;
use crate::cores::operators::mailbox::CoreHandle;
use crate::cores::simulation::actor::{Actor, AppLog};
use crate::cores::simulation::device::Device;
use crate::cores::simulation::lives::Lives;
use crate::cores::simulation::log::Log;
use crate::cores::simulation::plan::{Plan, WILLS_TIGHT};
use crate::cores::simulation::random::Random;
use crate::cores::simulation::services::Calls;
use crate::cores::simulation::shares::Shares;
use crate::cores::simulation::webhooks::Events as WebhookEvents;
use crate::cores::simulation::wills::Wills;
use crate::cores::simulation::{SCALE, descriptors, webhooks};
use crate::cores::{CoreParts, CoreSettings, Stored, StoredSessions};
use crate::history::Histories;
use crate::http::site::Site;
use crate::policy::Policy;
use crate::protocols;
use crate::session::{self, Logins};
use crate::store::simulated::SimulatedStore;
use crate::transport::port::Ports;

impl World {
    pub(in crate::cores::simulation) fn new(seed: Option<u64>, plan: Plan, mut random: Random) -> World {
        SCALE.set(Some(plan.scale));
        let replays = descriptors::make_own();
        let key = seed.unwrap_or(0);
        let time = Time::begin(key, plan.creep_ns_max);
        let clock = time.clock();
        let told = Rc::new(RefCell::new(AppLog {
            defers: plan.defers,
            ..AppLog::default()
        }));
        let mut config = Config::default();
        config.auth.key = Some(Secret::new("the key of all simulations, which is no secret"));
        config.channels = plan.policies(&mut random);
        config.permissions.rules = plan.rules(Audience::Anyone);
        config.services = plan.service_terms();
        config.limits = plan.limits.clone();
        config.webhooks = plan.webhooks.then(webhooks::spec).into_iter().collect();
        let policy = Arc::new(Policy::open(&config).expect("a key and policies that are right"));
        let admission = Arc::new(Admission::new(
            plan.limits.connections_per_address_max,
            config.listen.translator_prefixes.clone(),
        ));
        // One reader more than there are cores: the log's.
        let share = plan.limits.ring_bytes_max / plan.cores as u64;
        let (mut brokers, _) = broker_with_outside(RingPlan {
            cores: plan.cores,
            observers: 1,
            slots: plan.limits.ring_slots,
            bytes: RingBytes {
                cores_max: share * (plan.cores as u64 + 1),
                outside_max: 0,
            },
            numbering: Numbering::new(),
        });
        let epoch = brokers[0].numbering.epoch;
        let observer = brokers.pop().expect("one more").reader;
        for broker in &mut brokers {
            broker.hasher = ChannelHasher::with_key(key);
        }
        let connections_max = plan.limits.connections_max;
        let is_tight = plan.limits.wills_bytes_max <= WILLS_TIGHT;
        let tokens = policy.tokens.clone();
        let intake = policy.webhooks.intake().cloned();
        let devices = (0..plan.devices)
            .map(|index| Device::new(index, random.chance(1, 2)))
            .collect();
        let (mut parts, handles) = CoreParts::all(brokers, connections_max, 64, |_| Actor(Rc::clone(&told)))
            .expect("polls and socket pairs");
        let settings = settings(&plan, &policy, &admission, clock, epoch);
        let store = plan
            .store
            .then(|| with_store(&mut parts, &handles, epoch, time.clock().now()));
        let seats = parts
            .into_iter()
            .map(|parts| SimulatedCore::new(parts, &settings, &plan))
            .collect();
        let log = Log::new(observer);
        let mut lives = Lives::default();
        lives.connack_waits = plan.store;
        World {
            seats,
            clients: Vec::new(),
            devices,
            handles,
            admission,
            policy,
            config,
            store,
            commits: true,
            rests: 0,
            subscribed: (<[_; 2]>::default(), Uptime::default()),
            infos: (BTreeMap::new(), Uptime::default()),
            truth: GroundTruth {
                random,
                time,
                plan,
                log,
                told,
                trace: Trace::new(seed, replays),
                deliveries: 0,
                undelivered: 0,
                missing: 0,
                draining: false,
                revoked: false,
                replayed: 0,
                recoveries: 0,
                histories: 0,
                events: 0,
                clock_sets: 0,
                still_for: Duration::ZERO,
                epoch: None,
                tokens: Tokens::clone(&tokens),
                lives,
                wills: Wills::new(is_tight),
                calls: Calls::default(),
                infos: 0,
                events_told: WebhookEvents::new(intake),
                shares: Shares::default(),
                acknowledged: Vec::new(),
                device_deliveries: 0,
                long_subacks: 0,
                device_missing: Vec::new(),
            },
        }
    }
}

/// A store for cores that have not begun.
fn with_store(
    parts: &mut [CoreParts<Actor>],
    handles: &[CoreHandle],
    epoch: Epoch,
    now: Now,
) -> SimulatedStore {
    let (store, sinks) = SimulatedStore::new(parts.len());
    for (part, sink) in parts.iter_mut().zip(sinks) {
        let mut histories = Histories::new(epoch, 1 << 20, 100);
        histories.begin_with_store(0, 0, now);
        part.stored = Some(Stored {
            sink,
            histories,
            wills: Vec::new(),
            retained: Vec::new(),
            mqtt: StoredSessions {
                sessions: Vec::new(),
                publications: Arc::default(),
                may_miss_some: false,
            },
        });
    }
    let handles = handles.to_vec();
    store.set_wake(Box::new(move |core| handles[core].request_turn()));
    store
}

fn settings(
    plan: &Plan,
    policy: &Arc<Policy>,
    admission: &Arc<Admission>,
    clock: crate::clock::Clock,
    epoch: Epoch,
) -> CoreSettings {
    CoreSettings {
        ports: Ports {
            main: ([127, 0, 0, 1], 0).into(),
            main_tls: OnListen::Off,
            tls: None,
            mqtt: None,
            mqtt_tls: None,
            codecs: [Codec::Json; 2],
            mqtt_beside: plan.mqtt,
        },
        acceptors: u64::try_from(plan.cores).expect("few cores"),
        compression: false,
        compression_bytes_min: 1024,
        fan_out_slice: Duration::from_micros(500),
        busy_poll: Duration::ZERO,
        batches: None,
        site: Arc::new(Site::new("/socketcluster/", Vec::new(), false)),
        login_path: "/login".to_owned(),
        login_cookie: "ringcast".to_owned(),
        mqtt_path: "/mqtt".to_owned(),
        retained: crate::retained::Bounds {
            count_max: 1000,
            bytes_max: 1024 * 1024,
        },
        retained_per_subscribe_max: 1000,
        mqtt_bounds: plan.mqtt_bounds,
        limits: plan.limits.clone(),
        held_bytes_max: match plan.limits.outbox_bytes_total_max {
            MemoryMax::Off | MemoryMax::Auto => usize::MAX,
            MemoryMax::Bytes(bytes) => usize::try_from(bytes).expect("few"),
        },
        slow_consumer: plan.slow_consumer,
        accept_excess: plan.accept_excess,
        admission: Arc::clone(admission),
        own_fd_table: None,
        audit: Arc::new(crate::audit::Audit::new(0)),
        session: protocols::ProtocolSettings {
            common: session::CommonSettings {
                epoch,
                handshake_timeout: plan.limits.handshake_timeout,
                // Longer than a run: clients of a simulation know of no refusal.
                decision_timeout: Duration::from_secs(86_400),
                channel_name_bytes_max: plan.limits.channel_name_bytes_max,
                allow_client_publish: true,
                auth_default_expiry: Duration::from_secs(86_400),
                allow_anonymous: true,
                authentication_timeout: None,
                logins: Logins {
                    fields: CredentialFields::default(),
                    body_bytes_max: 4096,
                },
                wills: plan.limits.wills_bytes_max > 0,
                will_bytes_max: plan.limits.will_bytes_max,
                will_delay_max: plan.limits.will_delay_max,
                has_store: plan.store,
                presence_info_bytes_max: plan.limits.presence_info_bytes_max,
                mqtt: match plan.mqtt {
                    true => session::MqttUse::WithRetained,
                    false => session::MqttUse::Off,
                },
            },
            socketcluster: protocols::SocketClusterSettings {
                protocol: plan.protocol,
                ping_interval: plan.ping_interval,
                ping_timeout: plan.ping_timeout,
                ack_timeout: Duration::from_secs(3),
                calls_max: plan.limits.calls_per_connection_max,
                client_calls_max: plan.limits.client_calls_max,
                service_window_max: 1024,
            },
            mqtt: protocols::MqttSettings {
                session_expiry_s_max: plan.session_expiry_s_max,
                receive_maximum: plan.receive_max,
                is_durable: plan.store,
                ..protocols::MqttSettings::default()
            },
        },
        policy: Arc::clone(policy),
        clock,
    }
}
