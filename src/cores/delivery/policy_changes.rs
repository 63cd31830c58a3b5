//! The place from which on all cores mark the publications of a channel as its policy says.
//!
//! After a reload, cores adopt the new policies of channels at different moments. Until then, a core
//! publishes by the former policies. So if a channel is remembered only since the new policies, some of its
//! publications are missing for a while. Each core tells all owners the place from which on it follows the
//! new policies: it publishes everything before that place by the former policies, and everything from there
//! on by the new ones. Once all cores have told their places, the channel is complete from the latest of
//! these places on.
//!
//! An owner may be the last to learn of new policies. Then other cores already publish by policies under
//! which a channel is no longer remembered, while the owner still remembers it. [`Channels::is_superseded`]
//! tells the owner so: until it follows the new policies itself, it calls no channel complete.
//!
//! Limit: [`CHANGES_MAX`] reloads. Before the oldest of them, nothing is known about any channel.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::broker::{CoreSet, Numbering, Sequence};
use crate::policy::channels::Channels;

/// The last changes of the policies, as the owner of channels knows them.
#[derive(Debug)]
pub(in crate::cores) struct PolicyChanges {
    cores: usize,
    numbering: Numbering,
    changes: VecDeque<Change>,
    followed: Vec<Followed>,
}

#[derive(Debug)]
struct Change {
    /// The former policies; `None` if other policies may have been in force between them and the new ones.
    from: Option<Arc<Channels>>,
    to: Arc<Channels>,
}

/// The cores that follow the policies of a version, or later ones, and the latest place at which one has begun to.
#[derive(Clone, Copy, Debug)]
struct Followed {
    version: u32,
    by: CoreSet,
    place: Sequence,
    /// When this core heard of the last of them, which was after the place.
    heard_at_ms: i64,
}

impl PolicyChanges {
    /// No change yet.
    pub(in crate::cores) fn new(cores: usize, numbering: Numbering) -> PolicyChanges {
        PolicyChanges {
            cores,
            numbering,
            changes: VecDeque::new(),
            followed: Vec::new(),
        }
    }

    /// This core adopts other policies.
    pub(in crate::cores) fn adopt(&mut self, from: &Arc<Channels>, to: &Arc<Channels>) {
        let is_next = from.version().wrapping_add(1) == to.version();
        self.changes.push_back(Change {
            from: is_next.then(|| Arc::clone(from)),
            to: Arc::clone(to),
        });
        if self.changes.len() > CHANGES_MAX {
            self.changes.pop_front();
            if let Some(oldest) = self.changes.front_mut() {
                oldest.from = None;
                let version = oldest.to.version();
                self.followed.retain(|followed| followed.version >= version);
            }
        }
    }

    /// A core follows the policies of this version from this place on; this core has just heard of it.
    pub(in crate::cores) fn follow(&mut self, core: usize, version: u32, place: Sequence, heard_at_ms: i64) {
        if self.followed.iter().all(|followed| followed.version != version) {
            let later = self.followed.iter().filter(|followed| followed.version > version);
            self.followed.push(later.fold(
                Followed {
                    version,
                    by: CoreSet::EMPTY,
                    place,
                    heard_at_ms,
                },
                |sum, later| Followed {
                    by: sum.by.union(later.by),
                    place: sum.place.max(later.place),
                    ..sum
                },
            ));
        }
        for followed in &mut self.followed {
            if followed.version <= version && !followed.by.contains(core) {
                followed.by.insert(core);
                followed.place = followed.place.max(place);
                followed.heard_at_ms = followed.heard_at_ms.max(heard_at_ms);
            }
        }
    }

    /// Whether publications of the channel after this offset may not have been marked.
    pub(in crate::cores) fn is_unsure(&self, name: &[u8], offset: u64) -> bool {
        self.is_unsure_before(name, |followed| {
            offset + 1 < self.numbering.offset(followed.place)
        })
    }

    /// Whether publications of the channel since this moment may not have been marked.
    pub(in crate::cores) fn is_unsure_since(&self, name: &[u8], at_ms: i64) -> bool {
        self.is_unsure_before(name, |followed| at_ms <= followed.heard_at_ms)
    }

    /// Whether the policy of the channel has changed, and either not all cores follow the new one, or
    /// `is_before` says that the requested time is before they all did.
    fn is_unsure_before(&self, name: &[u8], is_before: impl Fn(&Followed) -> bool) -> bool {
        self.changes.iter().any(|change| {
            let remembers =
                |channels: &Channels| channels.find(name).is_some_and(|policy| policy.remembers());
            let is_changed = change
                .from
                .as_ref()
                .is_none_or(|from| remembers(from) != remembers(&change.to));
            is_changed && self.followed_by_all(change.to.version()).is_none_or(&is_before)
        })
    }

    /// The place from which on all cores follow the policies of this version; `None` if some do not yet.
    fn followed_by_all(&self, version: u32) -> Option<&Followed> {
        let followed = self
            .followed
            .iter()
            .find(|followed| followed.version == version)?;
        (followed.by.len() == self.cores).then_some(followed)
    }
}

/// Changes that are remembered: each keeps the policies before it.
const CHANGES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::channels::{ChannelPolicy, ChannelSpec};

    fn policies(names: &[&str], before: Option<&Arc<Channels>>) -> Arc<Channels> {
        let spec = ChannelSpec {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            policy: ChannelPolicy {
                last_value: true,
                ..ChannelPolicy::default()
            },
            ..ChannelSpec::default()
        };
        Channels::compile(&[spec], b'.', before).unwrap()
    }

    fn unsure(changes: &PolicyChanges, name: &str) -> Vec<bool> {
        let name = name.as_bytes();
        [0, 9, 10, 11, 1000]
            .map(|offset| changes.is_unsure(name, offset))
            .into()
    }

    #[test]
    fn a_channel_is_unsure_until_all_cores_follow_and_before_the_latest_place() {
        let first = policies(&["old", "both"], None);
        let second = policies(&["new", "both"], Some(&first));
        let mut changes = PolicyChanges::new(2, Numbering::new());
        // The other core may have been faster.
        changes.follow(1, second.version(), Sequence(12), 50);
        assert_eq!(unsure(&changes, "new"), [false; 5]);
        changes.adopt(&first, &second);
        for name in ["new", "old"] {
            assert_eq!(unsure(&changes, name), [true; 5], "{name}");
        }
        assert_eq!(unsure(&changes, "both"), [false; 5]);
        changes.follow(0, second.version(), Sequence(7), 50);
        assert_eq!(unsure(&changes, "new"), [true, true, true, false, false]);
        assert_eq!(unsure(&changes, "both"), [false; 5]);
        let unsure_since = |name: &[u8]| [49, 50, 51].map(|at_ms| changes.is_unsure_since(name, at_ms));
        assert_eq!(unsure_since(b"new"), [true, true, false]);
        assert_eq!(unsure_since(b"both"), [false; 3]);
    }

    #[test]
    fn a_version_that_a_core_has_passed_over_counts_as_followed_from_the_next_on() {
        let first = policies(&["a"], None);
        let second = policies(&["a", "b"], Some(&first));
        let third = policies(&["a", "c"], Some(&second));
        let mut changes = PolicyChanges::new(3, Numbering::new());
        changes.adopt(&first, &second);
        changes.follow(0, second.version(), Sequence(5), 50);
        changes.follow(1, third.version(), Sequence(11), 50);
        changes.follow(2, second.version(), Sequence(5), 50);
        assert_eq!(unsure(&changes, "b"), [true, true, false, false, false]);
        // This core itself has skipped the second policies: all channels may have been without their policy
        // for a while.
        let mut changes = PolicyChanges::new(1, Numbering::new());
        changes.adopt(&first, &third);
        changes.follow(0, third.version(), Sequence(11), 50);
        assert_eq!(unsure(&changes, "a"), [true, true, false, false, false]);
    }

    #[test]
    fn changes_long_ago_are_about_all_channels() {
        let mut changes = PolicyChanges::new(1, Numbering::new());
        let mut before = policies(&["a"], None);
        for change in 0..20_u64 {
            let name = format!("b{change}");
            let next = policies(&["a", &name], Some(&before));
            changes.adopt(&before, &next);
            changes.follow(0, next.version(), Sequence(change + 1), 50);
            before = next;
        }
        assert_eq!(changes.changes.len(), CHANGES_MAX);
        assert!(changes.followed.len() <= CHANGES_MAX);
        // The oldest change that is known has the place 13.
        assert!(changes.is_unsure(b"a", 11) && !changes.is_unsure(b"a", 12));
    }
}
