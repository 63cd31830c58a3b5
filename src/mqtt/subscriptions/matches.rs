//! The subscriptions that match one publication, with several subscriptions of one session merged.
//!
//! A session whose filters overlap gets one copy, with the highest QoS of all that match (MQTT-3.3.5-1) and with all of
//! their subscription identifiers (MQTT-3.3.4-3, MQTT-3.3.4-4).

use super::super::Qos;
use super::Options;

/// One subscription that matches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// The index of a session, or that of a group with [`GROUP`].
    subscriber: u32,
    /// Bits 0-1 QoS, 2 no local, 3 retain as published, from bit 4 on the identifier.
    options: u32,
}

/// The holder of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscriber {
    /// The session with this index, below 2³¹.
    Session(u32),
    /// The group of a shared subscription with this number, below 2³¹. Its members are elsewhere.
    Group(u32),
}

impl Match {
    pub(super) fn new(subscriber: Subscriber, options: Options) -> Match {
        let (index, flag) = match subscriber {
            Subscriber::Session(index) => (index, 0),
            Subscriber::Group(index) => (index, GROUP),
        };
        debug_assert!(index < GROUP && options.id < 1 << (32 - ID_SHIFT));
        let mut bits = options.id << ID_SHIFT | options.qos as u32;
        if options.no_local {
            bits |= NO_LOCAL;
        }
        if options.retain_as_published {
            bits |= RETAIN_AS_PUBLISHED;
        }
        Match {
            subscriber: index | flag,
            options: bits,
        }
    }

    /// The holder of the subscription.
    pub fn subscriber(self) -> Subscriber {
        match self.subscriber & GROUP {
            0 => Subscriber::Session(self.subscriber),
            _ => Subscriber::Group(self.subscriber & !GROUP),
        }
    }

    /// The options that the client has subscribed with.
    pub fn options(self) -> Options {
        Options {
            qos: self.qos(),
            no_local: self.options & NO_LOCAL != 0,
            retain_as_published: self.options & RETAIN_AS_PUBLISHED != 0,
            id: self.id(),
        }
    }

    fn qos(self) -> Qos {
        qos_of(self.options)
    }

    fn id(self) -> u32 {
        self.options >> ID_SHIFT
    }
}

impl std::fmt::Debug for Match {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}", self.subscriber(), self.options())
    }
}

/// The subscriptions of one session that match a publication; at least one.
#[derive(Clone, Copy, Debug)]
pub struct Merged<'m> {
    matches: &'m [Match],
    /// The bits of the options of all of them.
    options: u32,
}

impl<'m> Merged<'m> {
    /// The matches of the session at the beginning of `found`, which
    /// [`Subscriptions::matches`](super::Subscriptions::matches) has filled.
    pub fn first(found: &'m [Match]) -> Option<Merged<'m>> {
        let (first, others) = found.split_first()?;
        let (mut count, mut options) = (1, first.options);
        for other in others {
            if other.subscriber != first.subscriber {
                break;
            }
            count += 1;
            options |= other.options;
        }
        let matches = &found[..count];
        Some(Merged { matches, options })
    }

    /// All of these matches.
    pub fn iter(self) -> impl Iterator<Item = Match> + 'm {
        self.matches.iter().copied()
    }

    /// How many there are: the next session's begin behind them.
    pub fn count(self) -> usize {
        self.matches.len()
    }

    /// The holder of these subscriptions.
    pub fn subscriber(self) -> Subscriber {
        self.matches[0].subscriber()
    }

    /// The highest QoS of these subscriptions.
    #[inline]
    pub fn qos(self) -> Qos {
        // QoS 1 and QoS 2 together give the bits 3, which are read as 2.
        qos_of(self.options)
    }

    /// Whether one of them wants the retain flag as the publisher set it.
    pub fn retain_as_published(self) -> bool {
        self.options & RETAIN_AS_PUBLISHED != 0
    }

    /// Whether one of them has a subscription identifier.
    pub fn has_ids(self) -> bool {
        self.options >> ID_SHIFT != 0
    }

    /// The subscription identifiers. Two subscriptions may have the same one, which then comes twice (section 3.3.4).
    pub fn ids(self) -> impl Iterator<Item = u32> + Clone + 'm {
        self.matches.iter().map(|one| one.id()).filter(|&id| id != 0)
    }
}

/// Removes the subscriptions with No Local of the session that has published (MQTT-3.8.3-3).
pub fn leave_out_own(found: &mut Vec<Match>, publisher: u32) {
    found.retain(|one| one.subscriber != publisher || one.options & NO_LOCAL == 0);
}

/// Puts the matches of a session side by side, and those of groups at the end.
pub(super) fn order(found: &mut [Match]) {
    found.sort_unstable_by_key(|one| one.subscriber);
}

/// The QoS in the bits of options.
#[inline]
const fn qos_of(options: u32) -> Qos {
    match options & QOS {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    }
}

const GROUP: u32 = 1 << 31;
const QOS: u32 = 3;
const NO_LOCAL: u32 = 1 << 2;
const RETAIN_AS_PUBLISHED: u32 = 1 << 3;
const ID_SHIFT: u32 = 4;

const _: () = assert!(size_of::<Match>() == 8);
