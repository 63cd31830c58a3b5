//! The definition of a core, its construction at the start, and the values that it lends its sessions.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use mio::unix::SourceFd;
use mio::{Interest, Poll};
use nix::sys::resource::{Resource, getrlimit};

use crate::app::{App, Context, LateAnswerSender, Upgrade, UpgradeRequest};
use crate::audit::AuditTrail;
use crate::auth::Claims;
use crate::broker::{ChannelHasher, Numbering, PostEnd, Sequence};
use crate::client::ClientAddress;
use crate::clock::{Now, Uptime};
use crate::config::limits::Limits;
use crate::decision::Decisions;
use crate::http::{Refusal, Request, Status};
use crate::machine::descriptors;
use crate::metrics::block::CoreMetrics;
use crate::mqtt;
use crate::policy::Policy;
use crate::protocols::{Environment, ProtocolSettings, Scratch, Session};
use crate::session::{self, SessionIds};

use crate::cores::arrivals::acceptor::Acceptor;
use crate::cores::arrivals::listeners::HAND_OVERS;
use crate::cores::arrivals::requests::Requests;
use crate::cores::connections::delivery_inspector::AppInspector;
use crate::cores::connections::{Bounds, Connections};
use crate::cores::delivery::abandoned_publications::AbandonedPublications;
use crate::cores::delivery::channel_memory::ChannelMemory;
use crate::cores::delivery::fan_out::Delivery;
use crate::cores::delivery::retained_topics::RetainedTopics;
use crate::cores::input::intake::{Intake, Owners, frames_per_turn_max};
use crate::cores::input::server_subscriptions::ServerSubscriptions;
use crate::cores::lifecycle::connection::ConnectionId;
use crate::cores::lifecycle::counts::Counts;
use crate::cores::lifecycle::meter::Measures;
use crate::cores::lifecycle::moving::Moves;
use crate::cores::lifecycle::owner_calls::{OwnerCalls, OwnerCallsMax};
use crate::cores::lifecycle::recent_ends::RecentEnds;
use crate::cores::lifecycle::shedding::Shedding;
use crate::cores::lifecycle::unsubscribing::Unsubscribing;
use crate::cores::lifecycle::waiting::Waiting;
use crate::cores::lifecycle::webhook_events::WebhookEvents;
use crate::cores::lifecycle::wheel::Wheel;
use crate::cores::lifecycle::will_state::WillState;
use crate::cores::operators::draining::Draining;
use crate::cores::operators::mailbox::Mailbox;
use crate::cores::operators::operations::Operations;
use crate::cores::outgoing::forms::Forms;
use crate::cores::outgoing::retained_asks::RetainedAsks;
use crate::cores::post::letter::Letter;
use crate::cores::presence::state::Presence;
use crate::cores::services::state::Services;
use crate::cores::tick_timer::TickTimer;
use crate::cores::turn_time::{TurnShares, TurnTime};
use crate::cores::{CoreId, CoreParts, CoreSettings, Stored, StoredSessions};

/// One event loop and its parts. Each part keeps its own invariants. A step that needs several parts is a method of the
/// core, in the file of the folder that the step belongs to.
#[derive(Debug)]
pub(in crate::cores) struct Core<A: App> {
    pub(super) id: CoreId,
    /// Whether another core runs on the same CPU.
    pub(super) shares_cpu: bool,
    pub(super) poll: Poll,
    pub(super) time: TurnTime,
    /// How long the core looks for work before each sleep.
    pub(super) busy_poll_ns: u64,
    pub(super) acceptor: Acceptor,
    pub(super) requests: Requests,
    pub(super) connections: Connections,
    /// The connections that are on their way to this core.
    pub(super) moves: Moves,
    pub(super) counts: Counts,
    pub(super) wheel: Wheel,
    pub(super) waiting: Waiting,
    pub(super) shares: TurnShares,
    pub(super) intake: Intake,
    /// The decisions of the messages that are handled now, until they are carried out.
    pub(super) decisions: Decisions,
    pub(super) delivery: Delivery,
    /// This core's end of the post.
    pub(super) post: PostEnd<Letter>,
    pub(super) abandoned: AbandonedPublications,
    pub(super) presence: Presence,
    pub(super) shedding: Shedding,
    /// The connections that have ended and have subscriptions left.
    pub(super) unsubscribing: Unsubscribing,
    /// The wills of the core's connections, and those that wait here.
    pub(super) wills: WillState,
    /// Whether the core has stored state of a channel or a session since its start: channels have had a
    /// policy, a client has left a will, or another core has sent a letter. Until then its turns do not look
    /// for such work at all.
    pub(super) keeps_state: bool,
    pub(super) limits: Limits,
    pub(super) measures: Measures,
    pub(super) resources: SessionResources<A>,
    pub(super) mailbox: Mailbox,
    pub(super) operations: Operations,
    pub(super) draining: Option<Draining>,
    /// The place in the ring from which on nothing is remembered any more, once it is known.
    pub(super) remembering_ends_at: Option<Sequence>,
    /// The calls of `$history` that wait for owners.
    pub(super) history_calls: OwnerCalls,
    /// Subscriptions that the server has made, and for which the clients have not asked yet.
    pub(super) server_subscriptions: ServerSubscriptions,
    /// Services, and calls to them.
    pub(super) services: Services,
    /// Retained publications that are to be sent to MQTT subscribers.
    pub(super) retained_asks: RetainedAsks,
    pub(super) retained_per_subscribe_max: u32,
    /// The ends of the last connections that have ended.
    pub(super) ends: RecentEnds,
    pub(super) audit: AuditTrail,
    /// Events for webhooks; `None` without webhooks.
    pub(super) webhooks: Option<Box<WebhookEvents>>,
    /// When the metrics of memory are set next.
    pub(super) memory_due: Uptime,
    /// When the application's periodic work is due next.
    pub(super) tick: TickTimer,
    pub(super) metrics: Arc<CoreMetrics>,
}

/// The part of a core that it lends its sessions.
#[derive(Debug)]
pub(in crate::cores) struct SessionResources<A> {
    pub(super) settings: ProtocolSettings,
    /// Replaced by a reload.
    pub(super) policy: Arc<Policy>,
    pub(super) app: A,
    pub(super) scratch: Scratch,
    pub(super) ids: SessionIds,
}

impl<A: App> Core<A> {
    pub(super) fn new(
        parts: CoreParts<A>,
        settings: CoreSettings,
        own_fd_table: bool,
    ) -> io::Result<Core<A>> {
        let limits = settings.limits.clone();
        let inbox = parts.hand_over.as_fd().as_raw_fd();
        parts
            .poll
            .registry()
            .register(&mut SourceFd(&inbox), HAND_OVERS, Interest::READABLE)?;
        let metrics = parts.mailbox.metrics();
        let time = TurnTime::new(settings.clock, settings.fan_out_slice);
        let begin = time.now();
        let now = begin.uptime;
        let own = OwnCore {
            id: parts.id,
            cores: parts.wakers.len(),
            numbering: parts.broker.numbering,
            hasher: parts.broker.hasher.clone(),
            metrics: Arc::clone(&metrics),
        };
        let kept = KeptState::new(parts.stored, &own, &settings, begin);
        let cores = u64::try_from(own.cores).unwrap_or(u64::MAX);
        let connections_max = connections_max(limits.connections_per_core_max, own_fd_table, cores)?;
        let acceptor = Acceptor::new(
            parts.id,
            parts.hand_over,
            parts.loads,
            connections_max,
            &settings,
            Arc::clone(&metrics),
        );
        let presence = Presence::new(own.cores, &limits, &settings.policy.channels, own.hasher.clone());
        let tick = TickTimer::new(parts.app.tick_every(), now);
        let late_answers = parts.mailbox.late_answer_sender();
        let keeps_state = kept.memory.is_some() || settings.policy.channels.has_presence();
        let policy = Arc::clone(&settings.policy);
        let mut core = Core {
            id: parts.id,
            shares_cpu: parts.shares_cpu,
            poll: parts.poll,
            time,
            busy_poll_ns: settings.busy_poll.as_nanos().try_into().unwrap_or(u64::MAX),
            acceptor,
            requests: Requests::new(&settings),
            connections: connections(&settings, kept.mqtt, Arc::clone(&metrics)),
            moves: Moves::default(),
            counts: Counts::new(Arc::clone(&metrics)),
            wheel: Wheel::new(now),
            waiting: Waiting::default(),
            shares: TurnShares::default(),
            intake: Intake::new(
                &limits,
                Owners {
                    core: parts.id.index(),
                    cores: own.cores,
                    hasher: own.hasher.clone(),
                },
            ),
            decisions: Decisions::new(),
            post: parts.post,
            delivery: Delivery::new(
                parts.broker,
                kept.memory,
                kept.retained,
                parts.wakers,
                Arc::clone(&metrics),
            ),
            abandoned: AbandonedPublications::new(limits.abandoned_bytes_max),
            presence,
            shedding: Shedding::new(now),
            unsubscribing: Unsubscribing::default(),
            wills: kept.wills,
            keeps_state,
            measures: Measures::new(&limits),
            resources: SessionResources::new(parts.app, &settings, &own, late_answers)?,
            mailbox: parts.mailbox,
            operations: Operations::default(),
            draining: None,
            remembering_ends_at: None,
            history_calls: OwnerCalls::new(
                OwnerCallsMax {
                    of_core: limits.history_calls_per_core_max,
                    of_connection: limits.history_calls_per_connection_max,
                },
                own.cores,
            ),
            server_subscriptions: ServerSubscriptions::default(),
            services: Services::new(parts.id.index(), own.cores, &limits),
            retained_asks: RetainedAsks::default(),
            retained_per_subscribe_max: settings.retained_per_subscribe_max,
            ends: RecentEnds::new(),
            audit: AuditTrail::new(settings.audit),
            webhooks: None,
            memory_due: now,
            tick,
            limits,
            metrics,
        };
        core.adopt_webhooks(&policy.webhooks);
        if !policy.channels.is_empty() {
            core.note_histories(&policy.channels);
        }
        Ok(core)
    }
}

/// The facts about a core that its parts need when they are made.
struct OwnCore {
    id: CoreId,
    /// How many cores the server has.
    cores: usize,
    numbering: Numbering,
    hasher: ChannelHasher,
    metrics: Arc<CoreMetrics>,
}

/// The parts of a core that outlive connections. With a store they begin with what a former process has left there.
struct KeptState {
    /// `None` if no channel has a policy and there is no store.
    memory: Option<Box<ChannelMemory>>,
    /// `None` without MQTT.
    retained: Option<Box<RetainedTopics>>,
    /// `None` without MQTT.
    mqtt: Option<mqtt::sessions::Sessions>,
    wills: WillState,
}

impl KeptState {
    fn new(stored: Option<Stored>, own: &OwnCore, settings: &CoreSettings, begin: Now) -> KeptState {
        let (channels, limits) = (&settings.policy.channels, &settings.limits);
        let memory = || {
            let (channels, metrics) = (Arc::clone(channels), Arc::clone(&own.metrics));
            ChannelMemory::new(
                own.id.index(),
                own.cores,
                own.numbering,
                channels,
                limits,
                metrics,
            )
        };
        let topics = || {
            let metrics = Arc::clone(&own.metrics);
            RetainedTopics::new(own.id.index(), own.cores, settings.retained, metrics)
        };
        let mut mqtt = settings.ports.have_mqtt().then(|| {
            let location = mqtt::sessions::CoreLocation {
                core: own.id.index(),
                cores: own.cores,
                hasher: own.hasher.clone(),
            };
            mqtt::sessions::Sessions::new(settings.mqtt_bounds, location)
        });
        let wills_bytes_max = limits.wills_bytes_max as usize;
        let Some(stored) = stored else {
            return KeptState {
                memory: (!channels.is_empty()).then(|| Box::new(memory())),
                retained: mqtt.is_some().then(|| Box::new(topics())),
                mqtt,
                wills: WillState::new(wills_bytes_max, Vec::new(), Arc::clone(&own.metrics)),
            };
        };
        if let Some(sessions) = &mut mqtt {
            let StoredSessions {
                sessions: of_clients,
                publications,
                may_miss_some,
            } = stored.mqtt;
            sessions.begin_saving(stored.sink.is_strict(), publications.last());
            sessions.restore(of_clients, &publications, may_miss_some, begin);
        }
        KeptState {
            retained: mqtt
                .is_some()
                .then(|| Box::new(topics().with_store(stored.retained, channels))),
            memory: Some(Box::new(memory().with_store(
                stored.sink,
                stored.histories,
                begin,
            ))),
            mqtt,
            wills: WillState::new(wills_bytes_max, stored.wills, Arc::clone(&own.metrics)),
        }
    }
}

/// The table of connections, with what it needs to send to them.
fn connections(
    settings: &CoreSettings,
    mqtt: Option<mqtt::sessions::Sessions>,
    metrics: Arc<CoreMetrics>,
) -> Connections {
    let has_min_bin = settings.ports.have_min_bin();
    let forms = (settings.compression || has_min_bin)
        .then(|| Forms::new(settings.compression_bytes_min, has_min_bin));
    let bounds = Bounds {
        outbox_bytes_max: settings.limits.outbox_bytes_max,
        held_bytes_max: settings.held_bytes_max,
        write_timeout: settings.limits.write_timeout,
        batches: settings.batches,
    };
    Connections::new(&bounds, settings.slow_consumer, forms, mqtt, metrics)
}

impl<A: App> SessionResources<A> {
    fn new(
        app: A,
        settings: &CoreSettings,
        own: &OwnCore,
        late_answers: Arc<dyn LateAnswerSender>,
    ) -> io::Result<SessionResources<A>> {
        let mut of_sessions = settings.session.clone();
        of_sessions.common.epoch = own.numbering.epoch;
        let mut scratch = Scratch::of_core(late_answers, settings.limits.timers_per_connection_max);
        scratch.common.services.is_used = !settings.policy.services.is_empty();
        Ok(SessionResources {
            settings: of_sessions,
            policy: Arc::clone(&settings.policy),
            app,
            scratch,
            ids: SessionIds::new()?,
        })
    }

    pub(super) fn environment<'e>(
        &'e mut self,
        now: Now,
        id: ConnectionId,
        mqtt: Option<&'e mut mqtt::sessions::Sessions>,
    ) -> Environment<'e, A> {
        Environment {
            common: session::Environment {
                now,
                address: id.token().0,
                settings: &self.settings.common,
                policy: &self.policy,
                app: &mut self.app,
                scratch: &mut self.scratch.common,
                packets_max: frames_per_turn_max(),
            },
            settings: &self.settings,
            socketcluster: &mut self.scratch.socketcluster,
            mqtt,
        }
    }

    pub(super) fn new_session(&mut self, now: Now, claims: Option<Box<Claims>>) -> Session {
        Session::begin(&mut self.ids, &self.settings, now, claims)
    }

    pub(super) fn new_mqtt_session(&mut self, now: Now, claims: Option<Box<Claims>>) -> Session {
        Session::begin_mqtt(&mut self.ids, now, claims)
    }

    /// The application's look at publications that are delivered.
    #[inline]
    pub(super) fn inspector(&mut self) -> AppInspector<'_, A> {
        AppInspector {
            app: &mut self.app,
            scratch: &mut self.scratch.common.app,
        }
    }

    /// Keeps the facts about a connection that the application wants to have later.
    #[inline]
    pub(super) fn keep_context(&mut self, id: ConnectionId, context: Context) {
        self.scratch.common.app.contexts.keep(id.token().0, context);
    }

    /// Asks the application which facts it wants to keep about a connection that speaks MQTT and has sent no
    /// request.
    pub(super) fn begin_context(&mut self, id: ConnectionId, peer: Option<SocketAddr>) {
        let mut context = self.app.context(&Upgrade {
            path: "",
            query: "",
            headers: &[],
            peer,
        });
        if self.policy.hooks.is_some() {
            context = context.passing_on(UpgradeRequest::new("", "", Vec::new(), peer));
        }
        self.keep_context(id, context);
    }

    /// Asks the application whether a client may upgrade, and which facts it wants to keep about the
    /// connection.
    pub(super) fn allow_upgrade(
        &mut self,
        request: &Request<'_>,
        client: ClientAddress,
    ) -> Result<Context, Refusal> {
        let mut few = [("", &[][..]); HEADERS_ON_STACK];
        let mut many: Vec<_>;
        let count = request.header_count();
        let headers = if count <= few.len() {
            for (place, header) in few.iter_mut().zip(request.headers()) {
                *place = header;
            }
            &mut few[..count]
        } else {
            many = request.headers().collect();
            &mut many
        };
        // If the request target is in absolute form, its host replaces that of the header (RFC 9112 section 3.2.2).
        for (name, value) in headers.iter_mut() {
            if name.eq_ignore_ascii_case("host")
                && let Some(host) = request.host()
            {
                *value = host;
            }
        }
        let upgrade = Upgrade {
            path: request.path(),
            query: request.query().unwrap_or(""),
            headers,
            peer: client.socket_address(),
        };
        match self.app.upgrade(&upgrade) {
            Ok(()) => Ok(self.app.context(&upgrade)),
            Err(refused) => Err(Refusal::Application {
                status: Status::UNAUTHORIZED,
                body: refused.message,
            }),
        }
    }
}

/// How many connections a core takes: as many as its descriptor table has room for, or fewer if so
/// configured. Never more: the system closes sockets that other cores hand to a core without a free
/// descriptor.
fn connections_max(configured: u32, own_fd_table: bool, cores: u64) -> io::Result<u32> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let room = descriptors::connections_per_core(soft, own_fd_table, cores);
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    Ok(match configured {
        0 => room,
        fewer => fewer.min(room),
    })
}

/// Most headers that an application is shown without an allocation: more than browsers send.
const HEADERS_ON_STACK: usize = 24;
