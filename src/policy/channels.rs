//! Policies of channels: finds the policy that applies to a name.
//!
//! [`Channels`] are compiled once from the configuration and shared by all cores. The first policy with a pattern that
//! matches a name applies to it. A pattern that begins with a wildcard matches no name that begins with `$`: such names
//! are the server's own, as `$presence/room`, and a policy for `**` does not apply to them.
//!
//! A look-up compares the name with the patterns, without allocation; a core remembers the answers for the names that
//! it has seen last ([`RecentChannels`]).
//!
//! Not here: the form of policies in the file (`config::channels`), and their effects.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::auth::rules::{Pattern, RecentNames, first_bytes};
use crate::config::ListFault;
pub use crate::config::channels::{
    ChannelPolicy, ChannelSpec, HistoryPolicy, MqttPolicy, PRESENCE_PREFIX, PolicyPart, PresencePolicy,
    StringPolicy,
};

/// The compiled policies.
#[derive(Debug, Default)]
pub struct Channels {
    version: u32,
    separator: u8,
    specs: Vec<ChannelSpec>,
    /// The patterns of all policies, in their order.
    patterns: Box<[PolicyPattern]>,
    /// Whether any policy has presence.
    has_presence: bool,
    /// Whether any policy has `mqtt_unquote`.
    has_unquoted: bool,
    /// Whether publishers may use later policies. Set by the thread that brings these into force, before any publisher
    /// has them; read by the owners of channels. Relaxed: a publication by the later policies comes to its reader
    /// through the ring, whose release and acquire order this store before the reader's load.
    is_superseded: AtomicBool,
}

#[derive(Debug)]
struct PolicyPattern {
    pattern: Pattern,
    /// Whether it can match names that begin with `$`.
    is_reserved: bool,
    /// The index of its policy in the list, from 0.
    policy: u32,
}

/// The policies of the names that a core has seen last. Owns no memory before the first.
pub type RecentChannels = RecentNames<Option<u32>, 16>;

impl Channels {
    /// Compiles policies. If nothing about them differs from `before` but their lines in the file, `before` is
    /// returned.
    ///
    /// # Errors
    /// A policy has an invalid pattern, which the error names.
    pub fn compile(
        specs: &[ChannelSpec],
        separator: u8,
        before: Option<&Arc<Channels>>,
    ) -> Result<Arc<Channels>, ListFault> {
        let mut patterns = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            for name in &spec.names {
                patterns.push(PolicyPattern {
                    pattern: compile_pattern(name, separator)
                        .map_err(|fault| fault_of(index, spec, fault))?,
                    is_reserved: is_reserved(name.as_bytes()),
                    policy: u32::try_from(index).unwrap_or(u32::MAX),
                });
            }
        }
        let says_the_same = |before: &Channels| {
            let said = |spec: &'_ ChannelSpec| (spec.names.clone(), spec.policy);
            before.separator == separator && before.specs.iter().map(said).eq(specs.iter().map(said))
        };
        if let Some(before) = before
            && says_the_same(before)
        {
            return Ok(Arc::clone(before));
        }
        Ok(Arc::new(Channels {
            version: before.map_or(0, |before| before.version.wrapping_add(1)),
            separator,
            specs: specs.to_vec(),
            patterns: patterns.into(),
            has_presence: specs.iter().any(|spec| spec.policy.presence.is_on()),
            has_unquoted: specs
                .iter()
                .any(|spec| spec.policy.mqtt.strings == StringPolicy::Unquoted),
            is_superseded: AtomicBool::new(false),
        }))
    }

    /// Later policies come into force. To be called before the first publisher has them.
    pub(crate) fn supersede(&self) {
        self.is_superseded.store(true, Ordering::Relaxed);
    }

    /// Whether publications that the caller has read in the ring may have been made by later policies.
    pub(crate) fn is_superseded(&self) -> bool {
        self.is_superseded.load(Ordering::Relaxed)
    }

    /// The faults of all policies; [`Channels::compile`] stops at the first one.
    pub fn faults(specs: &[ChannelSpec], separator: u8) -> Vec<ListFault> {
        let faults = specs.iter().enumerate().filter_map(|(index, spec)| {
            let mut names = spec.names.iter();
            let fault = names.find_map(|name| compile_pattern(name, separator).err())?;
            Some(fault_of(index, spec, fault))
        });
        faults.collect()
    }

    /// Whether no channel has a policy.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any channel may have presence.
    #[inline]
    pub fn has_presence(&self) -> bool {
        self.has_presence
    }

    /// Whether MQTT clients get the strings of a channel without their quotes.
    #[inline]
    pub fn unquotes(&self, name: &[u8]) -> bool {
        let policy = self.has_unquoted.then(|| self.find(name)).flatten();
        policy.is_some_and(|policy| policy.mqtt.strings == StringPolicy::Unquoted)
    }

    /// The channel whose members are published on the channel `name`, if `name` is `$presence/` and the name of a
    /// channel with presence.
    #[inline]
    pub fn announced_on<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        if !self.has_presence {
            return None;
        }
        let channel = name.strip_prefix(PRESENCE_PREFIX.as_bytes())?;
        self.find(channel)?.presence.is_on().then_some(channel)
    }

    /// The number of this set of policies: a reload that changes what any policy says, or their order, makes it greater
    /// by one; another reload does not change it.
    #[inline]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The policies as written.
    pub fn specs(&self) -> &[ChannelSpec] {
        &self.specs
    }

    /// The number of policies with each property, by [`PolicyPart::index`].
    pub fn counts(&self) -> [usize; PolicyPart::COUNT] {
        PolicyPart::ALL.map(|part| self.specs.iter().filter(|spec| spec.policy.has(part)).count())
    }

    /// The policy of the channel with this name, in WTF-8.
    pub fn find(&self, name: &[u8]) -> Option<&ChannelPolicy> {
        self.policy_at(self.place_of(name))
    }

    /// As [`Channels::find`], for names that are often asked about.
    #[inline]
    pub fn find_recent(&self, name: &[u8], recent: &mut RecentChannels) -> Option<&ChannelPolicy> {
        let place = recent.recall(self.version, name).unwrap_or_else(|| {
            let place = self.place_of(name);
            recent.remember(self.version, name, place);
            place
        });
        self.policy_at(place)
    }

    /// The pattern by which the policy at this place of the list, from 0, matches a name; for explanations.
    pub fn pattern_of(&self, policy: usize, name: &[u8]) -> Option<&str> {
        let mut patterns = self.patterns.iter();
        let found = patterns.find(|entry| {
            entry.policy as usize == policy
                && self.is_about(entry, name, first_bytes(name), is_reserved(name))
        });
        found.map(|entry| entry.pattern.text())
    }

    /// Warnings about names that have no effect, since an earlier policy matches all of their channels.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (index, spec) in self.specs.iter().enumerate() {
            let earlier = |name: &str| {
                self.patterns
                    .iter()
                    .take_while(|earlier| (earlier.policy as usize) < index)
                    .find(|earlier| {
                        earlier.is_reserved == is_reserved(name.as_bytes())
                            && earlier.pattern.covers(name, self.separator)
                    })
            };
            let covered = spec.names.iter().filter_map(|name| Some((name, earlier(name)?)));
            warnings.extend(covered.map(|(name, by)| {
                format!(
                    "{}: {name:?} has no effect, since number {} above matches all these channels with {:?} and the first \
                     policy that matches applies: move it up, or remove it",
                    heading(index, spec),
                    by.policy + 1,
                    by.pattern.text()
                )
            }));
        }
        warnings
    }

    #[inline]
    fn policy_at(&self, place: Option<u32>) -> Option<&ChannelPolicy> {
        self.specs.get(place? as usize).map(|spec| &spec.policy)
    }

    fn place_of(&self, name: &[u8]) -> Option<u32> {
        let (first, is_reserved) = (first_bytes(name), is_reserved(name));
        let mut patterns = self.patterns.iter();
        let found = patterns.find(|entry| self.is_about(entry, name, first, is_reserved));
        found.map(|entry| entry.policy)
    }

    /// Whether a pattern matches a name with these first bytes.
    #[inline]
    fn is_about(&self, entry: &PolicyPattern, name: &[u8], first: u64, is_reserved: bool) -> bool {
        entry.is_reserved == is_reserved && entry.pattern.matches(name, first, self.separator, &[])
    }
}

/// Whether such names belong to the server.
fn is_reserved(name: &[u8]) -> bool {
    name.first() == Some(&b'$')
}

fn compile_pattern(text: &str, separator: u8) -> Result<Pattern, String> {
    let mut claims = Vec::new();
    let pattern = Pattern::compile(text, separator, &mut claims)?;
    match claims.first() {
        Some(claim) => Err(format!(
            "{text:?}: a policy is about a channel and not about a client, so that {{{claim}}} has no value: write * for \
             any one segment"
        )),
        None => Ok(pattern),
    }
}

fn fault_of(index: usize, spec: &ChannelSpec, fault: String) -> ListFault {
    ListFault {
        list: "channels",
        number: index + 1,
        file: spec.file.clone(),
        line: spec.line,
        fault: format!("names: {fault}"),
    }
}

/// A policy by its place: `channels number 2 (line 17)`
fn heading(index: usize, spec: &ChannelSpec) -> String {
    match spec.line {
        0 => format!("channels number {}", index + 1),
        line => format!("channels number {} (line {line})", index + 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::sample::select;
    use proptest::{prop_assert_eq, proptest};

    use super::*;

    fn spec(names: &[&str], last_value: bool) -> ChannelSpec {
        ChannelSpec {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            policy: ChannelPolicy {
                last_value,
                ..ChannelPolicy::default()
            },
            ..ChannelSpec::default()
        }
    }

    fn channels(specs: &[ChannelSpec]) -> Arc<Channels> {
        Channels::compile(specs, b'.', None).unwrap()
    }

    #[test]
    fn the_first_policy_that_matches_applies() {
        let channels = channels(&[
            spec(&["room.closed", "room.closed.**"], false),
            spec(&["room.**", "price.*"], true),
        ]);
        let mut recent = RecentChannels::default();
        for round in 0..2 {
            for (name, expected) in [
                ("room.closed", Some(false)),
                ("room.closed.a.b", Some(false)),
                ("room.a", Some(true)),
                ("room", Some(true)),
                ("price.gold", Some(true)),
                ("price", None),
                ("price.gold.now", None),
                ("", None),
            ] {
                let found = channels.find(name.as_bytes());
                assert_eq!(found.map(|policy| policy.last_value), expected, "{name}");
                let found = channels.find_recent(name.as_bytes(), &mut recent);
                assert_eq!(found.map(|policy| policy.last_value), expected, "{name} {round}");
            }
        }
        assert!(!channels.is_empty() && Channels::default().is_empty());
        assert_eq!(Channels::default().find(b"a"), None);
    }

    proptest! {
        /// The names have the length and the end of each other, so that they share slots.
        #[test]
        fn a_remembered_answer_is_the_answer(
            rounds in vec((vec(select(&["a.*", "a.aa", "b.**", "*.aa", "$a.**"][..]), 0..3), vec("[$ab]\\.[ab]a", 1..40)), 1..4)
        ) {
            let mut recent = RecentChannels::default();
            let mut channels = Arc::new(Channels::default());
            for (patterns, names) in &rounds {
                let specs: Vec<_> = patterns.iter().enumerate().map(|(index, name)| spec(&[name], index == 1)).collect();
                channels = Channels::compile(&specs, b'.', Some(&channels)).unwrap();
                for name in names {
                    let found = channels.find_recent(name.as_bytes(), &mut recent);
                    prop_assert_eq!(found, channels.find(name.as_bytes()), "{} {:?}", name, patterns);
                }
            }
        }
    }

    #[test]
    fn a_wildcard_is_not_about_channels_of_the_server() {
        let all = channels(&[spec(&["**"], true)]);
        assert!(all.find(b"room.a").is_some() && all.find(b"$presence/room.a").is_none());
        let named = channels(&[spec(&["$presence/room.*"], true)]);
        assert!(named.find(b"$presence/room.a").is_some() && named.find(b"room.a").is_none());
    }

    #[test]
    fn what_is_remembered_about_a_name_ends_with_the_policies() {
        let mut recent = RecentChannels::default();
        let first = channels(&[spec(&["a"], true)]);
        assert!(first.find_recent(b"a", &mut recent).is_some());
        assert!(first.find_recent(b"b", &mut recent).is_none());
        let second = Channels::compile(&[spec(&["b"], true)], b'.', Some(&first)).unwrap();
        assert!(second.find_recent(b"a", &mut recent).is_none());
        assert!(second.find_recent(b"b", &mut recent).is_some());
    }

    #[test]
    fn the_version_changes_with_what_policies_say_and_not_with_their_lines() {
        let first = channels(&[spec(&["a"], true), spec(&["b"], false)]);
        let compile = |specs: &[ChannelSpec], separator| {
            Channels::compile(specs, separator, Some(&first))
                .unwrap()
                .version()
        };
        let mut moved = spec(&["a"], true);
        moved.line = 7;
        assert_eq!(compile(&[moved, spec(&["b"], false)], b'.'), first.version());
        for (specs, separator) in [
            (vec![spec(&["a"], false), spec(&["b"], false)], b'.'),
            (vec![spec(&["b"], false), spec(&["a"], true)], b'.'),
            (vec![spec(&["a"], true)], b'.'),
            (vec![], b'.'),
            (vec![spec(&["a"], true), spec(&["b"], false)], b'/'),
        ] {
            assert_eq!(compile(&specs, separator), first.version() + 1, "{specs:?}");
        }
    }

    #[test]
    fn all_names_that_are_no_patterns_are_faults() {
        let mut with_line = spec(&["a", "room-*"], true);
        (with_line.file, with_line.line) = (Some("f".into()), 3);
        let faults = Channels::faults(
            &[with_line, spec(&["a"], true), spec(&["user.{sub}"], true)],
            b'.',
        );
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "f: line 3: channels number 1: names: \"room-*\": *, ** and {claim} must be whole segments; the \
                 separator is '.' here (rules_separator)",
                "channels number 3: names: \"user.{sub}\": a policy is about a channel and not about a client, so that \
                 {sub} has no value: write * for any one segment",
            ]
        );
        assert!(Channels::compile(&[spec(&["**.a"], true)], b'.', None).is_err());
    }

    #[test]
    fn a_name_that_an_earlier_policy_covers_is_warned_about() {
        for (earlier, later, is_covered) in [
            ("**", "a", true),
            ("**", "**", true),
            ("**", "$presence/a", false),
            ("a.*", "a.b", true),
            ("a.*", "a.*", true),
            ("a.*", "a.**", false),
            ("a.*", "a.b.c", false),
            ("a.*", "a", false),
            ("a.*", "a.", false),
            ("a.**", "a", true),
            ("a.**", "a.*.c", true),
            ("a.**", "ab", false),
            ("*.b", "a.b", true),
            ("*.b", "*.c", false),
            ("a.b", "a.*", false),
            ("*", "**", false),
        ] {
            let found = channels(&[spec(&[earlier], true), spec(&[later], true)]).warnings();
            assert_eq!(!found.is_empty(), is_covered, "{earlier} {later}: {found:?}");
        }
        let one_of_two = channels(&[spec(&["x", "a.**"], true), spec(&["b", "a.b"], true)]).warnings();
        assert_eq!(
            one_of_two,
            [
                "channels number 2: \"a.b\" has no effect, since number 1 above matches all these channels with \"a.**\" \
                 and the first policy that matches applies: move it up, or remove it"
            ]
        );
        // Two names of one policy do no harm.
        assert!(channels(&[spec(&["**", "a"], true)]).warnings().is_empty());
    }
}
