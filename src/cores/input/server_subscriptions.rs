//! Subscriptions that the server has made, and for which their clients have not asked yet.
//!
//! A client that learns of such a subscription (`$subscribed`) subscribes by itself, too. That is its first
//! subscribe packet for the channel, so it gets the channel's last value, though the connection is subscribed
//! already.
//!
//! Limit: `channels_per_connection_max`, since each entry belongs to a subscription.

use std::collections::{BTreeSet, HashMap};

/// The subscriptions of one core's connections, each by the index of the connection and the number of the channel.
#[derive(Debug, Default)]
pub(in crate::cores) struct ServerSubscriptions(HashMap<u32, BTreeSet<u32>>);

impl ServerSubscriptions {
    #[inline]
    pub(in crate::cores) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The server has subscribed a connection to a channel.
    pub(in crate::cores) fn add(&mut self, connection: u32, channel: u32) {
        self.0.entry(connection).or_default().insert(channel);
    }

    /// The client subscribes to the channel by itself, or its subscription ends. Returns whether the server
    /// had made it.
    pub(in crate::cores) fn remove(&mut self, connection: u32, channel: u32) -> bool {
        let Some(channels) = self.0.get_mut(&connection) else {
            return false;
        };
        let was_there = channels.remove(&channel);
        if channels.is_empty() {
            self.end(connection);
        }
        was_there
    }

    /// A connection has ended.
    pub(in crate::cores) fn end(&mut self, connection: u32) {
        self.0.remove(&connection);
        if self.0.is_empty() {
            // The memory of a large table is freed.
            self.0 = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_of_the_server_is_one_until_it_is_removed_or_its_connection_ends() {
        let mut subscriptions = ServerSubscriptions::default();
        for (connection, channel) in [(1, 5), (1, 6), (2, 5), (1, 5)] {
            subscriptions.add(connection, channel);
        }
        assert!(subscriptions.remove(1, 5) && !subscriptions.remove(1, 5));
        assert!(!subscriptions.remove(3, 5) && !subscriptions.remove(2, 6));
        subscriptions.end(2);
        assert!(!subscriptions.remove(2, 5) && !subscriptions.is_empty());
        assert!(subscriptions.remove(1, 6) && subscriptions.is_empty());
    }
}
