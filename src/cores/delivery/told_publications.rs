//! Publications on channels that webhooks name: one core, the first, tells webhooks of all of them, as it reads them in the
//! ring. So each is told once, whoever has published it, in the one order of all publications.
//!
//! That core is woken for every publication while a webhook asks for some (`Subscriptions::wake_for_all`).

use std::sync::Arc;

use crate::broker::{Numbering, Publication};
use crate::config::webhooks::WebhookEvent;
use crate::decision::Limit;
use crate::metrics::block::CoreMetrics;
use crate::webhooks::{Event, Intake, RecentAnswers, Told, Webhooks};

/// What the first core tells webhooks of publications.
#[derive(Debug)]
pub(in crate::cores) struct ToldPublications {
    core: usize,
    webhooks: Arc<Webhooks>,
    intake: Arc<Intake>,
    recent: RecentAnswers,
    metrics: Arc<CoreMetrics>,
}

impl ToldPublications {
    /// For webhooks of which one asks for publications; `None` if none does.
    pub(in crate::cores) fn new(
        core: usize,
        webhooks: &Arc<Webhooks>,
        metrics: &Arc<CoreMetrics>,
    ) -> Option<ToldPublications> {
        let intake = webhooks
            .intake()
            .filter(|_| webhooks.wants(WebhookEvent::Publication))?;
        Some(ToldPublications {
            core,
            webhooks: Arc::clone(webhooks),
            intake: Arc::clone(intake),
            recent: RecentAnswers::default(),
            metrics: Arc::clone(metrics),
        })
    }

    /// Whether some webhook is told of publications on this channel.
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
                .put(Told {
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
