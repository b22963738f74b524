use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::wire::Value;

/// The ids of revoked tasks, which are dropped when they arrive. Bounded, as in Celery; the oldest go first.
#[derive(Debug, Clone, Default)]
pub struct Revoked {
    /// By age. INVARIANT: has an entry for each in `ages`, and no other.
    ids: BTreeMap<u64, (Arc<str>, Timestamp)>,
    ages: HashMap<Arc<str>, u64>,
    next: u64,
}

impl Revoked {
    /// Most ids that are remembered, Celery's `CELERY_WORKER_REVOKES_MAX`.
    pub const MOST: usize = 50_000;
    /// How long an id is remembered, Celery's `CELERY_WORKER_REVOKE_EXPIRES`.
    pub const LIFETIME: Duration = Duration::from_hours(3);
    /// A longer id, in bytes, belongs to no task, and is not remembered.
    pub const LONGEST: usize = 1024;

    /// Remembers these from now on, also those it knows.
    pub fn add<I: AsRef<str>>(&mut self, ids: impl IntoIterator<Item = I>, now: Timestamp) {
        for id in ids {
            let id = id.as_ref();
            if id.len() > Self::LONGEST {
                continue;
            }
            let id: Arc<str> = id.into();
            if let Some(age) = self.ages.insert(id.clone(), self.next) {
                self.ids.remove(&age);
            }
            self.ids.insert(self.next, (id, now));
            self.next += 1;
        }
        while let Some(oldest) = self.ids.first_entry() {
            if self.ages.len() <= Self::MOST && lives(oldest.get().1, now) {
                break;
            }
            self.ages.remove(&oldest.remove().0);
        }
    }

    /// Takes what another worker answers to `hello` as `revoked`: a list of ids, or before Celery 5.7 a map by id. The
    /// times in such a map are of another machine's clock and are left out.
    pub fn merge(&mut self, revoked: &Value, now: Timestamp) {
        self.add(ids_in(revoked), now);
    }

    /// Whether the task is to be dropped.
    pub fn contains(&self, id: &str, now: Timestamp) -> bool {
        let entry = self.ages.get(id).and_then(|age| self.ids.get(age));
        entry.is_some_and(|(_, since)| lives(*since, now))
    }

    /// All ids, the oldest first.
    pub fn ids(&self, now: Timestamp) -> impl Iterator<Item = &str> {
        self.ids.values().filter(move |(_, since)| lives(*since, now)).map(|(id, _)| &**id)
    }
}

/// The ids in a list, or in the keys of a map.
pub(super) fn ids_in(revoked: &Value) -> Vec<&str> {
    match revoked {
        Value::Array(ids) => ids.iter().filter_map(Value::as_str).collect(),
        Value::Object(ids) => ids.keys().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Verbatim(_) => Vec::new(),
    }
}

fn lives(since: Timestamp, now: Timestamp) -> bool {
    now.duration_since(since).unsigned_abs() < Revoked::LIFETIME || now < since
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn value(text: &str) -> Value {
        Value::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn lists_and_maps_of_other_workers_are_merged() {
        let mut revoked = Revoked::default();
        revoked.merge(&value(r#"["a", "b", 7]"#), at(0));
        revoked.merge(&value(r#"{"c": [17.5, "c"], "a": 1e300}"#), at(1));
        revoked.merge(&value("null"), at(1));
        assert_eq!(revoked.ids(at(2)).collect::<Vec<_>>(), ["b", "c", "a"]);
        assert!(revoked.contains("c", at(2)) && !revoked.contains("d", at(2)));
    }

    #[test]
    fn ids_are_forgotten_after_three_hours_unless_they_are_revoked_again() {
        let mut revoked = Revoked::default();
        revoked.add(["old", "again"], at(0));
        revoked.add(["again"], at(5_000));
        assert!(revoked.contains("old", at(10_799)) && !revoked.contains("old", at(10_800)));
        assert!(revoked.contains("again", at(15_799)));
        assert_eq!(revoked.ids(at(10_800)).collect::<Vec<_>>(), ["again"]);
        revoked.add(["new"], at(10_800));
        assert_eq!((revoked.ids.len(), revoked.ages.len()), (2, 2));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut revoked = Revoked::default();
        revoked.add((0..Revoked::MOST + 10).map(|id| id.to_string()), at(0));
        assert_eq!(revoked.ids(at(0)).count(), Revoked::MOST);
        assert!(!revoked.contains("9", at(0)) && revoked.contains("10", at(0)));
        revoked.add(["x".repeat(Revoked::LONGEST + 1)], at(0));
        assert!(revoked.contains("10", at(0)));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_forgotten() {
        let mut revoked = Revoked::default();
        revoked.add(["a"], at(100_000));
        assert!(revoked.contains("a", at(0)));
    }
}
