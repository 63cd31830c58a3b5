//! The thread of the bridge that speaks with NATS: it sends what waits, and takes in what comes.
//!
//! The client of NATS connects again by itself, for ever, and renews its subscriptions. While there is no connection, what is
//! to be sent waits in the queue of the node, which is bounded; the client itself gets no more than [`COMMANDS_WAITING_MAX`]
//! messages at a time, so that a server that stands still holds little up.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, Message, ServerAddr, Subscriber};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use crate::config::Cluster;
use crate::metrics::cluster::ClusterLoss;

use super::Shared;
use super::arrivals::Unpublished;
use super::node::{Arrived, TARGET};

/// How to connect.
pub(super) struct Connecting {
    options: ConnectOptions,
    servers: Vec<ServerAddr>,
    /// The servers without passwords.
    hosts: String,
    /// The beginning of all subjects.
    prefix: String,
}

impl Connecting {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// One of them cannot be read; the error names the setting.
    pub(super) fn new(cluster: &Cluster, node_id: &str, shared: &Arc<Shared>) -> io::Result<Connecting> {
        let mut options = ConnectOptions::new()
            .name(format!("ringcast {node_id}"))
            .no_echo()
            .retry_on_initial_connect()
            .ping_interval(PING_EVERY)
            .connection_timeout(CONNECT_TIME_MAX)
            .client_capacity(COMMANDS_WAITING_MAX)
            .subscription_capacity(MESSAGES_WAITING_MAX)
            .reconnect_delay_callback(reconnect_delay);
        if let Some(file) = &cluster.credentials_file {
            let text = read("cluster_credentials_file", file)?;
            options = options
                .credentials(&text)
                .map_err(|cause| in_setting("cluster_credentials_file", &cause))?;
        }
        if let Some(file) = &cluster.nkey_file {
            options = options.nkey(read("cluster_nkey_file", file)?.trim().to_owned());
        }
        if let Some(file) = &cluster.ca_file {
            read("cluster_ca_file", file)?;
            options = options.add_root_certificates(file.clone());
        }
        if let (Some(certificate), Some(key)) = (&cluster.certificate_file, &cluster.key_file) {
            read("cluster_certificate_file", certificate)?;
            read("cluster_key_file", key)?;
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        // The client never sees a URL with a password, so that it cannot log one.
        options = match cluster.url.user() {
            Some((user, Some(password))) => options.user_and_password(user, password),
            Some((token, None)) => options.token(token),
            None => options,
        };
        let servers = cluster.url.servers().filter_map(|url| url.parse().ok()).collect();
        let events = Arc::clone(shared);
        let hosts = cluster.url.hosts();
        let shown = hosts.clone();
        options = options.event_callback(move |event| {
            note(&events, &event, &shown);
            std::future::ready(())
        });
        Ok(Connecting {
            options,
            servers,
            hosts,
            prefix: format!("ringcast.{}", cluster.name),
        })
    }

    /// Serves until the bridge ends.
    pub(super) async fn serve(self, shared: Arc<Shared>, mut end: watch::Receiver<bool>) {
        let greetings = format!("{}.all", self.prefix);
        let frames = format!("{}.to.{:016x}", self.prefix, shared.incarnation);
        info!(target: TARGET, "this node is {}, joined by NATS at {}", shared.node_id, self.hosts);
        let client = loop {
            // Returns at once; the client goes on to try. It fails by a mistake in the settings alone, such as a wrong key.
            match self.options.clone().connect(self.servers.clone()).await {
                Ok(client) => break client,
                Err(error) => {
                    warn!(target: TARGET, "no connection to NATS at {}: {error}; it is tried again", self.hosts);
                    tokio::select! {
                        () = sleep(CONNECT_AGAIN) => {}
                        _ = end.wait_for(|end| *end) => return,
                    }
                }
            }
        };
        let subscriptions = (
            client.subscribe(greetings.clone()).await,
            client.subscribe(frames).await,
        );
        let (Ok(greeted), Ok(framed)) = subscriptions else {
            warn!(target: TARGET, "NATS takes no subscriptions: this node is alone");
            return;
        };
        let bridge = Bridge {
            client,
            shared,
            prefix: self.prefix,
            greetings,
        };
        tokio::select! {
            ((), (), ()) = async { tokio::join!(bridge.receive(greeted, framed), bridge.send(), bridge.beat()) } => {}
            _ = end.wait_for(|end| *end) => {}
        }
        bridge.say_farewell().await;
    }
}

struct Bridge {
    client: Client,
    shared: Arc<Shared>,
    prefix: String,
    /// The subject of greetings.
    greetings: String,
}

impl Bridge {
    async fn receive(&self, mut greeted: Subscriber, mut framed: Subscriber) {
        loop {
            tokio::select! {
                Some(message) = greeted.next() => {
                    let now = self.shared.clock.uptime();
                    self.shared.node().take_greeting(&message.payload, now);
                    self.shared.greet.notify_one();
                }
                Some(message) = framed.next() => self.take_frame(&message).await,
                else => return std::future::pending().await,
            }
        }
    }

    async fn take_frame(&self, message: &Message) {
        let clock = self.shared.clock;
        let (arrived, wakes, has_queued) = {
            let mut node = self.shared.node();
            let arrived = node.take_frame(&message.payload, clock.uptime(), clock.elapsed_ns());
            (arrived, node.take_new_interest(), node.has_queued())
        };
        if wakes {
            self.shared.waker.wake();
        }
        if has_queued {
            self.shared.queued.notify_one();
        }
        for publication in &arrived {
            self.publish(publication).await;
        }
    }

    /// Publishes on this node. If the ring has no room, it is tried again for a while.
    async fn publish(&self, arrived: &Arrived<'_>) {
        let metrics = &self.shared.metrics;
        let deadline = self.shared.clock.uptime() + ROOM_TIME_MAX;
        loop {
            let outcome = self.shared.arrivals().publish(arrived);
            let loss = match outcome {
                Ok(()) => return metrics.received.add(1),
                Err(Unpublished::Lost(loss)) => loss,
                Err(Unpublished::Full) if self.shared.clock.uptime() >= deadline => ClusterLoss::NoRoom,
                Err(Unpublished::Full) => {
                    // Its own reader may be the one that lags.
                    self.shared.waker.wake();
                    sleep(ROOM_RETRY).await;
                    continue;
                }
            };
            return metrics.lost[loss.index()].add(1);
        }
    }

    async fn send(&self) {
        loop {
            self.shared.queued.notified().await;
            while self.is_connected() {
                let frame_bytes_max = self.client.max_payload();
                let frames = self.shared.node().take_frames(frame_bytes_max);
                if frames.is_empty() {
                    break;
                }
                for frame in frames {
                    let subject = format!("{}.to.{:016x}", self.prefix, frame.to);
                    // A frame that is not taken is missed by its receiver, which counts it.
                    let _ = self.client.publish(subject, frame.bytes.into()).await;
                }
            }
        }
    }

    async fn beat(&self) {
        let beat = self.shared.node().beat();
        let mut beats = interval(beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_beat = tokio::select! {
                _ = beats.tick() => true,
                () = self.shared.greet.notified() => false,
            };
            if !is_beat {
                if !self.shared.node().has_to_greet() {
                    continue;
                }
                sleep(GREET_PAUSE).await;
            } else {
                let clock = self.shared.clock;
                self.shared.node().tend(clock.now(), clock.elapsed_ns());
                self.shared.arrivals().tidy();
                self.shared.queued.notify_one();
            }
            if self.is_connected() {
                let greeting = self.shared.node().greeting(false);
                let sent = self.client.publish(self.greetings.clone(), greeting.into());
                // NATS may stand still. The next beat comes all the same.
                let _ = timeout(beat, sent).await;
            }
        }
    }

    async fn say_farewell(&self) {
        if self.is_connected() {
            let greeting = self.shared.node().greeting(true);
            let farewell = async {
                let _ = self.client.publish(self.greetings.clone(), greeting.into()).await;
                let _ = self.client.flush().await;
            };
            // The others find out anyhow.
            let _ = timeout(FAREWELL_TIME_MAX, farewell).await;
        }
    }

    fn is_connected(&self) -> bool {
        self.shared.is_connected.load(Ordering::Relaxed)
    }
}

/// Notes what the client of NATS tells.
fn note(shared: &Shared, event: &Event, hosts: &str) {
    let metrics = &shared.metrics;
    match event {
        Event::Connected => {
            let is_first = metrics.connects.value() == 0;
            shared.is_connected.store(true, Ordering::Relaxed);
            metrics.connected.set(1);
            metrics.connects.add(1);
            match is_first {
                true => info!(target: TARGET, "connected to NATS at {hosts}"),
                false => warn!(target: TARGET, "connected to NATS at {hosts} again"),
            }
            shared.node().greet_soon();
            shared.greet.notify_one();
            shared.queued.notify_one();
        }
        Event::Disconnected | Event::Closed => {
            if shared.is_connected.swap(false, Ordering::Relaxed) {
                metrics.connected.set(0);
                warn!(
                    target: TARGET,
                    "the connection to NATS at {hosts} has ended: until there is one again, publications reach the clients of this \
                     node alone"
                );
            }
        }
        Event::SlowConsumer(_) => metrics.slow.add(1),
        Event::LameDuckMode => {
            info!(target: TARGET, "NATS at {hosts} is about to end, and asks its clients to leave")
        }
        Event::Draining => {}
        Event::ServerError(error) => warn_now_and_then(shared, &format!("NATS at {hosts} says: {error}")),
        Event::ClientError(error) => warn_now_and_then(shared, &format!("NATS at {hosts}: {error}")),
    }
}

/// The client tells of each attempt that fails.
fn warn_now_and_then(shared: &Shared, line: &str) {
    let now = shared.clock.uptime().as_ms();
    let before = shared.warned_ms.load(Ordering::Relaxed);
    if before == 0 || now.saturating_sub(before) > WARN_EVERY_MS {
        shared.warned_ms.store(now.max(1), Ordering::Relaxed);
        warn!(target: TARGET, "{line}");
    }
}

fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(6);
    (RECONNECT_FIRST * 2_u32.pow(doublings)).min(RECONNECT_MAX)
}

fn read(setting: &str, file: &std::path::Path) -> io::Result<String> {
    fs::read_to_string(file).map_err(|cause| {
        io::Error::new(
            cause.kind(),
            format!("{setting}: {} cannot be read: {cause}", file.display()),
        )
    })
}

fn in_setting(setting: &str, cause: &io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("{setting}: {cause}"))
}

/// Messages that the client has, and has not written yet.
const COMMANDS_WAITING_MAX: usize = 64;
/// Messages that have come and that this thread has not taken; the client drops further ones.
const MESSAGES_WAITING_MAX: usize = 2048;
/// Two pings without an answer end the connection.
const PING_EVERY: Duration = Duration::from_secs(2);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How soon a connection is tried again that the settings forbid.
const CONNECT_AGAIN: Duration = Duration::from_secs(10);
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// How long a publication of another node waits for room in the ring.
const ROOM_TIME_MAX: Duration = Duration::from_secs(1);
const ROOM_RETRY: Duration = Duration::from_millis(1);
/// Several nodes that are new at the same time get one greeting.
const GREET_PAUSE: Duration = Duration::from_millis(10);
const FAREWELL_TIME_MAX: Duration = Duration::from_millis(500);
/// How often errors of NATS are in the log at most.
const WARN_EVERY_MS: u64 = 10_000;
