//! What a core compresses for those of its clients that agreed to it.
//!
//! Replies are compressed one by one. A publication is compressed once, when it first meets a subscriber here that gets
//! it so (once for each of the two windows), and the frame serves all of them: also those that it meets in later turns,
//! since the publication at the front of the ring is the only one under way.
//!
//! Limits: `compression_bytes_min`; what a publication costs here counts against what a turn delivers.

use crate::websocket::deflate::{Compression, Deflater, Work};
use crate::websocket::frame::{self, OpCode};

/// The compressor of a core, and the publication under way.
#[derive(Debug)]
pub(in crate::cores) struct Compressor {
    deflater: Deflater,
    large: Variant,
    small: Variant,
    /// Bytes of publications that were compressed since somebody asked.
    published_bytes: usize,
}

/// The frame of the publication under way for some of its subscribers.
#[derive(Debug, Default)]
struct Variant {
    is_made: bool,
    frame: Vec<u8>,
}

impl Compressor {
    pub(in crate::cores) fn new(bytes_min: u32) -> Compressor {
        Compressor {
            deflater: Deflater::new(bytes_min as usize),
            large: Variant::default(),
            small: Variant::default(),
            published_bytes: 0,
        }
    }

    /// The next publication is another one. Gives back what a large one took.
    pub(in crate::cores) fn end_publication(&mut self) {
        for variant in [&mut self.large, &mut self.small] {
            variant.is_made = false;
            if variant.frame.capacity() > KEPT_BYTES_MAX {
                variant.frame = Vec::new();
            }
        }
    }

    /// The frames to send instead of `frame`, by [`Compression::index`], if subscribers get some `compressions`.
    pub(in crate::cores) fn frames<'f>(
        &'f mut self,
        frame: &'f [u8],
        compressions: impl Iterator<Item = Compression>,
    ) -> [&'f [u8]; Compression::COUNT] {
        let parts = frame::parts(frame).filter(|(_, payload)| self.deflater.takes(payload.len()));
        let Some((opcode, payload)) = parts else {
            return [frame; Compression::COUNT];
        };
        for compression in compressions {
            let variant = match compression {
                Compression::Off => continue,
                Compression::Large => &mut self.large,
                Compression::Small => &mut self.small,
            };
            if !variant.is_made {
                variant.is_made = true;
                variant.frame.clear();
                self.deflater
                    .write(&mut variant.frame, compression, opcode, payload);
                self.published_bytes += payload.len();
            }
        }
        let mut frames = [frame; Compression::COUNT];
        for (compression, variant) in [
            (Compression::Large, &self.large),
            (Compression::Small, &self.small),
        ] {
            if variant.is_made {
                frames[compression.index()] = &variant.frame;
            }
        }
        frames
    }

    /// Bytes of publications that were compressed since the last call.
    pub(in crate::cores) fn take_published_bytes(&mut self) -> usize {
        std::mem::take(&mut self.published_bytes)
    }

    /// What was compressed since the last call.
    pub(in crate::cores) fn take_work(&mut self) -> Work {
        self.deflater.take_work()
    }
}

/// Appends a whole frame, compressed if that was agreed on and the message is long enough.
#[inline]
pub(in crate::cores) fn write(
    compressor: Option<&mut Compressor>,
    compression: Compression,
    out: &mut Vec<u8>,
    opcode: OpCode,
    payload: &[u8],
) {
    match compressor {
        Some(compressor) if compression.is_on() && !opcode.is_control() => {
            compressor.deflater.write(out, compression, opcode, payload);
        }
        Some(_) | None => frame::write(out, opcode, payload),
    }
}

/// A frame that grew past this gives its memory back.
const KEPT_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_compressed_once_for_each_window_that_is_asked_for_and_not_before() {
        let mut compressor = Compressor::new(100);
        let mut plain = Vec::new();
        frame::write(&mut plain, OpCode::Text, &[b'a'; 2000]);
        let (off, large, small) = (Compression::Off, Compression::Large, Compression::Small);
        compressor.end_publication();
        for (subscribers, compressed, work) in [
            (&[off, off][..], [false, false], 0),
            (&[off, large, large], [true, false], 1),
            (&[small, large], [true, true], 1),
            (&[large, small, off], [true, true], 0),
        ] {
            let frames = compressor.frames(&plain, subscribers.iter().copied());
            assert_eq!(frames[off.index()], plain);
            assert_eq!(
                [large, small].map(|one| frames[one.index()].len() < 100),
                compressed
            );
            assert_eq!(compressor.take_work().messages, work, "{subscribers:?}");
        }
        assert_eq!(compressor.take_published_bytes(), 4000);
        compressor.end_publication();
        plain[500] = b'b';
        let first = compressor.frames(&plain, [large].into_iter())[large.index()].to_vec();
        compressor.end_publication();
        plain[500] = b'c';
        assert_ne!(
            first,
            compressor.frames(&plain, [large].into_iter())[large.index()]
        );
    }

    #[test]
    fn what_is_too_short_is_sent_as_it_is() {
        let mut compressor = Compressor::new(100);
        for (payload, is_compressed) in [(&[b'a'; 99][..], false), (&[], false), (&[b'a'; 100], true)] {
            let mut plain = Vec::new();
            frame::write(&mut plain, OpCode::Text, payload);
            compressor.end_publication();
            let frames = compressor.frames(&plain, [Compression::Large].into_iter());
            assert_eq!(frames != [&plain[..]; Compression::COUNT], is_compressed);
        }
        assert_eq!(compressor.take_work().messages, 1);
    }
}
