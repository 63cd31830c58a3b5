//! The end of a turn for the store (`data_dir`), and the end of remembering: at the end of the server, or when another
//! process takes the store over.
//!
//! A core ends in two steps. First each core publishes nothing more to remembered channels. When this holds for all
//! cores, each reads what is in the ring up to then, and sends its last records.

use std::thread;
use std::time::Duration;

use crate::app::App;

use crate::cores::core::Core;

impl<A: App> Core<A> {
    /// Sends the records of this turn to the store, or the last ones if it is to be let go of.
    pub(in crate::cores) fn tell_store(&mut self) {
        let now = self.time.now();
        let Some(memory) = self.delivery.memory() else {
            return;
        };
        memory.tell_store(now);
        let is_closing = memory.on_disk().is_some_and(|on_disk| on_disk.is_closing());
        self.send_will_letters();
        if is_closing {
            self.end_remembering();
        }
    }

    /// Ends remembering in a core that was told to stop at once, as the others were: each is given a moment for it. The
    /// core serves no client any more.
    pub(in crate::cores) fn end_remembering_at_once(&mut self) {
        for _ in 0..TRIES_MAX {
            if self.end_remembering() {
                return;
            }
            thread::sleep(TRY_EVERY);
            self.delivery.begin_delivering();
            self.delivery.deliver(&mut self.connections);
        }
    }

    /// Ends remembering, step by step. True when the store has all records of this core, or if there is no store.
    pub(in crate::cores) fn end_remembering(&mut self) -> bool {
        let Some(on_disk) = self.delivery.on_disk() else {
            return true;
        };
        if on_disk.has_finished() {
            return true;
        }
        if !on_disk.end() {
            return false;
        }
        // Later publications are not remembered: no core makes any.
        let claimed = self.delivery.claimed();
        let end = *self.remembering_ends_at.get_or_insert(claimed);
        if !self.delivery.has_passed(end) {
            return false;
        }
        self.settle_wills_on_disk();
        let now = self.time.now();
        if let Some(memory) = self.delivery.memory() {
            memory.tell_store(now);
            if let Some(on_disk) = memory.on_disk() {
                on_disk.finish();
            }
        }
        true
    }
}

/// How long a core that was told to stop at once waits for the others, in all half a second.
const TRIES_MAX: u32 = 250;
const TRY_EVERY: Duration = Duration::from_millis(2);
