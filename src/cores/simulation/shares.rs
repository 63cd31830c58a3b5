//! Shared subscriptions: which session has got which publication of the group. One session has, unless it has
//! ended without an acknowledgement that the server knows of (section 4.8.2 of MQTT 5).

use std::collections::BTreeMap;

/// The publications of the group, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Shares {
    copies: BTreeMap<usize, Vec<Copy>>,
    /// Publications that are known to be missing.
    pub(super) checked: u64,
}

/// A device, and the connection that has begun its session.
pub(super) type SessionKey = (usize, usize);

#[derive(Clone, Copy, Debug)]
struct Copy {
    session: SessionKey,
    qos: u8,
}

impl Shares {
    /// A session has got a publication for the first time.
    ///
    /// # Errors
    /// Another has got it.
    pub(super) fn take(
        &mut self,
        number: usize,
        session: SessionKey,
        qos: u8,
        may_be_over: impl Fn(SessionKey) -> bool,
    ) -> Result<(), String> {
        let copies = self.copies.entry(number).or_default();
        // MQTT-4.8.2-5: a session that may have it with QoS 2 is the only one.
        let keeps_it = |copy: &&Copy| copy.qos != 1 || !may_be_over(copy.session);
        if let Some(other) = copies.iter().find(keeps_it) {
            return Err(format!(
                "{number} was shared with {other:?}, and comes to {session:?}"
            ));
        }
        copies.push(Copy { session, qos });
        Ok(())
    }

    pub(super) fn has(&self, number: usize) -> bool {
        self.copies.contains_key(&number)
    }
}
