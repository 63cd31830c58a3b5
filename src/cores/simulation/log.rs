//! The log of all publications of a run, in the order of the ring. It has a reader of its own, as a core
//! does.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use crate::broker::{Origin, Publication, Reader};
use crate::clock::Uptime;
use crate::mqtt::publication;
use crate::policy::channels::PRESENCE_PREFIX;

/// All publications of a run.
#[derive(Debug)]
pub(super) struct Log {
    observer: Reader,
    /// Those with data, by the channel.
    channels: BTreeMap<usize, Vec<Entry>>,
    /// The places of MQTT publications without data, by the channel: they clear the retained publication.
    clears: BTreeMap<usize, Vec<u64>>,
    /// The data of events of presence, by their numbers.
    events: BTreeMap<usize, Value>,
    sent: Vec<Sent>,
    messages: usize,
}

/// A publication that was in the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) number: usize,
    /// The beginning of the turn in which it was published.
    pub(super) at: Uptime,
    pub(super) qos: u8,
    /// Whether it was published as the one that is retained.
    pub(super) retain: bool,
    /// Whether it may expire.
    pub(super) expires: bool,
    /// Whether its core published it to be remembered. After a reload, a core goes on for a while without that.
    pub(super) remembered: bool,
}

/// The publisher of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sender {
    /// A client of SocketCluster: its publications are published in order, and from some point on none may
    /// be.
    Client(usize),
    /// An MQTT client: some of the publications that it sent before its connection was lost may never have
    /// arrived.
    Device(usize),
    /// A will.
    Will,
    /// The server: events of presence.
    Server,
}

/// A publication that a client has sent, or begun to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) sender: Sender,
    pub(super) channel: usize,
    /// The message in which it was sent, or the part of an array.
    message: usize,
    /// It may have been published before publications that were sent between its first and its last time.
    is_sent_again: bool,
    /// Its place in the log of its channel, once it has been in the ring.
    pub(super) place: Option<usize>,
}

/// Channels from this number on are for shared subscriptions: MQTT clients have no other subscriptions to them.
pub(super) const SHARED: usize = 1 << 20;

/// Channels from this number on are those for the presence events of other channels.
pub(super) const PRESENCE: usize = 1 << 21;

pub(super) fn channel_name(channel: usize) -> String {
    if let Some(watched) = channel.checked_sub(PRESENCE) {
        return format!("{PRESENCE_PREFIX}{}", channel_name(watched));
    }
    match channel.checked_sub(SHARED) {
        None => format!("c/{channel}"),
        Some(shared) => format!("s/{shared}"),
    }
}

/// The channel of this name.
pub(super) fn channel_of(name: &str) -> Option<usize> {
    if let Some(watched) = name.strip_prefix(PRESENCE_PREFIX) {
        return Some(PRESENCE + channel_of(watched)?);
    }
    match name.split_once('/')? {
        ("c", number) => number.parse().ok(),
        ("s", number) => Some(SHARED + number.parse::<usize>().ok()?),
        _ => None,
    }
}

impl Log {
    pub(super) fn new(observer: Reader) -> Log {
        Log {
            observer,
            channels: BTreeMap::new(),
            clears: BTreeMap::new(),
            events: BTreeMap::new(),
            sent: Vec::new(),
            messages: 0,
        }
    }

    /// The end of all that is in the ring.
    pub(super) fn claimed(&self) -> u64 {
        self.observer.claimed().as_u64()
    }

    /// The number of a publication that is about to be sent.
    pub(super) fn begin(&mut self, sender: Sender, channel: usize) -> usize {
        self.sent.push(Sent {
            sender,
            channel,
            message: self.messages,
            is_sent_again: false,
            place: None,
        });
        self.sent.len() - 1
    }

    /// An MQTT client sends a publication with QoS 2 once more.
    pub(super) fn send_again(&mut self, number: usize) {
        self.sent[number].is_sent_again = true;
    }

    pub(super) fn of_channel(&self, channel: usize) -> &[Entry] {
        self.channels.get(&channel).map_or(&[], Vec::as_slice)
    }

    /// All channels, each with its publications.
    pub(super) fn channels(&self) -> impl Iterator<Item = (usize, &[Entry])> {
        self.channels
            .iter()
            .map(|(&channel, entries)| (channel, entries.as_slice()))
    }

    /// The places at which the retained publication of a channel was cleared.
    pub(super) fn clears(&self, channel: usize) -> &[u64] {
        self.clears.get(&channel).map_or(&[], Vec::as_slice)
    }

    /// The entry of a publication with this number.
    pub(super) fn entry(&self, number: usize) -> Option<(usize, Entry)> {
        let sent = self.sent.get(number)?;
        let place = sent.place?;
        Some((place, self.of_channel(sent.channel)[place]))
    }

    /// The place and the number of the publication that was retained in a channel at a place in the ring;
    /// without a number, it was cleared there.
    pub(super) fn newest_retained(&self, channel: usize, before: u64) -> Option<(u64, Option<usize>)> {
        let end = self.places(channel, 0..before).end;
        let kept = self.of_channel(channel)[..end]
            .iter()
            .rev()
            .find(|entry| entry.retain);
        let kept = kept.map(|entry| (entry.sequence, Some(entry.number)));
        let cleared = self.clears(channel).iter().rev().find(|&&place| place < before);
        kept.max(cleared.map(|&place| (place, None)))
    }

    /// The places in the log of a channel whose sequences lie between these.
    pub(super) fn places(&self, channel: usize, sequences: Range<u64>) -> Range<usize> {
        let log = self.of_channel(channel);
        let place = |sequence| log.partition_point(|entry| entry.sequence < sequence);
        place(sequences.start)..place(sequences.end)
    }

    /// How many publications there were.
    pub(super) fn len(&self) -> usize {
        self.channels.values().map(Vec::len).sum()
    }

    /// The number of an event of presence with this data: the first from a place in the log of its channel on.
    pub(super) fn event(&self, channel: usize, from: usize, data: &Value) -> Option<usize> {
        let entries = self.of_channel(channel).get(from..)?;
        let mut numbers = entries.iter().map(|entry| entry.number);
        numbers.find(|number| self.events.get(number) == Some(data))
    }

    /// Reads on, in a turn that has begun at this time. Returns the wills that were published.
    ///
    /// # Errors
    /// A publication is in the ring that no client sent, twice, or out of the order in which its client sent
    /// it.
    pub(super) fn read(&mut self, at: Uptime) -> Result<Vec<usize>, String> {
        let mut wills = Vec::new();
        while let Some(delivery) = self.observer.next() {
            let publication = delivery.publication;
            let name = String::from_utf8_lossy(publication.channel()).into_owned();
            let channel = channel_of(&name).ok_or_else(|| format!("nobody publishes in {name}"))?;
            if channel >= PRESENCE {
                let number = self.sent.len();
                let entries = self.channels.entry(channel).or_default();
                let data =
                    serde_json::from_slice(publication.payload()).map_err(|error| error.to_string())?;
                self.events.insert(number, data);
                self.sent.push(Sent {
                    sender: Sender::Server,
                    channel,
                    message: usize::MAX - number,
                    is_sent_again: false,
                    place: Some(entries.len()),
                });
                entries.push(entry_of(&publication, at, number));
                continue;
            }
            let Some((number, entry)) = read_entry(&publication, at)? else {
                let sequence = publication.sequence().as_u64();
                self.clears.entry(channel).or_default().push(sequence);
                continue;
            };
            let sent = self
                .sent
                .get_mut(number)
                .ok_or_else(|| format!("nobody has sent {number} yet"))?;
            if name != channel_name(sent.channel) {
                return Err(format!("{number} is in {name}"));
            }
            if sent.place.is_some() {
                return Err(format!("published twice: {number} in {name}: {sent:?}"));
            }
            let channel = self.channels.entry(sent.channel).or_default();
            sent.place = Some(channel.len());
            channel.push(entry);
            if sent.sender == Sender::Will {
                wills.push(number);
            }
        }
        self.observer.release();
        Ok(wills)
    }

    /// The next packets are in another message, or in another part of the same array.
    pub(super) fn end_message(&mut self) {
        self.messages += 1;
    }

    /// Checks that each message was published whole or not at all, whatever happened to its client meanwhile.
    /// For an array that is handled in parts, this holds for each part.
    ///
    /// # Errors
    /// A message of which a part is missing.
    pub(super) fn check_whole(&self) -> Result<(), String> {
        for (number, two) in self.sent.windows(2).enumerate() {
            if two[0].message == two[1].message && two[0].place.is_some() != two[1].place.is_some() {
                return Err(format!(
                    "of one message, either {number} or {} was published, and not the other",
                    number + 1
                ));
            }
        }
        Ok(())
    }

    /// Checks that the publications of each client are in the order in which it sent them, and that none is
    /// missing before another.
    ///
    /// # Errors
    /// Two publications that are not in order.
    pub(super) fn check_order(&self) -> Result<(), String> {
        let mut last = BTreeMap::new();
        let mut missing = BTreeMap::new();
        for (number, sent) in self.sent.iter().enumerate() {
            if matches!(sent.sender, Sender::Will | Sender::Server) || sent.is_sent_again {
                continue;
            }
            let Some((_, entry)) = self.entry(number) else {
                if matches!(sent.sender, Sender::Client(_)) {
                    missing.insert(sent.sender, number);
                }
                continue;
            };
            if let Some(before) = missing.get(&sent.sender) {
                return Err(format!(
                    "publication {before} is missing before {number} of {:?}",
                    sent.sender
                ));
            }
            if let Some((before, earlier)) = last.insert(sent.sender, (number, entry.sequence))
                && earlier > entry.sequence
            {
                return Err(format!(
                    "publication {before} comes after {number} of {:?}",
                    sent.sender
                ));
            }
        }
        Ok(())
    }
}

/// The entry of a publication of a SocketCluster client, or of the server.
fn entry_of(publication: &Publication<'_>, at: Uptime, number: usize) -> Entry {
    Entry {
        sequence: publication.sequence().as_u64(),
        number,
        at,
        qos: 1,
        retain: publication.is_retained(),
        expires: false,
        remembered: publication.is_remembered(),
    }
}

/// The entry of a publication, and its number; `None` for one without data.
fn read_entry(publication: &Publication<'_>, at: Uptime) -> Result<Option<(usize, Entry)>, String> {
    let text = String::from_utf8_lossy(publication.frame());
    let payload = String::from_utf8_lossy(publication.payload());
    match publication.origin() {
        Origin::SocketCluster => {
            let number = number_in(&text).ok_or_else(|| format!("nobody sent {text}"))?;
            if !payload.starts_with(&format!("\"{number}:")) || !text.ends_with(&format!(":{payload}}}}}")) {
                return Err(format!("{payload} is taken for the payload of {text}"));
            }
            Ok(Some((number, entry_of(publication, at, number))))
        }
        Origin::Mqtt => {
            let view = publication::read(publication.frame()).ok_or("no publication of MQTT")?;
            if view.payload.is_empty() {
                return Ok(None);
            }
            let number = number_in_payload(&payload).ok_or_else(|| format!("nobody sent {payload}"))?;
            let head = view.head;
            let entry = Entry {
                qos: head.qos,
                retain: head.retain,
                expires: head.expires_at_ms.is_some(),
                ..entry_of(publication, at, number)
            };
            Ok(Some((number, entry)))
        }
    }
}

/// The number of a publication in the payload that MQTT clients send and get.
pub(super) fn number_in_payload(payload: &str) -> Option<usize> {
    payload.strip_prefix('"')?.split_once(':')?.0.parse().ok()
}

/// The number of a publication, as it stands at the beginning of its data.
pub(super) fn number_in(text: &str) -> Option<usize> {
    let (_, data) = text.rsplit_once("\"data\":\"")?;
    data.split_once(':')?.0.parse().ok()
}
