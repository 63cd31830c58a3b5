//! The application of the tenants: customers that share one server, and cannot see each other's channels.
//!
//! | the client | the server |
//! |---|---|
//! | connects with `?tenant=NAME` | keeps the tenant as the value of the connection; without one, answers 401; asks the directory whether the tenant has been suspended |
//! | subscribes to `NAME/...` | allows it for its own tenant; asks the directory about `NAME/private/...` |
//! | publishes to `NAME/...` | asks the directory, which replaces bad words |
//! | calls `me` | answers with its data about the connection: tenant, number of calls, address, user agent |
//! | calls `log in`, `log out` | gives it a token, takes the token away |
//! | calls `leave` with a channel | ends the subscription |
//!
//! Every second, each core publishes to `NAME/online` how many clients of the tenant it has. An audit trail gets a line
//! for each client that goes, becomes another user, or ceases to be subscribed to a channel.
//!
//! The directory is a thread that may wait for a database. Until it has decided, the client waits, and no other one
//! does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use ringcast::app::{
    AllowedPublish, App, AppError, Call, CallAnswer, Client, CloseReason, Context, DeferredDecision, Name,
    Peer, RawJson, Refusal, Tick, Upgrade, UpgradeRefused,
};
use serde::Serialize;

/// The application on one core.
#[derive(Debug)]
pub(crate) struct Tenants {
    audit: SyncSender<String>,
    directory: SyncSender<Question>,
    /// How many clients of each tenant are connected to this core.
    online: BTreeMap<String, u32>,
}

/// A question to the directory.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) about: About,
    pub(crate) decision: DeferredDecision,
}

/// The question to the directory.
#[derive(Debug)]
pub(crate) enum About {
    /// May clients of this tenant come in?
    Tenant(String),
    /// May a client of the tenant subscribe to this private channel?
    Private(String),
    /// May this be published?
    Text(String),
}

/// The value of a connection.
#[derive(Debug)]
struct Tenant {
    name: String,
    calls: u32,
}

/// The answer to `me`.
#[derive(Serialize)]
struct Me<'a> {
    tenant: &'a str,
    calls: u32,
    address: Option<IpAddr>,
    agent: Option<&'a str>,
}

#[derive(Serialize)]
struct Identity {
    sub: &'static str,
}

impl Tenants {
    /// The application on one more core. The lines of the audit trail go to `audit`, questions to `directory`.
    pub(crate) fn new(audit: SyncSender<String>, directory: SyncSender<Question>) -> Tenants {
        Tenants {
            audit,
            directory,
            online: BTreeMap::new(),
        }
    }

    /// Leaves a decision to the directory.
    fn ask(&self, about: About, peer: &mut Peer<'_>) -> Refusal {
        let (undecided, decision) = peer.defer_decision();
        match self.directory.try_send(Question { about, decision }) {
            Ok(()) => undecided,
            // To wait for room in its queue would stop all clients of this core.
            Err(_) => AppError::new("busy, try again").named("BusyError").into(),
        }
    }

    /// Writes a line to the audit trail. If its queue is full, the line is lost: a core must not wait.
    fn note(&self, what: &str, client: &Client<'_>) {
        let tenant = client.value::<Tenant>().map_or("", |tenant| &tenant.name);
        let _ = self.audit.try_send(format!("{tenant}: {what}"));
    }

    fn me(peer: &mut Peer<'_>) -> CallAnswer {
        let Some(tenant) = peer.value::<Tenant>() else {
            return CallAnswer::silent();
        };
        let request = peer.request();
        let agent = request.and_then(|request| request.header("User-Agent"));
        let answer = Me {
            tenant: &tenant.name,
            calls: tenant.calls,
            address: request
                .and_then(|request| request.address())
                .map(|address| address.ip()),
            agent: agent.and_then(|agent| std::str::from_utf8(agent).ok()),
        };
        // The answer borrows from the connection, so its JSON is made first.
        match serde_json::to_value(answer) {
            Ok(answer) => peer.reply(&answer),
            Err(_) => CallAnswer::silent(),
        }
    }
}

impl App for Tenants {
    fn upgrade(&mut self, request: &Upgrade<'_>) -> Result<(), UpgradeRefused> {
        match tenant_of(request) {
            Some(_) => Ok(()),
            None => Err(UpgradeRefused {
                message: "connect with ?tenant=NAME".to_owned(),
            }),
        }
    }

    fn context(&mut self, request: &Upgrade<'_>) -> Context {
        // A client that speaks MQTT without a WebSocket has sent no request.
        let name = tenant_of(request).unwrap_or("devices").to_owned();
        Context::of_request(request).with(Tenant { name, calls: 0 })
    }

    fn handshake(&mut self, peer: &mut Peer<'_>) -> Result<(), Refusal> {
        let tenant = peer.value::<Tenant>().map(|tenant| tenant.name.clone());
        Err(self.ask(About::Tenant(tenant.unwrap_or_default()), peer))
    }

    fn subscribe(
        &mut self,
        channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<(), Refusal> {
        let tenant = peer.value::<Tenant>().map_or("", |tenant| &tenant.name);
        let channel = channel.as_str().and_then(|channel| channel.split_once('/'));
        match channel {
            Some((owner, name)) if owner == tenant => {
                if !name.starts_with("private/") {
                    return Ok(());
                }
                Err(self.ask(About::Private(format!("{owner}/{name}")), peer))
            }
            Some(_) | None => Err(AppError::new("the channel of another tenant").into()),
        }
    }

    fn publish(
        &mut self,
        channel: Name<'_>,
        data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<AllowedPublish, Refusal> {
        let tenant = peer.value::<Tenant>().map_or("", |tenant| &tenant.name);
        let owner = channel.as_str().and_then(|channel| channel.split_once('/'));
        if owner.is_none_or(|(owner, _)| owner != tenant) {
            return Err(AppError::new("the channel of another tenant").into());
        }
        let Some(Ok(text)) = data.map(|data| data.parse::<String>(peer)) else {
            return Err(AppError::new("text is wanted").into());
        };
        Err(self.ask(About::Text(text), peer))
    }

    fn invoke(&mut self, call: &Call<'_>, peer: &mut Peer<'_>) -> CallAnswer {
        if let Some(tenant) = peer.value_mut::<Tenant>() {
            tenant.calls += 1;
        }
        match call.event.as_str() {
            Some("me") => return Tenants::me(peer),
            Some("log in") => peer.set_auth_token(&Identity { sub: "ann" }, None),
            Some("log out") => peer.deauthenticate(),
            Some("leave") => {
                if let Some(Ok(channel)) = call.data.map(|data| data.parse::<String>(peer)) {
                    peer.kick_out(Some(&channel), None);
                }
            }
            _ => {
                return peer
                    .refuse(&AppError::new("there is no such procedure").named("NoSuchProcedureError"));
            }
        }
        peer.reply_empty()
    }

    fn connected(&mut self, peer: &mut Peer<'_>) {
        if let Some(tenant) = peer.value::<Tenant>() {
            *self.online.entry(tenant.name.clone()).or_default() += 1;
        }
    }

    fn unsubscribed(&mut self, channel: Name<'_>, client: &mut Client<'_>) {
        let channel = channel.as_str().unwrap_or_default();
        self.note(&format!("unsubscribed from {channel}"), client);
    }

    fn user_changed(&mut self, client: &mut Client<'_>) {
        let user = client
            .claims()
            .map_or_else(|| "nobody".into(), |claims| claims.user().unwrap_or_default());
        self.note(&format!("is {user} now"), client);
    }

    fn disconnected(&mut self, client: &mut Client<'_>, reason: CloseReason) {
        self.note(&format!("gone, {}", reason.label()), client);
        if let Some(tenant) = client.value::<Tenant>()
            && let Some(online) = self.online.get_mut(&tenant.name)
        {
            *online -= 1;
            if *online == 0 {
                self.online.remove(&tenant.name);
            }
        }
    }

    fn tick_every(&self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }

    fn tick(&mut self, tick: &mut Tick<'_>) {
        for (tenant, online) in &self.online {
            tick.publish(&format!("{tenant}/online"), &(tick.core(), online));
        }
    }
}

/// Starts the directory: a thread that decides. It may wait as long as it likes, within `decision_timeout_ms`.
pub(crate) fn directory() -> SyncSender<Question> {
    let (sender, questions) = mpsc::sync_channel::<Question>(1024);
    thread::spawn(move || {
        for Question { about, decision } in questions {
            // An error says that the client has gone, or that its core has too much to take: then it is refused.
            let _ = match about {
                About::Tenant(name) if name == "suspended" => {
                    decision.refuse(AppError::new("the tenant has been suspended").named("SuspendedError"))
                }
                About::Private(channel) if channel.ends_with("/secret") => decision.refuse(Refusal::silent()),
                About::Tenant(_) | About::Private(_) => decision.allow(),
                About::Text(text) if text.contains("darn") => {
                    decision.decide(move |peer| Ok(peer.rewrite(&text.replace("darn", "****"))))
                }
                About::Text(_) => decision.allow(),
            };
        }
    });
    sender
}

/// The tenant that the query names.
fn tenant_of<'a>(request: &Upgrade<'a>) -> Option<&'a str> {
    let mut parts = request.query.split('&');
    let name = parts.find_map(|part| part.strip_prefix("tenant="))?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}
