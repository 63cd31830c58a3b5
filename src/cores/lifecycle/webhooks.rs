//! Reports to webhooks the clients that connect, that end, and that leave wills
//! (`lifecycle/webhook_events.rs`). Without webhooks each report costs one comparison.

use crate::app::App;
use crate::auth::Claims;
use crate::config::webhooks::WebhookEvent;
use crate::decision::CloseReason;
use crate::session::SessionId;
use crate::webhooks::Event;
use crate::webhooks::event::{Client, Ended, Slow};
use crate::wills::Will;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Open, Phase};

impl<A: App> Core<A> {
    /// The session of a connection has opened.
    #[inline]
    pub(in crate::cores) fn session_opens(&mut self, id: ConnectionId) {
        self.counts.session_opens();
        if self.webhooks.is_some() {
            self.tell_connected(id);
        }
    }

    #[cold]
    fn tell_connected(&self, id: ConnectionId) {
        let Some(events) = self
            .webhooks
            .as_deref()
            .filter(|events| events.wants(WebhookEvent::Connected))
        else {
            return;
        };
        if let Some(Phase::Open(open)) = self.connections.get(id).map(|connection| &connection.phase)
            && let Some(client) = self.client_for_webhooks(id, open)
        {
            let bytes = client.user.as_ref().map_or(0, |user| user.len());
            let unix_ms = self.time.now().unix_ms;
            events.tell(WebhookEvent::Connected, bytes, unix_ms, || {
                Event::Connected(client)
            });
        }
    }

    /// The open session of a connection has ended.
    #[inline]
    pub(in crate::cores) fn session_ends(&mut self, id: ConnectionId, open: &Open, reason: CloseReason) {
        self.counts.session_ends();
        if self.webhooks.is_some() {
            self.tell_disconnected(id, open, reason);
        }
    }

    #[cold]
    fn tell_disconnected(&self, id: ConnectionId, open: &Open, reason: CloseReason) {
        let Some(events) = self.webhooks.as_deref() else {
            return;
        };
        let wants_slow = events.wants(WebhookEvent::SlowConsumer) && is_slow(reason);
        let wants_end = events.wants(WebhookEvent::Disconnected);
        if !wants_slow && !wants_end {
            return;
        }
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        let Some(client) = self.client_for_webhooks(id, open) else {
            return;
        };
        let bytes = client.user.as_ref().map_or(0, |user| user.len());
        let now = self.time.now();
        if wants_slow {
            events.tell(WebhookEvent::SlowConsumer, bytes, now.unix_ms, || {
                Event::SlowConsumer(client.clone(), Slow::Closed)
            });
        }
        if wants_end {
            let (tally, age) = (connection.tally, connection.opened.age(now.uptime));
            let ended = Ended {
                reason,
                age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
                messages: [tally.messages_in, tally.messages_out],
                bytes: [tally.bytes_in, tally.bytes_out],
            };
            events.tell(WebhookEvent::Disconnected, bytes, now.unix_ms, || {
                Event::Disconnected(client, Box::new(ended))
            });
        }
    }

    /// Tells webhooks of a will that is published.
    #[inline]
    pub(in crate::cores) fn tell_will(&self, will: &Will, connection: SessionId) {
        if let Some(events) = &self.webhooks
            && events.wants_on(WebhookEvent::WillSent, &will.channel)
        {
            let unix_ms = self.time.now().unix_ms;
            events.tell(WebhookEvent::WillSent, will.bytes(), unix_ms, || {
                Event::WillSent {
                    channel: will.channel.clone(),
                    data: will.data.clone(),
                    connection,
                }
            });
        }
    }

    /// The client of a connection in the form for webhooks.
    pub(in crate::cores) fn client_for_webhooks(&self, id: ConnectionId, open: &Open) -> Option<Box<Client>> {
        let connection = self.connections.get(id)?;
        let address = connection.client.socket_address();
        Some(Box::new(Client {
            connection: open.session.id()?,
            protocol: connection.framing.protocol().name(),
            address: address.map(|address| address.ip()),
            user: open.session.claims().and_then(Claims::user),
        }))
    }
}

/// Whether a connection is closed because its client does not read fast enough.
fn is_slow(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::SlowConsumer | CloseReason::HoldsMost | CloseReason::WriteTimeout
    )
}
