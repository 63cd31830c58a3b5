//! The last decisions of one client, or of all that have no claims: a list of rules whose patterns begin alike takes
//! longer to walk than to look here.
//!
//! A place for a name is found by its length and its last bytes; whether it is that name is compared in full.
//!
//! Limits: [`PLACES`] decisions on names of up to [`NAME_BYTES_MAX`]; others are decided anew each time.

use super::Decided;
use crate::config::rules::Action;

/// Decisions by one set of rules. Owns no memory before the first.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    places: Option<Box<[Place; PLACES]>>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// The rules that have decided.
    rules: u32,
    action: Action,
    length: u8,
    name: [u8; NAME_BYTES_MAX],
    decided: Option<Decided>,
}

impl Recent {
    /// What these rules have decided about this, if it is remembered.
    #[inline]
    pub(super) fn recall(&self, rules: u32, action: Action, name: &[u8]) -> Option<Decided> {
        let place = &self.places.as_ref()?[place_of(name)];
        let is_the_same = place.rules == rules
            && place.action == action
            && usize::from(place.length) == name.len()
            && place.name[..usize::from(place.length)] == *name;
        if is_the_same { place.decided } else { None }
    }

    /// Remembers it, in the place of another.
    pub(super) fn remember(&mut self, rules: u32, action: Action, name: &[u8], decided: Decided) {
        let Some(length) = u8::try_from(name.len())
            .ok()
            .filter(|_| name.len() <= NAME_BYTES_MAX)
        else {
            return;
        };
        let places = self.places.get_or_insert_with(|| Box::new([EMPTY; PLACES]));
        let place = &mut places[place_of(name)];
        (place.rules, place.action, place.length) = (rules, action, length);
        place.name[..name.len()].copy_from_slice(name);
        place.decided = Some(decided);
    }
}

const EMPTY: Place = Place {
    rules: 0,
    action: Action::Subscribe,
    length: 0,
    name: [0; NAME_BYTES_MAX],
    decided: None,
};

/// Names of one application differ at their ends.
fn place_of(name: &[u8]) -> usize {
    let last = name
        .iter()
        .rev()
        .take(2)
        .fold(0, |sum, byte| sum * 31 + usize::from(*byte));
    (name.len() + last) % PLACES
}

/// Decisions that are remembered.
const PLACES: usize = 4;
/// Longest name that is remembered.
const NAME_BYTES_MAX: usize = 64;
