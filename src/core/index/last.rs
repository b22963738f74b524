//! The last so many of something: the oldest are forgotten first.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// The last keys that were remembered, with a value each.
#[derive(Debug)]
pub struct Last<K, V = ()> {
    bound: usize,
    known: HashMap<K, V>,
    /// Oldest first.
    order: VecDeque<K>,
}

impl<K: Clone + Eq + Hash, V> Last<K, V> {
    /// Room for so many.
    pub fn new(bound: usize) -> Self {
        Self { bound, known: HashMap::new(), order: VecDeque::new() }
    }

    /// Remembers a key. One that is known already keeps its place in the order.
    pub fn remember(&mut self, key: K, value: V) {
        if self.known.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > self.bound
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether this key is remembered.
    pub fn contains(&self, key: &K) -> bool {
        self.known.contains_key(key)
    }

    /// What is remembered with this key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.known.get(key)
    }

    /// Forgets a key.
    pub fn take(&mut self, key: &K) -> Option<V> {
        let value = self.known.remove(key)?;
        self.order.retain(|other| other != key);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_keys_are_remembered_and_the_oldest_are_forgotten_first() {
        let mut last = Last::new(3);
        for key in [1, 2, 1, 3, 4] {
            last.remember(key, key * 10);
        }
        assert_eq!([1, 2, 3, 4].map(|key| last.get(&key).copied()), [None, Some(20), Some(30), Some(40)]);
        assert_eq!((last.known.len(), last.order.len()), (3, 3));
    }

    #[test]
    fn a_key_that_was_taken_leaves_its_room_to_others() {
        let mut last = Last::new(2);
        last.remember("a", 1);
        last.remember("b", 2);
        assert_eq!((last.take(&"a"), last.take(&"a")), (Some(1), None));
        last.remember("c", 3);
        assert!(last.contains(&"b") && last.contains(&"c") && !last.contains(&"a"));
        last.remember("a", 4);
        last.remember("d", 5);
        assert!(last.contains(&"a") && last.contains(&"d"), "its first place in the order is forgotten, too");
    }
}
