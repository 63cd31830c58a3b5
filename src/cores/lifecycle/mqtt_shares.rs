//! Shared subscriptions of MQTT (`mqtt/shares.rs`): publications that groups have given to sessions of this
//! core, and letters about groups to other cores.

use crate::app::App;
use crate::decision::Limit;
use crate::metrics::block::MqttDrop;

use crate::cores::core::Core;
use crate::cores::post::letter::Letter;

impl<A: App> Core<A> {
    /// Delivers the publications that groups have given to sessions of this core, and sends letters about
    /// groups to other cores, if their boxes have room. This happens before the cores are woken.
    pub(in crate::cores) fn serve_mqtt_shares(&mut self) {
        self.connections.deliver_handed(&mut self.resources.inspector());
        let Some(sessions) = &mut self.connections.mqtt else {
            return;
        };
        sessions.tell_groups();
        let shares = &mut sessions.shares;
        if shares.has_messages() {
            let from = self.id.index();
            for core in 0..shares.cores() {
                if shares.has_messages_for(core) && self.post.has_room(core) {
                    let messages = shares.take_messages(core);
                    self.post.send(core, Letter::MqttShares { from, messages });
                }
            }
        }
        let (redispatched, dropped) = shares.take_counts();
        self.metrics.mqtt_shared_redispatched.add(redispatched);
        if dropped > 0 {
            self.metrics.mqtt_publications_dropped[MqttDrop::GroupFull.index()].add(dropped);
            self.metrics.limit_hits[Limit::MqttQueue.index()].add(dropped);
        }
        self.metrics.mqtt_groups.set(shares.groups_len() as u64);
    }
}
