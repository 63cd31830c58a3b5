//! The client's address behind a proxy: from a PROXY header at the start of the connection, or from `X-Forwarded-For`
//! in the request.
//!
//! Both are heeded only if the address known so far is one of `trusted_proxies`. Otherwise a PROXY header is a
//! malformed request (400), and `X-Forwarded-For` is ignored.

use crate::app::App;
use crate::client::{ClientAddress, forwarded, proxy_header};
use crate::decision::CloseReason;
use crate::http::{Refusal, Request};
use crate::policy::Policy;

use crate::cores::arrivals::admission::Entry;
use crate::cores::core::Core;
use crate::cores::lifecycle::connection::{ConnectionId, Input, Phase};

/// Whether a connection from this address must begin with a PROXY header.
pub(in crate::cores) fn is_expected(policy: &Policy, client: &ClientAddress) -> bool {
    policy.proxies.proxy_protocol && policy.proxies.trusted.contain(client)
}

impl<A: App> Core<A> {
    /// Handles the PROXY header. Consumes exactly the bytes of the header; the client's bytes follow.
    pub(in crate::cores) fn receive_proxy_header(&mut self, id: ConnectionId, input: &[u8]) -> Input {
        let Some(connection) = self.connections.get_mut(id) else {
            return Input::Consumed(input.len());
        };
        let Phase::ProxyHeader { deadline, port } = connection.phase else {
            return Input::Consumed(0);
        };
        match proxy_header::parse(input) {
            Ok(None) => Input::Incomplete(0),
            Ok(Some(header)) => {
                connection.client = header.client.unwrap_or(connection.client);
                connection.phase = Phase::Request {
                    deadline,
                    port,
                    sent_continue: false,
                };
                match self.admit_announced(id) {
                    Ok(()) => Input::Consumed(header.length),
                    Err(refusal) => {
                        self.refuse(id, &refusal);
                        Input::Consumed(input.len())
                    }
                }
            }
            Err(proxy_header::NoProxyHeader) => {
                self.close(id, CloseReason::BadProxyHeader);
                Input::Consumed(input.len())
            }
        }
    }

    /// Counts a connection behind a proxy for its client's address, as soon as the address is known: after
    /// the PROXY header, or with the request. If the address is still that of a proxy, the connection is the
    /// proxy's own and is not counted.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub(in crate::cores) fn admit_announced(&mut self, id: ConnectionId) -> Result<(), Refusal> {
        let trusted = &self.resources.policy.proxies.trusted;
        let Some(connection) = self.connections.get_mut(id) else {
            return Ok(());
        };
        if connection.is_counted || trusted.contain(&connection.client) {
            return Ok(());
        }
        match self.acceptor.enter(&connection.client) {
            Entry::Counted => connection.is_counted = true,
            Entry::Uncounted => {}
            Entry::Refused => return Err(Refusal::TooManyConnections),
        }
        Ok(())
    }

    /// Sets the client's address from the request, if a trusted proxy has named it there.
    pub(in crate::cores) fn recognise_client(&mut self, id: ConnectionId, request: &Request<'_>) {
        let proxies = &self.resources.policy.proxies;
        if proxies.x_forwarded_for
            && let Some(connection) = self.connections.get_mut(id)
            && proxies.trusted.contain(&connection.client)
        {
            if std::mem::take(&mut connection.is_counted) {
                // A reload has made the connection's address that of a trusted proxy.
                self.acceptor.leave(&connection.client);
            }
            let lines: Vec<&[u8]> = request.header_values("x-forwarded-for").collect();
            let lines = lines.iter().copied();
            connection.client = forwarded::client(connection.client, lines, &proxies.trusted);
        }
    }
}
