//! Buffers that a core lends to the session it is running: filled and emptied within one packet, never freed.

use serde::Serialize;
use simd_json::Buffers;

use crate::decision::CloseCode;

/// The buffers of one core.
#[derive(Default)]
pub struct Scratch {
    /// JSON and names that answers and orders are made of.
    pieces: Vec<u8>,
    /// What the application has asked for.
    pub(crate) orders: Vec<Order>,
    /// Data that had to be changed in passing.
    pub(crate) rewritten: Vec<u8>,
    /// A copy of data for simd-json, which destroys what it reads.
    pub(super) input: Vec<u8>,
    pub(super) json: Buffers,
    json_depth_hits: u64,
}

impl Scratch {
    /// Empty buffers.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// How many messages were too deeply nested since the last call, for the counter of `Limit::JsonDepth`.
    pub fn take_json_depth_hits(&mut self) -> u64 {
        std::mem::take(&mut self.json_depth_hits)
    }

    pub(crate) fn count_json_depth_hit(&mut self) {
        self.json_depth_hits += 1;
    }

    /// Forgets all pieces and orders, before the application is called.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.orders.clear();
    }

    /// The text of a piece.
    pub(crate) fn piece(&self, piece: Piece) -> &str {
        self.pieces
            .get(piece.start..piece.end)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .expect("a piece is the text that `write` or `write_json` put here")
    }

    /// Keeps a text.
    pub(crate) fn keep(&mut self, text: &str) -> Piece {
        self.write(|out| out.extend_from_slice(text.as_bytes()))
    }

    /// Keeps what `write` writes, which must be text.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Piece {
        let start = self.pieces.len();
        write(&mut self.pieces);
        Piece {
            start,
            end: self.pieces.len(),
        }
    }

    /// Keeps a value as JSON; `None` if it has no such form.
    pub(super) fn write_json(&mut self, value: &(impl Serialize + ?Sized)) -> Option<Piece> {
        let start = self.pieces.len();
        if serde_json::to_writer(&mut self.pieces, value).is_err() {
            self.pieces.truncate(start);
            return None;
        }
        Some(Piece {
            start,
            end: self.pieces.len(),
        })
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its contents are clients' data.
        formatter.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// Where some text lies in a [`Scratch`], until it is cleared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    start: usize,
    end: usize,
}

/// Something that an application has asked for, to be done after the packet's answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Send an event.
    Transmit { event: Piece, data: Option<Piece> },
    /// Publish to a channel.
    Publish { channel: Piece, data: Option<Piece> },
    /// Sign a token and give it to the client.
    SetAuthToken { claims: Piece, expires_in: Option<u64> },
    /// Give the client a token: what `SetAuthToken` becomes once it is signed.
    GiveToken { token: Piece },
    /// Take the client's token away.
    Deauthenticate,
    /// End one subscription, or all.
    KickOut {
        channel: Option<Piece>,
        message: Option<Piece>,
    },
    /// Close the connection.
    Disconnect(CloseCode),
}
