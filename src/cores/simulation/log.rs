//! The log of all publications of a run, in the order of the ring. A reader of its own reads them, as a core does.

use std::ops::Range;

use crate::broker::Reader;

/// All publications of a run.
#[derive(Debug)]
pub(super) struct Log {
    observer: Reader,
    channels: Vec<Vec<Entry>>,
    sent: Vec<Sent>,
    messages: usize,
}

/// A publication that was in the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) number: usize,
}

/// A publication that a client has sent, or begun to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) client: usize,
    pub(super) channel: usize,
    /// The message in which it was sent, or the part of an array.
    message: usize,
    /// Its place in the log of its channel, once it has been in the ring.
    pub(super) place: Option<usize>,
}

pub(super) fn channel_name(channel: usize) -> String {
    format!("c{channel}")
}

impl Log {
    pub(super) fn new(observer: Reader, channels: usize) -> Log {
        Log {
            observer,
            channels: vec![Vec::new(); channels],
            sent: Vec::new(),
            messages: 0,
        }
    }

    /// The end of all that is in the ring.
    pub(super) fn claimed(&self) -> u64 {
        self.observer.claimed().as_u64()
    }

    /// The number of a publication that is about to be sent.
    pub(super) fn begin(&mut self, client: usize, channel: usize) -> usize {
        self.sent.push(Sent {
            client,
            channel,
            message: self.messages,
            place: None,
        });
        self.sent.len() - 1
    }

    pub(super) fn of_channel(&self, channel: usize) -> &[Entry] {
        &self.channels[channel]
    }

    /// The entry of a publication with this number.
    pub(super) fn entry(&self, number: usize) -> Option<(usize, Entry)> {
        let sent = self.sent.get(number)?;
        let place = sent.place?;
        Some((place, self.channels[sent.channel][place]))
    }

    /// The places in the log of a channel whose sequences lie between these.
    pub(super) fn places(&self, channel: usize, sequences: Range<u64>) -> Range<usize> {
        let log = &self.channels[channel];
        let place = |sequence| log.partition_point(|entry| entry.sequence < sequence);
        place(sequences.start)..place(sequences.end)
    }

    /// How many publications there were.
    pub(super) fn len(&self) -> usize {
        self.channels.iter().map(Vec::len).sum()
    }

    /// Reads on.
    ///
    /// # Errors
    /// Something is in the ring that nobody sent, twice, or out of the order in which its client sent it.
    pub(super) fn read(&mut self) -> Result<(), String> {
        while let Some(delivery) = self.observer.next() {
            let publication = delivery.publication;
            let sequence = publication.sequence().as_u64();
            let text = String::from_utf8_lossy(publication.frame());
            let number = number_in(&text).ok_or_else(|| format!("nobody sent {text}"))?;
            let payload = String::from_utf8_lossy(publication.payload());
            if !payload.starts_with(&format!("\"{number}:")) || !text.ends_with(&format!(":{payload}}}}}")) {
                return Err(format!("{payload} is taken for the payload of {text}"));
            }
            let sent = self
                .sent
                .get_mut(number)
                .ok_or_else(|| format!("nobody has sent {text} yet"))?;
            if publication.channel() != channel_name(sent.channel).as_bytes() {
                return Err(format!("{text} is in another channel"));
            }
            if sent.place.is_some() {
                return Err(format!("published twice: {text}"));
            }
            let channel = &mut self.channels[sent.channel];
            sent.place = Some(channel.len());
            channel.push(Entry { sequence, number });
        }
        self.observer.release();
        Ok(())
    }

    /// What is sent next is in another message, or in another part of the same array.
    pub(super) fn end_message(&mut self) {
        self.messages += 1;
    }

    /// Whether of each message all has been published, or nothing: what becomes of its client meanwhile is no matter.
    /// Of an array that is handled in parts this holds of each part.
    ///
    /// # Errors
    /// One of which something is missing.
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

    /// Whether the publications of each client are in the order in which it sent them, and none is missing before
    /// another.
    ///
    /// # Errors
    /// Two that are not.
    pub(super) fn check_order(&self) -> Result<(), String> {
        let mut last = std::collections::BTreeMap::new();
        let mut missing = std::collections::BTreeMap::new();
        for (number, sent) in self.sent.iter().enumerate() {
            if sent.place.is_none() {
                missing.insert(sent.client, number);
            }
            if let Some(place) = sent.place {
                if let Some(before) = missing.get(&sent.client) {
                    return Err(format!(
                        "publication {before} is missing before {number} of the same client"
                    ));
                }
                let sequence = self.channels[sent.channel][place].sequence;
                if let Some((before, earlier)) = last.insert(sent.client, (number, sequence))
                    && earlier > sequence
                {
                    return Err(format!(
                        "publication {before} comes after {number} of the same client"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The number of a publication, as it stands at the beginning of its data.
pub(super) fn number_in(text: &str) -> Option<usize> {
    let (_, data) = text.rsplit_once("\"data\":\"")?;
    data.split_once(':')?.0.parse().ok()
}
