//! Histories against a naive model: a list of everything that was ever published.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::channel::Channel;
use super::histories::{CHANNEL_BYTES, PUBLICATION_BYTES};
use super::*;
use crate::broker::{BLANKS, ChannelHash, ChannelHasher, Epoch, Position, Sequence};
use crate::clock::{Now, Uptime};

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// A publication, as the model knows it.
#[derive(Clone, Debug)]
struct Published {
    channel: usize,
    offset: u64,
    unix_ms: u64,
    payload: Vec<u8>,
}

/// Everything that was ever published, and the histories of it.
struct World {
    random: Random,
    epoch: Epoch,
    hasher: ChannelHasher,
    histories: Histories,
    published: Vec<Published>,
    keeps: Vec<Keep>,
    now: Now,
    version: u32,
    bytes_max: usize,
    channels_max: usize,
    /// The limits of the histories.
    limits: (usize, usize),
    store: StoreModel,
}

/// What a store has that is told every change.
#[derive(Debug, Default)]
struct StoreModel {
    channels: BTreeMap<Vec<u8>, StoredChannel>,
    forgotten: u64,
}

#[derive(Debug, Default)]
struct StoredChannel {
    complete_after: u64,
    /// Time, frame and length of the payload, by offset.
    publications: BTreeMap<u64, (u64, Vec<u8>, u32)>,
}

impl StoreModel {
    fn apply(&mut self, change: Change<'_>) {
        match change {
            Change::Kept {
                channel,
                after,
                complete_after,
                newest,
            } => {
                let stored = self.channels.entry(channel.to_vec()).or_default();
                stored.complete_after = complete_after;
                if let Some(newest) = newest {
                    let value = (newest.unix_ms, newest.frame.to_vec(), newest.payload_bytes);
                    stored.publications.insert(newest.offset, value);
                }
                stored.publications.retain(|offset, _| *offset > after);
            }
            Change::Removed { channel, through } => {
                self.channels.remove(channel);
                self.forgotten = self.forgotten.max(through);
            }
            Change::Unknown { through } => self.forgotten = self.forgotten.max(through),
        }
    }
}

const UNIX_MS_AT_0: u64 = 1_700_000_000_000;
const FRAME_BEGIN: &[u8] = b"??{\"event\":\"#publish\",\"data\":{\"channel\":\"c\"";

fn frame(payload: &[u8], marked: bool) -> Vec<u8> {
    let mut frame = FRAME_BEGIN.to_vec();
    frame.extend_from_slice(if marked {
        b",\"replayed\":true"
    } else {
        &[b' '; BLANKS]
    });
    frame.extend_from_slice(b",\"data\":");
    frame.extend_from_slice(payload);
    frame.extend_from_slice(b"}}");
    frame
}

const BLANKS_OF_FRAME: Range<usize> = FRAME_BEGIN.len()..FRAME_BEGIN.len() + BLANKS;

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed * 2 + 1);
        random.below(2);
        let channels = 1 + usize::try_from(random.below(12)).unwrap();
        let keeps = (0..channels).map(|_| keep(&mut random)).collect();
        let epoch = Numbering::new().epoch;
        let bytes_max = random.one_of(&[4_000, 20_000, 200_000, 1 << 40]);
        let channels_max = random.one_of(&[1, 3, 1000]);
        let mut histories = Histories::new(epoch, bytes_max, channels_max);
        let now = Now {
            uptime: Uptime::from_ms(0),
            unix_ms: UNIX_MS_AT_0,
        };
        histories.begin_with_store(0, 0, now);
        World {
            epoch,
            hasher: ChannelHasher::with_key(seed),
            histories,
            store: StoreModel::default(),
            limits: (bytes_max, channels_max),
            published: Vec::new(),
            keeps,
            now,
            version: 0,
            bytes_max,
            channels_max,
            random,
        }
    }

    fn named(&self, channel: usize) -> (Box<[u8]>, ChannelHash) {
        let name = format!("channel {channel}").into_bytes();
        let hash = self.hasher.hash(&name);
        (name.into(), hash)
    }

    fn offset(&self) -> u64 {
        self.published.last().map_or(0, |last| last.offset)
    }

    fn publish(&mut self, channel: usize) {
        let bytes = match self.random.below(30) {
            0 => 5_000 + self.random.below(90_000),
            1..5 => self.random.below(3_000),
            _ => self.random.below(100),
        };
        let number = self.published.len().to_string();
        let mut payload = number.into_bytes();
        payload.resize(payload.len() + usize::try_from(bytes).unwrap(), b'x');
        // Publications of other owners lie between.
        let offset = self.offset() + 1 + self.random.below(3);
        let (name, hash) = self.named(channel);
        let at_ms = self.now.uptime.as_ms();
        let frame = frame(&payload, false);
        let publication = NewPublication {
            offset,
            at_ms: i64::try_from(at_ms).unwrap(),
            origin: Origin::SocketCluster,
            frame: &frame,
            blanks: Some(BLANKS_OF_FRAME),
            payload_bytes: u32::try_from(payload.len()).unwrap(),
        };
        let keep = self.keeps[channel];
        self.histories
            .append(&name, hash, &publication, self.version, || Some(keep));
        self.tell_store();
        self.published.push(Published {
            channel,
            offset,
            unix_ms: at_ms + UNIX_MS_AT_0,
            payload,
        });
    }

    fn tell_store(&mut self) {
        let store = &mut self.store;
        self.histories
            .take_changes(self.now, |change| store.apply(change));
    }

    /// Another process goes on with what the store has: it answers as this one does.
    fn restart(&mut self) {
        self.tell_store();
        let mut restored = Histories::new(self.epoch, self.limits.0, self.limits.1);
        restored.begin_with_store(0, self.store.forgotten, self.now);
        for (name, stored) in &self.store.channels {
            let channel: usize = String::from_utf8_lossy(name)["channel ".len()..].parse().unwrap();
            let (keep, hash) = (self.keeps[channel], self.hasher.hash(name));
            let id = restored.restore_channel(name, hash, keep, self.version, stored.complete_after);
            for (offset, (unix_ms, frame, payload_bytes)) in &stored.publications {
                let publication = NewPublication::restored(
                    *offset,
                    *unix_ms,
                    UNIX_MS_AT_0,
                    Origin::SocketCluster,
                    frame,
                    *payload_bytes,
                );
                restored.restore(id, &publication);
            }
            restored.restored(id);
        }
        assert_eq!(restored.publications(), self.histories.publications());
        assert_eq!(restored.channels(), self.histories.channels());
        let (up_to, published) = (self.offset(), self.published.len());
        let mut queries = vec![Query::Last(1000), Query::LastValue, Query::Since(0)];
        for _ in 0..3 {
            let offset = match self.random.below(published as u64 + 1) {
                0 => 0,
                number => self.published[usize::try_from(number).unwrap() - 1].offset,
            };
            queries.push(Query::After(Position {
                epoch: self.epoch,
                offset,
            }));
        }
        for channel in 0..self.keeps.len() {
            for query in &queries {
                let before = self.ask(channel, *query, 1000, up_to);
                std::mem::swap(&mut self.histories, &mut restored);
                let after = self.ask(channel, *query, 1000, up_to);
                std::mem::swap(&mut self.histories, &mut restored);
                let is_known = [&before, &after].map(|reading| reading.why_unknown().is_none());
                assert_eq!(is_known[0], is_known[1], "{query:?}: {before:?} {after:?}");
                assert!(before.publications().eq(after.publications()), "{query:?}");
            }
        }
        self.histories = restored;
        // The model does not know why a publication has gone in the time of another process.
        self.bytes_max = self.bytes_max.min((1 << 40) - 1);
    }

    fn ask_part(&mut self, channel: usize, query: Query, part: Part, up_to: u64) -> Reading {
        let (name, hash) = self.named(channel);
        let question = Question {
            name,
            hash,
            query,
            publications_max: 1_000,
            part,
            before: Sequence(up_to + 1),
        };
        self.histories.read(&question, up_to, self.now)
    }

    fn ask(&mut self, channel: usize, query: Query, publications_max: u32, up_to: u64) -> Reading {
        let (name, hash) = self.named(channel);
        let question = Question {
            name,
            hash,
            query,
            publications_max,
            part: Part::Whole,
            before: Sequence(up_to + 1),
        };
        self.histories.read(&question, up_to, self.now)
    }

    /// What the model has of a channel, oldest first.
    fn of(&self, channel: usize, which: impl Fn(&Published) -> bool) -> Vec<Published> {
        let of_channel = self
            .published
            .iter()
            .filter(|published| published.channel == channel);
        of_channel.filter(|published| which(published)).cloned().collect()
    }

    fn check_after(&mut self, channel: usize) {
        let end = self.offset();
        let (after, up_to) = (
            self.random.below(end + 3),
            end.saturating_sub(self.random.below(5)),
        );
        let max = self.random.one_of(&[1, 10, 10_000]);
        let position = Position {
            epoch: self.epoch,
            offset: after,
        };
        let reading = self.ask(channel, Query::After(position), max, up_to);
        let all = self.of(channel, |published| {
            published.offset > after && published.offset <= up_to
        });
        let keep = self.keeps[channel];
        match reading.why_unknown() {
            None => {
                assert_same(&reading, &all);
                assert!(all.len() <= max as usize, "more than was asked for");
            }
            Some(Unknown::UnknownPosition) => assert!(after > up_to),
            Some(Unknown::TooMany) => assert!(all.len() > max as usize),
            // The whole list after the position, or something else that had to go, is more than may be kept.
            Some(Unknown::Expired) => assert!(self.version > 0 || self.is_old(channel, after)),
            Some(Unknown::Evicted) => {
                let later = self.of(channel, |published| published.offset > after);
                let bytes: usize = later
                    .iter()
                    .map(|published| frame(&published.payload, true).len())
                    .sum();
                let is_much = later.len() > keep.entries as usize || bytes > keep.bytes;
                assert!(is_much || self.is_bounded(), "{after} {up_to} {keep:?}");
            }
            Some(other) => panic!("{other:?}"),
        }
        if reading.why_unknown().is_some() {
            assert!(reading.is_empty() && reading.publications().next().is_none());
        }
    }

    /// Whether a publication after this offset has expired.
    fn is_old(&self, channel: usize, after: u64) -> bool {
        let age_ms = self.keeps.iter().map(|keep| keep.age_ms).min().unwrap();
        let oldest_ms = self.now.unix_ms.saturating_sub(age_ms);
        let later = self.of(channel, |published| published.offset > after);
        later.iter().any(|published| published.unix_ms <= oldest_ms)
    }

    /// Whether bounds of all channels together may have made something go.
    fn is_bounded(&self) -> bool {
        self.bytes_max < 1 << 40 || self.channels_max < 1000
    }

    fn check_last(&mut self, channel: usize) {
        let up_to = self.offset().saturating_sub(self.random.below(3));
        let keep = self.keeps[channel];
        let (count, max) = (
            self.random.one_of(&[0, 1, 5, 1_000]),
            self.random.one_of(&[1, 10, 1_000]),
        );
        let reading = self.ask(channel, Query::Last(count), max, up_to);
        assert!(reading.len() <= count.min(max) as usize);
        let young = self.of(channel, |published| {
            published.offset <= up_to && published.unix_ms + keep.age_ms > self.now.unix_ms
        });
        assert_same(&reading, &young[young.len() - reading.len()..]);
        let since = self.now.unix_ms.saturating_sub(self.random.below(2_000));
        let reading = self.ask(channel, Query::Since(since), max, up_to);
        assert!(reading.len() <= max as usize);
        let young: Vec<_> = young
            .into_iter()
            .filter(|published| published.unix_ms >= since)
            .collect();
        assert_same(&reading, &young[young.len() - reading.len()..]);
        let all = self.of(channel, |published| {
            published.offset <= up_to && published.unix_ms >= since
        });
        match reading.why_unknown() {
            None => assert_same(&reading, &all),
            Some(Unknown::TooMany) => assert!(reading.len() == max as usize && young.len() > reading.len()),
            Some(_) => {
                let later = self.of(channel, |published| published.unix_ms >= since);
                assert!(
                    later.len() > reading.len() || self.is_bounded(),
                    "{since} {keep:?}"
                );
            }
        }
        let up_to = self.offset();
        let reading = self.ask(channel, Query::LastValue, max, up_to);
        let newest = self.of(channel, |_| true).pop();
        match newest {
            Some(newest) if keep.last_value && !reading.is_empty() => assert_same(&reading, &[newest]),
            Some(_) => {
                assert!(reading.is_empty() && (!keep.last_value || self.is_bounded() || self.version > 0))
            }
            None => assert!(reading.is_empty()),
        }
    }

    /// The parts of an answer are all of it, and each is small.
    fn check_parts(&mut self, channel: usize) {
        let up_to = self.offset();
        let whole = self.ask(channel, Query::Last(1_000), 1_000, up_to);
        let whole: Vec<_> = whole.publications().collect();
        let bytes_max = self.random.one_of(&[0, 1_000, 50_000, 1 << 30]);
        let (mut query, mut first) = (Query::Last(1_000), 0);
        loop {
            let part = self.ask_part(channel, query, Part::Oldest(bytes_max), up_to);
            let end = first + part.len();
            assert!(part.publications().eq(whole[first..end].iter().copied()));
            assert_eq!(part.left_out(), whole.len() - end);
            self.assert_small(&part, bytes_max);
            if part.left_out() == 0 {
                assert_eq!(part.complete_up_to(), up_to);
                break;
            }
            assert_eq!(part.complete_up_to(), whole[end - 1].offset);
            query = Query::After(Position {
                epoch: self.epoch,
                offset: part.complete_up_to(),
            });
            first = end;
        }
        let newest = self.ask_part(channel, Query::Last(1_000), Part::Newest(bytes_max), up_to);
        let first = whole.len() - newest.len();
        assert!(newest.publications().eq(whole[first..].iter().copied()));
        assert_eq!(newest.left_out(), first);
        self.assert_small(&newest, bytes_max);
    }

    /// A part has no more than it may, or what the history has in one chunk.
    fn assert_small(&self, part: &Reading, bytes_max: usize) {
        let frames: usize = part.publications().map(|remembered| remembered.frame.len()).sum();
        assert!(frames <= part.memory_bytes());
        let longest = self
            .published
            .iter()
            .map(|published| published.payload.len())
            .max();
        let chunk = 70_000 + 2 * longest.unwrap_or(0);
        assert!(part.memory_bytes() <= bytes_max.max(chunk), "{bytes_max}");
    }

    fn check_bounds(&self) {
        let histories = &self.histories;
        assert!(histories.bytes() <= self.bytes_max || histories.channels() == 0);
        assert!(histories.channels() <= self.channels_max);
        let (mut bytes, mut publications) = (0, 0);
        for channel in histories.all() {
            let keep = channel.keep;
            let last_value = usize::from(keep.last_value);
            assert!(channel.history_len() <= keep.entries as usize);
            assert!(channel.len() <= (keep.entries as usize).max(last_value));
            assert!(
                channel.frame_bytes() <= keep.bytes
                    || (channel.len() == last_value && channel.history_len() == 0)
            );
            bytes += channel.frame_bytes()
                + channel.len() * PUBLICATION_BYTES
                + CHANNEL_BYTES
                + channel.name.len();
            publications += channel.len() as u64;
        }
        assert_eq!(
            (bytes, publications),
            (histories.bytes(), histories.publications())
        );
    }
}

fn keep(random: &mut Random) -> Keep {
    let last_value = random.below(2) == 0;
    let entries = random.one_of(&[0, 1, 2, 10, 100, 1_000]);
    Keep {
        entries: if last_value { entries } else { entries.max(1) },
        bytes: random.one_of(&[100, 2_000, 50_000, 1 << 30]),
        age_ms: random.one_of(&[10, 1_000, 1 << 40]),
        last_value,
    }
}

fn assert_same(reading: &Reading, expected: &[Published]) {
    assert_eq!(reading.len(), expected.len());
    assert_eq!(reading.is_empty(), expected.is_empty());
    let read: Vec<_> = reading.publications().collect();
    assert_eq!(read.len(), expected.len());
    for (read, expected) in read.iter().zip(expected) {
        assert_eq!(
            (read.offset, read.payload),
            (expected.offset, &expected.payload[..])
        );
        assert_eq!(read.unix_ms, expected.unix_ms);
        assert_eq!(read.frame, frame(&expected.payload, true));
    }
}

/// A reading that is sent slowly, and what it must send.
struct Slow {
    reading: Reading,
    expected: Vec<u8>,
    sent: Vec<u8>,
}

impl Slow {
    fn send_some(&mut self, random: &mut Random) {
        let before = self.reading.len();
        let bytes_max = usize::try_from(random.below(4_000)).unwrap();
        let mut count = 0;
        self.reading.take_frames(bytes_max, |frames, taken| {
            assert!(taken == 1 || frames.len() <= bytes_max);
            self.sent.extend_from_slice(frames);
            count = taken;
        });
        assert_eq!(self.reading.len(), before - count);
        assert_eq!(count == 0, before == 0);
    }
}

#[test]
fn what_is_read_is_what_was_published_or_said_to_be_unknown() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..400,
    };
    for seed in seeds {
        println!("SEED={seed}");
        let mut world = World::new(seed);
        let mut slow: Vec<Slow> = Vec::new();
        let channels = world.keeps.len() as u64;
        for _ in 0..400 {
            let channel = usize::try_from(world.random.below(channels)).unwrap();
            match world.random.below(20) {
                0..10 => world.publish(channel),
                10 => {
                    let ms = world.random.one_of(&[1, 20, 400]);
                    world.now.uptime = Uptime::from_ms(world.now.uptime.as_ms() + ms);
                    world.now.unix_ms += ms;
                    let (now, max) = (world.now, u32::try_from(world.random.below(10)).unwrap());
                    world.histories.sweep(now, max);
                }
                11..13 => world.check_after(channel),
                13 => world.check_parts(channel),
                14..16 => world.check_last(channel),
                16 => {
                    let up_to = world.offset();
                    let reading = world.ask(channel, Query::Last(1_000), 1_000, up_to);
                    let frames = reading.publications().map(|remembered| remembered.frame);
                    slow.push(Slow {
                        expected: frames.collect::<Vec<_>>().concat(),
                        reading,
                        sent: Vec::new(),
                    });
                }
                17..19 => slow.iter_mut().for_each(|slow| slow.send_some(&mut world.random)),
                _ if world.random.below(4) == 0 => change(&mut world, channel),
                _ if world.random.below(3) == 0 => world.restart(),
                _ => {}
            }
            world.check_bounds();
        }
        for mut slow in slow {
            while !slow.reading.is_empty() {
                slow.send_some(&mut world.random);
            }
            assert!(slow.sent == slow.expected, "a reading has changed");
        }
    }
}

/// Removes a history, or changes the policies.
fn change(world: &mut World, channel: usize) {
    if world.random.below(2) == 0 {
        let (name, hash) = world.named(channel);
        world.histories.remove(&name, hash);
        assert_eq!(world.histories.remove(&name, hash), 0);
        let (up_to, newest) = (world.offset(), world.of(channel, |_| true).pop());
        let reading = world.ask(channel, Query::Last(10), 10, up_to);
        assert!(reading.is_empty());
        // The model forgets that its publications could be kept: it treats all as if the bounds had made them go.
        (world.bytes_max, _) = (world.bytes_max.min((1 << 40) - 1), newest);
        return;
    }
    world.version += 1;
    world.keeps[channel] = keep(&mut world.random);
    // What goes by the former policy does not come back.
    world.bytes_max = world.bytes_max.min((1 << 40) - 1);
    let keeps: HashMap<_, _> = (0..world.keeps.len())
        .map(|channel| (world.named(channel).0, world.keeps[channel]))
        .collect();
    let mut from = Some(0);
    while let Some(next) = from {
        from = world
            .histories
            .apply_policies(next, 100, world.version, |name| keeps.get(name).copied());
    }
}

fn named(name: &str) -> (Box<[u8]>, ChannelHash) {
    (
        name.as_bytes().into(),
        ChannelHasher::with_key(1).hash(name.as_bytes()),
    )
}

fn at(ms: u64) -> Now {
    Now {
        uptime: Uptime::from_ms(ms),
        unix_ms: UNIX_MS_AT_0 + ms,
    }
}

const ROOMY: Keep = Keep {
    entries: u32::MAX,
    bytes: usize::MAX,
    age_ms: u64::MAX,
    last_value: false,
};

fn append(histories: &mut Histories, name: &str, offset: u64, at_ms: i64, frame: &[u8], keep: Keep) {
    let (name, hash) = named(name);
    let publication = NewPublication {
        offset,
        at_ms,
        origin: Origin::SocketCluster,
        frame,
        blanks: None,
        payload_bytes: 0,
    };
    histories.append(&name, hash, &publication, 0, || Some(keep));
}

fn read(histories: &mut Histories, name: &str, query: Query, now: Now) -> Reading {
    histories.read(&question(name, query), 1_000_000, now)
}

fn question(name: &str, query: Query) -> Question {
    let (name, hash) = named(name);
    Question {
        name,
        hash,
        query,
        publications_max: u32::MAX,
        part: Part::Whole,
        before: Sequence(1_000_001),
    }
}

fn offsets(reading: &Reading) -> Vec<u64> {
    reading
        .publications()
        .map(|remembered| remembered.offset)
        .collect()
}

#[test]
fn the_oldest_of_all_channels_goes_first_and_a_channel_that_is_gone_is_unknown_from_then_on() {
    let epoch = Numbering::new().epoch;
    let after = |offset| Query::After(Position { epoch, offset });
    let one = 100 + PUBLICATION_BYTES;
    let channels = 3 * (CHANNEL_BYTES + 1);
    let mut histories = Histories::new(epoch, channels + 4 * one, 1000);
    for (offset, name) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
        append(&mut histories, name, offset, 0, &[b'x'; 100], ROOMY);
    }
    assert_eq!(histories.bytes(), channels + 4 * one);
    append(&mut histories, "c", 5, 0, &[b'x'; 100], ROOMY);
    assert_eq!(offsets(&read(&mut histories, "a", Query::Last(9), at(0))), [3]);
    append(&mut histories, "c", 6, 0, &[b'x'; 100], ROOMY);
    let unknown =
        |histories: &mut Histories, name, offset| read(histories, name, after(offset), at(0)).why_unknown();
    assert_eq!(unknown(&mut histories, "b", 1), Some(Unknown::Evicted));
    assert_eq!(unknown(&mut histories, "b", 2), None);
    // The channel itself goes when it is the one that has been quiet for the longest time.
    append(&mut histories, "c", 7, 0, &[b'x'; 100], ROOMY);
    assert_eq!(histories.channels(), 2);
    assert_eq!(offsets(&read(&mut histories, "a", after(1), at(0))), [3]);
    for name in ["b", "never seen"] {
        assert_eq!(unknown(&mut histories, name, 1), Some(Unknown::Evicted));
        assert_eq!(unknown(&mut histories, name, 2), None);
    }
    // So it begins again from there.
    append(&mut histories, "b", 8, 0, &[b'x'; 1], ROOMY);
    assert_eq!(unknown(&mut histories, "b", 1), Some(Unknown::Evicted));
    assert_eq!(offsets(&read(&mut histories, "b", after(2), at(0))), [8]);
    let evicted = histories.take_evicted();
    assert_eq!((evicted.bytes_max, evicted.channel_full), (3, 0));
}

#[test]
fn of_too_many_channels_the_one_goes_that_has_been_quiet_for_the_longest_time() {
    let epoch = Numbering::new().epoch;
    let mut histories = Histories::new(epoch, 1 << 30, 2);
    for (offset, name) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
        append(&mut histories, name, offset, 0, b"x", ROOMY);
    }
    assert_eq!(offsets(&read(&mut histories, "a", Query::Last(9), at(0))), [1, 3]);
    assert!(read(&mut histories, "b", Query::Last(9), at(0)).is_empty());
    assert_eq!(histories.take_evicted().channels_max, 1);
}

#[test]
fn what_has_expired_is_not_read_and_goes_step_by_step() {
    let epoch = Numbering::new().epoch;
    let mut histories = Histories::new(epoch, 1 << 30, 1000);
    let keep = Keep {
        age_ms: 1000,
        ..ROOMY
    };
    for offset in 0..10 {
        append(&mut histories, "a", offset + 1, 0, b"x", keep);
        append(
            &mut histories,
            "b",
            offset + 20,
            i64::try_from(offset).unwrap(),
            b"x",
            keep,
        );
    }
    assert_eq!(histories.next_deadline_ms(), Some(1000));
    assert!(!histories.sweep(at(999), 100));
    assert_eq!(histories.publications(), 20);
    assert!(histories.sweep(at(1000), 3));
    assert!((15..20).contains(&histories.publications()));
    assert_eq!(read(&mut histories, "a", Query::Last(9), at(1000)).len(), 0);
    assert_eq!(read(&mut histories, "b", Query::Last(9), at(1004)).len(), 5);
    assert!(!histories.sweep(at(1004), 100));
    assert_eq!(
        (histories.publications(), histories.next_deadline_ms()),
        (5, Some(1005))
    );
    let position = Position { epoch, offset: 9 };
    let reading = read(&mut histories, "a", Query::After(position), at(1004));
    assert_eq!(reading.why_unknown(), Some(Unknown::Expired));
}

#[test]
fn publications_since_a_moment_are_said_to_be_missing_if_one_has_gone_that_is_not_older() {
    let epoch = Numbering::new().epoch;
    let keep = Keep { entries: 2, ..ROOMY };
    let mut histories = Histories::new(epoch, 1 << 30, 2);
    for offset in 1..=5 {
        let at_ms = 10 * i64::try_from(offset).unwrap();
        append(&mut histories, "a", offset, at_ms, b"x", keep);
    }
    let since = |histories: &mut Histories, name, ms| {
        let reading = read(histories, name, Query::Since(UNIX_MS_AT_0 + ms), at(60));
        (offsets(&reading), reading.why_unknown())
    };
    let evicted = Some(Unknown::Evicted);
    assert_eq!(since(&mut histories, "a", 0), (vec![4, 5], evicted));
    assert_eq!(since(&mut histories, "a", 30), (vec![4, 5], evicted));
    assert_eq!(since(&mut histories, "a", 31), (vec![4, 5], None));
    assert_eq!(since(&mut histories, "never seen", 0), (vec![], None));
    // A channel that is gone leaves its time behind, for all that are not here.
    append(&mut histories, "b", 6, 55, b"x", keep);
    append(&mut histories, "c", 7, 56, b"x", keep);
    for name in ["a", "never seen"] {
        assert_eq!(since(&mut histories, name, 50), (vec![], evicted));
        assert_eq!(since(&mut histories, name, 51), (vec![], None));
    }
    append(&mut histories, "a", 8, 57, b"x", keep);
    assert_eq!(since(&mut histories, "a", 50), (vec![8], evicted));
    assert_eq!(since(&mut histories, "a", 51), (vec![8], None));
    assert_eq!(since(&mut histories, "b", 55), (vec![], evicted));
    assert_eq!(since(&mut histories, "b", 56), (vec![], None));
    let many = Question {
        publications_max: 1,
        ..question("c", Query::Since(0))
    };
    append(&mut histories, "c", 9, 58, b"x", keep);
    let reading = histories.read(&many, 1_000_000, at(60));
    assert_eq!(offsets(&reading), [9]);
    assert_eq!(reading.why_unknown(), Some(Unknown::TooMany));
}

/// A publication is where a former process has it; what that process has lost was published before.
#[test]
fn after_a_restart_publications_of_the_former_process_since_a_moment_are_told_as_far_as_they_are_known() {
    let epoch = Numbering::new().epoch;
    let mut histories = Histories::new(epoch, 1 << 30, 1000);
    histories.begin_with_store(20, 10, at(100));
    for (name, complete_after, kept) in [("a", 30, &[31, 32][..]), ("b", 0, &[11]), ("c", 40, &[])] {
        let (bytes, hash) = named(name);
        let id = histories.restore_channel(&bytes, hash, ROOMY, 0, complete_after);
        for &offset in kept {
            let unix_ms = UNIX_MS_AT_0 + offset;
            let restored =
                NewPublication::restored(offset, unix_ms, UNIX_MS_AT_0, Origin::SocketCluster, b"x", 0);
            histories.restore(id, &restored);
        }
        histories.restored(id);
    }
    let unknown = |histories: &mut Histories, name, ms| {
        let reading = read(histories, name, Query::Since(UNIX_MS_AT_0 + ms), at(100));
        reading.why_unknown().is_some()
    };
    // The publications that are lost were published before 31; those of `c`, which the store had, before the restart.
    for (name, last) in [("a", 31), ("b", 31), ("c", 100), ("never seen", 31)] {
        assert!(unknown(&mut histories, name, last), "{name}");
        assert!(!unknown(&mut histories, name, last + 1), "{name}");
    }
}

#[test]
fn a_clock_that_was_read_early_does_not_make_times_fall() {
    let mut histories = Histories::new(Numbering::new().epoch, 1 << 30, 1000);
    for (offset, at_ms) in [(1, 50), (2, 49), (3, 51)] {
        append(&mut histories, "a", offset, at_ms, b"x", ROOMY);
    }
    let since = |histories: &mut Histories, ms| {
        offsets(&read(histories, "a", Query::Since(UNIX_MS_AT_0 + ms), at(60)))
    };
    assert_eq!(since(&mut histories, 50), [1, 2, 3]);
    assert_eq!(since(&mut histories, 51), [3]);
    assert_eq!(since(&mut histories, 52), [0; 0]);
}

#[test]
fn a_remembered_publication_takes_no_more_than_its_bytes_and_48() {
    for (frame_bytes, count, kept) in [
        (60, 100_000, 1000),
        (200, 10_000, 100),
        (200, 100, 100),
        (200, 2_000, 20),
        (1_000, 3_000, 64),
        (1_000, 64, 64),
        (8_000, 200, 50),
        (16_000, 40, 20),
    ] {
        let mut histories = Histories::new(Numbering::new().epoch, 1 << 30, 1000);
        let keep = Keep {
            entries: kept,
            ..ROOMY
        };
        let frame = vec![b'x'; frame_bytes];
        for offset in 1..=count {
            append(&mut histories, "a", offset, 0, &frame, keep);
            let channel = histories.all().next().unwrap();
            let counted = CHANNEL_BYTES + channel.len() * (frame_bytes + PUBLICATION_BYTES);
            let taken = channel.memory_bytes() + size_of::<Channel>() + QUEUES_BYTES;
            assert!(
                taken <= counted,
                "{frame_bytes}: {} of {count}: {taken} > {counted}",
                channel.len()
            );
        }
    }
}

/// What a channel takes in the table and the queues, with what is reserved there.
const QUEUES_BYTES: usize = 2 * (3 * 20 + 8);
