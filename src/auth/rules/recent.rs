//! The last decisions about one client, or about all clients without claims. Evaluating a list of rules whose
//! patterns begin alike takes longer than a look-up here.
//!
//! The slot of a name is found by its length and its last bytes; then the whole name is compared.
//!
//! Limits: [`SLOTS`] decisions about names of up to [`NAME_BYTES_MAX`]; longer names are evaluated each
//! time.

use super::Decided;
use crate::config::rules::Action;

/// Remembered decisions of one set of rules. Owns no memory before the first.
#[derive(Clone, Debug, Default)]
pub struct RecentDecisions {
    slots: Option<Box<[Slot; SLOTS]>>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The rules that made the decision.
    rules: u32,
    action: Action,
    length: u8,
    name: [u8; NAME_BYTES_MAX],
    decided: Option<Decided>,
}

impl RecentDecisions {
    /// The decision of these rules about this name, if it is remembered.
    #[inline]
    pub(super) fn recall(&self, rules: u32, action: Action, name: &[u8]) -> Option<Decided> {
        let slot = &self.slots.as_ref()?[slot_of(name)];
        let is_the_same = slot.rules == rules
            && slot.action == action
            && usize::from(slot.length) == name.len()
            && slot.name[..usize::from(slot.length)] == *name;
        if is_the_same { slot.decided } else { None }
    }

    /// Remembers a decision, and drops another from its slot.
    pub(super) fn remember(&mut self, rules: u32, action: Action, name: &[u8], decided: Decided) {
        let Some(length) = u8::try_from(name.len())
            .ok()
            .filter(|_| name.len() <= NAME_BYTES_MAX)
        else {
            return;
        };
        let slots = self.slots.get_or_insert_with(|| Box::new([EMPTY; SLOTS]));
        let slot = &mut slots[slot_of(name)];
        (slot.rules, slot.action, slot.length) = (rules, action, length);
        slot.name[..name.len()].copy_from_slice(name);
        slot.decided = Some(decided);
    }
}

const EMPTY: Slot = Slot {
    rules: 0,
    action: Action::Subscribe,
    length: 0,
    name: [0; NAME_BYTES_MAX],
    decided: None,
};

/// The names of one application usually differ at their ends.
fn slot_of(name: &[u8]) -> usize {
    let last = name
        .iter()
        .rev()
        .take(2)
        .fold(0, |sum, byte| sum * 31 + usize::from(*byte));
    (name.len() + last) % SLOTS
}

/// Most remembered decisions.
const SLOTS: usize = 4;
/// Longest name that is remembered.
const NAME_BYTES_MAX: usize = 64;
