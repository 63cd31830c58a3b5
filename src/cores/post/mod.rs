//! The letters that cores send each other (`broker/post`).
//!
//! A step sends a letter by `self.post.send(core, letter)`. The core wakes the receivers at the end of its turn, and
//! takes the letters to it in `Core::take_letters` (`cores/letters.rs`).

pub(super) mod letter;
pub(super) mod service_letter;

/// [`LETTERS_WAITING_MAX`], or the limit of a simulation.
pub(super) fn letters_waiting_max() -> usize {
    #[cfg(test)]
    if let Some(scale) = crate::cores::simulation::scale() {
        return scale.letters_waiting_max;
    }
    LETTERS_WAITING_MAX
}

/// Letters of all other cores that may wait for a core: it takes them in a few turns.
const LETTERS_WAITING_MAX: usize = 1024;
