//! What the service manager is told, if it asks for it: systemd with `Type=notify-reload`, or another that sets
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

/// Who supervises this process, if somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceManager {
    /// The one named by the environment, if any is.
    OfThisProcess,
    /// That of whoever embeds the server, who tells it.
    NotOurs,
}

impl ServiceManager {
    /// All cores accept connections.
    pub(super) fn ready(self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// A reload begins; [`ServiceManager::ready`] ends it, whatever came of it.
    pub(super) fn reloading(self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => warn!("the service manager is not told of the reload: {error}"),
        }
    }

    /// The drain begins.
    pub(super) fn stopping(self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Feeds the watchdog for as long as the runtime lives, if there is one.
    pub(super) fn watch(self, shared: &Arc<ControlState>) {
        if self == ServiceManager::OfThisProcess
            && let Some(timeout) = watchdog_timeout()
        {
            tokio::spawn(feed(self, Arc::clone(shared), timeout / LOOKS_PER_TIMEOUT));
        }
    }

    fn tell(self, states: &[NotifyState<'_>]) {
        if self != ServiceManager::OfThisProcess {
            return;
        }
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        // A manager that reads none of them gets no more: it is at fault, and the control plane does not wait.
        let _ = MESSENGER.get_or_init(messenger).try_send(message);
    }
}

/// The way to the service manager.
static MESSENGER: OnceLock<SyncSender<String>> = OnceLock::new();

/// Starts the thread that sends what is told: a send waits while the manager's queue is full. Without a thread nothing is
/// told.
fn messenger() -> SyncSender<String> {
    let (tell, told) = sync_channel::<String>(MESSAGES_MAX);
    let send = move || {
        let mut was_lost = false;
        for message in told {
            match notify_socket::send(&message) {
                Ok(()) => was_lost = false,
                // The watchdog is fed several times a second: one line until it succeeds again.
                Err(error) if !std::mem::replace(&mut was_lost, true) => warn!(
                    "the service manager cannot be told {}: {error}; the server goes on without it",
                    message.trim_end().replace('\n', " ")
                ),
                Err(_) => {}
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("notify".to_owned()).spawn(send) {
        warn!("the service manager cannot be told anything: {error}");
    }
    tell
}

/// Messages that wait for the service manager.
const MESSAGES_MAX: usize = 16;

/// How often the watchdog must be fed, if there is one for this process (sd_watchdog_enabled(3)).
fn watchdog_timeout() -> Option<Duration> {
    let usec = std::env::var("WATCHDOG_USEC").ok()?;
    if let Ok(process) = std::env::var("WATCHDOG_PID")
        && process.parse() != Ok(std::process::id())
    {
        info!("WATCHDOG_PID is {process}, not this process: the watchdog is another's, and is not fed");
        return None;
    }
    let timeout = usec
        .parse()
        .ok()
        .filter(|usec| *usec > 0)
        .map(Duration::from_micros);
    if timeout.is_none() {
        warn!("WATCHDOG_USEC is {usec:?}, not a number of microseconds: no watchdog is fed");
    }
    timeout
}

async fn feed(manager: ServiceManager, shared: Arc<ControlState>, every: Duration) {
    let mut look = interval(every.max(LOOK_EVERY_MIN));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let now = shared.clock.now().uptime;
        shared.liveness.look(&shared.cores, now);
        if shared.liveness.stuck_for(every, &shared.cores, now).is_empty() {
            manager.tell(&[NotifyState::Watchdog]);
        }
    }
}

/// A core that is late once is not yet a reason to be killed.
const LOOKS_PER_TIMEOUT: u32 = 4;
/// However short the timeout.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(10);
