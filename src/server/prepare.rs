//! The first step of a start: reads and checks files, and reserves resources, before the first core exists.
//!
//! Files come first (keys, rules, certificates, users), then the addresses, then the threads that check passwords:
//! these start before the cores are pinned to their CPUs, so that hashing runs where there is room.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

use super::StartError;
use super::embedding::Embedding;
use super::listening::Reserved;
use crate::audit::Audit;
use crate::auth::CredentialFields;
use crate::broker::{Numbering, SubscriptionLimits};
use crate::clock::Clock;
use crate::config::channels::ChannelSpec;
use crate::config::limits::MemoryMax;
use crate::config::{Config, StoreMode};
use crate::control::jwks::KeyFetcher;
use crate::control::memory::MemoryWatch;
use crate::cores::arrivals::admission::Admission;
use crate::cores::{BatchPace, CoreSettings};
use crate::http::site::Site;
use crate::machine::capacity::KERNEL_BYTES;
use crate::machine::cpus::Cpus;
use crate::machine::{memory, reading};
use crate::policy::{KeySource, Policy};
use crate::protocols::{self, MqttBounds};
use crate::retained;
use crate::session::{self, Logins};
use crate::store::{Store, StoreSettings, Taking};
use crate::transport::port::Ports;
use crate::transport::socket_activation::ActivatedSockets;

/// The parts of a start that come before its cores. No client can see any of it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) clock: Clock,
    /// The CPU of each core.
    pub(super) placement: Vec<usize>,
    pub(super) policy: Arc<Policy>,
    /// Fetches the keys of `jwks_url`, if that is set.
    pub(super) keys: Option<KeyFetcher>,
    pub(super) ports: Ports,
    pub(super) reserved: Reserved,
    /// The listener for operators.
    pub(super) admin: Option<TcpListener>,
    /// The content of `data_dir`, if it is set. No core runs yet.
    pub(super) store: Option<Store>,
    /// The settings that all cores share.
    pub(super) cores: CoreSettings,
}

impl Prepared {
    /// Reads the files, reserves the addresses and starts the password checks.
    ///
    /// # Errors
    /// A file has an error, or an address cannot be used.
    pub(super) fn new(
        config: &Config,
        activated: ActivatedSockets,
        embedding: &Embedding,
    ) -> Result<Prepared, StartError> {
        raise_open_files_limit();
        let clock = Clock::begin();
        let (policy, keys) = policy(config, clock)?;
        let placement = Cpus::of_this_process().placement(&config.cores.placement);
        let mut reserved = Reserved::new(config, activated, embedding.signals)?;
        if reserved.takes_over() && matches!(policy.keys, KeySource::Random(_)) {
            warn!(
                "take_over: tokens of the process that serves {} will not be accepted here: this process has made a key of \
                 its own. Set auth_key to the same key in both",
                config.listen.address
            );
        }
        let ports = reserved.ports().clone();
        let admin = reserved.admin(config)?;
        let admission = Arc::new(Admission::new(
            config.limits.connections_per_address_max,
            config.listen.translator_prefixes.clone(),
        ));
        let policy = policy
            .start_password_checks(config, clock)
            .and_then(Policy::start_hooks)
            .map_err(StartError::Policy)?;
        let policy = Arc::new(policy);
        let counts = Counts {
            cores: placement.len(),
            acceptors: reserved.acceptors(placement.len()),
        };
        let own_fd_table = embedding.descriptors.kept(config.cores.fd_tables);
        let cores = CoreSettings {
            own_fd_table,
            ..core_settings(
                config,
                Arc::clone(&policy),
                admission,
                ports.clone(),
                counts,
                clock,
            )
        };
        // The last step that can fail: the older process releases its store now.
        let taking = if reserved.takes_over() {
            Taking::ByTakeOver
        } else {
            Taking::IfFree
        };
        let store = open_store(config, taking, clock)?;
        Ok(Prepared {
            clock,
            placement,
            policy,
            keys,
            ports,
            reserved,
            admin,
            store,
            cores,
        })
    }
}

/// Opens the store, if `data_dir` is set.
fn open_store(config: &Config, taking: Taking, clock: Clock) -> Result<Option<Store>, StartError> {
    let Some(settings) = StoreSettings::of(config) else {
        return Ok(None);
    };
    let epoch = *Numbering::new().epoch.as_bytes();
    let policies = fingerprint(&config.channels);
    Store::open(settings, taking, epoch, policies, clock)
        .map(Some)
        .map_err(StartError::Store)
}

/// A number for the policies of channels, to see whether they have changed. A change of this number that means nothing
/// costs clients a recovery, no more.
fn fingerprint(channels: &[ChannelSpec]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for spec in channels {
        format!("{:?} {:?}", spec.names, spec.policy).hash(&mut hasher);
    }
    hasher.finish()
}

/// Reads keys, rules, certificates and users, and fetches the keys of `jwks_url`.
fn policy(config: &Config, clock: Clock) -> Result<(Policy, Option<KeyFetcher>), StartError> {
    let mut policy = Policy::open(config).map_err(StartError::Policy)?;
    let mut keys = KeyFetcher::of(config);
    if let Some(keys) = &mut keys {
        policy = keys.fetch_before_start(policy);
    }
    for warning in policy.warnings(clock.now().unix_ms) {
        warn!("{warning}");
    }
    Ok((policy, keys))
}

/// The number of cores, and of the cores that have a listener.
struct Counts {
    cores: usize,
    acceptors: usize,
}

fn core_settings(
    config: &Config,
    policy: Arc<Policy>,
    admission: Arc<Admission>,
    ports: Ports,
    counts: Counts,
    clock: Clock,
) -> CoreSettings {
    CoreSettings {
        ports,
        acceptors: u64::try_from(counts.acceptors).unwrap_or(u64::MAX),
        site: Arc::new(Site::new(
            &config.listen.path,
            config.listen.probe_paths.clone(),
            config.shows_welcome_page(),
        )),
        login_path: config.login.path.clone(),
        login_cookie: config.login.cookie.clone(),
        mqtt_path: config.mqtt.path.clone(),
        mqtt_bounds: mqtt_bounds(config, counts.cores),
        retained: retained_bounds(config, counts.cores),
        retained_per_subscribe_max: config.mqtt.retained_per_subscribe_max,
        limits: config.limits.clone(),
        held_bytes_max: held_bytes_max(config, counts.cores),
        slow_consumer: config.delivery.slow_consumer,
        accept_excess: config.listen.accept_excess,
        compression: config.delivery.compression,
        compression_bytes_min: config.delivery.compression_bytes_min,
        fan_out_slice: config.cores.fan_out_slice,
        busy_poll: config.cores.busy_poll,
        batches: config.socketcluster.batch_on_handshake.then_some(BatchPace {
            interval: config.socketcluster.batch_interval,
            duration: config.socketcluster.batch_duration,
        }),
        admission,
        own_fd_table: None,
        audit: Arc::new(Audit::new(config.limits.audit_lines_per_second_max)),
        session: session_settings(config),
        policy,
        clock,
    }
}

/// The settings of all sessions, by protocol.
fn session_settings(config: &Config) -> protocols::ProtocolSettings {
    protocols::ProtocolSettings {
        common: session::CommonSettings {
            handshake_timeout: config.limits.handshake_timeout,
            decision_timeout: config.limits.decision_timeout,
            channel_name_bytes_max: config.limits.channel_name_bytes_max,
            allow_client_publish: config.permissions.allow_client_publish,
            auth_default_expiry: config.auth.default_expiry,
            allow_anonymous: config.serves_anonymous(),
            authentication_timeout: Some(config.limits.authentication_timeout)
                .filter(|timeout| !timeout.is_zero()),
            logins: Logins {
                fields: CredentialFields::new(
                    config.login.user_fields.clone(),
                    config.login.password_fields.clone(),
                ),
                body_bytes_max: config.limits.login_body_bytes_max,
            },
            wills: config.limits.wills_bytes_max > 0,
            will_bytes_max: config.limits.will_bytes_max,
            will_delay_max: config.limits.will_delay_max,
            has_store: config.store.data_dir.is_some(),
            presence_info_bytes_max: config.limits.presence_info_bytes_max,
            mqtt: session::MqttUse::of(&config.mqtt),
            ..session::CommonSettings::default()
        },
        socketcluster: protocols::SocketClusterSettings {
            protocol: config.socketcluster.protocol,
            ping_interval: config
                .socketcluster
                .pings
                .then_some(config.socketcluster.ping_interval),
            ping_timeout: config.socketcluster.ping_timeout,
            ack_timeout: config.socketcluster.ack_timeout,
            calls_max: config.limits.calls_per_connection_max,
            client_calls_max: config.limits.client_calls_max,
            service_window_max: config.limits.service_window_max,
        },
        mqtt: protocols::MqttSettings {
            packet_bytes_max: config.limits.message_bytes_max,
            server_reference: config.mqtt.server_reference.clone(),
            keep_alive_s_max: config.mqtt.keep_alive_max_seconds,
            session_expiry_s_max: match config.mqtt.session_expiry_max_seconds {
                0 => u32::MAX,
                seconds => seconds,
            },
            receive_maximum: config.mqtt.receive_max,
            receive_excess: config.mqtt.receive_excess,
            topic_aliases_max: config.mqtt.topic_aliases_max,
            retain_available: config.mqtt.retained_count_max > 0,
            checks_payload_format: config.mqtt.check_payload_format,
            is_durable: config.store.data_dir.is_some() && config.store.mode == StoreMode::Strict,
            token_in: config.mqtt.token_in,
            subscription_limits: SubscriptionLimits {
                channels_max: config.limits.channels_per_connection_max,
                names_bytes_max: config.limits.channel_names_bytes_max,
            },
            client_calls_max: config.limits.client_calls_max,
            services_max: config.limits.services_per_connection_max,
            service_window_max: config.limits.service_window_max,
            user_properties_max: config.mqtt.user_properties_max,
            levels_max: config.mqtt.levels_max,
            payload: config.mqtt.payload,
        },
    }
}

/// A core's share of what may be retained.
fn retained_bounds(config: &Config, cores: usize) -> retained::Bounds {
    let bytes_max = usize::try_from(config.mqtt.retained_bytes_max).unwrap_or(usize::MAX);
    retained::Bounds {
        count_max: (config.mqtt.retained_count_max as usize).div_ceil(cores.max(1)),
        bytes_max: bytes_max / cores.max(1),
    }
}

/// The bounds of the MQTT sessions of one core: its share of those that hold for all sessions together, but for wills, of
/// which each core may keep `wills_bytes_max`.
fn mqtt_bounds(config: &Config, cores: usize) -> MqttBounds {
    let mqtt = &config.mqtt;
    let queues_bytes_max = usize::try_from(mqtt.queues_bytes_max).unwrap_or(usize::MAX);
    MqttBounds {
        sessions_max: (mqtt.sessions_max as usize).div_ceil(cores),
        queue_messages_max: mqtt.queue_messages_max as usize,
        queue_bytes_max: mqtt.queue_bytes_max,
        queues_bytes_max: queues_bytes_max.div_ceil(cores),
        in_flight_max: mqtt.in_flight_max,
        wills_bytes_max: config.limits.wills_bytes_max as usize,
        queue_full: mqtt.queue_full,
        queues_qos0: mqtt.queue_qos0,
    }
}

/// The share of one core in `outbox_bytes_total_max`.
fn held_bytes_max(config: &Config, cores: usize) -> usize {
    let machine = reading::machine(Path::new("/"));
    let Some(total) = memory::outbox_bytes_total(&config.limits, &machine) else {
        return usize::MAX;
    };
    info!(
        bytes = total,
        "connections together may hold this much memory (outbox_bytes_total_max); above it, the connections that hold most are closed"
    );
    usize::try_from(total).unwrap_or(usize::MAX) / cores.max(1)
}

/// Watches `memory_bytes_max`, if there is such a limit.
pub(super) fn memory_watch(config: &Config, admission: Arc<Admission>) -> Option<MemoryWatch> {
    let limits = &config.limits;
    let machine = reading::machine(Path::new("/"));
    let is_auto = limits.memory_bytes_max == MemoryMax::Auto;
    let Some(max_bytes) = memory::memory_bytes(limits, &machine) else {
        if is_auto {
            warn!(
                "memory_bytes_max: the size of the memory cannot be read here, so there is no limit; set memory_bytes_max in bytes"
            );
        }
        return None;
    };
    let group = machine.memory_group().filter(|_| is_auto);
    info!(
        max_bytes,
        "new connections are refused when this much memory is in use (memory_bytes_max)"
    );
    let watch = MemoryWatch::new(max_bytes, KERNEL_BYTES, admission);
    Some(match group {
        Some(group) => watch.of_group(move || group.used_bytes(Path::new("/"))),
        None => watch,
    })
}

/// Raises the limit on open files as far as the system allows: each connection needs a descriptor.
fn raise_open_files_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        } else {
            Ok(())
        }
    });
    if let Err(errno) = raised {
        warn!("the limit on open files stays as it is: {errno}");
    }
}
