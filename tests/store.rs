//! `data_dir`: histories and wills after a restart, a crash, a full disk, a damaged file and a take-over.
//!
//! The tests read the file with redb itself, not with the code that wrote it, by the tables in the head of
//! `src/store/database.rs`.
//!
//! `STORE_KILLS=1000` kills as many servers as it says; `TEST_SEED` repeats a run.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test, which prints its seed

mod support;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use support::api::{self, Key, write_config};
use support::folder::Folder;
use support::process::{Process, fill_disk, with_small_disk};
use support::{Client, Received, eventually};

const CHANNELS: &str = r#"
[[channels]]
names = ["room.*"]
history_entries = 1000000
history_bytes = 1000000000
history_ms = 3600000
"#;

/// A folder with a configuration file and a place for the store.
struct Place {
    folder: Folder,
    config: PathBuf,
    data: PathBuf,
}

impl Place {
    fn new() -> Place {
        let folder = Folder::new();
        let config = folder.write("ringcast.toml", CHANNELS);
        let data = folder.file("data");
        Place { folder, config, data }
    }

    fn start(&self, settings: &[(&str, &str)]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
        command.stdin(Stdio::null());
        self.spawn(command, settings)
    }

    /// Starts a server by a command of the test, which must end with the path of the binary.
    fn spawn(&self, mut command: Command, settings: &[(&str, &str)]) -> Process {
        command
            .env("RINGCAST_CONFIG", &self.config)
            .env("RINGCAST_DATA_DIR", &self.data);
        Process::spawn(command, settings)
    }

    fn file(&self) -> PathBuf {
        self.data.join("store.redb")
    }

    /// The numbers of the publications on disk, by channel, in their order. The server has ended.
    fn on_disk(&self) -> BTreeMap<String, Vec<u64>> {
        // A copy, so that the server finds the file as it left it.
        let copy = self.folder.file("copy.redb");
        fs::copy(self.file(), &copy).unwrap();
        let database = Database::open(&copy).unwrap();
        let read = database.begin_read().unwrap();
        let channels: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("channels");
        let publications: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("publications");
        let (Ok(channels), Ok(publications)) = (read.open_table(channels), read.open_table(publications))
        else {
            return BTreeMap::new();
        };
        let names = channels.iter().unwrap().map(|entry| {
            let (name, value) = entry.unwrap();
            let number = u64::from_le_bytes(value.value()[1..9].try_into().unwrap());
            (number, String::from_utf8(name.value().to_vec()).unwrap())
        });
        names
            .map(|(number, name)| {
                let range = publications.range((number, 0)..=(number, u64::MAX)).unwrap();
                let numbers = range.map(|entry| number_in(entry.unwrap().1.value()));
                (name, numbers.collect())
            })
            .collect()
    }

    /// The wills on disk. The server has ended.
    fn wills(&self) -> Vec<StoredWill> {
        let copy = self.folder.file("copy.redb");
        fs::copy(self.file(), &copy).unwrap();
        let database = Database::open(&copy).unwrap();
        let wills: TableDefinition<'_, &[u8; 15], &[u8]> = TableDefinition::new("wills");
        let read = database.begin_read().unwrap();
        let Ok(table) = read.open_table(wills) else {
            return Vec::new();
        };
        let entries = table.iter().unwrap();
        entries
            .map(|entry| StoredWill::read(entry.unwrap().1.value()))
            .collect()
    }

    /// The epoch on disk.
    fn epoch(&self) -> String {
        let copy = self.folder.file("copy.redb");
        fs::copy(self.file(), &copy).unwrap();
        let database = Database::open(&copy).unwrap();
        let head: TableDefinition<'_, (), &[u8]> = TableDefinition::new("head");
        let table = database.begin_read().unwrap().open_table(head).unwrap();
        let epoch = table.get(()).unwrap().unwrap().value()[2..10].to_vec();
        String::from_utf8(epoch).unwrap()
    }
}

/// A will in the table of wills.
#[derive(Debug)]
struct StoredWill {
    /// `None` while its connection is open.
    due: Option<u64>,
    set: u64,
    session: String,
    data: String,
}

impl StoredWill {
    fn read(value: &[u8]) -> StoredWill {
        let number = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().unwrap());
        assert_eq!(value[0], 1);
        // The delay, then three fields with a length before each.
        let mut rest = &value[21..];
        let mut field = || {
            let length = u32::from_be_bytes(rest[..4].try_into().unwrap());
            rest = &rest[4..];
            if length == u32::MAX {
                return String::new();
            }
            let (field, behind) = rest.split_at(length as usize);
            rest = behind;
            String::from_utf8(field.to_vec()).unwrap()
        };
        let (_, session, data) = (field(), field(), field());
        StoredWill {
            due: Some(number(1)).filter(|due| *due != u64::MAX),
            set: number(9),
            // A client without a user.
            session: session.trim_start_matches('\0').to_owned(),
            data,
        }
    }
}

/// The number that was published, in a value of the table of publications.
fn number_in(value: &[u8]) -> u64 {
    let frame = String::from_utf8_lossy(&value[14..]).into_owned();
    let data = frame.rsplit("\"data\":").next().unwrap();
    data.trim_end_matches('}').trim().parse().unwrap()
}

/// Publishes and returns the answer.
fn publish(client: &mut Client, channel: &str, data: u64) -> String {
    client.call("#publish", &format!(r#"{{"channel":"{channel}","data":{data}}}"#))
}

fn is_acknowledgement(answer: &str) -> bool {
    answer.starts_with(r#"{"rid":"#) && !answer.contains("error")
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Publishes rising numbers on a channel of its own until the server is gone; counts and returns the acknowledged ones.
fn publish_until_the_end(
    mut client: Client,
    channel: &str,
    first: u64,
    ahead: usize,
    count: &AtomicU64,
) -> Vec<u64> {
    let mut sent = BTreeMap::new();
    let mut acknowledged = Vec::new();
    let mut next = first;
    loop {
        while sent.len() < ahead {
            let data = format!(r#"{{"channel":"{channel}","data":{next}}}"#);
            let cid = next + 1_000_000;
            let text = format!(r##"{{"event":"#publish","data":{data},"cid":{cid}}}"##);
            let frame = support::frame(support::TEXT, text.as_bytes());
            if client.try_send_bytes(&frame).is_err() {
                return acknowledged;
            }
            sent.insert(cid, next);
            next += 1;
        }
        match client.next() {
            Received::Text(text) if text.starts_with(r#"{"rid":"#) => {
                assert!(is_acknowledgement(&text), "{text}");
                let cid: u64 = text[7..text.len() - 1].parse().unwrap();
                acknowledged.push(sent.remove(&cid).unwrap());
                count.fetch_add(1, Ordering::Release);
            }
            Received::End => return acknowledged,
            _ => {}
        }
    }
}

/// Kills servers of this mode again and again. What each had acknowledged before is on disk, apart from the last of a
/// relaxed one.
fn kill_again_and_again(mode: &str, kills: u64) {
    let mut random = Random(support::seed());
    let place = Place::new();
    let (mut acknowledged, mut kept) = (
        BTreeMap::<String, Vec<u64>>::new(),
        BTreeMap::<String, Vec<u64>>::new(),
    );
    let mut epochs = Vec::new();
    for round in 0..kills {
        let server = place.start(&[("RINGCAST_STORE_MODE", mode), ("RINGCAST_STORE_FLUSH_MS", "5")]);
        let wait = Duration::from_micros(random.below(60_000));
        // Connected before the time runs, so that the kill hits a server that commits.
        let clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
        let of_round: Vec<(String, Vec<u64>)> = thread::scope(|scope| {
            let publishers: Vec<_> = clients
                .into_iter()
                .enumerate()
                .map(|(index, client)| {
                    let channel = format!("room.{index}");
                    scope.spawn(move || {
                        let count = AtomicU64::new(0);
                        let first = round * 1_000_000;
                        let numbers = publish_until_the_end(client, &channel, first, 1 + 7 * index, &count);
                        (channel, numbers)
                    })
                })
                .collect();
            thread::sleep(wait);
            server.signal(Signal::SIGKILL);
            publishers
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        drop(server);
        let on_disk = place.on_disk();
        epochs.push(place.epoch());
        for (channel, numbers) in of_round {
            let found = on_disk.get(&channel).cloned().unwrap_or_default();
            let before = kept.entry(channel.clone()).or_default();
            assert!(
                found.starts_with(before),
                "round {round}: {channel} has lost what was there before"
            );
            let added = &found[before.len()..];
            let expected: Vec<u64> = (round * 1_000_000..).take(added.len()).collect();
            assert_eq!(added, expected, "round {round}: {channel} has a gap");
            if mode == "strict" {
                let last = numbers.last().map_or(0, |last| last - round * 1_000_000 + 1);
                assert!(
                    added.len() as u64 >= last,
                    "round {round}: {channel} has {} of {last} acknowledged publications",
                    added.len()
                );
            }
            *before = found;
            acknowledged.entry(channel).or_default().extend(numbers);
        }
    }
    let total: usize = acknowledged.values().map(Vec::len).sum();
    println!("{mode}: {kills} kills, {total} acknowledged publications");
    assert!(total > 0);
    let is_same = |pair: &[String]| pair[0] == pair[1];
    match mode {
        "strict" => assert!(epochs.windows(2).all(is_same), "{epochs:?}"),
        _ => assert!(!epochs.windows(2).any(is_same), "{epochs:?}"),
    }
}

#[test]
fn a_killed_strict_server_has_lost_nothing_that_it_had_acknowledged_and_keeps_its_epoch() {
    kill_again_and_again("strict", from_environment("STORE_KILLS", 50) / 2);
}

#[test]
fn a_killed_relaxed_server_has_lost_no_more_than_the_end_and_says_so_by_a_new_epoch() {
    kill_again_and_again("relaxed", from_environment("STORE_KILLS", 50) / 2);
}

#[test]
fn a_relaxed_server_has_committed_everything_acknowledged_before_its_last_commit() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut client = server.client();
    for number in 0..100 {
        assert!(is_acknowledgement(&publish(&mut client, "room.1", number)));
    }
    let mut admin = server.admin();
    eventually("the publications are committed", || {
        admin.metric("ringcast_store_records_total") >= 100
    });
    server.signal(Signal::SIGKILL);
    drop(server);
    assert_eq!(place.on_disk()["room.1"], (0..100).collect::<Vec<_>>());
}

/// A relaxed server loses what was acknowledged in its last intervals, and no more. On a busy machine only the server itself
/// knows its intervals: it counts its commits. Take a publication that was acknowledged before a count. The first commit
/// behind the count may have been over already, and the second may have what the core had sent before the acknowledgement.
/// The third has more, and the core sends its records in order: so it has the publication.
#[test]
fn a_killed_relaxed_server_has_lost_nothing_that_was_acknowledged_before_its_last_intervals() {
    let mut random = Random(support::seed());
    let place = Place::new();
    let mut before = Vec::new();
    for round in 0..from_environment("STORE_KILLS", 50).div_ceil(10) {
        let server = place.start(&[
            ("RINGCAST_STORE_MODE", "relaxed"),
            ("RINGCAST_STORE_FLUSH_MS", "20"),
            ("RINGCAST_CORES", "1"),
        ]);
        let client = server.client();
        let (first, count) = (round * 1_000_000, AtomicU64::new(0));
        let (certain, acknowledged) = thread::scope(|scope| {
            let publisher = scope.spawn(|| publish_until_the_end(client, "room.1", first, 8, &count));
            let mut admin = server.admin();
            let mut commits = || admin.metric("ringcast_store_commit_seconds_count");
            let mut certain = 0;
            for _ in 0..=random.below(4) {
                let acknowledged = count.load(Ordering::Acquire);
                let at = commits();
                eventually("the intervals are over", || commits() >= at + 3);
                certain = acknowledged;
            }
            thread::sleep(Duration::from_micros(random.below(20_000)));
            server.signal(Signal::SIGKILL);
            (certain, publisher.join().unwrap().len() as u64)
        });
        drop(server);
        let found = place.on_disk().remove("room.1").unwrap_or_default();
        assert!(
            found.starts_with(&before),
            "round {round}: what was there is lost"
        );
        let added = &found[before.len()..];
        let expected: Vec<u64> = (first..).take(added.len()).collect();
        assert_eq!(added, expected, "round {round}: a gap");
        let kept = added.len() as u64;
        println!(
            "round {round}: {acknowledged} acknowledged, {certain} before the last intervals, {kept} on disk"
        );
        assert!(kept >= certain, "round {round}: {kept} of {certain} are on disk");
        before = found;
    }
}

#[test]
fn an_orderly_end_keeps_the_epoch_and_the_last_publication() {
    let place = Place::new();
    for round in 0..3 {
        // In the last round, a client that does not answer the close frame is cut off, and the cores are told to stop.
        let settings = [
            ("RINGCAST_STORE_FLUSH_MS", "60000"),
            ("RINGCAST_DRAIN_SECONDS", "0"),
            ("RINGCAST_CLOSE_TIMEOUT_MS", "200"),
        ];
        let mut server = place.start(&settings);
        let mut client = server.client();
        for number in 0..10 {
            let data = round * 10 + number;
            assert!(is_acknowledgement(&publish(&mut client, "room.1", data)));
        }
        let kept = (round == 2).then_some(client);
        server.signal(Signal::SIGTERM);
        assert_eq!(server.exit_code(), Some(0));
        drop(kept);
        assert_eq!(
            place.on_disk()["room.1"],
            (0..round * 10 + 10).collect::<Vec<_>>()
        );
        let head: Vec<String> = (0..2).map(|_| place.epoch()).collect();
        assert_eq!(head[0], head[1]);
    }
    let epoch = place.epoch();
    let server = place.start(&[]);
    assert_eq!(place.epoch(), epoch);
    drop(server);
}

#[test]
fn two_servers_cannot_have_one_directory_and_the_second_names_the_first() {
    let place = Place::new();
    let first = place.start(&[]);
    let output = Command::new(env!("CARGO_BIN_EXE_ringcast"))
        .env("RINGCAST_LISTEN", "127.0.0.1:0")
        .env("RINGCAST_ADMIN", "127.0.0.1:0")
        .env("RINGCAST_CONFIG", &place.config)
        .env("RINGCAST_DATA_DIR", &place.data)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    for part in [
        format!("process {} (ringcast)", first.pid()),
        "RINGCAST_DATA_DIR".to_owned(),
        "--take-over".to_owned(),
    ] {
        assert!(text.contains(&part), "{text}");
    }
    let mut client = first.client();
    assert!(is_acknowledgement(&publish(&mut client, "room.1", 1)));
}

#[test]
fn a_server_that_takes_over_gets_the_store_and_the_other_says_where_to_publish() {
    let place = Place::new();
    for mode in ["relaxed", "strict"] {
        let settings = [
            ("RINGCAST_STORE_MODE", mode),
            ("RINGCAST_DRAIN_SECONDS", "0"),
            ("RINGCAST_CLOSE_TIMEOUT_MS", "200"),
        ];
        let mut old = place.start(&settings);
        let mut client = old.client();
        let base = if mode == "relaxed" { 0 } else { 100 };
        for number in 0..10 {
            assert!(is_acknowledgement(&publish(&mut client, "room.1", base + number)));
        }
        let epoch = place.epoch();
        let listen = old.address.to_string();
        let mut settings = settings.to_vec();
        settings.extend([("RINGCAST_LISTEN", listen.as_str()), ("RINGCAST_TAKE_OVER", "on")]);
        let mut new = place.start(&settings);
        old.logged("released for the other process");
        let answer = publish(&mut client, "room.1", 77);
        assert!(
            answer.contains("StoreError") && answer.contains("connect again"),
            "{answer}"
        );
        assert!(is_acknowledgement(&publish(&mut client, "other", 77)));
        old.signal(Signal::SIGTERM);
        assert_eq!(old.exit_code(), Some(0));
        let mut client = new.client();
        assert!(is_acknowledgement(&publish(&mut client, "room.1", base + 10)));
        new.signal(Signal::SIGTERM);
        assert_eq!(new.exit_code(), Some(0));
        let expected: Vec<u64> = (0..=10).chain(100..=110).collect();
        assert_eq!(
            place.on_disk()["room.1"],
            expected[..if base == 0 { 11 } else { 22 }]
        );
        assert_eq!(place.epoch(), epoch);
    }
}

#[test]
fn a_damaged_file_is_set_aside_and_the_server_starts_with_an_empty_store() {
    let place = Place::new();
    let mut server = place.start(&[]);
    let mut client = server.client();
    for number in 0..100 {
        publish(&mut client, "room.1", number);
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
    let epoch = place.epoch();
    let mut file = OpenOptions::new().write(true).open(place.file()).unwrap();
    // In the head of the file, where both of its commits are named.
    file.seek(SeekFrom::Start(64)).unwrap();
    file.write_all(&[0xff; 256]).unwrap();
    drop(file);
    let damaged = fs::read(place.file()).unwrap();
    let server = place.start(&[]);
    server.logged("set aside as");
    assert_ne!(place.epoch(), epoch);
    let aside = names(&place.data)
        .into_iter()
        .find(|name| name.contains(".damaged-"));
    assert_eq!(fs::read(place.data.join(aside.unwrap())).unwrap(), damaged);
    let mut client = server.client();
    assert!(is_acknowledgement(&publish(&mut client, "room.1", 1)));
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn on_a_full_disk_strict_refuses_and_relaxed_goes_on_in_memory_and_both_recover() {
    for mode in ["strict", "relaxed"] {
        let place = Place::new();
        let Some(command) = with_small_disk(&place.data) else {
            return;
        };
        let settings = [
            ("RINGCAST_STORE_MODE", mode),
            ("RINGCAST_STORE_FLUSH_MS", "5"),
            ("RINGCAST_DRAIN_SECONDS", "0"),
            ("RINGCAST_CLOSE_TIMEOUT_MS", "200"),
        ];
        let mut server = place.spawn(command, &settings);
        let mut client = server.client();
        assert!(is_acknowledgement(&publish(&mut client, "room.1", 0)));
        let (disk, filler) = fill_disk(&server, &place.data);
        let mut number = 1;
        let mut admin = server.admin();
        let text = "x".repeat(2000);
        eventually("a commit fails", || {
            // What does not fit into the free pages of the file.
            for _ in 0..50 {
                let data = format!(r#"{{"channel":"room.2","data":"{text}"}}"#);
                let answer = client.call("#publish", &data);
                if mode == "relaxed" {
                    assert!(is_acknowledgement(&answer), "{answer}");
                } else if !is_acknowledgement(&answer) {
                    assert!(answer.contains("StoreError"), "{answer}");
                }
            }
            admin.metric("ringcast_store_failing") == 1
        });
        server.logged("cannot commit");
        match mode {
            "strict" => {
                let answer = publish(&mut client, "room.1", number);
                assert!(
                    answer.contains("StoreError") && answer.contains("was not published"),
                    "{answer}"
                );
            }
            _ => {
                assert!(is_acknowledgement(&publish(&mut client, "room.1", number)));
                number += 1;
            }
        }
        // Channels without a policy need no disk.
        assert!(is_acknowledgement(&publish(&mut client, "other", 0)));
        fs::remove_file(&filler).unwrap();
        server.logged("commits succeed again");
        assert_eq!(admin.metric("ringcast_store_failing"), 0);
        assert!(is_acknowledgement(&publish(&mut client, "room.1", number)));
        // The disk ends with the process: so the file is copied before, after an orderly end of the store alone.
        eventually("all is committed", || {
            let before = admin.metric("ringcast_store_records_total");
            thread::yield_now();
            before > number
        });
        let copy = place.folder.file("data-copy");
        let expected: Vec<u64> = (0..=number).collect();
        eventually("the file has it", || {
            fs::copy(disk.join("store.redb"), &copy).unwrap();
            numbers_in(&copy, "room.1").is_some_and(|found| found == expected)
        });
        server.signal(Signal::SIGTERM);
        assert_eq!(server.exit_code(), Some(0));
    }
}

/// Histories and wills: changes that add entries are refused before a commit fails, and changes that remove entries are
/// not.
#[test]
fn with_a_full_file_strict_refuses_what_it_would_have_to_keep_until_a_history_is_removed() {
    let place = Place::new();
    let key = Key::for_all();
    write_config(&place.config, &[&key], CHANNELS);
    let settings = [
        ("RINGCAST_STORE_MODE", "strict"),
        ("RINGCAST_STORE_BYTES_MAX", "4200000"),
    ];
    let server = place.start(&settings);
    let mut client = server.client();
    let mut admin = server.admin();
    let will = |client: &mut Client, data: &str| client.call("$will", data);
    let some_will = r#"{"channel":"room.1","data":1}"#;
    assert!(is_acknowledgement(&will(&mut client, some_will)));
    let text = "x".repeat(2000);
    let large = format!(r#"{{"channel":"room.2","data":"{text}"}}"#);
    let mut stored = 0;
    let refusal = loop {
        let answer = client.call("#publish", &large);
        if !is_acknowledgement(&answer) {
            break answer;
        }
        stored += 1;
    };
    assert!(
        refusal.contains("StoreError") && refusal.contains("was not published"),
        "{refusal}"
    );
    server.logged("nearly full");
    let refused = |client: &mut Client| publish(client, "room.1", 0).contains("was not published");
    assert!(refused(&mut client) && will(&mut client, some_will).contains("StoreError"));
    for (name, value) in [
        ("ringcast_store_full", 1),
        ("ringcast_store_failing", 0),
        ("ringcast_store_failures_total", 0),
    ] {
        assert_eq!(admin.metric(name), value, "{name}");
    }
    assert_eq!(
        admin.metric("ringcast_limit_hits_total{limit=\"store_bytes\"}"),
        2
    );
    // Channels without a policy need no disk, and no room is needed to take a will back.
    assert!(is_acknowledgement(&publish(&mut client, "other", 0)));
    assert!(is_acknowledgement(&will(&mut client, "null")));
    let authorization = format!("Authorization: Bearer {}", key.key);
    let path = "/api/v1/history?channel=room.2";
    let answer = api::ask(server.admin, "DELETE", path, &[&authorization], "");
    assert_eq!((answer.status, &answer.json["removed"]), (200, &stored.into()));
    eventually("there is room", || {
        is_acknowledgement(&publish(&mut client, "room.1", 1))
    });
    server.logged("there is room again");
    assert_eq!(admin.metric("ringcast_store_full"), 0);
    server.signal(Signal::SIGKILL);
    drop(server);
    let on_disk = place.on_disk();
    assert_eq!(on_disk["room.1"], [1]);
    assert!(on_disk.get("room.2").is_none_or(Vec::is_empty));
    assert!(fs::metadata(place.file()).unwrap().len() <= 4_200_000);
}

/// The numbers on a channel in the copy of a file that may have been written to meanwhile.
fn numbers_in(file: &Path, channel: &str) -> Option<Vec<u64>> {
    let database = Database::open(file).ok()?;
    let read = database.begin_read().ok()?;
    let channels: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("channels");
    let publications: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("publications");
    let value = read.open_table(channels).ok()?.get(channel.as_bytes()).ok()??;
    let number = u64::from_le_bytes(value.value()[1..9].try_into().ok()?);
    let range = read
        .open_table(publications)
        .ok()?
        .range((number, 0)..=(number, u64::MAX))
        .ok()?;
    Some(range.map(|entry| number_in(entry.unwrap().1.value())).collect())
}

/// Subscribes with a request for a recovery; returns the answer.
fn subscribe(client: &mut Client, channel: &str, recover: &str) -> String {
    let data = format!(r#"{{"channel":"{channel}","data":{{"recover":{recover}}}}}"#);
    client.call("#subscribe", &data)
}

/// The position in an answer or a publication, as a client keeps it.
fn position_in(text: &str) -> String {
    let (_, rest) = text.split_once("\"position\":").unwrap();
    let (position, _) = rest.split_once('}').unwrap();
    format!("{}}}", position.trim_end())
}

/// How a process ends before a client recovers at the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    InOrder,
    Crash,
    TakeOver,
}

/// What a client that was subscribed before the process ended gets at the next one.
fn recovery_over(end: End, mode: &str) -> (String, Vec<u64>) {
    let place = Place::new();
    let settings = [
        ("RINGCAST_STORE_MODE", mode),
        ("RINGCAST_STORE_FLUSH_MS", "5"),
        ("RINGCAST_DRAIN_SECONDS", "0"),
        ("RINGCAST_CLOSE_TIMEOUT_MS", "200"),
    ];
    let mut old = place.start(&settings);
    let mut subscriber = old.client();
    let answer = subscribe(&mut subscriber, "room.1", "null");
    assert!(answer.contains(r#""recovered":true"#), "{answer}");
    let mut publisher = old.client();
    assert!(is_acknowledgement(&publish(&mut publisher, "room.1", 0)));
    let position = position_in(&subscriber.message());
    for number in 1..5 {
        assert!(is_acknowledgement(&publish(&mut publisher, "room.1", number)));
    }
    let mut admin = old.admin();
    eventually("all is committed", || {
        admin.metric("ringcast_store_records_total") >= 5
    });
    drop((subscriber, publisher, admin));
    let listen = old.address.to_string();
    let mut next = settings.to_vec();
    let new = match end {
        End::InOrder => {
            old.signal(Signal::SIGTERM);
            assert_eq!(old.exit_code(), Some(0));
            place.start(&next)
        }
        End::Crash => {
            old.signal(Signal::SIGKILL);
            assert_eq!(old.exit_code(), None);
            place.start(&next)
        }
        End::TakeOver => {
            next.extend([("RINGCAST_LISTEN", listen.as_str()), ("RINGCAST_TAKE_OVER", "on")]);
            let new = place.start(&next);
            old.signal(Signal::SIGTERM);
            assert_eq!(old.exit_code(), Some(0));
            new
        }
    };
    let mut publisher = new.client();
    for number in 5..8 {
        assert!(is_acknowledgement(&publish(&mut publisher, "room.1", number)));
    }
    let mut subscriber = new.client();
    let answer = subscribe(&mut subscriber, "room.1", &position);
    assert!(is_acknowledgement(&publish(&mut publisher, "room.1", 8)));
    let mut numbers = Vec::new();
    while numbers.last() != Some(&8) {
        let message = subscriber.message();
        let number = message.rsplit("\"data\":").next().unwrap();
        let number: u64 = number.trim_end_matches('}').parse().unwrap();
        assert_eq!(message.contains(r#""replayed":true"#), number < 8, "{message}");
        numbers.push(number);
    }
    (answer, numbers)
}

#[test]
fn a_client_recovers_over_an_orderly_end_a_take_over_and_a_crash_of_a_strict_server() {
    for (end, mode) in [
        (End::InOrder, "relaxed"),
        (End::InOrder, "strict"),
        (End::TakeOver, "relaxed"),
        (End::TakeOver, "strict"),
        (End::Crash, "strict"),
    ] {
        let (answer, numbers) = recovery_over(end, mode);
        assert!(answer.contains(r#""recovered":true"#), "{end:?} {mode}: {answer}");
        assert_eq!(numbers, (1..9).collect::<Vec<_>>(), "{end:?} {mode}");
    }
}

#[test]
fn a_channel_that_was_not_remembered_for_a_while_is_not_recovered_at_the_next_start() {
    let place = Place::new();
    let settings = [
        ("RINGCAST_DRAIN_SECONDS", "0"),
        ("RINGCAST_CLOSE_TIMEOUT_MS", "200"),
    ];
    let mut server = place.start(&settings);
    let mut client = server.client();
    let answer = subscribe(&mut client, "room.1", "null");
    let position = position_in(&answer);
    for (policies, number) in [(String::new(), 1), (CHANNELS.to_owned(), 2)] {
        server.reload(&place.config, &policies);
        assert!(is_acknowledgement(&publish(
            &mut server.client(),
            "room.1",
            number
        )));
    }
    let after = subscribe(&mut server.client(), "room.1", "null");
    let after = position_in(&after);
    drop(client);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
    let server = place.start(&settings);
    let answer = subscribe(&mut server.client(), "room.1", &position);
    assert!(answer.contains(r#""recovered":false"#), "{answer}");
    let answer = subscribe(&mut server.client(), "room.1", &after);
    assert!(answer.contains(r#""recovered":true"#), "{answer}");
}

#[test]
fn after_a_crash_of_a_relaxed_server_a_recovery_says_that_the_epoch_is_another() {
    let (answer, numbers) = recovery_over(End::Crash, "relaxed");
    assert!(
        answer.contains(r#""recovered":false"#) && answer.contains(r#""reason":"other epoch""#),
        "{answer}"
    );
    assert_eq!(numbers, [8]);
}

/// Sets wills, and takes some of them back, until the server is gone. Returns how many of the calls were answered;
/// `answered` says so meanwhile. Call `n` sets the will `n`, unless `n` leaves 2 when divided by 3.
fn set_wills_until_the_end(mut client: Client, session: &str, first: u64, answered: &AtomicU64) -> u64 {
    for done in 0.. {
        answered.store(done, Ordering::Relaxed);
        let number = first + done;
        let data = match number % 3 {
            2 => "null".to_owned(),
            _ => format!(r#"{{"channel":"room.1","data":{number},"delay_ms":60000,"session":"{session}"}}"#),
        };
        let text = format!(r#"{{"event":"$will","data":{data},"cid":{}}}"#, done + 10);
        if client
            .try_send_bytes(&support::frame(support::TEXT, text.as_bytes()))
            .is_err()
        {
            return done;
        }
        loop {
            match client.next() {
                Received::Text(text) if text.starts_with(r#"{"rid":"#) => {
                    assert!(is_acknowledgement(&text), "{text}");
                    break;
                }
                Received::End => return done,
                _ => {}
            }
        }
    }
    unreachable!("the server is killed")
}

/// Kills strict servers again and again. The will of each client is the last that was acknowledged, or the one of the
/// call that was under way.
#[test]
fn a_killed_strict_server_has_the_last_will_that_it_acknowledged_of_each_session() {
    let mut random = Random(support::seed());
    let place = Place::new();
    let mut total = 0;
    for round in 1..=from_environment("STORE_KILLS", 50) / 5 {
        let server = place.start(&[("RINGCAST_STORE_MODE", "strict"), ("RINGCAST_CORES", "2")]);
        let wait = Duration::from_micros(random.below(60_000));
        let clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
        let first = round * 3_000_000;
        let done: Vec<(String, u64)> = thread::scope(|scope| {
            let threads: Vec<_> = clients
                .into_iter()
                .enumerate()
                .map(|(index, client)| {
                    let session = format!("session {index}");
                    scope.spawn(move || {
                        let done = set_wills_until_the_end(client, &session, first, &AtomicU64::new(0));
                        (session, done)
                    })
                })
                .collect();
            thread::sleep(wait);
            server.signal(Signal::SIGKILL);
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        drop(server);
        let wills = place.wills();
        for (session, done) in done {
            total += done;
            let of_session = wills.iter().filter(|will| will.session == session);
            let newest = of_session.max_by_key(|will| (will.set, will.data.parse::<u64>().unwrap()));
            // The wills of earlier rounds have lower numbers.
            let found = newest
                .map(|will| will.data.parse::<u64>().unwrap())
                .filter(|number| *number >= first);
            let after = |calls: u64| {
                let last = first + calls.checked_sub(1)?;
                (last % 3 != 2).then_some(last)
            };
            assert!(
                found == after(done) || found == after(done + 1),
                "round {round}: {session} has {found:?} after {done} calls: {wills:?}"
            );
        }
    }
    println!("{total} acknowledged calls");
    assert!(total > 0);
}

/// Kills relaxed servers again and again, while a client changes its will. The will on disk is the one that the client
/// had set at some moment, and no change is missing that was acknowledged before the beginning of a commit that has
/// ended.
#[test]
fn a_killed_relaxed_server_has_lost_no_change_of_a_will_from_before_its_last_commit() {
    let mut random = Random(support::seed());
    let place = Place::new();
    let settings = [
        ("RINGCAST_STORE_MODE", "relaxed"),
        ("RINGCAST_STORE_FLUSH_MS", "5"),
        ("RINGCAST_CORES", "1"),
    ];
    let (mut kept, mut total) = (0, 0);
    for round in 1..=from_environment("STORE_KILLS", 50) / 5 {
        let server = place.start(&settings);
        let mut admin = server.admin();
        let (client, first, done) = (server.client(), round * 3_000_000, AtomicU64::new(0));
        let (certain, acknowledged) = thread::scope(|scope| {
            let setter = scope.spawn(|| set_wills_until_the_end(client, "phone", first, &done));
            thread::sleep(Duration::from_micros(random.below(30_000)));
            let certain = done.load(Ordering::Relaxed);
            // The first of them may have begun before.
            let before = admin.metric("ringcast_store_commit_seconds_count");
            eventually("two commits have ended", || {
                admin.metric("ringcast_store_commit_seconds_count") >= before + 2
            });
            server.signal(Signal::SIGKILL);
            (certain, setter.join().unwrap())
        });
        drop(server);
        let wills = place.wills();
        let of_round = |will: &&StoredWill| will.data.parse::<u64>().unwrap() >= first;
        let found: Vec<u64> = wills
            .iter()
            .filter(of_round)
            .map(|will| will.data.parse().unwrap())
            .collect();
        // The will after so many calls.
        let after = |calls: u64| {
            let last = first + calls.checked_sub(1)?;
            (last % 3 != 2).then_some(last)
        };
        let found = match found[..] {
            [] => None,
            [one] => Some(one),
            _ => panic!("round {round}: one client has several wills: {wills:?}"),
        };
        assert!(
            (certain..=acknowledged + 1).any(|calls| after(calls) == found),
            "round {round}: {found:?} after {certain} to {acknowledged} calls"
        );
        kept += certain;
        total += acknowledged;
    }
    println!("{total} acknowledged calls, {kept} before the last commit");
    assert!(kept > 0);
}

/// What the next server has published on `room.1`.
fn published_wills(server: &Process) -> Vec<u64> {
    let mut client = server.client();
    let history = r#"{"channel":"room.1","last":100}"#;
    let answer = client.call("$history", history);
    let parts = answer.split(r#""data":"#).skip(2);
    parts
        .map(|part| part.split('}').next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn wills_outlive_a_crash_and_a_stop_and_a_session_that_comes_back_has_none() {
    for (mode, signal) in [
        ("strict", Signal::SIGKILL),
        ("relaxed", Signal::SIGKILL),
        ("strict", Signal::SIGTERM),
    ] {
        let settings = [
            ("RINGCAST_STORE_MODE", mode),
            ("RINGCAST_STORE_FLUSH_MS", "5"),
            ("RINGCAST_DRAIN_SECONDS", "0"),
            ("RINGCAST_CLOSE_TIMEOUT_MS", "200"),
        ];
        let place = Place::new();
        let mut server = place.start(&settings);
        let wills = [
            r#"{"channel":"room.1","data":1,"session":"one"}"#,
            r#"{"channel":"room.1","data":2,"delay_ms":600000,"session":"two"}"#,
            r#"{"channel":"room.1","data":3}"#,
        ];
        let clients = wills.map(|will| {
            let mut client = server.client();
            let answer = client.call("$will", will);
            assert!(is_acknowledgement(&answer), "{answer}");
            client
        });
        let mut admin = server.admin();
        eventually("they are committed", || {
            admin.metric("ringcast_store_records_total") >= 3
        });
        server.signal(signal);
        if signal == Signal::SIGTERM {
            assert_eq!(server.exit_code(), Some(0));
        }
        drop((server, clients));

        let mut next = place.start(&settings);
        let mut admin = next.admin();
        // A stop drops the will of a client that has named no session: it cannot come back as the same.
        let expected: &[u64] = if signal == Signal::SIGKILL { &[1, 3] } else { &[1] };
        eventually("the wills without a delay are published", || {
            admin.metric("ringcast_wills_published_total") == expected.len() as u64
        });
        let mut published = published_wills(&next);
        published.sort_unstable();
        assert_eq!(published, expected, "{mode} {signal}");
        assert_eq!(admin.metric("ringcast_wills_waiting"), 1);
        let mut back = next.client();
        let answer = back.call("$will", wills[1]);
        assert!(is_acknowledgement(&answer), "{answer}");
        eventually("the will of the session that is back is dropped", || {
            admin.metric("ringcast_wills_waiting") == 0
        });
        next.signal(Signal::SIGTERM);
        assert_eq!(next.exit_code(), Some(0));
        // Nothing but the new will is left.
        let left = place.wills();
        let [will] = &left[..] else {
            panic!("{mode} {signal}: {left:?}");
        };
        assert!(will.session == "two" && will.due.is_some(), "{will:?}");
    }
}

/// A will whose connection has ended goes over with the store, with the time that is left. A will of a connection that
/// is open stays with the old process, and ends with it.
#[test]
fn wills_that_wait_go_over_to_the_process_that_takes_over_and_are_published_once() {
    for mode in ["relaxed", "strict"] {
        let place = Place::new();
        let settings = [
            ("RINGCAST_STORE_MODE", mode),
            ("RINGCAST_CORES", "2"),
            ("RINGCAST_DRAIN_SECONDS", "0"),
            ("RINGCAST_CLOSE_TIMEOUT_MS", "200"),
        ];
        let mut old = place.start(&settings);
        let with_will = |will: &str| {
            let mut client = old.client();
            let answer = client.call("$will", will);
            assert!(is_acknowledgement(&answer), "{answer}");
            client
        };
        let returns = r#"{"channel":"room.1","data":2,"delay_ms":600000,"session":"returns"}"#;
        let gone = [
            r#"{"channel":"room.1","data":1,"delay_ms":600000,"session":"stays away"}"#,
            returns,
            r#"{"channel":"room.1","data":3,"delay_ms":2000,"session":"is due"}"#,
        ];
        for will in gone {
            with_will(will).reset();
        }
        let open = [
            r#"{"channel":"room.1","data":4,"delay_ms":600000,"session":"open"}"#,
            r#"{"channel":"room.1","data":5}"#,
        ];
        let open = open.map(with_will);
        let mut admin = old.admin();
        eventually("the wills of the clients that have gone wait", || {
            // On a busy machine, one is due by now.
            let waiting = admin.metric("ringcast_wills_waiting");
            waiting + admin.metric("ringcast_wills_published_total") == 3
        });
        let listen = old.address.to_string();
        let mut settings = settings.to_vec();
        settings.extend([("RINGCAST_LISTEN", listen.as_str()), ("RINGCAST_TAKE_OVER", "on")]);
        let mut new = place.start(&settings);
        old.logged("released for the other process");
        let mut admin = new.admin();
        eventually("one will is published, and two wait", || {
            admin.metric("ringcast_wills_waiting") == 2 && published_wills(&new) == [3]
        });
        old.signal(Signal::SIGTERM);
        assert_eq!(old.exit_code(), Some(0), "{mode}");
        drop(open);
        // The session has come back: the will of its new connection replaces the will that waited.
        let mut back = new.client();
        assert!(is_acknowledgement(&back.call("$will", returns)));
        eventually("one will waits", || admin.metric("ringcast_wills_waiting") == 1);
        assert_eq!(published_wills(&new), [3], "{mode}");
        new.signal(Signal::SIGTERM);
        assert_eq!(new.exit_code(), Some(0), "{mode}");
        let mut left: Vec<String> = place.wills().into_iter().map(|will| will.session).collect();
        left.sort_unstable();
        assert_eq!(left, ["returns", "stays away"], "{mode}");
    }
}

#[test]
fn a_will_that_waits_is_published_at_its_time_by_the_next_server() {
    let place = Place::new();
    let server = place.start(&[("RINGCAST_STORE_MODE", "strict")]);
    let mut client = server.client();
    let will = r#"{"channel":"room.1","data":5,"delay_ms":600000,"session":"one"}"#;
    assert!(is_acknowledgement(&client.call("$will", will)));
    let mut admin = server.admin();
    client.reset();
    eventually("it waits", || admin.metric("ringcast_wills_waiting") == 1);
    let records = admin.metric("ringcast_store_records_total");
    eventually("that is committed", || {
        admin.metric("ringcast_store_records_total") >= records.max(2)
    });
    server.signal(Signal::SIGKILL);
    drop(server);
    let due = place.wills()[0].due.expect("it waits on disk");
    // The next server waits until the same time, and not for the whole delay anew.
    let next = place.start(&[("RINGCAST_STORE_MODE", "strict")]);
    drop(next);
    assert_eq!(place.wills()[0].due, Some(due));
}
