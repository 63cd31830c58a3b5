//! The part of the services that a core lends its sessions: the directory, and a list of requests of the sessions. The
//! core carries these out between two messages (`cores/services`).

use std::time::Duration;

use super::call::{ServiceCall, Token};
use super::directory::{Directory, Entry};
use super::offer::Offer;
use super::reply::{ReplyTo, ServiceReply};

/// The part of the services that a core lends its sessions.
#[derive(Debug, Default)]
pub struct Access {
    /// The patterns that services have registered.
    pub directory: Directory,
    /// Whether a service may answer calls that are not answered otherwise: there are services, or rows of
    /// `[[services]]`.
    pub is_used: bool,
    orders: Vec<Order>,
    /// Calls that have ended. Their buffers are used again.
    #[expect(clippy::vec_box, reason = "calls travel from core to core in their boxes")]
    spare: Vec<Box<ServiceCall>>,
}

/// A request of a session to its core.
#[derive(Debug)]
pub enum Order {
    /// Call a service.
    Call {
        /// The connection of the caller.
        connection: usize,
        /// The receiver of the end.
        reply: ReplyTo,
        /// The pattern that matches the name; `None`: no service has registered one.
        entry: Option<Entry>,
        /// The time limit, if it is not that of the pattern.
        timeout: Option<Duration>,
        /// The call.
        call: Box<ServiceCall>,
    },
    /// Send a service an event.
    Event(Entry, Box<ServiceCall>),
    /// A service has answered, or has ended.
    Answer(Box<ServiceCall>),
    /// Register a pattern for the connection, and tell its session.
    Serve {
        /// The connection.
        connection: usize,
        /// What the session needs for its answer.
        token: Token,
        /// The pattern.
        pattern: Box<[u8]>,
        /// The offer of the service.
        offer: Offer,
        /// Its `meta` for operators, as JSON.
        meta: Option<Box<str>>,
    },
    /// End the registration of a pattern, and tell the session.
    Unserve {
        /// The connection.
        connection: usize,
        /// What the session needs for its answer.
        token: Token,
        /// The pattern.
        pattern: Box<[u8]>,
    },
}

/// A question of the server's own to a service.
#[derive(Debug)]
pub struct Question<'a> {
    /// The connection that it is about.
    pub connection: usize,
    /// The procedure that is called.
    pub service: &'a [u8],
    /// The time limit.
    pub timeout: Duration,
    /// The receiver of the answer.
    pub reply: ServiceReply,
}

impl Access {
    /// Whether there are requests of sessions.
    #[inline]
    pub fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Takes the requests of sessions. The caller gives the list back by [`Access::give_back`].
    pub fn take_orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    /// Gives back the memory of a list.
    pub fn give_back(&mut self, mut orders: Vec<Order>) {
        orders.clear();
        if self.orders.is_empty() && orders.capacity() <= ORDERS_KEPT_MAX {
            self.orders = orders;
        }
    }

    /// Adds a request.
    pub fn order(&mut self, order: Order) {
        self.orders.push(order);
    }

    /// An empty call.
    pub fn new_call(&mut self) -> Box<ServiceCall> {
        self.spare.pop().unwrap_or_default()
    }

    /// A call has ended.
    pub fn recycle(&mut self, mut call: Box<ServiceCall>) {
        call.clear();
        let bytes = call.data.capacity() + call.event.capacity();
        if self.spare.len() < SPARE_MAX && bytes <= BYTES_KEPT_MAX {
            self.spare.push(call);
        }
    }

    /// Asks a service for the server itself. `write` writes the data for the service.
    pub fn ask(&mut self, question: Question<'_>, caller: u64, write: impl FnOnce(&mut Vec<u8>)) {
        let Question {
            connection,
            service,
            timeout,
            reply,
        } = question;
        let entry = self.directory.find(service);
        let mut call = self.new_call();
        call.event.extend_from_slice(service);
        call.caller = caller;
        write(&mut call.data);
        self.order(Order::Call {
            connection,
            reply: ReplyTo::Server(reply),
            entry,
            timeout: Some(timeout),
            call,
        });
    }
}

/// Calls whose buffers are kept.
const SPARE_MAX: usize = 256;
/// The buffers of larger calls are freed.
const BYTES_KEPT_MAX: usize = 16 * 1024;
/// The memory of a longer list is freed.
const ORDERS_KEPT_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffers_of_large_calls_are_given_back() {
        for (event, data, is_kept) in [(8, 8, true), (1 << 20, 8, false), (8, 1 << 20, false)] {
            let mut access = Access::default();
            let mut call = access.new_call();
            call.event.resize(event, b'n');
            call.data.resize(data, b'd');
            access.recycle(call);
            let call = access.new_call();
            assert!(call.event.is_empty() && call.data.is_empty());
            assert_eq!(call.data.capacity() > 0, is_kept, "{event} {data}");
            assert_eq!(call.event.capacity() > 0, is_kept, "{event} {data}");
        }
    }
}
