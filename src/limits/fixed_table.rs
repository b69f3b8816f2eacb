//! A table with a fixed number of places for numbers that belong to hashes.
//!
//! Hashes are keyed at random, so that nobody outside can choose who shares a set of places.

use std::sync::{Mutex, PoisonError};

/// Places in one set; a hash is looked for in its own set only.
const WAYS: usize = 8;

/// The table. An entry is a hash and a number; the lowest number of a set goes when it is full.
#[derive(Debug)]
pub(super) struct FixedTable {
    sets: Box<[Mutex<Vec<Entry>>]>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    number: u64,
}

impl FixedTable {
    /// A table of `sets` times eight places. Each set takes memory when it is first used.
    pub(super) fn new(sets: usize) -> Self {
        Self {
            sets: (0..sets).map(|_| Mutex::default()).collect(),
        }
    }

    /// Changes the number that belongs to `hash`, 0 if there is none, to what `change` says.
    pub(super) fn update<T>(&self, hash: u64, change: impl FnOnce(u64) -> (u64, T)) -> T {
        let mut set = self.set(hash);
        let known = set.iter().position(|entry| entry.hash == hash);
        let before = known.map_or(0, |place| set[place].number);
        let (number, told) = change(before);
        let entry = Entry { hash, number };
        match known {
            Some(place) => set[place] = entry,
            None if number == before => {}
            None if set.len() < WAYS => set.push(entry),
            None => {
                if let Some(least) = set.iter_mut().min_by_key(|entry| entry.number) {
                    *least = entry;
                }
            }
        }
        told
    }

    /// The number that belongs to `hash`, 0 if there is none.
    pub(super) fn get(&self, hash: u64) -> u64 {
        let set = self.set(hash);
        let entry = set.iter().find(|entry| entry.hash == hash);
        entry.map_or(0, |entry| entry.number)
    }

    fn set(&self, hash: u64) -> std::sync::MutexGuard<'_, Vec<Entry>> {
        // The upper half: the lower bits of a hash are what tables use elsewhere.
        let upper = usize::try_from(hash >> 32).unwrap_or(0);
        let set = &self.sets[upper % self.sets.len()];
        set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let lock =
            |set: &Mutex<Vec<Entry>>| set.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.sets.iter().map(lock).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_number_of_a_full_set_goes() {
        let places = FixedTable::new(1);
        for hash in 1..=8 {
            places.update(hash, |_| (100 + hash, ()));
        }
        places.update(9, |before| {
            assert_eq!(before, 0);
            (50, ())
        });
        assert_eq!(places.len(), 8);
        assert_eq!((places.get(1), places.get(9)), (0, 50));
        places.update(10, |_| (200, ()));
        assert_eq!((places.get(9), places.get(10)), (0, 200));
        places.update(2, |before| (before + 1, ()));
        assert_eq!(places.get(2), 103);
    }

    #[test]
    fn what_says_nothing_takes_no_place() {
        let places = FixedTable::new(4);
        places.update(7, |before| (before, ()));
        assert_eq!(places.len(), 0);
    }
}
