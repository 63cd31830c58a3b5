//! Facts about a connection that an application keeps as long as the connection lasts: the request by which it was
//! opened, and a value of the application's own.
//!
//! An application that keeps nothing pays nothing: the table is empty, and neither a connection nor a session
//! has room for a context.
//!
//! Limits: the request is a part of a head of `request_head_bytes_max` bytes; the value is the application's.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Upgrade;
use super::session_id::SessionId;
use crate::auth::Claims;

/// Facts about a connection that the application wants to use later: see
/// [`App::context`](super::App::context).
#[derive(Default)]
pub struct Context {
    request: Option<Box<UpgradeRequest>>,
    value: Option<Box<dyn Any + Send>>,
    /// The parts of the request that hooks are told of.
    passed_on: Option<Arc<UpgradeRequest>>,
}

/// A copy of the request by which a connection was opened.
#[derive(Clone, PartialEq, Eq)]
pub struct UpgradeRequest {
    path: String,
    query: String,
    headers: Vec<(String, Vec<u8>)>,
    peer: Option<SocketAddr>,
}

/// A client: its id, claims, request and value.
#[derive(Debug)]
pub struct Client<'a> {
    id: SessionId,
    claims: Option<&'a Claims>,
    context: Option<&'a mut Context>,
}

/// The contexts of the connections of one core, by the addresses of the connections.
#[derive(Default)]
pub(crate) struct Contexts(HashMap<usize, Context>);

impl Context {
    /// A context that keeps nothing.
    pub fn none() -> Context {
        Context::default()
    }

    /// A context with a copy of the request: about as many bytes as the request's head has.
    pub fn of_request(request: &Upgrade<'_>) -> Context {
        let headers = request.headers.iter();
        Context {
            request: Some(Box::new(UpgradeRequest {
                path: request.path.to_owned(),
                query: request.query.to_owned(),
                headers: headers
                    .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                    .collect(),
                peer: request.peer,
            })),
            ..Context::none()
        }
    }

    /// Adds a value of the application, which replaces an earlier one. A connection that speaks MQTT may move
    /// to another core before its first packet is handled; therefore the value must be `Send`.
    #[must_use]
    pub fn with(mut self, value: impl Any + Send) -> Context {
        self.value = Some(Box::new(value));
        self
    }

    /// Adds the parts of the request that hooks are told of.
    pub(crate) fn passing_on(mut self, request: UpgradeRequest) -> Context {
        self.passed_on = Some(Arc::new(request));
        self
    }

    fn is_none(&self) -> bool {
        self.request.is_none() && self.value.is_none() && self.passed_on.is_none()
    }

    pub(super) fn passed_on(&self) -> Option<&Arc<UpgradeRequest>> {
        self.passed_on.as_ref()
    }

    pub(super) fn request(&self) -> Option<&UpgradeRequest> {
        self.request.as_deref()
    }

    pub(super) fn value<T: Any>(&self) -> Option<&T> {
        self.value.as_ref()?.downcast_ref()
    }

    pub(super) fn value_mut<T: Any>(&mut self) -> Option<&mut T> {
        self.value.as_mut()?.downcast_mut()
    }
}

impl UpgradeRequest {
    pub(crate) fn new(
        path: &str,
        query: &str,
        headers: Vec<(String, Vec<u8>)>,
        peer: Option<SocketAddr>,
    ) -> UpgradeRequest {
        UpgradeRequest {
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            peer,
        }
    }

    /// The path, without the query. Empty if the client speaks MQTT without a WebSocket.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query, after the `?`; empty if there is none.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// The headers, in the order in which they came.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let headers = self.headers.iter();
        headers.map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The first header with this name, in any case of its letters.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.headers();
        headers
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The address of the client, if it is known. Behind a trusted proxy it is the address that the proxy names.
    pub fn address(&self) -> Option<SocketAddr> {
        self.peer
    }
}

impl<'a> Client<'a> {
    pub(super) fn new(
        id: SessionId,
        claims: Option<&'a Claims>,
        context: Option<&'a mut Context>,
    ) -> Client<'a> {
        Client { id, claims, context }
    }

    /// The id of its session.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The claims of its token; `None` if it is not authenticated.
    pub fn claims(&self) -> Option<&'a Claims> {
        self.claims
    }

    /// The request by which its connection was opened, if [`App::context`](super::App::context) has kept it.
    pub fn request(&self) -> Option<&UpgradeRequest> {
        self.context.as_ref()?.request()
    }

    /// The parts of the request that hooks are told of.
    pub(crate) fn passed_on(&self) -> Option<&Arc<UpgradeRequest>> {
        self.context.as_ref()?.passed_on()
    }

    /// The value of the connection, if [`App::context`](super::App::context) has kept one of this type.
    pub fn value<T: Any>(&self) -> Option<&T> {
        self.context.as_ref()?.value()
    }

    /// The same, to be changed.
    pub fn value_mut<T: Any>(&mut self) -> Option<&mut T> {
        self.context.as_mut()?.value_mut()
    }
}

impl Contexts {
    /// Keeps the context of the connection with this address, if there is anything to keep.
    pub(crate) fn keep(&mut self, address: usize, context: Context) {
        if !context.is_none() {
            self.0.insert(address, context);
        }
    }

    /// Takes the context of a connection away, since the connection has ended or moves to another core.
    pub(crate) fn take(&mut self, address: usize) -> Option<Context> {
        if self.0.is_empty() {
            return None;
        }
        self.0.remove(&address)
    }

    pub(super) fn get(&self, address: usize) -> Option<&Context> {
        self.0.get(&address)
    }

    pub(super) fn get_mut(&mut self, address: usize) -> Option<&mut Context> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get_mut(&address)
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A request may hold cookies and tokens, and the value is the application's.
        formatter.debug_struct("Context").finish_non_exhaustive()
    }
}

impl fmt::Debug for UpgradeRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers and queries may hold cookies and tokens.
        formatter
            .debug_struct("UpgradeRequest")
            .field("path", &self.path)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_keeps_the_request_and_one_value_and_is_gone_when_it_is_taken() {
        let request = Upgrade {
            path: "/socketcluster/",
            query: "tenant=7",
            headers: &[("Host", b"a"), ("X-Tag", b"\xff"), ("x-tag", b"later")],
            peer: None,
        };
        let mut contexts = Contexts::default();
        contexts.keep(1, Context::none());
        assert_eq!(contexts.len(), 0);
        contexts.keep(
            2,
            Context::of_request(&request)
                .with(7_u8)
                .with(String::from("seven")),
        );
        let context = contexts.get_mut(2).unwrap();
        context.value_mut::<String>().unwrap().push('!');
        assert_eq!(context.value::<String>().unwrap(), "seven!");
        assert_eq!(context.value::<u8>(), None);
        let kept = context.request().unwrap();
        assert_eq!(
            (kept.path(), kept.query(), kept.address()),
            ("/socketcluster/", "tenant=7", None)
        );
        assert_eq!(kept.header("X-TAG"), Some(&b"\xff"[..]));
        assert_eq!(kept.header("cookie"), None);
        assert_eq!(kept.headers().count(), 3);
        assert!(contexts.take(2).is_some());
        assert!(contexts.take(2).is_none() && contexts.get(2).is_none());
    }
}
