//! Compares the publications that one subscription has received with the log of what was published.
//!
//! A subscription sees exactly what is published between its two answers. From outside, its beginning is known to lie
//! between the request and the moment at which the answer was read, and its end likewise; within, nothing may be
//! missing, and nothing may come twice or out of order.

use super::log::Log;
use crate::config::SlowConsumer;

/// One subscription of one client.
#[derive(Clone, Debug)]
pub(super) struct Following {
    channel: usize,
    /// The end of the ring when the last byte of the request was written: nothing before may come.
    asked: u64,
    /// The end of the ring when the answer was read: all from there on must come.
    answered: u64,
    /// The place in the channel's log behind the last that has come.
    next: Option<usize>,
}

impl Following {
    pub(super) fn new(channel: usize, asked: u64, answered: u64) -> Following {
        Following {
            channel,
            asked,
            answered,
            next: None,
        }
    }

    /// Takes a publication; returns how many are certainly missing before it.
    ///
    /// # Errors
    /// It must not come here, or not now.
    pub(super) fn take(&mut self, number: usize, log: &Log, policy: SlowConsumer) -> Result<usize, String> {
        let (place, entry) = log.entry(number).ok_or("what never was in the ring")?;
        if entry.sequence < self.asked {
            return Err(format!(
                "publication {number} at {} from before the subscription was asked for, at {}",
                entry.sequence, self.asked
            ));
        }
        let expected = self.next.unwrap_or_else(|| self.first_certain(log).min(place));
        if place < expected {
            return Err(format!("publication {number} comes twice, or after a later one"));
        }
        let missing = place - expected;
        if missing > 0 && policy == SlowConsumer::Close {
            return Err(format!("{missing} missing before publication {number}"));
        }
        self.next = Some(place + 1);
        Ok(missing)
    }

    /// All that was published before `end` should have come by now.
    ///
    /// # Errors
    /// Something has not.
    pub(super) fn expect_until(&self, end: u64, log: &Log, policy: SlowConsumer) -> Result<(), String> {
        let next = self.next.unwrap_or_else(|| self.first_certain(log));
        let end = log.places(self.channel, self.asked..end).end;
        if next >= end {
            return Ok(());
        }
        match policy {
            // How many may be missing is counted, not which.
            SlowConsumer::Skip => Ok(()),
            // Of those that wait the newest comes, whatever became of the others.
            SlowConsumer::Close | SlowConsumer::Conflate => {
                let missing = log.of_channel(self.channel)[next..end].iter();
                let numbers: Vec<usize> = missing.map(|entry| entry.number).collect();
                Err(format!("c{}: {numbers:?} did not come", self.channel))
            }
        }
    }

    fn first_certain(&self, log: &Log) -> usize {
        log.places(self.channel, self.answered..u64::MAX).start
    }
}
