//! Publications on channels that webhooks name. The first core reads them in the ring and tells webhooks of
//! all of them. So webhooks get each of them once, in the one order of all publications, no matter which
//! client has published it.
//!
//! That core is woken for every publication while a webhook asks for publications
//! (`Subscriptions::wake_for_all`).

use std::sync::Arc;

use crate::broker::{Numbering, Publication};
use crate::config::webhooks::WebhookEvent;
use crate::decision::Limit;
use crate::metrics::block::CoreMetrics;
use crate::webhooks::{DatedEvent, Event, Intake, RecentAnswers, Webhooks};

/// The first core's reports of publications to webhooks.
#[derive(Debug)]
pub(in crate::cores) struct WebhookPublications {
    core: usize,
    webhooks: Arc<Webhooks>,
    intake: Arc<Intake>,
    recent: RecentAnswers,
    metrics: Arc<CoreMetrics>,
}

impl WebhookPublications {
    /// For these webhooks; `None` if no webhook asks for publications.
    pub(in crate::cores) fn new(
        core: usize,
        webhooks: &Arc<Webhooks>,
        metrics: &Arc<CoreMetrics>,
    ) -> Option<WebhookPublications> {
        let intake = webhooks
            .intake()
            .filter(|_| webhooks.wants(WebhookEvent::Publication))?;
        Some(WebhookPublications {
            core,
            webhooks: Arc::clone(webhooks),
            intake: Arc::clone(intake),
            recent: RecentAnswers::default(),
            metrics: Arc::clone(metrics),
        })
    }

    /// Whether a webhook asks for publications on this channel.
    pub(super) fn wants(&mut self, channel: &[u8]) -> bool {
        self.webhooks
            .wants_on_recent(WebhookEvent::Publication, channel, &mut self.recent)
    }

    /// Tells webhooks of a publication, in the form of SocketCluster.
    pub(super) fn tell(&self, publication: &Publication<'_>, numbering: Numbering, unix_ms: u64) {
        let (channel, data) = (publication.channel(), publication.payload());
        let is_told = self.intake.has_room(channel.len() + data.len())
            && self
                .intake
                .put(DatedEvent {
                    unix_ms,
                    core: self.core,
                    event: Event::Publication {
                        channel: channel.into(),
                        data: data.into(),
                        position: publication
                            .marks()
                            .is_any()
                            .then(|| numbering.position(publication.sequence())),
                    },
                })
                .is_ok();
        if !is_told {
            self.intake.lose(WebhookEvent::Publication);
            self.metrics.limit_hit(Limit::WebhookEventsWaiting);
        }
    }
}
