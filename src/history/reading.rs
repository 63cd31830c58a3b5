//! A reading: the answer of a history, to be sent by another core while the history goes on.
//!
//! A reading shares the chunks of the history and copies nothing, so a long reading costs little, too. Chunks that a
//! reading holds do not change: a history that has to change one copies it first, or begins another. So eviction does
//! not harm a reading that is being sent.
//!
//! The memory of these chunks stays in use until a slow client has read them. So a reading for a client has only a
//! [`Part`] of a long answer; the core asks for the rest when this part has been sent.

use std::sync::Arc;

use super::NewPublication;
use super::chunk::Chunk;
use super::query::{Part, Unknown};
use crate::broker::Position;

/// The answer of a history to one [`Query`](super::Query).
#[derive(Clone, Debug)]
pub struct Reading {
    up_to: Position,
    unknown: Option<Unknown>,
    /// The publications that were not taken, oldest first. No piece is empty.
    pieces: std::vec::IntoIter<Piece>,
    publications: usize,
    /// How many publications belong to the answer and are not in this part of it.
    left_out: usize,
    /// The memory of the chunks of the pieces.
    memory_bytes: usize,
    unix_ms_at_0: i64,
}

/// Some consecutive entries of a chunk.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) chunk: Arc<Chunk>,
    /// The first entry.
    pub(super) from: usize,
    /// The end of the entries.
    pub(super) end: usize,
}

/// One remembered publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered<'a> {
    /// Its place in the order.
    pub offset: u64,
    /// When it was published, in Unix milliseconds.
    pub unix_ms: u64,
    /// The whole frame, marked as replayed.
    pub frame: &'a [u8],
    /// The data that was published; empty if there was none.
    pub payload: &'a [u8],
}

impl Reading {
    /// Publications of a channel. `unix_ms_at_0` is the Unix time at which the clock of their times began.
    pub(super) fn of(
        (mut pieces, unknown): (Vec<Piece>, Option<Unknown>),
        part: Part,
        up_to: Position,
        unix_ms_at_0: i64,
    ) -> Reading {
        let count = |pieces: &[Piece]| pieces.iter().map(Piece::len).sum::<usize>();
        let publications = count(&pieces);
        match part {
            Part::Whole => {}
            Part::Oldest(bytes_max) => pieces.truncate(fitting(pieces.iter(), bytes_max)),
            Part::Newest(bytes_max) => {
                let kept = fitting(pieces.iter().rev(), bytes_max);
                pieces.drain(..pieces.len().saturating_sub(kept));
            }
        }
        pieces.shrink_to_fit();
        let taken = count(&pieces);
        Reading {
            up_to,
            unknown,
            memory_bytes: pieces.iter().map(Piece::memory_bytes).sum(),
            pieces: pieces.into_iter(),
            publications: taken,
            left_out: publications - taken,
            unix_ms_at_0,
        }
    }

    /// A complete answer without publications.
    pub fn empty(up_to: Position) -> Reading {
        Reading::of((Vec::new(), None), Part::Whole, up_to, 0)
    }

    /// One publication, which no history holds.
    pub fn of_one(publication: &NewPublication<'_>, up_to: Position) -> Reading {
        let piece = Piece {
            chunk: Arc::new(Chunk::new(publication, 0)),
            from: 0,
            end: 1,
        };
        Reading::of((vec![piece], None), Part::Whole, up_to, 0)
    }

    /// No publication, since the requested ones are not known.
    pub fn unknown(reason: Unknown, up_to: Position) -> Reading {
        Reading {
            unknown: Some(reason),
            ..Reading::empty(up_to)
        }
    }

    /// The same publications, marked as an incomplete answer.
    pub fn but(self, reason: Unknown) -> Reading {
        Reading {
            unknown: Some(reason),
            ..self
        }
    }

    /// The place of the reading in the order: it has all requested publications of the channel up to this place, and
    /// none after it.
    pub fn up_to(&self) -> Position {
        self.up_to
    }

    /// Why requested publications are missing. The answer to a question after a position then has none; the answer to a
    /// question since a moment has the newest.
    pub fn why_unknown(&self) -> Option<Unknown> {
        self.unknown
    }

    /// How many publications of the answer are not in this part of it.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The offset up to which the client has all requested publications, once it has received this part.
    pub fn complete_up_to(&self) -> u64 {
        match self.pieces.as_slice().last() {
            Some(last) if self.left_out > 0 => last.chunk.offset(last.end - 1),
            Some(_) | None => self.up_to.offset,
        }
    }

    /// The bytes of memory that only this reading keeps in use, if the history has dropped its publications.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// How many publications it has, without those that were taken.
    pub fn len(&self) -> usize {
        self.publications
    }

    /// Whether it has no publication, or all were taken.
    pub fn is_empty(&self) -> bool {
        self.publications == 0
    }

    /// Takes the next publications: passes their frames, which are contiguous, and their number to `send`. It takes as
    /// many as fit into `bytes_max` and are contiguous, but at least one. Without a publication, `send` is not called.
    pub fn take_frames(&mut self, bytes_max: usize, send: impl FnOnce(&[u8], usize)) {
        let Some(piece) = self.pieces.as_mut_slice().first_mut() else {
            return;
        };
        let count = piece.fitting(bytes_max);
        let from = piece.from;
        send(piece.chunk.frames(from..from + count), count);
        piece.from += count;
        self.publications -= count;
        if piece.from == piece.end
            && let Some(sent) = self.pieces.next()
        {
            self.memory_bytes -= sent.memory_bytes();
        }
    }

    /// The publications, oldest first.
    pub fn publications(&self) -> impl Iterator<Item = Remembered<'_>> {
        let pieces = self.pieces.as_slice().iter();
        pieces.flat_map(|piece| {
            (piece.from..piece.end).map(|entry| Remembered {
                offset: piece.chunk.offset(entry),
                unix_ms: u64::try_from(piece.chunk.at_ms(entry).saturating_add(self.unix_ms_at_0))
                    .unwrap_or(0),
                frame: piece.chunk.frames(entry..entry + 1),
                payload: piece.chunk.payload(entry),
            })
        })
    }
}

impl Piece {
    fn len(&self) -> usize {
        self.end - self.from
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Piece>() + self.chunk.memory_bytes()
    }

    /// How many of its first frames have at most so many bytes together, but at least one.
    fn fitting(&self, bytes_max: usize) -> usize {
        if self.chunk.frame_bytes(self.from..self.end) <= bytes_max {
            return self.end - self.from;
        }
        let fit = |&end: &usize| self.chunk.frame_bytes(self.from..end) <= bytes_max;
        let fitting = (self.from + 1..=self.end).take_while(fit).count();
        fitting.max(1)
    }
}

/// How many of these pieces keep at most so many bytes in use, but at least one.
fn fitting<'a>(pieces: impl Iterator<Item = &'a Piece>, bytes_max: usize) -> usize {
    let mut bytes = 0;
    let fit = pieces.take_while(|piece| {
        bytes += piece.memory_bytes();
        bytes <= bytes_max
    });
    fit.count().max(1)
}
