//! The cluster on a core: what it tells the bridge at its start and at the end of each turn (`delivery/cluster_interest.rs`).

use crate::app::App;
use crate::webhooks::event::{Occupied, SubscriberKind};

use crate::cores::core::Core;
use crate::cores::delivery::cluster_interest::{ClusterEnd, Subject, Wanting};

impl<A: App> Core<A> {
    /// Tells the bridge of this core's subscribers from now on, and of those that sessions of the store have already.
    pub(in crate::cores) fn join_cluster(&mut self, end: ClusterEnd) {
        self.delivery.join_cluster(end);
        let Some(sessions) = self.connections.mqtt.as_deref_mut() else {
            return;
        };
        let filters = &mut sessions.subscriptions;
        filters.watch_wildcards();
        for number in 0..filters.filter_places() {
            if let (Some((filter, has_wildcards)), Some(cluster)) =
                (filters.filter_at(number), self.delivery.cluster())
            {
                let subject = match has_wildcards {
                    true => Subject::Filter(filter.into()),
                    false => Subject::Channel(filter.into()),
                };
                cluster.note(subject, Wanting::Mqtt, true);
            }
        }
    }

    /// Tells the bridge which channels and filters have got their first subscriber on this core in this turn, and which have
    /// lost their last.
    pub(in crate::cores) fn tell_cluster(&mut self, occupancy: &[Occupied]) {
        let Some(cluster) = self.delivery.cluster() else {
            return;
        };
        for change in occupancy {
            let by = match change.by {
                SubscriberKind::SocketCluster => Wanting::SocketCluster,
                SubscriberKind::Mqtt => Wanting::Mqtt,
            };
            cluster.note(Subject::Channel(change.channel.clone()), by, change.is_occupied);
        }
        if let Some(sessions) = self.connections.mqtt.as_deref_mut() {
            for change in sessions.subscriptions.take_watched_wildcards() {
                cluster.note(Subject::Filter(change.channel), Wanting::Mqtt, change.is_occupied);
            }
        }
        cluster.tell();
    }
}
