//! Who a connection is from, if a proxy says so: a PROXY header before everything else, `X-Forwarded-For` in the request.
//!
//! Both are heeded only where the address known so far is one of `trusted_proxies`. Without that a PROXY header is a
//! request that nobody can read (400), and `X-Forwarded-For` a header like any other.

use crate::app::App;
use crate::client::{ClientAddress, forwarded, proxy_header};
use crate::decision::CloseReason;
use crate::doors::Doors;
use crate::http::Request;

use super::Core;
use super::connection::{ConnectionId, Phase};
use super::receive::Input;

/// Whether a connection from here must begin with a PROXY header.
pub(super) fn is_expected(doors: &Doors, client: &ClientAddress) -> bool {
    doors.proxies.proxy_protocol && doors.proxies.trusted.contain(client)
}

impl<A: App> Core<A> {
    /// The PROXY header: exactly its bytes are consumed, and what follows is the connection's own.
    pub(super) fn receive_preface(&mut self, id: ConnectionId, input: &[u8]) -> Input {
        let Some(connection) = self.connections.get_mut(id) else {
            return Input::Consumed(input.len());
        };
        let Phase::Preface { deadline } = connection.phase else {
            return Input::Consumed(0);
        };
        match proxy_header::parse(input) {
            Ok(None) => Input::Incomplete(0),
            Ok(Some(header)) => {
                connection.client = header.client.unwrap_or(connection.client);
                connection.phase = Phase::Request { deadline };
                Input::Consumed(header.length)
            }
            Err(proxy_header::NoProxyHeader) => {
                self.close(id, CloseReason::BadProxyHeader);
                Input::Consumed(input.len())
            }
        }
    }

    /// The client of a request, which a proxy may have named.
    pub(super) fn recognise_client(&mut self, id: ConnectionId, request: &Request<'_>) {
        let proxies = &self.lent.doors.proxies;
        if proxies.x_forwarded_for
            && let Some(connection) = self.connections.get_mut(id)
            && proxies.trusted.contain(&connection.client)
        {
            let lines: Vec<&[u8]> = request.header_values("x-forwarded-for").collect();
            let lines = lines.iter().copied();
            connection.client = forwarded::client(connection.client, lines, &proxies.trusted);
        }
    }
}
