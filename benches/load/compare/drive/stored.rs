//! The state that an MQTT server stores: the sessions of clients that have left, messages for them, and retained
//! messages.

use super::super::super::wire::Publication;
use super::super::link::{Dialect, Link};
use super::{Drive, Load, OPENING_MAX, Patience, TURN, in_words};

impl Drive {
    /// All connected clients send DISCONNECT; waits until the server has closed every connection.
    pub(crate) fn leave(&mut self) -> Result<(), String> {
        let is_open = |link: &&mut Link| link.is_open();
        let leaving: Vec<&mut Link> = self.links.iter_mut().flatten().filter(is_open).collect();
        for link in leaving {
            link.close(&mut self.shared);
            link.flush(&mut self.shared)?;
        }
        let mut patience = Patience::new();
        while self.opened > 0 {
            self.turn(TURN)?;
            patience.with(u64::MAX - u64::from(self.opened))?;
        }
        // An error means that the socket has ended already.
        for link in self.links.iter_mut().flatten() {
            let _ = link.stream.shutdown(std::net::Shutdown::Both);
        }
        Ok(())
    }

    /// All clients connect again; waits until each has received `each` publications.
    pub(crate) fn come_back(&mut self, each: u32) -> Result<(), String> {
        let clients = u32::try_from(self.links.len()).unwrap_or(u32::MAX);
        let (mut begun, mut patience) = (0, Patience::new());
        let end = self.done + u64::from(clients) * u64::from(each);
        while self.opened < clients || self.done < end {
            if begun < clients && begun - self.opened < OPENING_MAX {
                let stream = self.sources.connect().map_err(in_words)?;
                if let Some(link) = &mut self.links[begun as usize] {
                    link.return_with(stream);
                }
                self.begin_link(begun as usize)?;
                begun += 1;
            } else {
                self.turn(TURN)?;
                patience.with(self.done + u64::from(self.opened))?;
            }
        }
        Ok(())
    }

    /// Publishes all messages of a [`Load::Store`]; waits until the server has acknowledged them.
    pub(crate) fn store(&mut self) -> Result<(), String> {
        let Load::Store {
            topics,
            each,
            in_flight,
        } = self.load
        else {
            return Ok(());
        };
        let all = u64::from(topics) * u64::from(each);
        let (mut sent, mut patience) = (0, Patience::new());
        let start = self.done;
        while self.done < start + all {
            // A new burst when half of the last one is acknowledged, so that the server always has work.
            if sent < all && sent - (self.done - start) <= u64::from(in_flight / 2) {
                for _ in 0..(in_flight / 2).max(1) {
                    if sent < all {
                        self.store_one(sent, topics);
                        sent += 1;
                    }
                }
                if let Some(publisher) = &mut self.links[0] {
                    publisher.flush(&mut self.shared)?;
                }
            }
            self.turn(TURN)?;
            patience.with(self.done)?;
        }
        Ok(())
    }

    fn store_one(&mut self, index: u64, topics: u32) {
        let (channel, number) = (index % u64::from(topics), index / u64::from(topics));
        let publication = Publication {
            // Both are below the counts of the load.
            channel: u32::try_from(channel).unwrap_or(u32::MAX),
            from: 0,
            number: u32::try_from(number).unwrap_or(u32::MAX),
            at: 0,
        };
        if let Some(publisher) = &mut self.links[0] {
            publisher.publish(&publication, &mut self.shared);
        }
    }

    /// The only client subscribes again; waits until it has received this many retained publications.
    pub(crate) fn read_retained(&mut self, count: u64) -> Result<(), String> {
        let Dialect::Mqtt(speech) = self.shared.dialect else {
            return Ok(());
        };
        if let Some(link) = &mut self.links[0] {
            link.subscribe_again(&speech, &mut self.shared);
            link.flush(&mut self.shared)?;
        }
        self.await_done(self.done + count)
    }

    /// Waits until this many messages have been received or stored.
    pub(crate) fn await_done(&mut self, count: u64) -> Result<(), String> {
        let mut patience = Patience::new();
        while self.done < count {
            self.turn(TURN)?;
            patience.with(self.done)?;
        }
        Ok(())
    }
}
