//! Notifies the service manager, if it asks for that: systemd with `Type=notify-reload`, or another that sets
//! `NOTIFY_SOCKET` (sd_notify(3), systemd.service(5)).
//!
//! The watchdog (`WATCHDOG_USEC`) is fed only while this thread runs and every core turns (`liveness.rs`).

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{ControlState, notify_socket};

/// The service manager of this process, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceManager {
    /// The service manager that the environment names, if it names one.
    OfThisProcess,
    /// The program that embeds the server notifies its service manager itself.
    OfProgram,
}

impl ServiceManager {
    /// All cores accept connections.
    pub(super) fn ready(self) {
        self.notify(&[NotifyState::Ready]);
    }

    /// A reload begins; [`ServiceManager::ready`] ends it, whether it succeeded or not.
    pub(super) fn reloading(self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.notify(&[NotifyState::Reloading, now]),
            Err(error) => warn!("cannot notify the service manager of the reload: {error}"),
        }
    }

    /// The drain begins.
    pub(super) fn stopping(self) {
        self.notify(&[NotifyState::Stopping]);
    }

    /// Feeds the watchdog, if there is one, for as long as the runtime lives.
    pub(super) fn watch(self, shared: &Arc<ControlState>) {
        if self == ServiceManager::OfThisProcess
            && let Some(timeout) = watchdog_timeout()
        {
            tokio::spawn(feed(self, Arc::clone(shared), timeout / CHECKS_PER_TIMEOUT));
        }
    }

    fn notify(self, states: &[NotifyState<'_>]) {
        if self != ServiceManager::OfThisProcess {
            return;
        }
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        // If the manager reads none of them, later messages are dropped: the manager is at fault, and the
        // control plane does not wait for it.
        let _ = SENDER.get_or_init(start_sender).try_send(message);
    }
}

/// The queue of messages to the service manager.
static SENDER: OnceLock<SyncSender<String>> = OnceLock::new();

/// Starts the thread that sends the messages: a send blocks while the manager's queue is full. If the thread
/// cannot start, nothing is sent.
fn start_sender() -> SyncSender<String> {
    let (notify, messages) = sync_channel::<String>(MESSAGES_MAX);
    let send = move || {
        let mut has_failed = false;
        for message in messages {
            match notify_socket::send(&message) {
                Ok(()) => has_failed = false,
                // The watchdog is fed several times a second: log one line until a send succeeds again.
                Err(error) if !std::mem::replace(&mut has_failed, true) => warn!(
                    "cannot send {} to the service manager: {error}; the server goes on without it",
                    message.trim_end().replace('\n', " ")
                ),
                Err(_) => {}
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("notify".to_owned()).spawn(send) {
        warn!(
            "cannot start the thread that notifies the service manager: {error}; the server goes on without it"
        );
    }
    notify
}

/// Most messages that wait for the service manager.
const MESSAGES_MAX: usize = 16;

/// How often the watchdog must be fed, if this process has one (sd_watchdog_enabled(3)).
fn watchdog_timeout() -> Option<Duration> {
    let usec = std::env::var("WATCHDOG_USEC").ok()?;
    if let Ok(process) = std::env::var("WATCHDOG_PID")
        && process.parse() != Ok(std::process::id())
    {
        info!(
            "WATCHDOG_PID is {process}, not this process: the watchdog belongs to another process and is not \
             fed"
        );
        return None;
    }
    let timeout = usec
        .parse()
        .ok()
        .filter(|usec| *usec > 0)
        .map(Duration::from_micros);
    if timeout.is_none() {
        warn!("WATCHDOG_USEC is {usec:?}, not a number of microseconds: the watchdog is not fed");
    }
    timeout
}

async fn feed(manager: ServiceManager, shared: Arc<ControlState>, every: Duration) {
    let mut tick = interval(every.max(CHECK_EVERY_MIN));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = shared.clock.now().uptime;
        shared.liveness.check(&shared.cores, now);
        if shared.liveness.stuck_for(every, &shared.cores, now).is_empty() {
            manager.notify(&[NotifyState::Watchdog]);
        }
    }
}

/// Several checks per timeout, so that one late turn does not get the process killed.
const CHECKS_PER_TIMEOUT: u32 = 4;
/// The shortest time between two checks, however short the timeout.
const CHECK_EVERY_MIN: Duration = Duration::from_millis(10);
