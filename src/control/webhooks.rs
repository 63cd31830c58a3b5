//! The thread of the webhooks: takes events from the cores, and sends requests (`webhooks/mod.rs`).
//!
//! It has a runtime of its own, so that neither a slow target nor a slow disk holds the control plane up. It begins
//! with the first policy that has a webhook, at the start or by a reload, and ends with the server.
//!
//! It looks for events every [`ACTIVE_EVERY`] while there are some, and every [`IDLE_EVERY`] otherwise: no core ever
//! has to wake it.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::Receiver;
use hyper::body::Bytes;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::sleep;
use tracing::error;

use crate::clock::{Clock, Uptime};
use crate::config::Config;
use crate::cores::operators::mailbox::CoreHandle;
use crate::decision::Limit;
use crate::metrics::webhooks::WebhookAnswer;
use crate::targets::{LinkLocal, Target, TargetError, TargetSettings, tls_of_authority, tls_of_system};
use crate::webhooks::dispatcher::Dispatcher;
use crate::webhooks::hook::{Failure, Request};
use crate::webhooks::{Intake, Webhook, Webhooks};

/// The thread of the webhooks, if it runs.
#[derive(Debug)]
pub(super) struct WebhookThread {
    /// The webhooks in force. The thread looks here before each event, so that it knows the webhooks for which a core
    /// has made the event.
    current: Arc<ArcSwap<Webhooks>>,
    running: OnceLock<Running>,
    vacated_delay: Duration,
    data_dir: Option<PathBuf>,
    clock: Clock,
}

#[derive(Debug)]
struct Running {
    /// Ends the thread, which delivers for so long at most.
    end: watch::Sender<Option<Duration>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl WebhookThread {
    /// It does not run yet.
    pub(super) fn new(config: &Config, clock: Clock) -> WebhookThread {
        WebhookThread {
            current: Arc::default(),
            running: OnceLock::new(),
            vacated_delay: config.limits.webhook_vacated_delay,
            data_dir: config.store.data_dir.clone(),
            clock,
        }
    }

    /// These are the webhooks from now on. To be called before the cores get the policy with them. Starts the thread if
    /// it does not run and there are any.
    pub(super) fn adopt(&self, webhooks: &Arc<Webhooks>, cores: &[CoreHandle]) {
        self.current.store(Arc::clone(webhooks));
        let Some(intake) = webhooks.intake().filter(|_| self.running.get().is_none()) else {
            return;
        };
        let (end, ends) = watch::channel(None);
        let (tell_ended, ended) = crossbeam_channel::bounded(1);
        let service = Service {
            current: Arc::clone(&self.current),
            intake: Arc::clone(intake),
            vacated_delay: self.vacated_delay,
            data_dir: self.data_dir.clone(),
            cores: cores.to_vec(),
            ends,
            clock: self.clock,
        };
        let started = thread::Builder::new().name("webhooks".to_owned()).spawn(move || {
            if let Err(error) = service.run() {
                error!("webhooks: nothing is sent: the system refuses resources for the thread: {error}");
            }
            drop(tell_ended);
        });
        match started {
            // There is one caller at a time.
            Ok(_) => _ = self.running.set(Running { end, ended }),
            Err(error) => error!("webhooks: nothing is sent: the system refuses a thread: {error}"),
        }
    }

    /// Whether the thread was started.
    pub(super) fn is_running(&self) -> bool {
        self.running.get().is_some()
    }

    /// Ends the thread, if it runs. It delivers events within this time. No core sends events any more.
    pub(super) fn end(&self, within: Duration) {
        if let Some(running) = self.running.get() {
            running.end.send_replace(Some(within));
            // It ends when the thread drops its side.
            let _ = running.ended.recv_timeout(within + END_GRACE);
        }
    }
}

/// What the thread works with.
struct Service {
    current: Arc<ArcSwap<Webhooks>>,
    intake: Arc<Intake>,
    vacated_delay: Duration,
    data_dir: Option<PathBuf>,
    cores: Vec<CoreHandle>,
    ends: watch::Receiver<Option<Duration>>,
    clock: Clock,
}

impl Service {
    fn run(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.serve());
        // A look-up of a name that does not end must not hold up the end of the process.
        runtime.shutdown_background();
        Ok(())
    }

    async fn serve(mut self) {
        let webhooks = &self.current;
        let (delay, directory) = (self.vacated_delay, self.data_dir.clone());
        let mut dispatcher = Dispatcher::new(webhooks, &self.intake, delay, directory, self.clock.now());
        let mut requests = Requests::default();
        let (mut last_event, mut next_limits) = (Uptime::default(), Uptime::default());
        loop {
            let now = self.clock.now();
            let taken = dispatcher.take_in(now);
            if taken.is_some() {
                last_event = now.uptime;
            }
            dispatcher.tick(now);
            if next_limits <= now.uptime {
                next_limits = now.uptime + LIMITS_EVERY;
                dispatcher.note_limits(self.limit_hits(), now);
            }
            for request in dispatcher.requests(now) {
                requests.begin(request, self.clock);
            }
            let pause = match taken {
                Some(has_more) if has_more => Duration::ZERO,
                _ if requests.is_empty() && now.uptime.since(last_event) > ACTIVE_FOR => IDLE_EVERY,
                _ => ACTIVE_EVERY,
            };
            let pause = pause.min(dispatcher.next_due().since(now.uptime));
            tokio::select! {
                done = requests.next(), if !requests.is_empty() => self.note(&mut dispatcher, done),
                () = sleep(pause) => {}
                within = end_of(&mut self.ends) => return self.end(dispatcher, requests, within).await,
            }
        }
    }

    /// Delivers waiting events within this time, and closes.
    async fn end(&self, mut dispatcher: Dispatcher, mut requests: Requests, within: Duration) {
        dispatcher.end(self.clock.now());
        let deadline = sleep(within);
        tokio::pin!(deadline);
        while !within.is_zero() && !dispatcher.has_ended() {
            let now = self.clock.now();
            dispatcher.tick(now);
            for request in dispatcher.last_requests(now) {
                requests.begin(request, self.clock);
            }
            tokio::select! {
                done = requests.next(), if !requests.is_empty() => self.note(&mut dispatcher, done),
                () = &mut deadline => break,
                () = sleep(ACTIVE_EVERY) => {}
            }
        }
        dispatcher.close(self.clock.now());
    }

    fn note(&self, dispatcher: &mut Dispatcher, done: Option<Done>) {
        if let Some(Done {
            key,
            outcome,
            took_ns,
        }) = done
        {
            dispatcher.done(key, outcome, took_ns, random(), self.clock.now());
        }
    }

    /// How often each limit was reached, over all cores.
    fn limit_hits(&self) -> [u64; Limit::COUNT] {
        let hits = |limit: Limit| {
            let cores = self.cores.iter();
            cores
                .map(|core| core.metrics().limit_hits[limit.index()].value())
                .sum()
        };
        Limit::ALL.map(hits)
    }
}

/// The requests under way, and the targets that they go to.
#[derive(Default)]
struct Requests {
    tasks: JoinSet<Done>,
    /// The webhook of each task.
    keys: HashMap<Id, u64>,
    /// By webhook: the target of its last request, with the webhook that it was made for.
    targets: HashMap<u64, (Arc<Webhook>, Arc<Target>)>,
}

struct Done {
    key: u64,
    outcome: Result<(), Failure>,
    took_ns: u64,
}

impl Requests {
    fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    fn begin(&mut self, request: Request, clock: Clock) {
        // Targets of removed webhooks are here alone.
        self.targets
            .retain(|_, (webhook, _)| Arc::strong_count(webhook) > 1);
        let Request { key, webhook, body } = request;
        let target = self.target(key, &webhook);
        let within = webhook.spec.timeout;
        let task = self.tasks.spawn(async move {
            let begin_ns = clock.elapsed_ns();
            let outcome = match target {
                Ok(target) => post(&target, body, within).await,
                Err(error) => Err(Failure {
                    answer: WebhookAnswer::Unreachable,
                    cause: error.to_string(),
                    said: String::new(),
                }),
            };
            let took_ns = clock.elapsed_ns().saturating_sub(begin_ns);
            Done {
                key,
                outcome,
                took_ns,
            }
        });
        self.keys.insert(task.id(), key);
    }

    /// The target of a webhook. A reload may have changed its URL, its secrets or its authority.
    fn target(&mut self, key: u64, webhook: &Arc<Webhook>) -> io::Result<Arc<Target>> {
        if let Some((made_for, target)) = self.targets.get(&key)
            && Arc::ptr_eq(made_for, webhook)
        {
            return Ok(Arc::clone(target));
        }
        let target = Arc::new(target_of(webhook)?);
        self.targets
            .insert(key, (Arc::clone(webhook), Arc::clone(&target)));
        Ok(target)
    }

    /// The next request that has ended.
    async fn next(&mut self) -> Option<Done> {
        match self.tasks.join_next_with_id().await? {
            Ok((id, done)) => {
                self.keys.remove(&id);
                Some(done)
            }
            Err(error) => self.panicked(&error),
        }
    }

    /// The webhook tries again, as after any failure.
    fn panicked(&mut self, error: &JoinError) -> Option<Done> {
        let key = self.keys.remove(&error.id())?;
        let outcome = Err(Failure {
            answer: WebhookAnswer::Unreachable,
            cause: "a bug made the request panic, see above".to_owned(),
            said: String::new(),
        });
        Some(Done {
            key,
            outcome,
            took_ns: 0,
        })
    }
}

fn target_of(webhook: &Webhook) -> io::Result<Target> {
    let spec = &webhook.spec;
    let tls = match &webhook.authority {
        _ if !spec.url.is_secure() => None,
        Some(pem) => Some(tls_of_authority(pem)?),
        None => Some(tls_of_system()?),
    };
    Target::new(TargetSettings {
        url: spec.url.expose().to_owned(),
        tls,
        link_local: match spec.link_local {
            true => LinkLocal::Allowed,
            false => LinkLocal::Refused,
        },
        signer: webhook.signer.clone(),
        answer_bytes_max: ANSWER_BYTES_MAX,
        idle_max: 1,
    })
}

async fn post(target: &Target, body: Vec<u8>, within: Duration) -> Result<(), Failure> {
    let answer = match target.post(Bytes::from(body), &[], within).await {
        Ok(answer) if answer.status.is_success() => return Ok(()),
        Ok(answer) => answer,
        Err(error) => return Err(no_answer(&error, within)),
    };
    let redirects = if answer.status.is_redirection() {
        ": set url to the address that it redirects to; redirects are not followed"
    } else {
        ""
    };
    let body = answer.body.unwrap_or_default();
    let said = &body[..body.len().min(SAID_BYTES_MAX)];
    Err(Failure {
        answer: WebhookAnswer::Status,
        cause: format!("the answer is {}{redirects}", answer.status),
        said: String::from_utf8_lossy(said).into_owned(),
    })
}

fn no_answer(error: &TargetError, within: Duration) -> Failure {
    let (answer, cause) = match error {
        TargetError::TimeOver => (
            WebhookAnswer::TimeOver,
            format!("no answer within {} ms (timeout_ms)", within.as_millis()),
        ),
        TargetError::Exchange(_) => (WebhookAnswer::Unreachable, error.to_string()),
    };
    Failure {
        answer,
        cause,
        said: String::new(),
    }
}

/// Waits for the order to end. Never returns without one.
async fn end_of(ends: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match ends.wait_for(Option::is_some).await {
        Ok(within) => within.unwrap_or_default(),
        // The control plane is gone, and with it the process.
        Err(_) => std::future::pending().await,
    }
}

/// A random number, for the times of repetitions. Without random bytes of the system, servers repeat at the same time.
fn random() -> u32 {
    getrandom::u32().unwrap_or_default()
}

/// The outcome of the request with an event of one kind.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) event: &'static str,
    pub(crate) outcome: Result<(), Failure>,
    pub(crate) took: Duration,
}

/// Sends one event of each kind to a webhook, one request for each, and calls `each` with the outcome.
///
/// # Errors
/// No request can be sent.
pub(crate) fn send_samples(webhook: &Webhook, mut each: impl FnMut(Tried)) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let target = target_of(webhook)?;
    let clock = Clock::begin();
    for (event, body) in crate::webhooks::hook::samples(&webhook.spec.name, clock.now().unix_ms) {
        let begin_ns = clock.elapsed_ns();
        let outcome = runtime.block_on(post(&target, body, webhook.spec.timeout));
        let took = Duration::from_nanos(clock.elapsed_ns().saturating_sub(begin_ns));
        each(Tried {
            event: event.label(),
            outcome,
            took,
        });
    }
    Ok(())
}

/// How often the thread looks for events while there are some.
const ACTIVE_EVERY: Duration = Duration::from_millis(20);
/// How often it does so otherwise.
const IDLE_EVERY: Duration = Duration::from_millis(100);
/// How long after the last event there may be more soon.
const ACTIVE_FOR: Duration = Duration::from_secs(1);
/// How often it looks at the limits that were reached.
const LIMITS_EVERY: Duration = Duration::from_secs(1);
/// Most bytes of an answer: nothing in it is used.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// The part of an answer that `ringcast hooks test` shows.
const SAID_BYTES_MAX: usize = 200;
/// How much longer than its time the thread may take to commit, before the end of the process goes on without it.
const END_GRACE: Duration = Duration::from_secs(5);
