//! The marks of a publication, which follow from the policy of its channel.

use crate::decision::Marks;
use crate::policy::channels::{ChannelPolicy, Channels, RecentChannels};

/// The marks of the publications of a channel.
#[inline]
pub(crate) fn marks(channels: &Channels, recent: &mut RecentChannels, name: &[u8]) -> Marks {
    if channels.is_empty() {
        return Marks::default();
    }
    marks_by(channels.find_recent(name, recent))
}

/// The marks by this policy of a channel.
pub(crate) fn marks_by(policy: Option<&ChannelPolicy>) -> Marks {
    policy.map_or_else(Marks::default, |policy| Marks {
        remembered: policy.remembers(),
        positioned: policy.position,
    })
}
