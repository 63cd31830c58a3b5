//! Notes which channels have got their first subscriber on this core, and which have lost their last.
//!
//! On most servers no module asks for these changes (`webhooks` does). Then a first subscriber costs one
//! comparison more.

/// The changes since they were last taken, while they are watched.
#[derive(Debug, Default)]
pub struct Watch(Option<Vec<Change>>);

/// A channel that has got its first subscriber, or lost its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub channel: Box<[u8]>,
    /// Whether it has subscribers now.
    pub is_occupied: bool,
}

impl Watch {
    /// Notes changes from now on.
    pub fn begin(&mut self) {
        self.0.get_or_insert_default();
    }

    /// Notes no changes any more.
    pub fn end(&mut self) {
        self.0 = None;
    }

    /// Notes a change, if changes are watched.
    #[inline]
    pub(crate) fn note(&mut self, channel: &[u8], is_occupied: bool) {
        if let Some(changes) = &mut self.0 {
            changes.push(Change {
                channel: channel.into(),
                is_occupied,
            });
        }
    }

    /// The changes since the last call, in their order.
    pub fn take(&mut self) -> Vec<Change> {
        self.0.as_mut().map_or_else(Vec::new, std::mem::take)
    }
}
