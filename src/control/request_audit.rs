//! The audit trail of the control plane (`crate::audit`): refused requests, and requests that may have
//! changed something.
//!
//! It wraps the guard and all pages, so that added pages are covered; the HTTP API writes lines of its own (`api/`).
//! Reads that are allowed are not logged.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Extensions, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::ControlState;
use crate::audit::{self, Event};

/// The address that a request came from.
#[derive(Clone, Copy, Debug)]
struct OperatorAddress(IpAddr);

/// Attaches the peer's address to a request.
pub(super) fn identify(request: &mut Extensions, peer: SocketAddr) {
    request.insert(OperatorAddress(peer.ip().to_canonical()));
}

/// The peer's address.
pub(super) fn address(request: &Extensions) -> Option<IpAddr> {
    request.get::<OperatorAddress>().map(|operator| operator.0)
}

/// Logs the outcome of a request that was refused or may have changed something.
pub(super) async fn audited(
    State(shared): State<Arc<ControlState>>,
    request: Request,
    next: Next,
) -> Response {
    let address = address(request.extensions());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = next.run(request).await;
    let status = response.status();
    let is_reading = [Method::GET, Method::HEAD].contains(&method);
    let reason = match status {
        StatusCode::UNAUTHORIZED => "key",
        StatusCode::FORBIDDEN => "foreign",
        _ if is_reading => return response,
        _ if status.is_client_error() => "request",
        _ => {
            audit::operator_request(address, status.as_u16(), method.as_str(), uri.path());
            return response;
        }
    };
    if shared.allows_audit_line(Event::OperatorRefused) {
        audit::operator_refused(address, reason, method.as_str(), uri.path());
    }
    response
}
