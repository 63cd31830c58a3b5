//! The application of the tenants: customers who share one server, and see nothing of each other.
//!
//! | the client | the server |
//! |---|---|
//! | connects with `?tenant=NAME` | keeps the tenant as the value of the connection; without one, answers 401 |
//! | subscribes to `NAME/...` | allows it for its own tenant |
//! | calls `me` | answers with what it knows of the connection: tenant, number of calls, address, user agent |
//! | calls `log in`, `log out` | gives it a token, takes the token away |
//! | calls `leave` with a channel | ends the subscription |
//!
//! Every second, each core publishes to `NAME/online` how many clients of the tenant it has. An audit trail gets a line
//! for each client that comes, goes, becomes another user, or ceases to be subscribed to a channel.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use ringcast::app::{
    App, AppError, Call, CallAnswer, Client, CloseReason, Context, Name, Peer, RawJson, Refusal, Tick,
    Upgrade, UpgradeRefused,
};
use serde::Serialize;

/// The application on one core.
#[derive(Debug)]
pub(crate) struct Tenants {
    audit: SyncSender<String>,
    /// How many clients of each tenant are connected to this core.
    online: BTreeMap<String, u32>,
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
    /// The application on one more core. The lines of the audit trail go to `audit`.
    pub(crate) fn new(audit: SyncSender<String>) -> Tenants {
        Tenants {
            audit,
            online: BTreeMap::new(),
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

    fn subscribe(
        &mut self,
        channel: Name<'_>,
        _data: Option<RawJson<'_>>,
        peer: &mut Peer<'_>,
    ) -> Result<(), Refusal> {
        let tenant = peer.value::<Tenant>().map_or("", |tenant| &tenant.name);
        let channel = channel.as_str().and_then(|channel| channel.split_once('/'));
        match channel {
            Some((owner, _)) if owner == tenant => Ok(()),
            Some(_) | None => Err(AppError::new("the channel of another tenant").into()),
        }
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

/// The tenant that the query names.
fn tenant_of<'a>(request: &Upgrade<'a>) -> Option<&'a str> {
    let mut parts = request.query.split('&');
    let name = parts.find_map(|part| part.strip_prefix("tenant="))?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}
