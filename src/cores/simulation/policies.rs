//! The policies of channels in a run, and the requests of clients for the past.

use super::log::{SHARED, channel_name};
use super::random::Random;
use crate::policy::channels::{ChannelPolicy, ChannelSpec, HistoryPolicy, MqttPolicy, PresencePolicy};

/// The publications that the server of a run remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// Nothing: no channel has a policy.
    Nothing,
    /// All publications of all channels, always.
    Everything,
    /// Some of some channels, by policies that reloads change.
    Some,
}

/// The part of a channel's past that a client wants when it subscribes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The position from which it is live.
    Position,
    /// All publications after this offset.
    After(u64),
    /// The same, with the epoch of another server.
    OtherEpoch,
    /// The newest publications, at most this many.
    Last(usize),
    /// All since this time, in Unix milliseconds.
    Since(u64),
}

impl Memory {
    /// Whether channels may have policies.
    pub(super) fn is_some(self) -> bool {
        self != Memory::Nothing
    }

    /// Whether the same publications are remembered throughout a run.
    pub(super) fn is_steady(self) -> bool {
        self == Memory::Nothing
    }

    /// The policies of `channels` channels.
    pub(super) fn policies(self, channels: usize, random: &mut Random) -> Vec<ChannelSpec> {
        (0..channels)
            .filter_map(|channel| {
                let policy = match self {
                    Memory::Nothing => return None,
                    Memory::Everything => ChannelPolicy {
                        history: Some(HistoryPolicy {
                            entries_max: 1_000_000,
                            bytes_max: 1 << 30,
                            age_ms_max: 86_400_000,
                        }),
                        last_value: has_last_value(channel),
                        position: true,
                        presence: PresencePolicy::Off,
                        mqtt: MqttPolicy::default(),
                    },
                    Memory::Some => some_policy(random)?,
                };
                Some(ChannelSpec {
                    names: vec![channel_name(channel)],
                    policy,
                    ..ChannelSpec::default()
                })
            })
            .collect()
    }

    /// Whether the newest publication of a channel certainly comes first.
    pub(super) fn has_last_value(self, channel: usize) -> bool {
        self == Memory::Everything && channel < SHARED && has_last_value(channel)
    }
}

fn has_last_value(channel: usize) -> bool {
    channel.is_multiple_of(2)
}

fn some_policy(random: &mut Random) -> Option<ChannelPolicy> {
    let history = random.chance(3, 4).then(|| HistoryPolicy {
        entries_max: random.of(&[1, 3, 20, 1000]),
        bytes_max: random.of(&[200, 2000, 1_000_000]),
        age_ms_max: random.of(&[100, 3000, 1_000_000]),
    });
    let last_value = random.chance(1, 3);
    let position = random.chance(1, 8) || history.is_some() || last_value;
    random.chance(5, 6).then_some(ChannelPolicy {
        history,
        last_value,
        position,
        presence: PresencePolicy::Off,
        mqtt: MqttPolicy::default(),
    })
}
