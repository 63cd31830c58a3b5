//! The application's periodic work: [`App::tick`].
//!
//! A publication of the application queues behind the publications of connections that ended before the ring
//! had room for them. It goes into the ring in the same turn if there is room.

use crate::app::{App, PeerOrder, Tick};
use crate::protocols;
use crate::session;

use crate::cores::core::Core;

impl<A: App> Core<A> {
    /// Calls the application's periodic work, which is due.
    #[cold]
    pub(super) fn tick(&mut self) {
        let now = self.time.now().uptime;
        self.tick.begin(now);
        let scratch = &mut self.resources.scratch.common;
        scratch.app.clear(0);
        self.resources
            .app
            .tick(&mut Tick::new(self.id.index(), &mut scratch.app));
        let epoch = self.resources.settings.common.epoch;
        for order in &scratch.app.orders {
            if let PeerOrder::Publish { channel, data } = *order {
                let channel = scratch.app.piece_bytes(channel);
                let data = data.map(|data| scratch.app.piece_bytes(data));
                let channels = &self.resources.policy.channels;
                if session::reserved(channel, channels, self.resources.settings.common.mqtt).is_some() {
                    continue;
                }
                let marks = session::marks(channels, &mut scratch.channels, channel);
                self.abandoned
                    .add(protocols::publication(channel, data, marks, epoch, false));
            }
        }
    }
}
