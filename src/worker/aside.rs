//! How many messages a worker holds beside those that run. What is decided here is pure: times are arguments.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::runtime::backoff::{Backoff, Bounds};

/// Messages for each slot that are put aside at least: as many as Celery's `worker_prefetch_multiplier`.
const FOR_EACH_SLOT: u128 = 4;
/// Messages that are put aside at most.
const MOST: u128 = 1000;
/// Messages in a row that go back for want of a place before the worker pauses.
const IN_A_ROW: u32 = 20;
/// Longest pause after the first such row, and after any.
const PAUSE: Bounds = (Duration::from_secs(1), Duration::from_secs(5));

/// The places for messages that are put aside.
#[derive(Debug)]
pub struct AsidePlaces {
    /// How long a message that was put back waits.
    wait: Duration,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    places: u128,
    /// What a run took lately.
    run: Option<Duration>,
    /// Messages that went back since one ran.
    gone_back: u32,
    pauses: Option<Backoff>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<AsidePlaces>);

impl AsidePlaces {
    /// Places for messages of which those that were put back wait for so long.
    pub fn new(wait: Duration) -> Self {
        Self { wait, taken: Mutex::default() }
    }

    /// A place, if one is free for a message that was put back, or for the copy of a task that runs elsewhere, which
    /// waits for as long as that takes.
    pub fn take(self: &Arc<Self>, concurrency: u32, was_put_back: bool) -> Option<Place> {
        let mut taken = self.taken.lock();
        let is_free = taken.places < most(concurrency, self.wait, taken.run.filter(|_| was_put_back));
        is_free.then(|| {
            taken.places += 1;
            Place(self.clone())
        })
    }

    /// A message ran for so long.
    pub fn ran(&self, run: Duration) {
        let mut taken = self.taken.lock();
        let before = taken.run.unwrap_or(run);
        (taken.run, taken.gone_back, taken.pauses) = (Some((before * 3 + run) / 4), 0, None);
    }

    /// A message went back for want of a place.
    pub fn went_back(&self) {
        self.taken.lock().gone_back += 1;
    }

    /// How long to pause before the next message is taken: those that went back may be all there is.
    pub fn pause(&self) -> Option<Duration> {
        let mut taken = self.taken.lock();
        if taken.gone_back < IN_A_ROW {
            return None;
        }
        taken.gone_back = 0;
        Some(taken.pauses.get_or_insert(Backoff::new(PAUSE)).pause())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.lock().places -= 1;
    }
}

/// How many messages are put aside at most.
///
/// What was put back waits for `wait`, as long as a lease lasts. So that the slots are not idle meanwhile, as many wait as can run
/// in that time if a run takes as long as those before; not more, because other workers could run them.
fn most(concurrency: u32, wait: Duration, run: Option<Duration>) -> u128 {
    let meanwhile = run.map_or(0, |run| wait.as_millis() / run.as_millis().max(1));
    (meanwhile.max(FOR_EACH_SLOT) * u128::from(concurrency)).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(6);

    #[test]
    fn as_many_messages_are_put_aside_as_can_run_while_they_wait_and_at_least_four_for_each_slot() {
        let (short, long) = (Duration::from_millis(20), Duration::from_mins(10));
        assert_eq!([None, Some(long), Some(short)].map(|run| most(1, WAIT, run)), [4, 4, 300]);
        assert_eq!([None, Some(long), Some(short)].map(|run| most(10, WAIT, run)), [40, 40, 1000]);
        assert_eq!(most(1000, WAIT, Some(Duration::ZERO)), 1000);
    }

    #[test]
    fn a_place_is_free_again_when_its_message_leaves_it() {
        let places = Arc::new(AsidePlaces::new(WAIT));
        let mut taken: Vec<Place> = std::iter::from_fn(|| places.take(1, true)).collect();
        assert_eq!(taken.len(), 4);
        taken.pop();
        taken.extend(places.take(1, false));
        assert_eq!(taken.len(), 4);
        places.ran(Duration::from_secs(1));
        assert!(places.take(1, false).is_none(), "a copy may wait for hours");
        assert!(places.take(1, true).is_some(), "a run takes a second");
    }

    #[test]
    fn a_worker_pauses_when_it_has_given_back_one_message_after_another_until_one_runs() {
        let places = AsidePlaces::new(WAIT);
        let give_back = || (0..IN_A_ROW).for_each(|_| places.went_back());
        assert_eq!(places.pause(), None);
        give_back();
        assert!(places.pause().is_some());
        assert_eq!(places.pause(), None, "the next row");
        give_back();
        places.ran(Duration::from_secs(1));
        assert_eq!(places.pause(), None);
    }
}
