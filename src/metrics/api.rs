//! The counters of the HTTP API, by route and outcome.
//!
//! Only the thread of the control plane counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::labels::labels;

/// Counts of requests.
#[derive(Debug, Default)]
pub struct ApiMetrics([[AtomicU64; ApiOutcome::COUNT]; ApiRoute::COUNT]);

labels! {
    /// A route of the HTTP API.
    pub enum ApiRoute {
        /// `POST /api/v1/publish`
        Publish = "publish",
        /// `POST /api/v1/publications`
        Publications = "publications",
        /// `POST /api/v1/broadcast`
        Broadcast = "broadcast",
        /// `GET /api/v1/history`
        History = "history",
        /// `DELETE /api/v1/history`
        RemoveHistory = "remove_history",
        /// `GET /api/v1/presence`
        Presence = "presence",
        /// `GET /api/v1/presence/counts`
        PresenceCounts = "presence_counts",
        /// `GET /api/v1/channels`
        Channels = "channels",
        /// `GET /api/v1/connections`
        Connections = "connections",
        /// `GET /api/v1/services`
        Services = "services",
        /// `POST /api/v1/disconnect`
        Disconnect = "disconnect",
        /// `POST /api/v1/subscribe`
        Subscribe = "subscribe",
        /// `POST /api/v1/unsubscribe`
        Unsubscribe = "unsubscribe",
        /// `POST /api/v1/call`
        Call = "call",
        /// `POST /api/v1/transmit`
        Transmit = "transmit",
        /// `POST /api/v1/set-claims`
        SetClaims = "set_claims",
        /// `POST /api/v1/refresh-token`
        RefreshToken = "refresh_token",
        /// `POST /api/v1/remove-token`
        RemoveToken = "remove_token",
        /// `GET /api/v1/openapi.json`
        Openapi = "openapi",
        /// All other paths and methods.
        Unknown = "unknown",
    }
}

labels! {
    /// How a request ended.
    pub enum ApiOutcome {
        /// It was carried out.
        Ok = "ok",
        /// Its parameters or its body are wrong, or it is no request of the API.
        Invalid = "invalid",
        /// `api_body_bytes_max` or `api_items_max`.
        TooLarge = "too_large",
        /// It has no key, or one that is not configured.
        Key = "key",
        /// Its key does not allow it, the API is off, or a web page of another origin sent it.
        Forbidden = "forbidden",
        /// The key is over its rate.
        Rate = "rate",
        /// There is no such thing.
        NotFound = "not_found",
        /// Its idempotency key belongs to another request, or to one that is not answered yet.
        Conflict = "conflict",
        /// The server was too busy, is ending, or a core did not answer.
        Unavailable = "unavailable",
    }
}

impl ApiMetrics {
    /// Counts a request.
    pub fn count(&self, route: ApiRoute, outcome: ApiOutcome) {
        // Relaxed: a scrape needs no order between counters.
        self.0[route.index()][outcome.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests of this route ended so.
    pub fn value(&self, route: ApiRoute, outcome: ApiOutcome) -> u64 {
        self.0[route.index()][outcome.index()].load(Ordering::Relaxed)
    }
}
