//! New policies of channels in a core: the memory that follows them, and the letters by which all cores
//! learn from which place on publications are marked by the new policies (`delivery/policy_changes.rs`).

use std::sync::Arc;

use crate::app::App;
use crate::policy::channels::Channels;

use crate::cores::core::Core;
use crate::cores::delivery::channel_memory::ChannelMemory;
use crate::cores::post::letter::Letter;

impl<A: App> Core<A> {
    /// Begins to remember by these policies of channels. The policy in force is still the former one.
    pub(in crate::cores) fn adopt_channels(&mut self, channels: &Arc<Channels>) {
        self.waiting.note_other_policies();
        self.begin_memory().adopt(channels);
        self.note_histories(channels);
        if let Some(topics) = self.delivery.retained() {
            topics.adopt(channels);
        }
    }

    /// From now on, subscribers read the publications that they do not take from the histories of these
    /// policies later.
    pub(in crate::cores) fn note_histories(&mut self, channels: &Arc<Channels>) {
        self.connections.histories = Some(Box::new(self.delivery.read_later(channels)));
    }

    /// Tells the owners of channels from which place on this core publishes by the policies that it has
    /// adopted, unless they know. If publications that a session decided earlier still wait, whatever for, the
    /// letters wait as well.
    pub(in crate::cores) fn tell_policies_followed(&mut self) {
        if self.has_former_publications() {
            return;
        }
        let Some(version) = self.delivery.memory().and_then(ChannelMemory::take_unreported) else {
            return;
        };
        let (core, place) = (self.id, self.delivery.claimed());
        for to in 0..self.delivery.core_count() {
            let followed = Letter::PoliciesFollowed { core, version, place };
            self.post.send(to, followed);
        }
    }

    /// Whether some publications have not been made that were decided by former policies of channels.
    fn has_former_publications(&mut self) -> bool {
        let version = self.resources.policy.channels.version();
        let connections = &self.connections;
        let is_former = |id| {
            let suspended = connections
                .get(id)
                .and_then(|connection| connection.suspended.as_deref());
            suspended.is_some_and(|work| work.policies != Some(version))
        };
        self.waiting.has_former(is_former) || !self.abandoned.is_empty()
    }

    /// The memory of this core, which begins with the first policy of a channel.
    pub(in crate::cores) fn begin_memory(&mut self) -> &mut ChannelMemory {
        self.keeps_state = true;
        let (core, metrics) = (self.id.index(), &self.metrics);
        let (channels, limits) = (&self.resources.policy.channels, &self.limits);
        self.delivery.memory_or_begin(|cores, numbering| {
            let channels = Arc::clone(channels);
            ChannelMemory::new(core, cores, numbering, channels, limits, Arc::clone(metrics))
        })
    }
}
