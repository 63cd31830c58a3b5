//! The ids that clients are given.
//!
//! As in the reference, an id has random bytes, then a 32-bit counter (wire reference, section 5). The random
//! bytes come from the system, for many ids at once: a system call for each id would cost as much as
//! everything else for a new session, and so would a keyed hash.

use std::fmt;

use crate::app::SessionId;

/// Makes the ids of one core.
pub struct SessionIds {
    /// Random bytes of the next ids.
    random: [u8; RANDOM_BYTES * IDS_AT_ONCE],
    /// Ids made so far. Its low half is the counter in an id.
    count: u64,
}

impl SessionIds {
    /// A generator with random bytes of its own from the system.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new() -> Result<SessionIds, getrandom::Error> {
        let mut random = [0; RANDOM_BYTES * IDS_AT_ONCE];
        getrandom::fill(&mut random)?;
        Ok(SessionIds { random, count: 0 })
    }

    /// An id that was never given before.
    pub fn next_id(&mut self) -> SessionId {
        let count = self.count.to_be_bytes();
        let place = usize::from(count[7]) % IDS_AT_ONCE * RANDOM_BYTES;
        if place == 0 && self.count > 0 {
            // getrandom(2): once it has returned bytes, it always does.
            getrandom::fill(&mut self.random).expect("the system has given random bytes before");
        }
        self.count += 1;
        let mut id = [0; SessionId::BYTES];
        id[..RANDOM_BYTES].copy_from_slice(&self.random[place..place + RANDOM_BYTES]);
        id[RANDOM_BYTES..].copy_from_slice(&count[4..]);
        SessionId::new(id)
    }
}

impl fmt::Debug for SessionIds {
    /// Without the random bytes, which will be in the ids of the next clients.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SessionIds")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// Random bytes of an id.
const RANDOM_BYTES: usize = 11;
/// How many ids are made from one request to the system for random bytes; divides 256.
const IDS_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Characters of an id that consist of random bytes alone: each holds 6 bits.
    const RANDOM_CHARACTERS: usize = RANDOM_BYTES * 8 / 6;

    #[test]
    fn ids_have_the_form_of_the_reference() {
        let mut ids = SessionIds::new().unwrap();
        let first = ids.next_id().to_string();
        assert_eq!(first.len(), 20);
        assert!(
            first
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
        // The counter's low bits are its last characters, as in the recordings.
        assert!(first.ends_with("AAAA"));
        assert!(ids.next_id().to_string().ends_with("AAAB"));
    }

    #[test]
    fn ids_differ_within_a_core_and_between_cores() {
        let mut cores = [SessionIds::new().unwrap(), SessionIds::new().unwrap()];
        let ids: HashSet<_> = cores
            .iter_mut()
            .flat_map(|ids| (0..1000).map(|_| ids.next_id()).collect::<Vec<_>>())
            .collect();
        assert_eq!(ids.len(), 2000);
    }

    #[test]
    fn what_is_random_in_an_id_is_in_no_other() {
        let mut ids = SessionIds::new().unwrap();
        let count = 3 * IDS_AT_ONCE + 1;
        let random: HashSet<_> = (0..count)
            .map(|_| ids.next_id().to_string()[..RANDOM_CHARACTERS].to_owned())
            .collect();
        assert_eq!(random.len(), count);
        // The random bytes of the next id are not printed either.
        assert_eq!(format!("{ids:?}"), format!("SessionIds {{ count: {count}, .. }}"));
    }
}
