//! The database of a store: one redb file.
//!
//! | table | key | value |
//! |---|---|---|
//! | `head` | none | the numbering and the state of the store |
//! | `channels` | name | the channel's number, and the offset from which on its history is complete |
//! | `publications` | number of the channel, offset | the publication |
//! | `wills` | number of a connection | its will |
//! | `retained` | topic | its retained publication |
//! | `mqtt_sessions` | length of the client id 2 (big-endian), client id, name of an item | the item |
//! | `mqtt_publications` | number | a publication to which items of sessions refer |
//!
//! A commit is made in two phases: the second sync makes it valid, and a file whose last commit does not verify is
//! damaged rather than older. (With one phase redb would go back to the commit before, which in strict mode would lose
//! what was acknowledged.) At a start the checksums of all pages are verified, and the form of all values.
//!
//! **A file that may not grow.** Removing an entry takes free pages, too: redb writes changed pages anew, and frees the
//! former ones only with the next commit. So the content of a file with a bound (`store_bytes_max`) may take two fifths
//! of it ([`Content`]). A commit that would exceed this fails as on a full disk, unless it removes at least as much as
//! it adds. When enough was removed, a full store accepts publications again, without a restart.
//!
//! After an error of the disk redb refuses everything until the file is opened again: so does [`Database::apply`],
//! which consumes the database then.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    BackendError, Builder, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, Table,
    TableDefinition, TableError,
};

use super::changes::{Changes, ChannelChanges, PublicationChanges, SessionChanges};
use super::format::{Generation, StoredChannel, StoredHead, StoredPublication, StoredWill};

/// The name of the file in the directory.
pub(super) const FILE_NAME: &str = "store.redb";

const HEAD: TableDefinition<'_, (), &[u8]> = TableDefinition::new("head");
const CHANNELS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("channels");
const PUBLICATIONS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("publications");
const WILLS: TableDefinition<'_, &Generation, &[u8]> = TableDefinition::new("wills");
const RETAINED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("retained");
const MQTT_SESSIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("mqtt_sessions");
const MQTT_PUBLICATIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("mqtt_publications");

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    redb: redb::Database,
    path: PathBuf,
    bytes_max: u64,
}

/// The bytes that all keys and values take, in a file with a bound. Without a bound they are not counted at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Content(u64);

/// Why an operation on the database failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The content of the file is not as the store has written it.
    Damaged(String),
    /// The file is in a form of another version of Ringcast or of redb.
    OtherVersion(String),
    /// The system refuses: no space, no permission, a broken disk.
    System(io::Error),
}

/// How thoroughly a file is looked at when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// All checksums are verified.
    Everything,
    /// The file was open a moment ago; only an unfinished commit is undone.
    LastCommit,
}

impl Content {
    /// As a number, for the metrics.
    pub(super) const fn bytes(self) -> u64 {
        self.0
    }

    /// Whether so little is left of `max` that only changes that make room are accepted. This ends when an eighth is
    /// free.
    pub(super) const fn is_nearly(self, max: Content, has_neared: bool) -> bool {
        let sixteenths = if has_neared { 14 } else { 15 };
        self.0 / sixteenths >= max.0 / 16
    }
}

impl Database {
    /// Opens the database of a directory, or makes it. The file may grow to `bytes_max`.
    ///
    /// # Errors
    /// See [`Fault`]. The file is as it was, or its unfinished commit is undone.
    pub(super) fn open(directory: &Path, bytes_max: u64, check: Check) -> Result<Database, Fault> {
        let path = directory.join(FILE_NAME);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(Fault::System)?;
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(Fault::System)?;
        let backend = BoundedFile {
            file: FileBackend::new(file).map_err(Fault::from)?,
            bytes_max,
        };
        // A debug assertion of redb, or a bug in its reading of a damaged file, must not end the process.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            Builder::new()
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open(check == Check::Everything)
                .create_with_backend(backend)
        }));
        match opened {
            Ok(redb) => Ok(Database {
                redb: redb.map_err(Fault::from)?,
                path,
                bytes_max,
            }),
            Err(_) => Err(Fault::Damaged("it cannot be read".to_owned())),
        }
    }

    /// The numbering and the state; `None` in a new database.
    ///
    /// # Errors
    /// See [`Fault`].
    pub(super) fn head(&self) -> Result<Option<StoredHead>, Fault> {
        let transaction = self.redb.begin_read().map_err(redb::Error::from)?;
        let table = match transaction.open_table(HEAD) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other.map_err(redb::Error::from)?,
        };
        let Some(value) = table.get(()).map_err(redb::Error::from)? else {
            return Ok(None);
        };
        match StoredHead::read(value.value()) {
            Some(head) => Ok(Some(head)),
            None => Err(Fault::OtherVersion(
                "its head is in a form that is not known".to_owned(),
            )),
        }
    }

    /// Calls `each` for every publication, channel by channel in the order of offsets, and once without a publication
    /// before those of a channel. In a new database there are none.
    ///
    /// # Errors
    /// See [`Fault`]. Then not all of them were given.
    pub(super) fn read(
        &self,
        mut each: impl FnMut(&[u8], StoredChannel, Option<(u64, StoredPublication<'_>)>),
    ) -> Result<(), Fault> {
        let read = AssertUnwindSafe(|| self.read_unguarded(&mut each));
        catch_unwind(read).unwrap_or_else(|_| Err(Fault::Damaged("it cannot be read".to_owned())))
    }

    fn read_unguarded(
        &self,
        each: &mut impl FnMut(&[u8], StoredChannel, Option<(u64, StoredPublication<'_>)>),
    ) -> Result<(), Fault> {
        let transaction = self.redb.begin_read().map_err(redb::Error::from)?;
        let channels = match transaction.open_table(CHANNELS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            other => other.map_err(redb::Error::from)?,
        };
        let publications = transaction.open_table(PUBLICATIONS).map_err(redb::Error::from)?;
        for entry in channels.iter().map_err(redb::Error::from)? {
            let (name, value) = entry.map_err(redb::Error::from)?;
            let channel = StoredChannel::read(value.value()).ok_or_else(|| unknown_value("a channel"))?;
            each(name.value(), channel, None);
            let range = publications
                .range(all_of(channel.number))
                .map_err(redb::Error::from)?;
            for entry in range {
                let (key, value) = entry.map_err(redb::Error::from)?;
                let publication =
                    StoredPublication::read(value.value()).ok_or_else(|| unknown_value("a publication"))?;
                each(name.value(), channel, Some((key.value().1, publication)));
            }
        }
        Ok(())
    }

    /// Calls `each` for every will.
    ///
    /// # Errors
    /// See [`Fault`]. Then not all of them were given.
    pub(super) fn read_wills(&self, mut each: impl FnMut(&Generation, StoredWill<'_>)) -> Result<(), Fault> {
        let read = AssertUnwindSafe(|| self.read_wills_unguarded(&mut each));
        catch_unwind(read).unwrap_or_else(|_| Err(Fault::Damaged("it cannot be read".to_owned())))
    }

    fn read_wills_unguarded(&self, each: &mut impl FnMut(&Generation, StoredWill<'_>)) -> Result<(), Fault> {
        let transaction = self.redb.begin_read().map_err(redb::Error::from)?;
        let wills = match transaction.open_table(WILLS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            other => other.map_err(redb::Error::from)?,
        };
        for entry in wills.iter().map_err(redb::Error::from)? {
            let (generation, value) = entry.map_err(redb::Error::from)?;
            let will = StoredWill::read(value.value()).ok_or_else(|| unknown_value("a will"))?;
            each(generation.value(), will);
        }
        Ok(())
    }

    /// Calls `each` for the retained publication of every topic.
    ///
    /// # Errors
    /// See [`Fault`]. Then not all of them were given.
    pub(super) fn read_retained(&self, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), Fault> {
        self.read_table(RETAINED, |topic, value| {
            each(topic, value);
            Ok(())
        })
    }

    /// Calls `each` for every item of every MQTT session, session by session, with the client id, the name and the
    /// value.
    ///
    /// # Errors
    /// See [`Fault`]. Then not all of them were given.
    pub(super) fn read_sessions(&self, mut each: impl FnMut(&[u8], &[u8], &[u8])) -> Result<(), Fault> {
        self.read_table(MQTT_SESSIONS, |key, value| {
            let (client_id, item) = read_session_key(key).ok_or_else(|| unknown_value("an MQTT session"))?;
            each(client_id, item, value);
            Ok(())
        })
    }

    /// Calls `each` for every publication to which items of sessions refer.
    ///
    /// # Errors
    /// See [`Fault`]. Then not all of them were given.
    pub(super) fn read_publications(&self, mut each: impl FnMut(u64, &[u8])) -> Result<(), Fault> {
        self.read_table(MQTT_PUBLICATIONS, |number, value| {
            each(number, value);
            Ok(())
        })
    }

    fn read_table<K: redb::Key + 'static>(
        &self,
        definition: TableDefinition<'_, K, &[u8]>,
        mut each: impl FnMut(K::SelfType<'_>, &[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let read = AssertUnwindSafe(|| {
            let transaction = self.redb.begin_read().map_err(redb::Error::from)?;
            let table = match transaction.open_table(definition) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(()),
                other => other.map_err(redb::Error::from)?,
            };
            for entry in table.iter().map_err(redb::Error::from)? {
                let (key, value) = entry.map_err(redb::Error::from)?;
                each(key.value(), value.value())?;
            }
            Ok(())
        });
        catch_unwind(read).unwrap_or_else(|_| Err(Fault::Damaged("it cannot be read".to_owned())))
    }

    /// How much content there is, if the file is bounded. Reads all of it.
    ///
    /// # Errors
    /// See [`Fault`].
    pub(super) fn content(&self) -> Result<Content, Fault> {
        if self.content_max().is_none() {
            return Ok(Content::default());
        }
        let bytes = self.bytes_of(HEAD)?
            + self.bytes_of(CHANNELS)?
            + self.bytes_of(PUBLICATIONS)?
            + self.bytes_of(WILLS)?
            + self.bytes_of(RETAINED)?
            + self.bytes_of(MQTT_SESSIONS)?
            + self.bytes_of(MQTT_PUBLICATIONS)?;
        Ok(Content(bytes.unsigned_abs()))
    }

    fn bytes_of<K: redb::Key + 'static>(&self, table: TableDefinition<'_, K, &[u8]>) -> Result<i64, Fault> {
        let mut bytes = 0;
        self.read_table(table, |key, value| {
            bytes += size_of_entry::<K>(&key, value);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Commits changes and the head, all or nothing, and updates `head.next_number`, `holders` and `content`.
    ///
    /// # Errors
    /// See [`Fault`]. Nothing was changed; the database must be opened again.
    pub(super) fn apply(
        self,
        changes: &Changes,
        head: &mut StoredHead,
        holders: &mut ReferenceCounts,
        content: &mut Content,
    ) -> Result<Database, Fault> {
        let mut new_head = *head;
        *content = self.commit(changes, &mut new_head, holders, *content)?;
        *head = new_head;
        holders.add(changes);
        Ok(self)
    }

    fn commit(
        &self,
        changes: &Changes,
        head: &mut StoredHead,
        holders: &ReferenceCounts,
        before: Content,
    ) -> Result<Content, Fault> {
        let mut transaction = self.redb.begin_write().map_err(redb::Error::from)?;
        transaction.set_two_phase_commit(true);
        let size = write_changes(&transaction, changes, head, holders)?;
        let after = Content(before.0.saturating_add_signed(size));
        if size > 0
            && let Some(max) = self.content_max()
            && after > max
        {
            transaction.abort().map_err(redb::Error::from)?;
            return Err(Fault::System(io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "its content would take {} bytes, and store_bytes_max leaves {} to it",
                    after.0, max.0
                ),
            )));
        }
        transaction.commit().map_err(redb::Error::from)?;
        Ok(after)
    }

    /// How much content the file may have, if it is bounded: two fifths of the length to which it can grow. redb
    /// doubles the length up to that of a region, and then adds regions.
    pub(super) fn content_max(&self) -> Option<Content> {
        if self.bytes_max == u64::MAX {
            return None;
        }
        let mut length = self.bytes().clamp(1, self.bytes_max);
        while length + length.min(REGION_BYTES) <= self.bytes_max {
            length += length.min(REGION_BYTES);
        }
        Some(Content(length / 5 * 2))
    }

    /// The length of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.path.metadata().map_or(0, |file| file.len())
    }

    /// Closes the file.
    ///
    /// # Errors
    /// The system refuses. What was committed is on disk all the same.
    pub(super) fn close(self) -> Result<(), Fault> {
        self.redb.close().map_err(Fault::from)
    }
}

/// The number of items of MQTT sessions that refer to each publication of the database.
///
/// Invariant: it has the publications of the table, each with the number of its items, which is not 0.
#[derive(Debug, Default)]
pub(super) struct ReferenceCounts(HashMap<u64, u32>);

impl ReferenceCounts {
    /// Counts one more item, while the database is read at the start.
    pub(super) fn count(&mut self, number: u64) {
        *self.0.entry(number).or_default() += 1;
    }

    fn has(&self, number: u64) -> bool {
        self.0.contains_key(&number)
    }

    /// The number of items that refer to a publication after the changes.
    fn after(&self, number: u64, changes: &PublicationChanges) -> u32 {
        let before = self.0.get(&number).copied().map_or(0, i64::from);
        u32::try_from(before + changes.holders).unwrap_or(0)
    }

    fn add(&mut self, changes: &Changes) {
        for (number, changes) in changes.publications() {
            match self.after(number, changes) {
                0 => self.0.remove(&number),
                after => self.0.insert(number, after),
            };
        }
    }
}

/// Writes changes and the head. Returns by how many bytes the content grows.
fn write_changes(
    transaction: &redb::WriteTransaction,
    changes: &Changes,
    head: &mut StoredHead,
    holders: &ReferenceCounts,
) -> Result<i64, redb::Error> {
    let mut size = 0;
    let mut channels = Measured::new(transaction.open_table(CHANNELS)?, &mut size);
    let publications = transaction.open_table(PUBLICATIONS)?;
    let mut grown = 0;
    let mut publications = Measured::new(publications, &mut grown);
    for (name, changes) in changes.channels() {
        change_channel(name, changes, head, &mut channels, &mut publications)?;
    }
    drop((channels, publications));
    size += grown;
    let mut wills = Measured::new(transaction.open_table(WILLS)?, &mut size);
    for (generation, will) in changes.wills() {
        match will {
            Some(will) => wills.insert(generation, will)?,
            None => wills.remove(generation)?,
        }
    }
    drop(wills);
    let mut retained = Measured::new(transaction.open_table(RETAINED)?, &mut size);
    for (topic, value) in changes.retained() {
        match value {
            Some(value) => retained.insert(topic, value)?,
            None => retained.remove(topic)?,
        }
    }
    drop(retained);
    let mut sessions = Measured::new(transaction.open_table(MQTT_SESSIONS)?, &mut size);
    for (client_id, changes) in changes.sessions() {
        change_session(client_id, changes, &mut sessions)?;
    }
    drop(sessions);
    let mut publications = Measured::new(transaction.open_table(MQTT_PUBLICATIONS)?, &mut size);
    for (number, changes) in changes.publications() {
        match (holders.after(number, changes), &changes.content) {
            (0, _) if holders.has(number) => publications.remove(number)?,
            (0, _) | (_, None) => {}
            (_, Some(content)) => publications.insert(number, content)?,
        }
    }
    drop(publications);
    Measured::new(transaction.open_table(HEAD)?, &mut size).insert((), &head.to_bytes())?;
    Ok(size)
}

/// A table, and the number of bytes by which it has grown.
struct Measured<'a, 't, K: redb::Key + 'static> {
    table: Table<'t, K, &'static [u8]>,
    size: &'a mut i64,
}

impl<'a, 't, K: redb::Key + 'static> Measured<'a, 't, K> {
    fn new(table: Table<'t, K, &'static [u8]>, size: &'a mut i64) -> Measured<'a, 't, K> {
        Measured { table, size }
    }

    fn insert<'k>(&mut self, key: K::SelfType<'k>, value: &[u8]) -> Result<(), redb::Error> {
        *self.size += size_of_entry::<K>(&key, value);
        if let Some(before) = self.table.insert(&key, value)? {
            *self.size -= size_of_entry::<K>(&key, before.value());
        }
        Ok(())
    }

    fn remove<'k>(&mut self, key: K::SelfType<'k>) -> Result<(), redb::Error> {
        if let Some(before) = self.table.remove(&key)? {
            *self.size -= size_of_entry::<K>(&key, before.value());
        }
        Ok(())
    }

    fn remove_in<'k, B: std::borrow::Borrow<K::SelfType<'k>> + 'k>(
        &mut self,
        keys: impl std::ops::RangeBounds<B> + 'k,
    ) -> Result<(), redb::Error> {
        let size = &mut *self.size;
        self.table.retain_in(keys, |key, value| {
            *size -= size_of_entry::<K>(&key, value);
            false
        })?;
        Ok(())
    }
}

/// The bytes that an entry takes: twice its own, since pages may be half empty; or if a page does not hold two such
/// entries, pages of its own, of which redb allocates a power of two.
fn size_of_entry<K: redb::Key>(key: &K::SelfType<'_>, value: &[u8]) -> i64 {
    let bytes = K::as_bytes(key).as_ref().len() + value.len() + ENTRY_HEAD_BYTES;
    let bytes = match bytes {
        ..=HALF_PAGE_BYTES => 2 * bytes,
        _ => bytes.next_power_of_two(),
    };
    // Less than memory has.
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn change_session(
    client_id: &[u8],
    changes: &SessionChanges,
    sessions: &mut Measured<'_, '_, &'static [u8]>,
) -> Result<(), redb::Error> {
    let Ok(length) = u16::try_from(client_id.len()) else {
        return Ok(()); // No client id is longer (MQTT section 1.5.4).
    };
    let mut key = [&length.to_be_bytes()[..], client_id].concat();
    let id_end = key.len();
    if changes.is_removed {
        let end = end_of_prefix(&key);
        let items = (
            Bound::Included(&key[..]),
            end.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
        );
        sessions.remove_in::<&[u8]>(items)?;
    }
    for (item, value) in changes.items() {
        key.truncate(id_end);
        key.extend_from_slice(item);
        match value {
            Some(value) => sessions.insert(&key[..], value)?,
            None => sessions.remove(&key[..])?,
        }
    }
    Ok(())
}

/// The client id and the name of the item in a key of the table of sessions.
fn read_session_key(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = key.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// The first key behind all that begin with a prefix; `None` if there is none.
fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn change_channel(
    name: &[u8],
    changes: &ChannelChanges,
    head: &mut StoredHead,
    channels: &mut Measured<'_, '_, &'static [u8]>,
    publications: &mut Measured<'_, '_, (u64, u64)>,
) -> Result<(), redb::Error> {
    let mut before =
        match channels.table.get(name)? {
            Some(value) => Some(StoredChannel::read(value.value()).ok_or_else(|| {
                redb::Error::Corrupted("a channel is in a form that is not known".to_owned())
            })?),
            None => None,
        };
    if let Some(channel) = before.filter(|_| changes.is_removed) {
        publications.remove_in(all_of(channel.number))?;
        channels.remove(name)?;
        before = None;
    }
    if changes.publications.is_empty() && before.is_none() {
        return Ok(());
    }
    let mut channel = before.unwrap_or_else(|| {
        head.next_number += 1;
        StoredChannel {
            number: head.next_number,
            kept: changes.kept,
        }
    });
    channel.kept.complete_after = channel.kept.complete_after.max(changes.kept.complete_after);
    if changes.kept.after > channel.kept.after {
        channel.kept.after = changes.kept.after;
        let forgotten = (channel.number, 0)..=(channel.number, channel.kept.after);
        publications.remove_in(forgotten)?;
    }
    for (offset, value) in &changes.publications {
        publications.insert((channel.number, *offset), value)?;
    }
    if before != Some(channel) {
        channels.insert(name, &channel.to_bytes())?;
    }
    Ok(())
}

/// The keys of all publications of a channel.
fn all_of(number: u64) -> std::ops::RangeInclusive<(u64, u64)> {
    (number, 0)..=(number, u64::MAX)
}

fn unknown_value(kind: &str) -> Fault {
    Fault::Damaged(format!("it holds {kind} in a form that is not known"))
}

impl From<DatabaseError> for Fault {
    fn from(error: DatabaseError) -> Fault {
        Fault::from(redb::Error::from(error))
    }
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Fault {
        match error {
            redb::Error::Io(error) => match error.kind() {
                // A file that is no database, or that has been cut.
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
                    Fault::Damaged(error.to_string())
                }
                _ => Fault::System(error),
            },
            redb::Error::UpgradeRequired(_) => Fault::OtherVersion(error.to_string()),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
                Fault::System(io::Error::other(error.to_string()))
            }
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
                Fault::System(io::Error::other(error.to_string()))
            }
            other => Fault::Damaged(other.to_string()),
        }
    }
}

/// A file that may not grow beyond a bound.
#[derive(Debug)]
struct BoundedFile {
    file: FileBackend,
    bytes_max: u64,
}

impl StorageBackend for BoundedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if length > self.bytes_max && length > self.file.len()? {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "store_bytes_max is reached: raise it, if the disk has room",
            ));
        }
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

/// Memory for pages of the file: the inner pages of the trees, and the pages that a commit changes.
const CACHE_BYTES: usize = 16 * 1024 * 1024;
/// The bytes of a page and of a region of redb, and the overhead of an entry beside key and value, rounded up.
const HALF_PAGE_BYTES: usize = 2048;
const REGION_BYTES: u64 = 1 << 32;
const ENTRY_HEAD_BYTES: usize = 16;
