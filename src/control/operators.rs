//! The audit trail of the control plane (`crate::audit`): requests that were refused, and those that have changed something.
//!
//! It stands around the guard and all pages, so that a page that is added is in it. To read is not told.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Request, State};
use axum::http::{Extensions, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::ControlState;
use crate::audit::{self, Event};

/// Whose request it is.
#[derive(Clone, Copy, Debug)]
struct Operator(IpAddr);

/// Says from where a request has come.
pub(super) fn identify(request: &mut Extensions, peer: SocketAddr) {
    request.insert(Operator(peer.ip().to_canonical()));
}

/// Writes what has become of a request, if it was refused or may have changed something.
pub(super) async fn audited(
    State(shared): State<Arc<ControlState>>,
    request: Request,
    next: Next,
) -> Response {
    let address = request.extensions().get::<Operator>().map(|operator| operator.0);
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
    match shared
        .audit
        .may(Event::OperatorRefused, shared.clock.now().uptime)
    {
        Ok(()) => audit::operator_refused(address, reason, method.as_str(), uri.path()),
        Err(_) => {
            shared.operators_left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
    response
}
