//! The store with real files, and without a server.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::format::StoredPublication;
use super::records::{Batch, KeptBounds, Record};
use super::*;

/// A directory that is removed with the value.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringcast-store-{}-{count}", std::process::id()));
        Directory(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE_NAME)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A directory that is left behind does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn settings(directory: &Path, mode: StoreMode) -> StoreSettings {
    StoreSettings {
        directory: directory.to_owned(),
        mode,
        flush: Duration::from_millis(1),
        bytes_max: u64::MAX,
        queue_bytes_max: 1 << 20,
    }
}

fn open(directory: &Path, mode: StoreMode, epoch: &[u8; 8]) -> Store {
    Store::open(
        settings(directory, mode),
        Taking::IfFree,
        *epoch,
        0,
        Clock::begin(),
    )
    .unwrap()
}

/// The frames of each channel by offset, with the offset after which they are complete.
type Content = BTreeMap<Vec<u8>, (u64, BTreeMap<u64, Vec<u8>>)>;

fn content(store: &Store) -> Content {
    let mut content = Content::new();
    store
        .read(|name, channel, publication| {
            let (_, frames) = content
                .entry(name.to_vec())
                .or_insert((channel.kept.complete_after, BTreeMap::new()));
            if let Some((offset, publication)) = publication {
                assert_eq!(publication.unix_ms, offset + 7);
                frames.insert(offset, publication.frame.to_vec());
            }
        })
        .unwrap();
    content
}

fn publication<'a>(channel: &'a [u8], offset: u64, after: u64, frame: &'a [u8]) -> Record<'a> {
    Record::Publication {
        channel,
        offset,
        kept: KeptBounds {
            after,
            complete_after: after,
        },
        publication: StoredPublication {
            unix_ms: offset + 7,
            form: 0,
            payload_bytes: 0,
            frame,
        },
    }
}

fn wait_for_commit(sink: &Sink, owner: usize, offset: u64) {
    while !sink.is_committed(owner, offset) {
        thread::sleep(Duration::from_millis(1));
    }
}

fn end(store: RunningStore, sinks: &mut [Sink]) {
    for sink in &mut *sinks {
        let _ = sink.end();
    }
    sinks.iter_mut().for_each(Sink::finish);
    store.close();
}

#[test]
fn what_the_cores_recorded_is_there_after_an_orderly_end_and_the_epoch_goes_on() {
    let directory = Directory::new();
    let store = open(&directory.0, StoreMode::Relaxed, b"epoch001");
    assert_eq!(
        store.beginning(),
        Beginning {
            epoch: *b"epoch001",
            base: 0,
            unknown_through: 0,
            removed_through: 0
        }
    );
    let (running, mut sinks) = store.start(2, &Batch::default()).unwrap();
    for offset in 1..=10 {
        let frame = format!("frame {offset}");
        let owner = usize::try_from(offset % 2).unwrap();
        let channel = [&b"even"[..], b"odd"][owner];
        let kept = Sink::push(
            &mut sinks[owner],
            &publication(channel, offset, offset.saturating_sub(4), frame.as_bytes()),
        );
        assert_eq!(kept, Pushed::Kept);
        if offset == 5 {
            assert!(!sinks[owner].flush());
            wait_for_commit(&sinks[0], owner, 5);
        }
    }
    let _ = sinks[0].push(&publication(b"gone", 12, 0, b"frame"));
    let _ = sinks[0].push(&Record::Removed {
        channel: b"gone",
        through: 12,
    });
    end(running, &mut sinks);

    let store = open(&directory.0, StoreMode::Relaxed, b"epoch002");
    assert_eq!(
        store.beginning(),
        Beginning {
            epoch: *b"epoch001",
            base: OFFSETS_RESERVED,
            unknown_through: 0,
            removed_through: 12
        }
    );
    let frames = |offsets: [u64; 2]| offsets.map(|offset| (offset, format!("frame {offset}").into_bytes()));
    assert_eq!(
        content(&store),
        Content::from([
            (b"even".to_vec(), (6, BTreeMap::from(frames([8, 10])))),
            (b"odd".to_vec(), (5, BTreeMap::from(frames([7, 9])))),
        ])
    );
}

/// Publications to other channels have offsets, too, and clients may have got them as positions.
#[test]
fn offsets_that_no_record_has_do_not_come_again_after_a_crash_either() {
    let directory = Directory::new();
    let (running, mut sinks) = open(&directory.0, StoreMode::Strict, b"epoch001")
        .start(2, &Batch::default())
        .unwrap();
    // Far more than are reserved at once, and nothing is recorded.
    for place in (1..=300).map(|step| step * (OFFSETS_RESERVED / 64)) {
        sinks[1].note_place(place - 1);
        assert!(!sinks[1].flush(), "nothing to tell yet");
        sinks[1].note_place(place);
        while sinks[1].flush() {
            thread::yield_now();
        }
    }
    let highest = 300 * (OFFSETS_RESERVED / 64);
    let _ = sinks[0].push(&publication(b"c", 7, 0, b"frame"));
    sinks[0].flush();
    wait_for_commit(&sinks[0], 0, 7);
    drop((sinks, running));
    let base = open(&directory.0, StoreMode::Strict, b"epoch002")
        .beginning()
        .base;
    assert!(base >= highest, "{base} < {highest}");
}

#[test]
fn after_a_crash_strict_goes_on_and_relaxed_begins_a_new_epoch_and_no_offset_comes_again() {
    for mode in [StoreMode::Strict, StoreMode::Relaxed] {
        let directory = Directory::new();
        let (running, mut sinks) = open(&directory.0, mode, b"epoch001")
            .start(1, &Batch::default())
            .unwrap();
        let _ = sinks[0].push(&publication(b"c", OFFSETS_RESERVED, 0, b"late"));
        sinks[0].flush();
        wait_for_commit(&sinks[0], 0, OFFSETS_RESERVED);
        // Without an orderly end.
        drop((sinks, running));
        let store = open(&directory.0, mode, b"epoch002");
        let base = 2 * OFFSETS_RESERVED;
        let (epoch, unknown_through) = match mode {
            StoreMode::Strict => (*b"epoch001", 0),
            StoreMode::Relaxed => (*b"epoch002", base),
        };
        assert_eq!(
            store.beginning(),
            Beginning {
                epoch,
                base,
                unknown_through,
                removed_through: 0
            }
        );
        assert_eq!(content(&store)[&b"c"[..]].1.len(), 1);
    }
}

#[test]
fn changed_policies_make_earlier_positions_unknown_in_channels_that_are_not_there() {
    let directory = Directory::new();
    let (running, mut sinks) = open(&directory.0, StoreMode::Relaxed, b"epoch001")
        .start(1, &Batch::default())
        .unwrap();
    end(running, &mut sinks);
    let settings = settings(&directory.0, StoreMode::Relaxed);
    let store = Store::open(settings, Taking::IfFree, *b"epoch002", 1, Clock::begin()).unwrap();
    let beginning = store.beginning();
    assert_eq!(beginning.epoch, *b"epoch001");
    assert_eq!(beginning.removed_through, beginning.base);
    assert_eq!(beginning.unknown_through, 0);
}

#[test]
fn two_processes_cannot_have_one_directory_and_the_second_is_told_which_has_it() {
    let directory = Directory::new();
    let store = open(&directory.0, StoreMode::Relaxed, b"epoch001");
    let settings = settings(&directory.0, StoreMode::Relaxed);
    let second = Store::open(settings, Taking::IfFree, *b"epoch002", 0, Clock::begin());
    match second {
        Err(error @ StoreError::Held { owner: Some(_), .. }) => {
            let text = error.to_string();
            assert!(
                text.contains(&format!("process {} (", std::process::id())),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
    drop(store);
    drop(open(&directory.0, StoreMode::Relaxed, b"epoch002"));
}

#[test]
fn a_full_queue_keeps_publications_in_memory_only_and_the_gap_is_known_afterwards() {
    let directory = Directory::new();
    let (running, mut sinks) = open(&directory.0, StoreMode::Relaxed, b"epoch001")
        .start(1, &Batch::default())
        .unwrap();
    let frame = vec![b'x'; 100_000];
    let mut dropped = Vec::new();
    for offset in 1..=20 {
        if sinks[0].push(&publication(b"c", offset, 0, &frame)) == Pushed::Dropped {
            dropped.push(offset);
        }
    }
    assert_eq!(dropped, (12..=20).collect::<Vec<u64>>());
    assert_eq!(running.handle().metrics().dropped(), 9);
    sinks[0].flush();
    wait_for_commit(&sinks[0], 0, 11);
    // There is room again: the gap is recorded with the next records.
    assert_eq!(sinks[0].push(&publication(b"c", 21, 0, b"small")), Pushed::Kept);
    end(running, &mut sinks);
    let store = open(&directory.0, StoreMode::Relaxed, b"epoch002");
    assert_eq!(store.beginning().unknown_through, 20);
    let offsets: Vec<_> = content(&store)[&b"c"[..]].1.keys().copied().collect();
    assert_eq!(offsets, (1..=11).chain([21]).collect::<Vec<_>>());
}

#[test]
fn strict_publishers_wait_at_half_of_the_queue_and_nothing_is_dropped() {
    let directory = Directory::new();
    let (running, mut sinks) = open(&directory.0, StoreMode::Strict, b"epoch001")
        .start(1, &Batch::default())
        .unwrap();
    let frame = vec![b'x'; 100_000];
    let mut offset = 0;
    while sinks[0].has_room() {
        offset += 1;
        assert_eq!(sinks[0].push(&publication(b"c", offset, 0, &frame)), Pushed::Kept);
    }
    assert_eq!(offset, 6);
    for offset in 7..30 {
        assert_eq!(sinks[0].push(&publication(b"c", offset, 0, &frame)), Pushed::Kept);
    }
    sinks[0].flush();
    wait_for_commit(&sinks[0], 0, 29);
    while !sinks[0].has_room() {
        thread::yield_now();
    }
    end(running, &mut sinks);
}

#[test]
fn without_room_on_disk_commits_fail_and_what_waited_is_committed_when_there_is_room() {
    for mode in [StoreMode::Relaxed, StoreMode::Strict] {
        let directory = Directory::new();
        // The file may not grow, until it is opened again with another bound.
        let mut settings = settings(&directory.0, mode);
        let (running, mut sinks) = open(&directory.0, mode, b"epoch001")
            .start(1, &Batch::default())
            .unwrap();
        end(running, &mut sinks);
        let length = fs::metadata(directory.file()).unwrap().len();
        settings.bytes_max = 2 * length;
        settings.queue_bytes_max = 64 << 20;
        let store = Store::open(settings, Taking::IfFree, *b"epoch001", 0, Clock::begin()).unwrap();
        let (running, mut sinks) = store.start(1, &Batch::default()).unwrap();
        let frame = vec![b'x'; 4 * usize::try_from(length).unwrap()];
        let _ = sinks[0].push(&publication(b"c", 1, 0, &frame));
        sinks[0].flush();
        while running.handle().state() != StoreState::Failing {
            thread::yield_now();
        }
        assert!(!sinks[0].is_committed(0, 1));
        assert!(fs::metadata(directory.file()).unwrap().len() <= 2 * length);
        assert!(running.handle().metrics().failures.value() > 0);
        // What does not fit is forgotten: so the next commit fits.
        let _ = sinks[0].push(&Record::Removed {
            channel: b"c",
            through: 1,
        });
        sinks[0].flush();
        wait_for_commit(&sinks[0], 0, 1);
        assert_eq!(running.handle().state(), StoreState::Open);
        end(running, &mut sinks);
    }
}

/// Opens the store of a directory with a bound for its file, and starts it.
fn start_bounded(directory: &Path, mode: StoreMode, bytes_max: u64) -> (u64, RunningStore, Vec<Sink>) {
    let mut settings = settings(directory, mode);
    (settings.bytes_max, settings.queue_bytes_max) = (bytes_max, 64 << 20);
    let store = Store::open(settings, Taking::IfFree, *b"epoch001", 0, Clock::begin()).unwrap();
    let base = store.beginning().base;
    let (running, sinks) = store.start(1, &Batch::default()).unwrap();
    (base, running, sinks)
}

/// Commits publications until the store is in a state. Returns the last offset that was tried.
fn fill(handle: &StoreHandle, sink: &mut Sink, mut offset: u64, size: usize, until: StoreState) -> u64 {
    while handle.state() != until {
        for _ in 0..(20_000 / (size + 100)).max(1) {
            offset += 1;
            let _ = sink.push(&publication(b"c", offset, 0, &vec![b'x'; size]));
        }
        sink.flush();
        while !sink.is_committed(0, offset) && handle.state() != StoreState::Failing {
            thread::yield_now();
        }
    }
    offset
}

/// The publications of the channel up to this offset go.
fn forget(sink: &mut Sink, through: u64) {
    let kept = KeptBounds {
        after: through,
        complete_after: through,
    };
    let _ = sink.push(&Record::Forgotten { channel: b"c", kept });
    sink.flush();
}

/// Without a restart: enough of the file is left for what removing takes.
#[test]
fn a_full_file_takes_more_when_enough_was_removed() {
    for (mode, size) in [
        (StoreMode::Strict, 16),
        (StoreMode::Relaxed, 4000),
        (StoreMode::Strict, 2100),
        (StoreMode::Strict, 100_000),
    ] {
        let directory = Directory::new();
        let bytes_max = 5 << 20;
        let (mut offset, running, mut sinks) = start_bounded(&directory.0, mode, bytes_max);
        let handle = running.handle();
        for round in 0..3 {
            let first = offset + 1;
            offset = fill(&handle, &mut sinks[0], offset, size, StoreState::Failing);
            assert!(offset > first, "round {round} of {size} bytes");
            assert_eq!(handle.metrics().failing.value(), 1);
            // A part of the history expires, bit by bit; then there is room for all that has waited.
            for eighths in 1..=6 {
                forget(&mut sinks[0], first + (offset - first) * eighths / 8);
            }
            wait_for_commit(&sinks[0], 0, offset);
            assert_eq!(
                (handle.state(), handle.metrics().full.value()),
                (StoreState::Open, 0)
            );
            assert!(fs::metadata(directory.file()).unwrap().len() <= bytes_max);
        }
        drop(handle);
        end(running, &mut sinks);
    }
}

#[test]
fn a_store_is_full_before_a_commit_fails_and_open_again_when_something_was_removed() {
    let directory = Directory::new();
    let (base, running, mut sinks) = start_bounded(&directory.0, StoreMode::Strict, 5 << 20);
    let handle = running.handle();
    let last = fill(&handle, &mut sinks[0], base, 1000, StoreState::Full);
    let metrics = handle.metrics();
    assert_eq!(
        (
            metrics.full.value(),
            metrics.failing.value(),
            metrics.failures.value()
        ),
        (1, 0, 0)
    );
    assert!(metrics.content_bytes.value() <= metrics.content_bytes_max.value());
    assert!(!sinks[0].takes_wills());
    assert_eq!(
        handle.begin_publication(StoreChange::Adds).unwrap_err(),
        StoreState::Full
    );
    assert!(handle.begin_publication(StoreChange::Clears).is_ok());
    // What removes something is committed, and a little is not enough.
    for (through, state) in [
        (base + 1, StoreState::Full),
        (base + (last - base) / 4, StoreState::Open),
    ] {
        forget(&mut sinks[0], through);
        let end = sinks[0].end_of_records();
        while !sinks[0].is_done(end) {
            thread::yield_now();
        }
        assert_eq!(handle.state(), state);
    }
    assert!(handle.begin_publication(StoreChange::Adds).is_ok());
    assert_eq!((metrics.full.value(), metrics.failures.value()), (0, 0));
    drop(handle);
    end(running, &mut sinks);
}

/// The bound was lowered, or the file is of a version that did not count.
#[test]
fn a_file_beyond_its_bound_accepts_changes_that_remove_entries() {
    let directory = Directory::new();
    let (base, running, mut sinks) = start_bounded(&directory.0, StoreMode::Strict, u64::MAX);
    for offset in base + 1..=base + 1000 {
        let _ = sinks[0].push(&publication(b"c", offset, 0, &[b'x'; 1000]));
    }
    assert_eq!(running.handle().metrics().content_bytes_max.value(), 0);
    end(running, &mut sinks);
    let length = fs::metadata(directory.file()).unwrap().len();
    let (base, running, mut sinks) = start_bounded(&directory.0, StoreMode::Strict, length);
    let handle = running.handle();
    assert_eq!(handle.state(), StoreState::Full);
    let _ = sinks[0].push(&publication(b"c", base + 1, 0, b"x"));
    sinks[0].flush();
    while handle.state() != StoreState::Failing {
        thread::yield_now();
    }
    forget(&mut sinks[0], base);
    wait_for_commit(&sinks[0], 0, base + 1);
    assert_eq!(handle.state(), StoreState::Open);
    drop(handle);
    end(running, &mut sinks);
    assert!(fs::metadata(directory.file()).unwrap().len() <= length);
}

#[test]
fn the_bytes_of_the_content_equal_the_bytes_of_the_tables_after_any_changes() {
    let directory = Directory::new();
    let bytes_max = 1 << 40;
    let (base, running, mut sinks) = start_bounded(&directory.0, StoreMode::Strict, bytes_max);
    let mut random = 1_u64;
    let mut below = |end: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % end
    };
    for offset in base + 1..base + 400 {
        let value = vec![b'x'; usize::try_from(below(300) * below(12)).unwrap()];
        let name = [b'a' + u8::try_from(below(5)).unwrap()];
        let is_gone = below(3) == 0;
        let some = (!is_gone).then_some(&value[..]);
        let record = match below(6) {
            0 => publication(
                &name,
                offset,
                if is_gone { offset.saturating_sub(5) } else { 0 },
                &value,
            ),
            1 => Record::Retained {
                topic: &name,
                value: some,
            },
            2 => match some {
                Some(value) => Record::SessionItem {
                    client_id: &name,
                    item: b"i",
                    value,
                    is_new: false,
                },
                None => Record::SessionItemGone {
                    client_id: &name,
                    item: b"i",
                },
            },
            3 if below(4) == 0 => Record::SessionGone { client_id: &name },
            3 => Record::SessionItem {
                client_id: &name,
                item: &[b'j', u8::try_from(below(9)).unwrap()],
                value: &value,
                is_new: false,
            },
            4 if below(4) == 0 => Record::Removed {
                channel: &name,
                through: offset,
            },
            4 if is_gone => Record::WillGone {
                generation: &[name[0]; 15],
            },
            4 => Record::Will {
                generation: &[name[0]; 15],
                will: StoredWill {
                    due_unix_ms: None,
                    set_unix_ms: 1,
                    will: &value,
                },
            },
            _ => match is_gone {
                true => Record::Released { number: below(20) },
                false => Record::Held {
                    number: below(20),
                    content: b"content",
                },
            },
        };
        let _ = sinks[0].push(&record);
        if below(4) == 0 {
            sinks[0].flush();
            let end = sinks[0].end_of_records();
            while !sinks[0].is_done(end) {
                thread::yield_now();
            }
        }
    }
    let handle = running.handle();
    end(running, &mut sinks);
    let counted = handle.metrics().content_bytes.value();
    drop(handle);
    let mut settings = settings(&directory.0, StoreMode::Strict);
    settings.bytes_max = bytes_max;
    let store = Store::open(settings, Taking::IfFree, *b"epoch002", 0, Clock::begin()).unwrap();
    assert_eq!(store.content.bytes(), counted);
    assert!(counted > 5000, "{counted}");
}

#[test]
fn a_server_starts_with_a_full_file_and_goes_on_when_there_is_room() {
    let directory = Directory::new();
    let (running, mut sinks) = open(&directory.0, StoreMode::Strict, b"epoch001")
        .start(1, &Batch::default())
        .unwrap();
    end(running, &mut sinks);
    let bytes_max = 2 * fs::metadata(directory.file()).unwrap().len();
    let opened = |bytes_max: u64, epoch: &[u8; 8]| {
        let mut settings = settings(&directory.0, StoreMode::Strict);
        (settings.bytes_max, settings.queue_bytes_max) = (bytes_max, 64 << 20);
        Store::open(settings, Taking::IfFree, *epoch, 0, Clock::begin()).unwrap()
    };
    let (mut offset, mut last) = (0, 0);
    // Smaller and smaller publications, until not even these fit. Each end is that of a crash.
    for size in [1 << 20, 1 << 16, 1 << 12, 1 << 8, 16] {
        let store = opened(bytes_max, b"epoch002");
        offset = offset.max(store.beginning().base);
        let (running, mut sinks) = store.start(1, &Batch::default()).unwrap();
        while running.handle().state() != StoreState::Failing {
            offset += 1;
            let _ = sinks[0].push(&publication(b"c", offset, 0, &vec![b'x'; size]));
            sinks[0].flush();
            while !sinks[0].is_committed(0, offset) && running.handle().state() != StoreState::Failing {
                thread::yield_now();
            }
            if sinks[0].is_committed(0, offset) {
                last = offset;
            }
        }
    }
    assert!(last > 0 && fs::metadata(directory.file()).unwrap().len() <= bytes_max);
    // A start with more to write than there is room for.
    let store = opened(bytes_max, b"epoch003");
    let mut much = Batch::default();
    much.push(&publication(
        b"d",
        store.beginning().base,
        0,
        &vec![b'x'; usize::try_from(2 * bytes_max).unwrap()],
    ));
    let (running, sinks) = store.start(1, &much).unwrap();
    assert_eq!(running.handle().state(), StoreState::Failing);
    drop((sinks, running));
    // With room, everything is there that was committed, and the store takes more.
    let store = opened(u64::MAX, b"epoch004");
    let base = store.beginning().base;
    assert!(base >= last);
    let (_, publications) = &content(&store)[&b"c"[..]];
    assert!(publications.contains_key(&last));
    let (running, mut sinks) = store.start(1, &Batch::default()).unwrap();
    let _ = sinks[0].push(&publication(b"c", base + 1, 0, b"x"));
    sinks[0].flush();
    wait_for_commit(&sinks[0], 0, base + 1);
    end(running, &mut sinks);
}

/// A store with a few hundred publications that has ended in order; its directory and content.
fn filled() -> (Directory, Content) {
    let directory = Directory::new();
    let (running, mut sinks) = open(&directory.0, StoreMode::Strict, b"epoch001")
        .start(1, &Batch::default())
        .unwrap();
    for offset in 1..=300 {
        let channel = format!("channel {}", offset % 7);
        let frame = format!("{offset}").repeat(1 + usize::try_from(offset % 50).unwrap());
        let _ = sinks[0].push(&publication(channel.as_bytes(), offset, 0, frame.as_bytes()));
        if offset % 100 == 0 {
            sinks[0].flush();
            wait_for_commit(&sinks[0], 0, offset);
        }
    }
    end(running, &mut sinks);
    let store = open(&directory.0, StoreMode::Strict, b"epoch002");
    let content = content(&store);
    (directory, content)
}

#[test]
fn a_file_that_was_changed_or_cut_is_set_aside_or_as_it_was_and_never_half_read() {
    let seed = std::env::var("STORE_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut random: u64 = seed;
    let (directory, expected) = filled();
    let original = fs::read(directory.file()).unwrap();
    let (mut aside, mut whole) = (0, 0);
    for round in 0..60 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = usize::try_from(random >> 20).unwrap() % original.len();
        let mut bytes = original.clone();
        match round % 3 {
            0 => bytes[at] ^= 1 << (random & 7),
            1 => bytes.truncate(at),
            _ => bytes[at..].iter_mut().take(4096).for_each(|byte| *byte = 0),
        }
        let damaged = Directory::new();
        fs::create_dir(&damaged.0).unwrap();
        fs::write(damaged.file(), &bytes).unwrap();
        let store = open(&damaged.0, StoreMode::Strict, b"epoch003");
        let found = content(&store);
        let kept = damaged
            .names()
            .into_iter()
            .find(|name| name.contains(".damaged-"));
        match kept {
            Some(name) => {
                assert_eq!(found, Content::new(), "round {round} of seed {seed}");
                assert_eq!(store.beginning().epoch, *b"epoch003");
                assert_eq!(fs::read(damaged.0.join(name)).unwrap().len(), bytes.len());
                aside += 1;
            }
            // An empty file is a new store: it has the epoch of a new one.
            None if bytes.is_empty() => {}
            None => {
                assert_eq!(
                    found,
                    expected,
                    "round {round} of seed {seed}: {at} of {}",
                    bytes.len()
                );
                assert_eq!(store.beginning().epoch, *b"epoch001");
                whole += 1;
            }
        }
    }
    // Both happen: most pages of the file are free, and a change there does no harm.
    assert!(aside > 10 && whole > 0, "{aside} {whole}");
}

#[test]
fn wills_are_there_as_they_were_set_last_and_those_that_are_gone_are_not() {
    let directory = Directory::new();
    let (running, mut sinks) = open(&directory.0, StoreMode::Strict, b"epoch001")
        .start(2, &Batch::default())
        .unwrap();
    let will = |text: &'static [u8], due_unix_ms| StoredWill {
        due_unix_ms,
        set_unix_ms: 7,
        will: text,
    };
    let (one, other, third) = ([1; 15], [2; 15], [3; 15]);
    for (generation, text) in [(&one, &b"first"[..]), (&other, b"other"), (&third, b"third")] {
        let _ = sinks[0].push(&Record::Will {
            generation,
            will: will(text, None),
        });
    }
    assert!(!sinks[0].flush());
    let end_of_first = sinks[0].end_of_records();
    // Their outcome comes from the owner.
    let _ = sinks[1].push(&Record::Will {
        generation: &one,
        will: will(b"first", Some(50)),
    });
    let _ = sinks[1].push(&Record::WillGone { generation: &other });
    assert!(!sinks[1].flush());
    while !sinks[0].is_done(end_of_first) || !sinks[1].is_done(sinks[1].end_of_records()) {
        thread::sleep(Duration::from_millis(1));
    }
    // Without an orderly end.
    drop((sinks, running));
    let store = open(&directory.0, StoreMode::Strict, b"epoch002");
    let mut found = Vec::new();
    store
        .read_wills(|generation, will| found.push((*generation, will.due_unix_ms, will.will.to_vec())))
        .unwrap();
    assert_eq!(
        found,
        [
            (one, Some(50), b"first".to_vec()),
            (third, None, b"third".to_vec())
        ]
    );
}
