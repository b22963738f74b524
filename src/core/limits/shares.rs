//! How much each key has had. It fades: what was had long ago does not count.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

/// After so long it counts half.
const HALF_LIFE: Duration = Duration::from_mins(10);
/// Half-lives after which all figures are made smaller, so that they stay numbers.
const RESCALE: f64 = 256.0;

/// How much each key has had, divided by its weight. The one with the least is next.
///
/// Instead of making all figures smaller as time passes, what is added grows: comparing them comes to the same. A key
/// that begins to wait counts as having had at least what the one with the least had when a job was last released: it
/// has its turns from then on, and no claim to those that it left to others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shares {
    by_key: BTreeMap<Arc<str>, Share>,
    floor: f64,
    /// What 1 added then is worth 1.
    since: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Share {
    had: f64,
    /// Jobs that wait.
    waiting: u32,
}

impl Shares {
    /// One more job of that key waits.
    pub fn waits(&mut self, key: &Arc<str>) {
        let floor = self.floor;
        let share = self.by_key.entry(key.clone()).or_default();
        if share.waiting == 0 {
            share.had = share.had.max(floor);
        }
        share.waiting += 1;
    }

    /// One of them waits no more.
    pub fn waits_no_more(&mut self, key: &Arc<str>) {
        if let Some(share) = self.by_key.get_mut(key) {
            share.waiting -= 1;
        }
    }

    /// What the key has had.
    pub fn had(&self, key: &Arc<str>) -> f64 {
        self.by_key.get(key).map_or(0.0, |share| share.had)
    }

    /// A job of that key is released, while of those that wait and are as urgent one has had the `least`.
    pub fn released(&mut self, key: &Arc<str>, weight: u32, least: f64, now: Timestamp) {
        self.floor = self.floor.max(least);
        let worth = self.worth(now);
        self.by_key.entry(key.clone()).or_default().had += worth / f64::from(weight.max(1));
    }

    /// What 1 is worth now.
    fn worth(&mut self, now: Timestamp) -> f64 {
        let since = *self.since.get_or_insert(now);
        let halves = now.duration_since(since).as_secs_f64() / HALF_LIFE.as_secs_f64();
        if halves <= RESCALE {
            return halves.max(0.0).exp2();
        }
        self.since = Some(now);
        let smaller = (-halves).exp2();
        self.floor *= smaller;
        self.by_key.values_mut().for_each(|share| share.had *= smaller);
        1.0
    }

    /// Forgets keys whose figures change nothing.
    pub fn sweep(&mut self) {
        let floor = self.floor;
        self.by_key.retain(|_, share| share.waiting > 0 || share.had > floor);
    }
}
