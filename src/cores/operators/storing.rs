//! The end of a turn for the store (`data_dir`), and the end of remembering: when the server stops, or when
//! another process takes the store over.
//!
//! A core ends in two steps. First, all cores stop publishing to remembered channels. When all of them have,
//! each reads the ring up to that point, and sends its last records.

use std::thread;
use std::time::Duration;

use mio::Token;

use crate::app::App;
use crate::decision::CloseReason;

use crate::cores::core::Core;
use crate::cores::lifecycle::connection::ConnectionId;

impl<A: App> Core<A> {
    /// Sends the records of this turn to the store; sends the last records if the store is to be closed.
    pub(in crate::cores) fn tell_store(&mut self) {
        let now = self.time.now();
        self.record_mqtt();
        let has_saved_all = self
            .connections
            .mqtt
            .as_ref()
            .is_none_or(|sessions| !sessions.has_unsaved());
        self.delivery.note_read(has_saved_all);
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

    /// Records the changes of MQTT sessions and of retained publications.
    fn record_mqtt(&mut self) {
        self.delivery.record_retained();
        let now = self.time.now();
        if let Some(sessions) = &mut self.connections.mqtt
            && let Some(on_disk) = self.delivery.on_disk()
            && !on_disk.has_finished()
            && let Some(save) = sessions.save(now, on_disk)
            && on_disk.is_strict()
        {
            on_disk.note_save(save);
            // If the save is not committed yet, this core is woken at the next commit.
            let _ = on_disk.committed_save();
        }
    }

    /// Leaves MQTT sessions to the next process: disconnects all MQTT clients, some in each turn. True when
    /// all are disconnected.
    fn let_go_of_mqtt(&mut self) -> bool {
        let Some(sessions) = &mut self.connections.mqtt else {
            return true;
        };
        sessions.freeze();
        let Some(connected) = sessions.next_connected(DISCONNECTS_PER_TURN_MAX, SESSIONS_PER_TURN_MAX) else {
            return true;
        };
        for address in connected {
            self.close(ConnectionId::from_token(Token(address)), CloseReason::Draining);
        }
        false
    }

    /// Ends remembering in a core that was told to stop at once, like the other cores: each gets a moment for
    /// it. The core no longer serves clients.
    pub(in crate::cores) fn end_remembering_at_once(&mut self) {
        for _ in 0..TRIES_MAX {
            if self.end_remembering() {
                return;
            }
            thread::sleep(TRY_EVERY);
            self.delivery.begin_delivering();
            self.delivery
                .deliver(&mut self.connections, &mut self.resources.inspector());
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
        if !self.let_go_of_mqtt() {
            return false;
        }
        if self.delivery.on_disk().is_some_and(|on_disk| !on_disk.end()) {
            return false;
        }
        // Later publications are not remembered: no core makes any.
        let claimed = self.delivery.claimed();
        let end = *self.remembering_ends_at.get_or_insert(claimed);
        if !self.delivery.has_passed(end) {
            return false;
        }
        self.record_mqtt();
        if self.connections.has_more_to_save() {
            // The rest follows in the next turns.
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

/// MQTT clients that one turn disconnects.
const DISCONNECTS_PER_TURN_MAX: usize = 1000;
/// Places of MQTT sessions that one turn looks at for these, at 5 ns.
const SESSIONS_PER_TURN_MAX: usize = 65_536;
/// How often, and how soon again, a core that was told to stop at once looks whether the others have ended: it waits for
/// half a second in all.
const TRIES_MAX: u32 = 250;
const TRY_EVERY: Duration = Duration::from_millis(2);
