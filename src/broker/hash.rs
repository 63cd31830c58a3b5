//! The hash of a channel's name, computed once per packet and carried from there on.
//!
//! Users choose the names, so the hash is keyed with random numbers of the system at the start. All cores
//! share the key, since the hash travels through the ring. foldhash promises only that collisions are hard to
//! find without the key. If an attacker finds some, the limits on channels per connection bound their cost.

use std::hash::{BuildHasher, Hasher, RandomState};

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// The hash of a channel's name within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelHash(u64);

impl ChannelHash {
    /// The number.
    pub(crate) const fn as_u64(self) -> u64 {
        self.0
    }

    /// The core, of `cores`, that owns the channel: the owner keeps the state of which there is one copy,
    /// such as the channel's history. The owner follows from bits of the hash that neither the directory uses
    /// nor a table of fewer than 65,536 channels.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "32 bits are taken, and the result is below `cores`"
    )]
    pub const fn owner(self, cores: usize) -> usize {
        let bits = (self.0 >> 16) as u32;
        ((bits as u64 * cores as u64) >> 32) as usize
    }

    pub(crate) const fn from_u64(hash: u64) -> ChannelHash {
        ChannelHash(hash)
    }
}

/// Hashes the names of channels. Clones agree with each other.
#[derive(Clone, Debug)]
pub struct ChannelHasher {
    seed: u64,
    shared: SharedSeed,
}

impl ChannelHasher {
    /// A hasher with a fresh key.
    pub(crate) fn new() -> ChannelHasher {
        if cfg!(ringcast_loom) {
            // Loom replays a run many times, and each replay must hash alike.
            return ChannelHasher {
                seed: 0,
                shared: SharedSeed::from_u64(0),
            };
        }
        // The standard library keys its own tables with random numbers of the system.
        let system = RandomState::new();
        ChannelHasher {
            seed: system.hash_one(0),
            shared: SharedSeed::from_u64(system.hash_one(1)),
        }
    }

    /// A hasher with this key, for runs that can be repeated.
    #[cfg(test)]
    pub(crate) fn with_key(key: u64) -> ChannelHasher {
        ChannelHasher {
            seed: key,
            shared: SharedSeed::from_u64(key),
        }
    }

    /// The hash of a name.
    pub fn hash(&self, channel: &[u8]) -> ChannelHash {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        hasher.write(channel);
        ChannelHash(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_agree_and_others_do_not() {
        let hasher = ChannelHasher::new();
        assert_eq!(hasher.clone().hash(b"news"), hasher.hash(b"news"));
        assert_ne!(hasher.hash(b"news"), hasher.hash(b"new"));
        assert_ne!(hasher.hash(b"news"), ChannelHasher::new().hash(b"news"));
    }

    #[test]
    fn each_core_owns_its_share_of_the_channels() {
        let hasher = ChannelHasher::with_key(1);
        for cores in [1, 2, 3, 16, 128] {
            let mut owned = vec![0; cores];
            for channel in 0..1000 * cores {
                owned[hasher.hash(format!("room{channel}").as_bytes()).owner(cores)] += 1;
            }
            assert!(
                owned.iter().all(|&channels| (800..1200).contains(&channels)),
                "{owned:?}"
            );
        }
    }
}
