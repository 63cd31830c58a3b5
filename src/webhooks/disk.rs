//! The events of webhooks on disk (`data_dir`), so that waiting events survive a restart or a crash.
//!
//! One redb file, `webhooks.redb`, of which the thread of the webhooks is the only user. redb locks it: a next process
//! that takes over finds it locked until this one has ended, and tries again.
//!
//! | table | key | value |
//! |---|---|---|
//! | `webhooks` | name of a webhook | its number |
//! | `events` | number of the webhook, number of the event | when it has happened (8 bytes, little-endian), and its JSON |
//!
//! Events are committed every [`COMMIT_EVERY`], unless they have been delivered by then. So a crash loses at most the
//! events of that time. An event whose delivery was not committed is delivered again.
//!
//! Limits: [`UNSAVED_BYTES_MAX`].

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use tracing::error;

const WEBHOOKS: TableDefinition<'_, &str, u32> = TableDefinition::new("webhooks");
const EVENTS: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("events");

/// The name of the file in `data_dir`.
pub(crate) const FILE_NAME: &str = "webhooks.redb";

/// An event that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Its number among the events of its webhook.
    pub(super) number: u64,
    /// When it has happened, in milliseconds since 1970.
    pub(super) unix_ms: u64,
    /// The event as it is sent.
    pub(super) json: Arc<[u8]>,
}

impl Waiting {
    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.json.len() + WAITING_BYTES
    }
}

/// The events that a file has of one webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The number of the first.
    pub(super) first: u64,
    /// One more than the number of the last.
    pub(super) next: u64,
    pub(super) count: u64,
    /// As [`Waiting::bytes`].
    pub(super) bytes: u64,
}

/// Why the file cannot be opened.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// Another process has it.
    Held,
    /// The system refuses.
    System(String),
}

/// An open file.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// `None` after a fault: redb then wants the file opened again.
    database: Option<Database>,
    numbers: HashMap<String, u32>,
    /// Names that are not in the file yet.
    unsaved_names: Vec<String>,
    /// Webhooks whose events are to be removed.
    forgotten: Vec<(String, u32)>,
    /// Events that are not in the file yet, in the order of their webhook and number.
    unsaved: BTreeMap<(u32, u64), Waiting>,
    unsaved_bytes: usize,
    /// By webhook: all events up to this number are done.
    done: BTreeMap<u32, u64>,
}

impl Disk {
    /// Opens the file of a directory, or makes it; returns the ranges of stored events, by the names of webhooks. A
    /// damaged file is set aside.
    ///
    /// # Errors
    /// See [`NotOpened`].
    pub(super) fn open(directory: &Path) -> Result<(Disk, Vec<(String, Found)>), NotOpened> {
        let path = directory.join(FILE_NAME);
        match Disk::try_open(&path) {
            Err(Fault::Damaged(what)) => {
                let mut aside = path.clone().into_os_string();
                aside.push(".damaged");
                let mut count = 1;
                while Path::new(&aside).exists() {
                    aside = path.clone().into_os_string();
                    aside.push(format!(".damaged-{count}"));
                    count += 1;
                }
                std::fs::rename(&path, &aside).map_err(|error| NotOpened::System(error.to_string()))?;
                error!(
                    "webhooks: {} is damaged: {what}. It is set aside as {}; events that waited in it are not sent",
                    path.display(),
                    Path::new(&aside).display()
                );
                Disk::try_open(&path)
            }
            other => other,
        }
        .map_err(|fault| match fault {
            Fault::Held => NotOpened::Held,
            Fault::Damaged(what) | Fault::System(what) => {
                NotOpened::System(format!("{}: {what}", path.display()))
            }
        })
    }

    fn try_open(path: &Path) -> Result<(Disk, Vec<(String, Found)>), Fault> {
        // A debug assertion of redb, or a bug in its reading of a damaged file, must not end the process.
        let opened = catch_unwind(AssertUnwindSafe(|| open_and_read(path)));
        let (database, found) =
            opened.unwrap_or_else(|_| Err(Fault::Damaged("it cannot be read".to_owned())))?;
        let numbers = found.iter().map(|(name, number, _)| (name.clone(), *number));
        let disk = Disk {
            path: path.to_owned(),
            database: Some(database),
            numbers: numbers.collect(),
            unsaved_names: Vec::new(),
            forgotten: Vec::new(),
            unsaved: BTreeMap::new(),
            unsaved_bytes: 0,
            done: BTreeMap::new(),
        };
        Ok((
            disk,
            found.into_iter().map(|(name, _, found)| (name, found)).collect(),
        ))
    }

    /// The number of a webhook in the file.
    pub(super) fn number_of(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let used = self
            .numbers
            .values()
            .chain(self.forgotten.iter().map(|(_, number)| number));
        let number = used.max().map_or(1, |last| last + 1);
        self.numbers.insert(name.to_owned(), number);
        self.unsaved_names.push(name.to_owned());
        number
    }

    /// Whether another event may wait for a commit.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.unsaved_bytes + bytes <= UNSAVED_BYTES_MAX
    }

    /// Adds an event to the next commit.
    pub(super) fn add(&mut self, webhook: u32, event: Waiting) {
        self.unsaved_bytes += event.bytes();
        self.unsaved.insert((webhook, event.number), event);
    }

    /// All events of a webhook up to this number are done.
    pub(super) fn done(&mut self, webhook: u32, through: u64) {
        while let Some((&key, _)) = self.unsaved.range((webhook, 0)..=(webhook, through)).next() {
            if let Some(event) = self.unsaved.remove(&key) {
                self.unsaved_bytes -= event.bytes();
            }
        }
        self.done.insert(webhook, through);
    }

    /// Removes all events of a webhook.
    pub(super) fn forget(&mut self, name: &str) {
        if let Some(number) = self.numbers.remove(name) {
            self.done(number, u64::MAX);
            self.unsaved_names.retain(|unsaved| unsaved != name);
            self.forgotten.push((name.to_owned(), number));
        }
    }

    /// Whether there is something to commit.
    pub(super) fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty() || !self.done.is_empty() || !self.forgotten.is_empty()
    }

    /// Commits the changes.
    ///
    /// # Errors
    /// The error of the system. The changes are kept for another try.
    pub(super) fn commit(&mut self) -> Result<(), String> {
        if !self.has_unsaved() {
            return Ok(());
        }
        if self.database.is_none() {
            self.database = Some(Database::create(&self.path).map_err(|error| error.to_string())?);
        }
        let Some(database) = &self.database else {
            return Ok(());
        };
        let committed = catch_unwind(AssertUnwindSafe(|| self.write(database)));
        let committed =
            committed.unwrap_or_else(|_| Err(io::Error::other("redb has panicked, see above").into()));
        if let Err(error) = committed {
            // Opened again by the next commit.
            self.database = None;
            return Err(format!("{}: {error}", self.path.display()));
        }
        self.unsaved.clear();
        self.unsaved_bytes = 0;
        self.done.clear();
        self.forgotten.clear();
        self.unsaved_names.clear();
        Ok(())
    }

    fn write(&self, database: &Database) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut webhooks = transaction.open_table(WEBHOOKS)?;
            for (name, _) in &self.forgotten {
                webhooks.remove(&**name)?;
            }
            for name in &self.unsaved_names {
                if let Some(number) = self.numbers.get(name) {
                    webhooks.insert(&**name, number)?;
                }
            }
            let mut events = transaction.open_table(EVENTS)?;
            for (&webhook, &through) in &self.done {
                events.retain_in((webhook, 0)..=(webhook, through), |_, _| false)?;
            }
            let mut value = Vec::new();
            for (key, event) in &self.unsaved {
                value.clear();
                value.extend_from_slice(&event.unix_ms.to_le_bytes());
                value.extend_from_slice(&event.json);
                events.insert(key, &value[..])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Reads the events of a webhook from a number on: at least one, if there is one, and as many as have `bytes_max`
    /// together. They must have been committed.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn read(&self, webhook: u32, from: u64, bytes_max: usize) -> Result<Vec<Waiting>, String> {
        let Some(database) = &self.database else {
            return Err(format!("{}: a commit has failed", self.path.display()));
        };
        let read = catch_unwind(AssertUnwindSafe(|| read_some(database, webhook, from, bytes_max)));
        read.unwrap_or_else(|_| Err(io::Error::other("redb has panicked, see above").into()))
            .map_err(|error: redb::Error| format!("{}: {error}", self.path.display()))
    }
}

fn read_some(
    database: &Database,
    webhook: u32,
    from: u64,
    bytes_max: usize,
) -> Result<Vec<Waiting>, redb::Error> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let transaction = database.begin_read()?;
    let events = match transaction.open_table(EVENTS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(found),
        other => other?,
    };
    for entry in events.range((webhook, from)..=(webhook, u64::MAX))? {
        let (key, value) = entry?;
        let Some((time, json)) = value.value().split_first_chunk() else {
            continue;
        };
        let waiting = Waiting {
            number: key.value().1,
            unix_ms: u64::from_le_bytes(*time),
            json: json.into(),
        };
        bytes += waiting.bytes();
        if bytes > bytes_max && !found.is_empty() {
            break;
        }
        found.push(waiting);
    }
    Ok(found)
}

fn open_and_read(path: &Path) -> Result<(Database, Vec<FoundWebhook>), Fault> {
    let database = Database::create(path).map_err(|error| Fault::from(redb::Error::from(error)))?;
    let found = read_all(&database)?;
    Ok((database, found))
}

/// The webhooks of a file, each with its number and the range of its events.
fn read_all(database: &Database) -> Result<Vec<FoundWebhook>, redb::Error> {
    let transaction = database.begin_read()?;
    let webhooks = match transaction.open_table(WEBHOOKS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        other => other?,
    };
    let events = transaction.open_table(EVENTS)?;
    let mut all = Vec::new();
    for entry in webhooks.iter()? {
        let (name, number) = entry?;
        let (name, number) = (name.value().to_owned(), number.value());
        let mut found = Found::default();
        for entry in events.range((number, 0)..=(number, u64::MAX))? {
            let (key, value) = entry?;
            let event = key.value().1;
            if found.count == 0 {
                found.first = event;
            }
            found.next = event + 1;
            found.count += 1;
            found.bytes += (value.value().len().saturating_sub(8) + WAITING_BYTES) as u64;
        }
        all.push((name, number, found));
    }
    Ok(all)
}

/// The name of a webhook, its number, and the range of its events.
type FoundWebhook = (String, u32, Found);

enum Fault {
    Held,
    Damaged(String),
    System(String),
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Fault {
        match error {
            redb::Error::DatabaseAlreadyOpen => Fault::Held,
            redb::Error::Io(error) => match error.kind() {
                // A file that is no database, or that has been cut.
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
                    Fault::Damaged(error.to_string())
                }
                _ => Fault::System(error.to_string()),
            },
            redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::UpgradeRequired(_) => {
                Fault::System(error.to_string())
            }
            other => Fault::Damaged(other.to_string()),
        }
    }
}

/// How often events are committed.
pub(super) const COMMIT_EVERY: Duration = Duration::from_millis(100);
/// Most bytes of events that wait for a commit; further events are refused.
const UNSAVED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The bytes of an event beside its JSON.
const WAITING_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(number: u64) -> Waiting {
        Waiting {
            number,
            unix_ms: 1000 + number,
            json: format!("{{\"n\":{number}}}").into_bytes().into(),
        }
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ringcast-webhooks-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn numbers(disk: &Disk, webhook: u32, from: u64, bytes_max: usize) -> Vec<u64> {
        let read = disk.read(webhook, from, bytes_max).unwrap();
        read.iter().map(|event| event.number).collect()
    }

    #[test]
    fn what_was_committed_and_is_not_done_is_found_again() {
        let folder = folder("found");
        let (mut disk, found) = Disk::open(&folder).unwrap();
        assert!(found.is_empty());
        let (a, b) = (disk.number_of("a"), disk.number_of("b"));
        for number in 1..=5 {
            disk.add(a, waiting(number));
            disk.add(b, waiting(number));
        }
        disk.done(a, 2);
        disk.commit().unwrap();
        disk.done(b, 3);
        disk.commit().unwrap();
        disk.add(b, waiting(6));
        drop(disk);
        let (mut disk, found) = Disk::open(&folder).unwrap();
        let counts: Vec<_> = found
            .iter()
            .map(|(name, found)| (&**name, found.first, found.next, found.count))
            .collect();
        assert_eq!(counts, [("a", 3, 6, 3), ("b", 4, 6, 2)], "6 was not committed");
        assert_eq!((disk.number_of("a"), disk.number_of("b")), (a, b));
        assert_eq!(
            disk.read(a, 0, usize::MAX).unwrap(),
            [waiting(3), waiting(4), waiting(5)]
        );
        assert_eq!(
            found[0].1.bytes,
            disk.read(a, 0, usize::MAX)
                .unwrap()
                .iter()
                .map(|event| event.bytes() as u64)
                .sum::<u64>()
        );
        assert_eq!(numbers(&disk, a, 4, 1), [4], "at least one");
        disk.forget("a");
        let c = disk.number_of("c");
        assert_ne!(c, a);
        disk.add(c, waiting(1));
        disk.commit().unwrap();
        drop(disk);
        let (disk, found) = Disk::open(&folder).unwrap();
        let names: Vec<_> = found.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["b", "c"]);
        assert!(numbers(&disk, a, 0, usize::MAX).is_empty());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn events_that_are_delivered_before_their_commit_are_never_written() {
        let folder = folder("quick");
        let (mut disk, _) = Disk::open(&folder).unwrap();
        let a = disk.number_of("a");
        disk.add(a, waiting(1));
        disk.add(a, waiting(2));
        disk.done(a, 1);
        assert_eq!(disk.unsaved.len(), 1);
        assert_eq!(disk.unsaved_bytes, waiting(2).bytes());
        disk.commit().unwrap();
        assert!(!disk.has_unsaved());
        assert_eq!(numbers(&disk, a, 0, usize::MAX), [2]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn two_writers_are_impossible() {
        let folder = folder("lock");
        let (disk, _) = Disk::open(&folder).unwrap();
        assert!(matches!(Disk::open(&folder), Err(NotOpened::Held)));
        drop(disk);
        assert!(Disk::open(&folder).is_ok());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let folder = folder("damaged");
        std::fs::write(folder.join(FILE_NAME), vec![7; 8192]).unwrap();
        let (_, found) = Disk::open(&folder).unwrap();
        assert!(found.is_empty());
        assert!(folder.join("webhooks.redb.damaged").exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
