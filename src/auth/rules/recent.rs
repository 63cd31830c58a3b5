//! The last answers about names, such as the last decisions about one client. Evaluating a list of rules whose patterns
//! begin alike takes longer than a look-up here.
//!
//! The slot of a name is found by its length and its last bytes; then the whole name is compared.
//!
//! Limits: `SLOTS` answers about names of up to [`NAME_BYTES_MAX`]; longer names are evaluated each time.

use super::Decided;
use crate::config::rules::Action;

/// The last decisions of one set of rules.
pub type RecentDecisions = RecentNames<Decided, 4>;

/// Remembered answers about names. Owns no memory before the first.
#[derive(Clone, Debug)]
pub struct RecentNames<T, const SLOTS: usize> {
    slots: Option<Box<[Slot<T>; SLOTS]>>,
}

#[derive(Clone, Copy, Debug)]
struct Slot<T> {
    /// The question about the name, with the version of the patterns that answered it.
    question: u32,
    length: u8,
    name: [u8; NAME_BYTES_MAX],
    answer: Option<T>,
}

impl<T, const SLOTS: usize> Default for RecentNames<T, SLOTS> {
    fn default() -> RecentNames<T, SLOTS> {
        RecentNames { slots: None }
    }
}

impl<T: Copy, const SLOTS: usize> RecentNames<T, SLOTS> {
    /// The answer to this question about this name, if it is remembered.
    #[inline]
    pub(crate) fn recall(&self, question: u32, name: &[u8]) -> Option<T> {
        let slot = &self.slots.as_ref()?[slot_of::<SLOTS>(name)];
        let is_the_same = slot.question == question
            && usize::from(slot.length) == name.len()
            && slot.name[..usize::from(slot.length)] == *name;
        if is_the_same { slot.answer } else { None }
    }

    /// Remembers an answer, and drops another from its slot.
    pub(crate) fn remember(&mut self, question: u32, name: &[u8], answer: T) {
        let Some(length) = u8::try_from(name.len())
            .ok()
            .filter(|_| name.len() <= NAME_BYTES_MAX)
        else {
            return;
        };
        let empty = Slot {
            question: 0,
            length: 0,
            name: [0; NAME_BYTES_MAX],
            answer: None,
        };
        let slots = self.slots.get_or_insert_with(|| Box::new([empty; SLOTS]));
        let slot = &mut slots[slot_of::<SLOTS>(name)];
        (slot.question, slot.length) = (question, length);
        slot.name[..name.len()].copy_from_slice(name);
        slot.answer = Some(answer);
    }
}

/// Asks the rules with this id about an action. Ids of rules that follow each other differ by one.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "an index below COUNT")]
pub(super) const fn question(rules: u32, action: Action) -> u32 {
    (rules << ACTION_BITS) | action.index() as u32
}

/// The names of one application usually differ at their ends.
fn slot_of<const SLOTS: usize>(name: &[u8]) -> usize {
    let last = name
        .iter()
        .rev()
        .take(2)
        .fold(0, |sum, byte| sum * 31 + usize::from(*byte));
    (name.len() + last) % SLOTS
}

/// Bits that the index of an action takes.
const ACTION_BITS: u32 = 3;
const _: () = assert!(Action::COUNT <= 1 << ACTION_BITS);

/// Longest name that is remembered.
const NAME_BYTES_MAX: usize = 64;
