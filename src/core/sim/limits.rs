//! Limits of the pool, in some worlds, and whether they are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::super::limits::{By, Limit, Limits, Rate};
use super::super::status::{Phase, Status};
use super::operator::Order;
use super::rng::Rng;
use super::world::World;
use super::{at, millis, say};

const LABEL: &str = "tenant";

/// What is known of jobs under limits, by what was published and recorded.
#[derive(Debug, Default)]
pub struct Permits {
    /// Jobs of which a message was published, until a status says that the attempt is over.
    out: BTreeSet<usize>,
    /// When those were released of which a message was published, as their statuses say.
    released: BTreeSet<(i64, usize)>,
}

/// The limits of a world: of each of two tenants, and of both together.
pub fn declared(rng: &mut Rng) -> Arc<Limits> {
    let limit = |name: &str, by, most, rate| Limit {
        name: name.into(),
        by,
        max_in_flight: Some(most),
        rate,
        slow_down: None,
        weight: 1,
        weights: BTreeMap::from([("b".into(), 2)]),
    };
    let count = u32::try_from(rng.between(1, 4)).unwrap();
    let rate = Rate { count, per: Duration::from_millis(rng.between(2_000, 20_000).unsigned_abs()) };
    let most = u32::try_from(rng.between(1, 3)).unwrap();
    let tenants = limit("tenants", By::Label(LABEL.into()), most, None);
    let all = limit("all", By::All, 3, Some(rate).filter(|_| rng.per_mille(700)));
    Arc::new(Limits { pool: "default".into(), all: vec![tenants, all], aging: Duration::from_hours(1) })
}

/// The labels of a job.
pub fn labels(number: usize) -> Box<[(Arc<str>, Arc<str>)]> {
    Box::new([(LABEL.into(), if number % 3 == 2 { "b" } else { "a" }.into())])
}

impl World {
    /// What time it is for an operator that gives permits.
    pub fn clock_of(&self, operator: usize) -> Timestamp {
        at(self.now + self.operators[operator].ahead)
    }

    /// The clock of an operator is set.
    pub fn jump(&mut self) {
        let operator = self.rng.index(self.operators.len());
        let ahead = self.rng.between(-100_000, 100_000);
        say!(self, "the clock of operator {operator} is {ahead} ms ahead now");
        self.count("clock of an operator set");
        self.operators[operator].ahead = ahead;
    }

    /// Gives permits where there is room now, and looks again when a rate allows the next one.
    pub fn give_permits(&mut self, operator: usize) {
        let now = self.clock_of(operator);
        let it = &mut self.operators[operator];
        let given = it.table.give_due_permits(now);
        let (next, ahead) = (it.table.permits_due_at(), it.ahead);
        for (lane, key) in given {
            it.turns.push(lane, key.clone());
            say!(self, "operator {operator} gives {key} a permit");
        }
        if let Some(next) = next {
            let due = self.now + (millis(next) - ahead - self.now).clamp(1, 60_000);
            let it = &mut self.operators[operator];
            // One of these waits at a time, or the world is full of them.
            if it.gives_at <= self.now || due < it.gives_at {
                it.gives_at = due;
                self.order(operator, due - self.now, Order::Timers);
            }
        }
    }

    /// Something of a job was published: no limit may be exceeded by it.
    pub fn judge_permit(&mut self, job: usize) {
        // What arrives on Redis after its object was deleted, and does not count, is on no operator's books yet.
        let Some(limits) = self.facts.limits.clone().filter(|_| !self.api.jobs[job].deleted) else { return };
        self.permits.out.insert(job);
        if let Some(at) = self.api.jobs[job].job.status.released_at.as_deref() {
            self.permits.released.insert((millis(*at), job));
        }
        if !self.chaos.jumps {
            self.judge_rates(&limits);
        }
        let keys = |job: usize| limits.keys_of(&self.api.jobs[job].job);
        for (index, limit) in limits.all.iter().enumerate() {
            let key = keys(job)[index].clone();
            let beside: Vec<usize> = self.permits.out.iter().copied().filter(|it| keys(*it)[index] == key).collect();
            if limit.max_in_flight.is_some_and(|most| beside.len() > most as usize) {
                let broken = format!("job-{job} is published beyond limit {} of {key:?}: {beside:?}", limit.name);
                self.broken.push(broken);
            }
        }
    }

    /// A status was written, and was that before.
    pub fn judge_release(&mut self, job: usize, was: &Status) {
        if self.facts.limits.is_none() {
            return;
        }
        let is = &self.api.jobs[job].job.status;
        if is.why.reason() == "LimitReached" && was.why.reason() != "LimitReached" {
            self.count("limit reached");
        }
        let is = &self.api.jobs[job].job.status;
        let is_out = matches!(is.phase, Phase::Queued | Phase::Running) || is.why.is_released();
        let (before, now) = (was.released_at.as_deref().copied(), is.released_at.as_deref().copied());
        let is_anew = was.why.is_released() && is.why.is_released();
        if !is_out {
            self.permits.out.remove(&job);
            // It was taken off the queue, and has not run.
            if let (Phase::Pending, Some(at)) = (is.phase, now) {
                self.permits.released.remove(&(millis(at), job));
            }
        }
        if now.is_none() || now == before {
            return;
        }
        if let Some(before) = before.filter(|_| is_anew) {
            self.permits.released.remove(&(millis(before), job)); // what was published with it is not begun twice
        }
        self.count(if is_anew { "released anew" } else { "released" });
    }

    /// No operator finds out when a job was released that is deleted.
    pub fn forget_releases(&mut self, job: usize) {
        self.permits.out.remove(&job);
        self.permits.released.retain(|(_, of)| *of != job);
    }

    fn judge_rates(&mut self, limits: &Limits) {
        for (index, limit) in limits.all.iter().enumerate() {
            let Some(Rate { count, per }) = limit.rate else { continue };
            let mut by_key = BTreeMap::<Arc<str>, Vec<i64>>::new();
            for (at, job) in &self.permits.released {
                let key = limits.keys_of(&self.api.jobs[*job].job)[index].clone();
                by_key.entry(key).or_default().push(*at);
            }
            let per = i64::try_from(per.as_millis()).unwrap();
            for (key, times) in by_key {
                let is_broken = times.windows(count as usize + 1).any(|span| span[count as usize] - span[0] < per);
                if is_broken {
                    self.broken.push(format!("more are released than {} allows of {key:?}: {times:?}", limit.name));
                }
            }
        }
    }
}
