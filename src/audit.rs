//! The audit trail: logins, refusals and the actions of operators, as log lines with the target
//! `ringcast::audit`.
//!
//! ```text
//!  core ──Trail──┐                                  ┌─► WARN ringcast::audit: login refused event="login_refused" …
//!  core ──Trail──┼──► Audit: a rate for each event, ─┤
//!  control ──────┘    and one for all refusals       └─► left out, counted, and reported by the control plane
//! ```
//!
//! Any client can fail to log in as often as it likes, so lines have a rate limit. A core learns from the
//! shared limit until when no line is allowed, and does not ask again before that: so a flood costs each core
//! a comparison and an increment of its own counter. Actions of operators have no rate limit, since they need
//! the key or access to the machine.
//!
//! A line contains the address without the port, the user if it is known, and the reason, but never a
//! password, a token or a key. Text that a client has sent (names of users, channels, origins) is cut to
//! `TEXT_BYTES_MAX` and quoted, so that it cannot look like another field or another line. The address comes
//! before it.
//!
//! Limits: `audit_lines_per_second_max`.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{info, warn};

use crate::clock::Uptime;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A user has logged in with a password.
    LoginAccepted,
    /// A login was refused.
    LoginRefused,
    /// A token, or a certificate used instead of one, was refused.
    TokenRefused,
    /// A client tried an action that it is not allowed.
    ActionRefused,
    /// An upgrade was refused.
    RequestRefused,
    /// The control plane has refused a request.
    OperatorRefused,
    /// The HTTP API has refused a request.
    ApiRefused,
    /// A request to the HTTP API has published something.
    ApiPublish,
    /// Another request to the HTTP API may have changed something.
    ApiRequest,
}

impl Event {
    /// The number of events, for tables.
    pub const COUNT: usize = 9;

    /// All events, in the order of [`Event::index`].
    pub const ALL: [Event; Event::COUNT] = [
        Event::LoginAccepted,
        Event::LoginRefused,
        Event::TokenRefused,
        Event::ActionRefused,
        Event::RequestRefused,
        Event::OperatorRefused,
        Event::ApiRefused,
        Event::ApiPublish,
        Event::ApiRequest,
    ];

    /// Their labels in lines and metrics.
    pub const LABELS: [&'static str; Event::COUNT] = [
        "login_accepted",
        "login_refused",
        "token_refused",
        "action_refused",
        "request_refused",
        "operator_refused",
        "api_refused",
        "api_publish",
        "api_request",
    ];

    /// The index in tables.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The label.
    pub const fn label(self) -> &'static str {
        Event::LABELS[self.index()]
    }

    fn is_refusal(self) -> bool {
        match self {
            Event::LoginAccepted | Event::ApiPublish | Event::ApiRequest => false,
            Event::LoginRefused
            | Event::TokenRefused
            | Event::ActionRefused
            | Event::RequestRefused
            | Event::OperatorRefused
            | Event::ApiRefused => true,
        }
    }
}

/// The rate limits of all lines of a server.
#[derive(Debug)]
pub struct Audit {
    /// For each event: half of the rate for all refusals, so that one event leaves room for others.
    events: [Rate; Event::COUNT],
    /// For all refusals together. Accepted logins are not counted, so refusals cannot displace them.
    refusals: Rate,
}

/// The time of the next line, in milliseconds of uptime (GCRA). Written by all threads that log events, at
/// most a few times a second; relaxed order is enough.
#[derive(Debug)]
struct Rate {
    next_ms: AtomicU64,
    /// The time between two lines in the long run; zero for no limit.
    period_ms: u64,
}

impl Audit {
    /// Allows this many lines of refusals per second, after a burst of ten times as many; 0 for no limit.
    pub fn new(lines_per_second_max: u32) -> Audit {
        let rate = |per_1000_seconds: u64| Rate {
            next_ms: AtomicU64::new(0),
            period_ms: 1_000_000_u64.checked_div(per_1000_seconds).unwrap_or(0),
        };
        let all = u64::from(lines_per_second_max) * 1000;
        Audit {
            events: std::array::from_fn(|_| rate(all / 2)),
            refusals: rate(all),
        }
    }

    /// Asks whether a line about this event may be written now.
    ///
    /// # Errors
    /// The time at which to ask again.
    pub fn allows(&self, event: Event, now: Uptime) -> Result<(), Uptime> {
        let of_event = &self.events[event.index()];
        of_event.take(now)?;
        if event.is_refusal() {
            self.refusals.take(now).inspect_err(|_| of_event.release())?;
        }
        Ok(())
    }
}

impl Rate {
    fn take(&self, now: Uptime) -> Result<(), Uptime> {
        let burst_ms = self.period_ms * BURST_LINES;
        let taken = self
            .next_ms
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next_ms| {
                let due = next_ms.max(now.as_ms());
                (due <= now.as_ms() + burst_ms).then_some(due + self.period_ms)
            });
        match taken {
            Ok(_) => Ok(()),
            Err(next_ms) => Err(Uptime::from_ms(next_ms - burst_ms)),
        }
    }

    fn release(&self) {
        self.next_ms.fetch_sub(self.period_ms, Ordering::Relaxed);
    }
}

/// The rate limits as seen by one thread.
#[derive(Debug)]
pub struct AuditTrail {
    audit: std::sync::Arc<Audit>,
    quiet_until: [Uptime; Event::COUNT],
}

impl AuditTrail {
    /// Uses these rate limits.
    pub fn new(audit: std::sync::Arc<Audit>) -> AuditTrail {
        AuditTrail {
            audit,
            quiet_until: [Uptime::from_ms(0); Event::COUNT],
        }
    }

    /// True if a line about this event may be written now; otherwise the caller counts it as left out.
    pub fn allows(&mut self, event: Event, now: Uptime) -> bool {
        let quiet_until = &mut self.quiet_until[event.index()];
        if now < *quiet_until {
            return false;
        }
        match self.audit.allows(event, now) {
            Ok(()) => true,
            Err(until) => {
                *quiet_until = until;
                false
            }
        }
    }
}

/// The client or operator that a line is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The address of the client or operator.
    pub address: Option<IpAddr>,
    /// The user's name, if it is known.
    pub user: Option<&'a str>,
}

/// Logs that a user has logged in.
pub fn login_accepted(subject: Subject<'_>, by: &str) {
    let FormattedSubject { address, user } = FormattedSubject::of(subject);
    let event = Event::LoginAccepted.label();
    info!(target: TARGET, event, address, user, by, "login accepted");
}

/// Logs that a login was refused.
pub fn login_refused(subject: Subject<'_>, reason: &str, by: &str) {
    let FormattedSubject { address, user } = FormattedSubject::of(subject);
    let event = Event::LoginRefused.label();
    warn!(target: TARGET, event, address, reason, by, user, "login refused");
}

/// Logs that a token was refused.
pub fn token_refused(subject: Subject<'_>, reason: &str, by: &str) {
    let FormattedSubject { address, user } = FormattedSubject::of(subject);
    let event = Event::TokenRefused.label();
    warn!(target: TARGET, event, address, reason, by, user, "token refused");
}

/// Logs that a client tried an action that it is not allowed; `rule` is the number of the rule that decided.
pub fn action_refused(subject: Subject<'_>, reason: &str, action: &str, name: &str, rule: Option<u32>) {
    let FormattedSubject { address, user } = FormattedSubject::of(subject);
    let (event, name) = (Event::ActionRefused.label(), truncate(name));
    warn!(target: TARGET, event, address, reason, action, rule, user, name, "action refused");
}

/// Logs that an upgrade was refused.
pub fn request_refused(subject: Subject<'_>, reason: &str, origin: Option<&str>) {
    let FormattedSubject { address, .. } = FormattedSubject::of(subject);
    let (event, origin) = (Event::RequestRefused.label(), origin.map(truncate));
    warn!(target: TARGET, event, address, reason, origin, "request refused");
}

/// Logs that the control plane has refused a request.
pub fn operator_refused(address: Option<IpAddr>, reason: &str, method: &str, path: &str) {
    let FormattedSubject { address, .. } = FormattedSubject::of(Subject { address, user: None });
    let (event, path) = (Event::OperatorRefused.label(), truncate(path));
    warn!(target: TARGET, event, address, reason, method, path, "operator refused");
}

/// Logs a request of an operator that changes the server.
pub fn operator_request(address: Option<IpAddr>, status: u16, method: &str, path: &str) {
    let FormattedSubject { address, .. } = FormattedSubject::of(Subject { address, user: None });
    let path = truncate(path);
    info!(target: TARGET, event = "operator_request", address, status, method, path, "operator request");
}

/// A request to the HTTP API.
#[derive(Clone, Copy, Debug)]
pub struct ApiLine<'a> {
    /// The address of the caller.
    pub address: Option<IpAddr>,
    /// The name of its key, if the key is known.
    pub key: Option<&'a str>,
    /// The status of the answer.
    pub status: u16,
    /// The method of the request.
    pub method: &'a str,
    /// Its path.
    pub path: &'a str,
    /// The channel, user or connection that it is about.
    pub subject: Option<&'a str>,
}

/// Logs that the HTTP API has refused a request.
pub fn api_refused(line: &ApiLine<'_>, reason: &str) {
    let FormattedSubject { address, .. } = FormattedSubject::of(Subject {
        address: line.address,
        user: None,
    });
    let (event, status, method) = (Event::ApiRefused.label(), line.status, truncate(line.method));
    let (path, subject) = (truncate(line.path), line.subject.map(truncate));
    warn!(
        target: TARGET,
        event, address, key = line.key, reason, status, method, path, subject, "api refused"
    );
}

/// Logs a request to the HTTP API that may have changed something.
pub fn api_request(event: Event, line: &ApiLine<'_>) {
    let FormattedSubject { address, .. } = FormattedSubject::of(Subject {
        address: line.address,
        user: None,
    });
    let (event, status, method) = (event.label(), line.status, truncate(line.method));
    let (path, subject) = (truncate(line.path), line.subject.map(truncate));
    info!(
        target: TARGET,
        event, address, key = line.key, status, method, path, subject, "api request"
    );
}

/// Logs that tokens were revoked, or that a revocation was withdrawn.
pub fn revocation(action: &str, claim: &str, value: &str, connections: Option<u64>) {
    let value = truncate(value);
    info!(target: TARGET, event = "revocation", action, connections, claim, value, "revocation");
}

/// Logs an operation by a signal or by the embedding program.
pub fn operation(action: &str, by: &str) {
    info!(target: TARGET, event = "operation", action, by, "operation");
}

/// Logs how many lines were left out.
pub fn left_out(event: Event, count: u64) {
    let of = event.label();
    warn!(target: TARGET, event = "left_out", of, count, "lines left out: audit_lines_per_second_max");
}

/// A subject in the form of a line.
struct FormattedSubject<'a> {
    address: Option<tracing::field::DisplayValue<IpAddr>>,
    user: Option<&'a str>,
}

impl<'a> FormattedSubject<'a> {
    fn of(subject: Subject<'a>) -> FormattedSubject<'a> {
        FormattedSubject {
            address: subject.address.map(tracing::field::display),
            user: subject.user.map(truncate),
        }
    }
}

/// The part of a client's text that a line shows.
fn truncate(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// The target of all lines of the audit trail.
const TARGET: &str = "ringcast::audit";
/// The longest part of a text that a line shows.
const TEXT_BYTES_MAX: usize = 128;
/// The number of lines that may come at once: as many as in ten seconds at the default rate.
const BURST_LINES: u64 = 100;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const REFUSED: Event = Event::LoginRefused;

    fn at(ms: u64) -> Uptime {
        Uptime::from_ms(ms)
    }

    fn count(trail: &mut AuditTrail, event: Event, now: Uptime, attempts: usize) -> usize {
        (0..attempts).filter(|_| trail.allows(event, now)).count()
    }

    #[test]
    fn a_flood_of_one_event_leaves_room_for_the_others() {
        let mut trail = AuditTrail::new(Arc::new(Audit::new(10)));
        let burst = usize::try_from(BURST_LINES).unwrap() + 1;
        assert_eq!(count(&mut trail, REFUSED, at(0), 10_000), burst);
        assert_eq!(
            count(&mut trail, Event::LoginAccepted, at(0), 10_000),
            burst,
            "accepted logins are logged"
        );
        // Five per second of one event, ten per second of all.
        for second in 1..=20 {
            let now = at(second * 1000);
            assert_eq!(count(&mut trail, REFUSED, now, 10_000), 5, "{second}");
            assert!(count(&mut trail, Event::TokenRefused, now, 3) > 0, "{second}");
        }
    }

    #[test]
    fn all_refusals_together_have_a_rate_and_all_threads_share_it() {
        let audit = Arc::new(Audit::new(10));
        let mut trails: Vec<AuditTrail> = (0..4).map(|_| AuditTrail::new(Arc::clone(&audit))).collect();
        let mut flood = |now| {
            let mut lines = 0;
            for trail in &mut trails {
                for event in Event::ALL.into_iter().filter(|event| event.is_refusal()) {
                    lines += count(trail, event, now, 1000);
                }
            }
            lines
        };
        flood(at(0));
        let lines: usize = (1..=100).map(|second| flood(at(second * 1000))).sum();
        assert!((990..=1010).contains(&lines), "{lines}");
    }

    #[test]
    fn zero_is_no_limit() {
        let mut trail = AuditTrail::new(Arc::new(Audit::new(0)));
        assert_eq!(count(&mut trail, REFUSED, at(5), 10_000), 10_000);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let text = "é".repeat(TEXT_BYTES_MAX);
        assert_eq!(truncate(&text).len(), TEXT_BYTES_MAX);
        assert_eq!(truncate("short"), "short");
        assert_eq!(truncate(&("x".to_owned() + &text)).len(), TEXT_BYTES_MAX - 1);
    }
}
