//! Periodic work of an application, on its core.

use serde::Serialize;

use super::scratch::{PeerOrder, Scratch};

/// The core on which an application does its periodic work: see [`App::tick`](super::App::tick).
#[derive(Debug)]
pub struct Tick<'a> {
    core: usize,
    scratch: &'a mut Scratch,
}

impl<'a> Tick<'a> {
    pub(crate) fn new(core: usize, scratch: &'a mut Scratch) -> Tick<'a> {
        Tick { core, scratch }
    }

    /// The number of the core, from 0. All cores tick: work that is to be done only once belongs to one of
    /// them.
    pub fn core(&self) -> usize {
        self.core
    }

    /// Publishes to all subscribers of a channel. Data without a JSON form is not published.
    pub fn publish(&mut self, channel: &str, data: &(impl Serialize + ?Sized)) {
        if let Some(data) = self.scratch.write_json(data) {
            let channel = self.scratch.keep(channel);
            self.scratch.orders.push(PeerOrder::Publish {
                channel,
                data: Some(data),
            });
        }
    }
}
