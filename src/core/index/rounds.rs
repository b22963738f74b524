//! What to look at when there may be more than one round has room for: some of each group, and the next round goes on
//! after them. So no group takes the room of another, and each item has its turn however many there are.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Where the last round stopped, in each group.
#[derive(Debug, Clone)]
pub struct Rounds<G, T> {
    most: usize,
    after: HashMap<G, T>,
}

/// A round that is under way.
#[derive(Debug)]
pub struct Round<'a, G, T> {
    rounds: &'a mut Rounds<G, T>,
    groups: HashMap<G, Group<T>>,
}

#[derive(Debug)]
struct Group<T> {
    /// In the order of their turns: those that are behind the place where the last round stopped come first.
    chosen: BTreeSet<(bool, T)>,
    put_off: usize,
}

/// What a round chose of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen<T> {
    /// In the order of their turns.
    pub items: Vec<T>,
    /// How many a later round has to look at.
    pub put_off: usize,
}

impl<T> Default for Chosen<T> {
    fn default() -> Self {
        Self { items: Vec::new(), put_off: 0 }
    }
}

impl<G: Clone + Eq + Hash, T: Clone + Ord> Rounds<G, T> {
    /// Rounds that choose at most so many of each group.
    pub fn new(most: usize) -> Self {
        Self { most, after: HashMap::new() }
    }

    /// Begins one.
    pub fn begin(&mut self) -> Round<'_, G, T> {
        Round { rounds: self, groups: HashMap::new() }
    }
}

impl<G: Clone + Eq + Hash, T: Clone + Ord> Round<'_, G, T> {
    /// There is this item. What was chosen already may be met again.
    pub fn offer(&mut self, group: G, item: T) {
        let had_its_turn = self.rounds.after.get(&group).is_some_and(|after| item <= *after);
        let group = self.groups.entry(group).or_insert_with(|| Group { chosen: BTreeSet::new(), put_off: 0 });
        if group.chosen.insert((had_its_turn, item)) && group.chosen.len() > self.rounds.most {
            group.chosen.pop_last();
            group.put_off += 1;
        }
    }

    /// Ends it, and says what was chosen.
    pub fn end(self) -> HashMap<G, Chosen<T>> {
        self.rounds.after.clear();
        let mut all = HashMap::new();
        for (name, group) in self.groups {
            let items: Vec<T> = group.chosen.into_iter().map(|(_, item)| item).collect();
            if let Some(last) = items.last().filter(|_| group.put_off > 0) {
                self.rounds.after.insert(name.clone(), last.clone());
            }
            all.insert(name, Chosen { items, put_off: group.put_off });
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(
        rounds: &mut Rounds<&'static str, u32>,
        offered: &[(&'static str, u32)],
    ) -> HashMap<&'static str, Vec<u32>> {
        let mut round = rounds.begin();
        for (group, item) in offered {
            round.offer(group, *item);
        }
        round.end().into_iter().map(|(group, chosen)| (group, chosen.items)).collect()
    }

    #[test]
    fn each_item_has_its_turn_however_many_are_planted() {
        let mut rounds = Rounds::new(100);
        let planted: Vec<_> = (0..1050).rev().map(|n| ("own", n)).collect();
        let mut looked_at = BTreeSet::new();
        for _ in 0..11 {
            let chosen = round(&mut rounds, &planted);
            assert_eq!(chosen["own"].len(), 100);
            looked_at.extend(chosen["own"].clone());
        }
        assert_eq!(looked_at.len(), 1050);
    }

    #[test]
    fn many_items_of_one_group_take_no_room_of_another() {
        let mut rounds = Rounds::new(2);
        let chosen = round(&mut rounds, &[("noisy", 1), ("noisy", 2), ("noisy", 3), ("quiet", 9)]);
        assert_eq!((&*chosen["noisy"], &*chosen["quiet"]), (&[1, 2][..], &[9][..]));
    }

    #[test]
    fn items_without_room_are_counted_and_an_item_that_is_met_twice_is_chosen_once() {
        let mut rounds = Rounds::new(2);
        let mut round = rounds.begin();
        for item in [3, 1, 2, 1] {
            round.offer("own", item);
        }
        assert_eq!(round.end()["own"], Chosen { items: vec![1, 2], put_off: 1 });
        let mut round = rounds.begin();
        for item in [1, 2, 3] {
            round.offer("own", item);
        }
        assert_eq!(round.end()["own"].items, [3, 1], "the one that was put off comes first");
        assert_eq!(self::round(&mut rounds, &[("own", 1)])["own"], [1]);
        assert!(rounds.after.is_empty(), "all had their turn");
    }
}
