//! The places of the members of one room: a member keeps its place while it is there, so that pages have a stable
//! order.
//!
//! A page begins at a place and goes on to later ones. Each member that is there throughout is in exactly one page. A
//! later member may take the place of a member that has left. All places are freed when the last member leaves.

/// Members by their places.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The number of a member; or, with [`FREE`] set, the next free place.
    slots: Vec<u32>,
    /// One more than the first free place; 0 if there is none.
    free: u32,
    taken: u32,
}

impl Places {
    /// Gives a member a place.
    pub(super) fn insert(&mut self, member: u32) -> u32 {
        assert!(member & FREE == 0, "2 billion members do not fit into memory");
        self.taken += 1;
        if self.free == 0 {
            self.slots.push(member);
            return index(self.slots.len() - 1);
        }
        let place = self.free - 1;
        self.free = self.slots[place as usize] & !FREE;
        self.slots[place as usize] = member;
        place
    }

    /// Frees a place.
    pub(super) fn remove(&mut self, place: u32) {
        self.taken -= 1;
        if self.taken == 0 {
            *self = Places::default();
            return;
        }
        self.slots[place as usize] = self.free | FREE;
        self.free = place + 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// One more than the last place.
    pub(super) fn end(&self) -> u32 {
        index(self.slots.len())
    }

    /// The member at this place.
    pub(super) fn at(&self, place: u32) -> Option<u32> {
        let slot = *self.slots.get(place as usize)?;
        (slot & FREE == 0).then_some(slot)
    }

    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u32>()
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("2 billion members do not fit into memory")
}

/// Marks a slot without a member.
const FREE: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_keeps_its_place_and_a_free_place_is_taken_again() {
        let mut places = Places::default();
        let given: Vec<u32> = (10..14).map(|member| places.insert(member)).collect();
        assert_eq!(given, [0, 1, 2, 3]);
        places.remove(1);
        places.remove(3);
        let left: Vec<_> = (0..places.end()).map(|place| places.at(place)).collect();
        assert_eq!(left, [Some(10), None, Some(12), None]);
        assert_eq!([20, 21, 22].map(|member| places.insert(member)), [3, 1, 4]);
        for place in 0..5 {
            places.remove(place);
        }
        assert!(places.is_empty() && places.end() == 0 && places.memory_bytes() == 0);
    }
}
