//! Channels in the order of a number, such as the offset of the oldest publication or the time of the next expiry.
//!
//! A binary heap that also stores the place of each channel, so that a channel can be removed from the middle. The
//! number of a channel may be lower than the true number, since numbers only rise: a caller that takes the first
//! channel corrects its number and asks again. So a new publication costs nothing here.

/// Channels in the order of a number, the lowest first. Each is in it at most once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: Vec<(i64, u32)>,
    /// The place of each channel in the heap, by its id.
    places: Vec<u32>,
}

/// The place of a channel that is not in the heap.
const NOWHERE: u32 = u32::MAX;

impl Queue {
    /// The channel with the lowest number.
    pub(super) fn first(&self) -> Option<(i64, u32)> {
        self.heap.first().copied()
    }

    /// Whether a channel is in it.
    pub(super) fn contains(&self, channel: u32) -> bool {
        self.place(channel).is_some()
    }

    /// Puts a channel into it, or changes its number.
    pub(super) fn set(&mut self, channel: u32, number: i64) {
        match self.place(channel) {
            Some(place) => {
                self.heap[place].0 = number;
                self.settle(place);
            }
            None => {
                if self.places.len() <= channel as usize {
                    self.places.resize(channel as usize + 1, NOWHERE);
                }
                self.heap.push((number, channel));
                self.settle(self.heap.len() - 1);
            }
        }
    }

    /// Takes a channel out of it.
    pub(super) fn remove(&mut self, channel: u32) {
        let Some(place) = self.place(channel) else {
            return;
        };
        self.places[channel as usize] = NOWHERE;
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.settle(place);
        }
        if self.heap.len() < self.heap.capacity() / 4 {
            self.heap.shrink_to(self.heap.len() * 2);
        }
    }

    fn place(&self, channel: u32) -> Option<usize> {
        let place = *self.places.get(channel as usize)?;
        (place != NOWHERE).then_some(place as usize)
    }

    /// Moves the channel at a place up or down to where it belongs, and notes its place.
    fn settle(&mut self, mut place: usize) {
        let moved = self.heap[place];
        while place > 0 && moved < self.heap[(place - 1) / 2] {
            self.put(place, self.heap[(place - 1) / 2]);
            place = (place - 1) / 2;
        }
        loop {
            let children = 2 * place + 1..(2 * place + 3).min(self.heap.len());
            match children.min_by_key(|&child| self.heap[child]) {
                Some(child) if self.heap[child] < moved => {
                    self.put(place, self.heap[child]);
                    place = child;
                }
                Some(_) | None => break,
            }
        }
        self.put(place, moved);
    }

    fn put(&mut self, place: usize, entry: (i64, u32)) {
        self.heap[place] = entry;
        self.places[entry.1 as usize] = u32::try_from(place).expect("there are fewer channels");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_first_is_the_lowest_whatever_has_changed() {
        let mut queue = Queue::default();
        let mut model = BTreeMap::new();
        let mut random = 1_u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let channel = u32::try_from(random >> 33).unwrap() % 50;
            if random >> 20 & 3 == 0 {
                queue.remove(channel);
                model.remove(&channel);
            } else {
                let number = i64::try_from(random >> 50).unwrap();
                queue.set(channel, number);
                model.insert(channel, number);
            }
            let lowest = model.iter().map(|(&channel, &number)| (number, channel)).min();
            assert_eq!(queue.first(), lowest);
            assert_eq!(queue.contains(channel), model.contains_key(&channel));
        }
    }
}
