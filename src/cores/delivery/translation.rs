//! The publication under way in the form for SocketCluster clients, if a client of another protocol has
//! published it.
//!
//! The publication of an MQTT client lies in the ring in a form of its own. All parts of this core that need
//! it as a SocketCluster publication get it here: subscribers, subscribers of the program, the history of the
//! channel. It is made when it is first needed, at most once for each publication, and is laid out as in the
//! ring. So these parts handle one kind of publication, and all other forms are made from it in the same way
//! (`outgoing/forms.rs`).
//!
//! For a publication by a SocketCluster client, this costs one comparison, where it is needed.

use crate::broker::{Numbering, Origin, Publication};
use crate::protocols::Translator;

/// The publication under way in another form.
#[derive(Debug, Default)]
pub(super) struct Translation {
    is_made: bool,
    translator: Translator,
    /// The publication as it would lie in the ring.
    buffer: Vec<u8>,
}

impl Translation {
    /// The publication under way as a SocketCluster publication.
    #[inline]
    pub(super) fn for_socketcluster<'a>(
        &'a mut self,
        publication: Publication<'a>,
        numbering: Numbering,
    ) -> Publication<'a> {
        match publication.origin() {
            Origin::SocketCluster => publication,
            Origin::Mqtt => self.of_mqtt(publication, numbering),
        }
    }

    #[cold]
    fn of_mqtt<'a>(&'a mut self, publication: Publication<'a>, numbering: Numbering) -> Publication<'a> {
        if !self.is_made {
            self.is_made = true;
            self.buffer.clear();
            self.translator
                .translate(publication, numbering, &mut self.buffer);
        }
        publication.translated(&self.buffer)
    }

    /// The next publication is another one. Returns how many bytes the translation of this one took; frees
    /// large buffers.
    #[inline]
    pub(super) fn end_publication(&mut self) -> usize {
        match self.is_made {
            false => 0,
            true => self.forget(),
        }
    }

    #[cold]
    fn forget(&mut self) -> usize {
        self.is_made = false;
        let made = self.buffer.len();
        if self.buffer.capacity() + self.translator.memory_bytes() > KEPT_BYTES_MAX {
            *self = Translation::default();
        }
        made
    }
}

/// Buffers that grew past this give their memory back.
const KEPT_BYTES_MAX: usize = 128 * 1024;
