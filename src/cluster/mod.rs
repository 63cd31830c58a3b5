//! Several servers as one: publications travel between the nodes of a cluster, through NATS (`cluster_url`).
//!
//! ```text
//!   cores ─► RING ─► thread "cluster ring": what other nodes want ─► NODE: queue ─► thread "cluster" ─► NATS
//!     ▲                                                                                 │
//!     └── ring ◄── publisher of the bridge, which marks what it relays ◄────────────────┘
//!   cores ─► changes of what their clients are subscribed to ─► NODE ─► other nodes
//! ```
//! Two threads share one [`node::Node`] behind a lock, which no core takes. Without `cluster_url` neither exists, and the
//! ring has no reader but the cores.
//!
//! | file | content |
//! |---|---|
//! | `node.rs` | the other nodes, their links, the queue: all that is decided, without I/O |
//! | `interest.rs` | what this node wants of others, and what they want of it |
//! | `wire.rs` | the messages between nodes |
//! | `ring.rs` | the thread that reads the ring |
//! | `nats.rs` | the thread that speaks with NATS |
//! | `arrivals.rs` | publications of others on their way into the ring |
//!
//! What travels: publications on channels without memory, at most once. Not here: channels that remember, retained
//! publications, presence, sessions, services, requests of operators. They are of one node.

#![expect(clippy::disallowed_types, reason = "no core takes these locks")]

mod arrivals;
mod interest;
mod nats;
mod node;
mod ring;
mod wire;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use aws_lc_rs::digest::{SHA256, digest};
use crossbeam_channel::Receiver;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tracing::{error, warn};

use crate::broker::CoreBroker;
use crate::clock::Clock;
use crate::config::Config;
use crate::cores::operators::mailbox::CoreHandle;
use crate::cores::{ClusterWaker, InterestChange};
use crate::metrics::cluster::ClusterMetrics;
use crate::policy::channels::Channels;
use crate::session::MqttUse;

use arrivals::{Arrivals, Rules};
use interest::Interest;
use nats::Connecting;
use node::{Node, NodeSettings, TARGET};
use ring::RingThread;

/// The bridge, while it runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct RunningCluster {
    cluster: Cluster,
    end: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

/// The bridge, for other threads.
#[derive(Clone, Debug)]
pub(crate) struct Cluster(Arc<Shared>);

/// What the bridge needs of the start of the server.
#[derive(Debug)]
pub(crate) struct Bridge {
    /// Its ends of the ring, and its part of the directory.
    pub(crate) broker: CoreBroker,
    /// What cores tell of their subscribers.
    pub(crate) changes: Receiver<Vec<InterestChange>>,
    /// Cores wake the bridge by this.
    pub(crate) waker: Arc<ClusterWaker>,
}

/// What the threads of the bridge share, with each other and with the control plane.
#[derive(Debug)]
struct Shared {
    name: String,
    node_id: String,
    incarnation: u64,
    node: Mutex<Node>,
    arrivals: Mutex<Arrivals>,
    metrics: Arc<ClusterMetrics>,
    clock: Clock,
    waker: Arc<ClusterWaker>,
    /// Told when something waits to be sent.
    queued: Notify,
    /// Told when the others are to be greeted.
    greet: Notify,
    /// Whether there is a connection to NATS. Relaxed: it guards nothing.
    is_connected: AtomicBool,
    is_ending: AtomicBool,
    /// When an error of NATS was last in the log. Relaxed: one thread uses it.
    warned_ms: AtomicU64,
    /// The limits on publications, as their digest.
    limits_digest: u64,
}

impl Shared {
    fn node(&self) -> MutexGuard<'_, Node> {
        // The code that runs under the lock does not panic, and the node would be consistent even so.
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        // As for the node.
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningCluster {
    /// Starts the bridge.
    ///
    /// # Errors
    /// A file of the settings cannot be read, or the system refuses a thread.
    pub(crate) fn start(
        config: &Config,
        bridge: Bridge,
        channels: &Arc<Channels>,
        cores: Vec<CoreHandle>,
        clock: Clock,
    ) -> io::Result<RunningCluster> {
        let Bridge {
            broker,
            changes,
            waker,
        } = bridge;
        let node_id = match &config.cluster.node_id {
            Some(id) => id.clone(),
            None => kept_node_id(config.store.data_dir.as_deref())?,
        };
        let incarnation = getrandom::u64().map_err(io::Error::other)?;
        let metrics = Arc::new(ClusterMetrics::default());
        let limits_digest = limits_digest(config);
        let node = Node::new(NodeSettings {
            id: node_id.clone(),
            incarnation,
            digests: [channels_digest(channels), limits_digest],
            interest: Interest::new(broker.hasher.clone(), broker.subscriptions),
            linger: config.cluster.interest_linger,
            queue_bytes_max: usize::try_from(config.cluster.queue_bytes_max).unwrap_or(usize::MAX),
            node_timeout: config.cluster.node_timeout,
            first_link: clock.now().unix_ms,
            metrics: Arc::clone(&metrics),
        });
        let rules = Rules {
            channels: Arc::clone(channels),
            mqtt: MqttUse::of(&config.mqtt),
        };
        let names = (broker.hasher, broker.numbering.epoch);
        let arrivals = Arrivals::new(
            broker.publisher,
            names,
            rules.clone(),
            &config.limits,
            clock,
            cores,
        );
        let shared = Arc::new(Shared {
            name: config.cluster.name.clone(),
            node_id,
            incarnation,
            node: Mutex::new(node),
            arrivals: Mutex::new(arrivals),
            metrics,
            clock,
            waker,
            queued: Notify::new(),
            greet: Notify::new(),
            is_connected: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            warned_ms: AtomicU64::new(0),
            limits_digest,
        });
        let connecting = Connecting::new(&config.cluster, &shared.node_id, &shared)?;
        let (end, ends) = watch::channel(false);
        let mut running = RunningCluster {
            cluster: Cluster(Arc::clone(&shared)),
            end,
            threads: Vec::new(),
        };
        let ring = RingThread {
            reader: broker.reader,
            changes,
            rules,
            shared: Arc::clone(&shared),
        };
        running.spawn("cluster ring", move || ring.run())?;
        running.spawn("cluster", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => {
                    runtime.block_on(connecting.serve(shared, ends));
                    // A look-up of a name that does not end must not hold up the end of the process.
                    runtime.shutdown_background();
                }
                Err(cause) => error!(target: TARGET, "this node is alone: the system refuses what the thread needs: {cause}"),
            }
        })?;
        Ok(running)
    }

    /// The bridge, for other threads.
    pub(crate) fn handle(&self) -> Cluster {
        self.cluster.clone()
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads
            .push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }
}

impl Drop for RunningCluster {
    fn drop(&mut self) {
        self.cluster.0.is_ending.store(true, Ordering::Release);
        self.end.send_replace(true);
        self.cluster.0.waker.wake();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Cluster {
    /// The counters.
    pub(crate) fn metrics(&self) -> &ClusterMetrics {
        &self.0.metrics
    }

    /// Whether there is a connection to NATS.
    pub(crate) fn is_connected(&self) -> bool {
        self.0.is_connected.load(Ordering::Relaxed)
    }

    /// Decides by these policies from now on. To be called before the cores get the order to adopt them.
    pub(crate) fn adopt(&self, channels: &Arc<Channels>) {
        self.0.arrivals().adopt(channels);
        let digests = [channels_digest(channels), self.0.limits_digest];
        self.0.node().set_digests(digests);
    }

    /// The server drains: another process may have the id of this node from now on.
    pub(crate) fn drain(&self) {
        self.0.node().drain();
        self.0.greet.notify_one();
    }

    /// This node and the others, for operators.
    pub(crate) fn status(&self) -> Value {
        let mut status = self.0.node().status(self.0.clock.uptime());
        if let Some(status) = status.as_object_mut() {
            status.insert("cluster_name".to_owned(), self.0.name.clone().into());
            status.insert("connected".to_owned(), self.is_connected().into());
        }
        status
    }
}

/// The id of this node: that of `data_dir`, or a new one, which is kept there.
fn kept_node_id(data_dir: Option<&Path>) -> io::Result<String> {
    let random = getrandom::u64().map_err(io::Error::other)?;
    let new = format!("node-{random:016x}");
    let Some(file) = data_dir.map(|directory| directory.join(NODE_ID_FILE)) else {
        return Ok(new);
    };
    match fs::read_to_string(&file) {
        Ok(text) if crate::config::cluster::is_node_id(text.trim()) => return Ok(text.trim().to_owned()),
        Ok(_) => warn!(target: TARGET, "{} holds no id of a node: it is written anew", file.display()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(unusable(&file, &cause)),
    }
    fs::write(&file, format!("{new}\n")).map_err(|cause| unusable(&file, &cause))?;
    Ok(new)
}

fn unusable(file: &Path, cause: &io::Error) -> io::Error {
    io::Error::new(
        cause.kind(),
        format!("{}: {cause}; set node_id instead", file.display()),
    )
}

/// A number for the policies of channels, the same on all nodes that have the same.
fn channels_digest(channels: &Channels) -> u64 {
    let specs = channels.specs().iter();
    number_of(specs.map(|spec| format!("{:?} {:?}\n", spec.names, spec.policy)))
}

/// A number for the limits on publications.
fn limits_digest(config: &Config) -> u64 {
    let limits = &config.limits;
    let (message, name) = (limits.message_bytes_max, limits.channel_name_bytes_max);
    number_of([format!("{message} {name} {:?}", config.mqtt.payload)].into_iter())
}

fn number_of(texts: impl Iterator<Item = String>) -> u64 {
    let hash = digest(&SHA256, texts.collect::<String>().as_bytes());
    let (words, _) = hash.as_ref().as_chunks();
    u64::from_le_bytes(words[0])
}

/// The file in `data_dir` that holds the id of the node.
const NODE_ID_FILE: &str = "node_id";
