use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::core::id::Priority;
use crate::core::limits::{Limit, Rate};
use crate::core::reason::{Hold, Why};
use crate::core::status::{Attempt, AttemptOutcome, PastAttempt, Phase, Status};

mod rates;
mod slow;
mod turns;

/// So many milliseconds after everything began.
fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_767_225_600_000 + millis).unwrap()
}

/// A limit of so many in flight for each tenant.
fn tenants(most: u32) -> Limit {
    Limit {
        name: "tenants".into(),
        by: By::Label("tenant".into()),
        max_in_flight: Some(most),
        rate: None,
        slow_down: None,
        weight: 1,
        weights: BTreeMap::new(),
    }
}

/// A limit of so many in flight in all.
fn all(most: u32) -> Limit {
    Limit { name: "all".into(), by: By::All, ..tenants(most) }
}

/// A limit of so many releases in so many seconds.
fn rate(count: u32, seconds: u64) -> Limit {
    Limit { max_in_flight: None, rate: Some(Rate { count, per: Duration::from_secs(seconds) }), ..all(1) }
}

/// A pool with limits, its jobs, and what time it is.
struct World {
    ledger: Ledger,
    jobs: BTreeMap<Arc<str>, Job>,
    now: i64,
    /// When jobs were released.
    times: Vec<i64>,
}

impl World {
    fn of(limits: impl IntoIterator<Item = Limit>) -> Self {
        let all = limits.into_iter().collect();
        let limits = Limits { pool: "default".into(), all, aging: Duration::from_hours(1) };
        let mut ledger = Ledger::new(Arc::new(limits));
        ledger.complete();
        Self { ledger, jobs: BTreeMap::new(), now: 0, times: Vec::new() }
    }

    /// Another leader, that knows the statuses alone.
    fn another_leader(&mut self) {
        self.ledger = Ledger::new(self.ledger.limits().clone());
        for job in self.jobs.values() {
            self.ledger.note(job, false);
        }
        self.ledger.complete();
    }

    /// A job of a tenant comes and asks.
    fn create(&mut self, name: &str, tenant: &str) {
        self.create_as(name, tenant, 5);
    }

    fn create_as(&mut self, name: &str, tenant: &str, priority: i32) {
        let mut job = crate::core::index::fixtures::job("team", name, 0);
        job.uid = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes());
        job.created_at = at(self.now);
        job.spec.priority = Priority::clamped(priority);
        job.labels = Box::new([("tenant".into(), tenant.into())]);
        self.ledger.note(&job, false);
        let name = job.key.name.clone();
        self.jobs.insert(name.clone(), job);
        self.ask(&name);
    }

    fn ask(&mut self, name: &str) {
        let name: Arc<str> = name.into();
        self.ledger.ask(&name);
        let given = self.ledger.give(at(self.now));
        self.release(&given);
        if let Permit::Waits(wait) = self.permit(&name)
            && !self.jobs[&name].status.why.is_released()
        {
            self.record(&name, |status| status.why = Why::OnHold(Hold::LimitReached(wait)));
        }
    }

    /// What was given is recorded.
    fn release(&mut self, given: &[Arc<str>]) {
        for name in given {
            let Permit::Granted { at } = self.permit(name) else { panic!("{name} has none") };
            self.times.push(self.now);
            self.record(name, |status| {
                status.why = Why::Released;
                status.released_at = Some(Box::new(at));
            });
        }
    }

    fn record(&mut self, name: &str, change: impl FnOnce(&mut Status)) {
        let job = self.jobs.get_mut(name).unwrap();
        change(&mut job.status);
        let is_out = matches!(job.status.phase, Phase::Queued | Phase::Running);
        self.ledger.note(job, is_out);
    }

    /// Permits are given; to which jobs.
    fn give(&mut self) -> Vec<String> {
        assert!(self.ledger.is_due(at(self.now)) || self.ledger.clone().give(at(self.now)).is_empty());
        let given = self.ledger.give(at(self.now));
        self.release(&given);
        given.iter().map(ToString::to_string).collect()
    }

    fn ends(&mut self, name: &str) {
        let name: Arc<str> = name.into();
        self.jobs.remove(&name);
        self.ledger.remove(&name);
    }

    fn permit(&self, name: &str) -> Permit {
        self.ledger.permit(&name.into(), at(self.now))
    }

    /// The jobs that have a permit, as their statuses say.
    fn released(&self) -> Vec<&str> {
        let is_released = |job: &&Job| job.status.why.is_released() || job.status.phase == Phase::Queued;
        self.jobs.values().filter(is_released).map(|job| &*job.key.name).collect()
    }

    fn wait_of(&self, name: &str) -> Wait {
        let Permit::Waits(wait) = self.permit(name) else { panic!("{name} does not wait") };
        *wait
    }
}

#[test]
fn each_key_has_as_many_in_flight_as_the_limit_says_and_the_next_one_waits_for_an_end() {
    let mut world = World::of([tenants(2)]);
    for (name, tenant) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")] {
        world.create(name, tenant);
    }
    assert_eq!(world.released(), ["a1", "a2", "b1"]);
    let wait = world.wait_of("a3");
    assert_eq!(
        (&*wait.limit, wait.key.as_deref(), wait.reached, wait.position),
        ("tenants", Some("a"), Reached::InFlight(2), 1)
    );
    world.ends("b1");
    assert!(world.give().is_empty());
    world.ends("a1");
    assert_eq!(world.give(), ["a3"]);
}

#[test]
fn a_job_counts_under_each_limit_and_jobs_without_the_label_count_together() {
    let mut world = World::of([tenants(2), all(3)]);
    for (name, tenant) in [("a1", "a"), ("a2", "a"), ("none1", ""), ("none2", "")] {
        world.create(name, tenant);
    }
    let none = world.jobs.get_mut("none2").unwrap();
    none.labels = Box::default();
    assert_eq!(world.released(), ["a1", "a2", "none1"]);
    assert_eq!((&*world.wait_of("none2").limit, world.wait_of("none2").key), ("all", None));
}

#[test]
fn a_job_has_its_permit_from_its_release_until_a_status_says_that_the_attempt_is_over() {
    let mut world = World::of([all(1)]);
    world.create("one", "a");
    world.create("two", "a");
    let attempt = Attempt { number: 1, generation: 0, enqueued_at: at(0), started_at: None };
    world.record("one", |status| {
        (status.phase, status.why, status.attempt) = (Phase::Queued, Why::Enqueued, Some(attempt));
    });
    assert!(world.give().is_empty());
    world.record("one", |status| {
        (status.phase, status.why, status.attempt) = (Phase::Retrying, Why::RetryScheduled, None);
    });
    assert_eq!(world.give(), ["two"]);
    world.ask("one");
    assert_eq!(world.released(), ["two"], "a repetition needs a permit of its own");
}

#[test]
fn a_permit_that_was_used_up_within_a_moment_is_no_permit_for_the_next_attempt() {
    let mut world = World::of([all(1)]);
    world.record_new("one", |status| (status.phase, status.why) = (Phase::Retrying, Why::RetryScheduled));
    world.ask("one");
    assert_eq!(world.released(), ["one"]);
    world.record("one", |status| status.why = Why::RetryScheduled); // its run is over before it was recorded as queued
    assert_eq!(world.permit("one"), Permit::Unasked);
}

#[test]
fn a_permit_that_is_not_used_as_the_job_is_suspended_or_held_up_goes_to_the_next_one() {
    for is_suspended in [true, false] {
        let mut world = World::of([all(1), rate(1, 3600)]);
        world.record_new("one", |_| {});
        world.ledger.ask(&"one".into());
        assert_eq!(world.ledger.give(at(0)), [Arc::<str>::from("one")]);
        world.jobs.get_mut("one").unwrap().spec.suspend = is_suspended;
        world.record("one", |status| {
            if !is_suspended {
                status.why = Why::OnHold(Hold::Suspended);
            }
        });
        assert_eq!(world.permit("one"), Permit::Unasked);
        world.create("two", "a");
        assert_eq!(world.released(), ["two"]);
    }
}

#[test]
fn another_leader_counts_what_was_released_and_gives_such_jobs_their_permits_anew_before_others() {
    let mut world = World::of([all(2)]);
    for name in ["one", "two", "three"] {
        world.create(name, "a");
    }
    world.another_leader();
    assert!(world.give().is_empty(), "two were released, and may be on Redis");
    assert_eq!(world.permit("one"), Permit::Unasked);
    world.ask("one");
    assert_eq!(world.permit("one"), Permit::Granted { at: at(0) });
    world.ends("two");
    assert_eq!(world.give(), ["three"]);
}

#[test]
fn of_more_released_jobs_than_the_limit_allows_as_many_are_published_as_it_does() {
    let mut world = World::of([all(2)]);
    for name in ["one", "two"] {
        world.create(name, "a");
    }
    // The statuses of two leaders at a time, of which one was paused.
    let mut limits = (**world.ledger.limits()).clone();
    limits.all[0].max_in_flight = Some(1);
    world.ledger = Ledger::new(Arc::new(limits));
    world.another_leader();
    for name in ["one", "two"] {
        world.ask(name);
    }
    assert_eq!((world.permit("one"), world.wait_of("two").position), (Permit::Granted { at: at(0) }, 1));
    world.ends("one");
    assert_eq!(world.give(), ["two"]);
}

#[test]
fn a_permit_that_is_not_used_for_long_is_asked_for_anew_and_counts_from_then() {
    let mut world = World::of([rate(1, 60)]);
    world.create("one", "a");
    world.create("two", "a");
    world.now = 11_000;
    assert_eq!(world.permit("one"), Permit::Unasked);
    world.ask("one");
    assert_eq!(world.permit("one"), Permit::Granted { at: at(11_000) });
    world.now = 60_000;
    assert!(world.give().is_empty());
    world.now = 71_000;
    assert_eq!(world.give(), ["two"]);
}

#[test]
fn limits_that_change_apply_at_once_and_keep_what_is_known() {
    let mut world = World::of([all(1)]);
    for name in ["one", "two", "three"] {
        world.create(name, "a");
    }
    let mut limits = (**world.ledger.limits()).clone();
    limits.all[0].max_in_flight = Some(2);
    let mut changed = world.ledger.changed(&Arc::new(limits));
    world.jobs.values().for_each(|job| changed.note_as(&world.ledger, job, false));
    changed.complete();
    world.ledger = changed;
    assert_eq!(world.permit("one"), Permit::Granted { at: at(0) });
    assert_eq!(world.give(), ["three"], "of those created in one second the first by name");
}

#[test]
fn nothing_is_released_before_it_is_known_when_finished_jobs_were() {
    let mut world = World::of([rate(1, 60)]);
    world.create("one", "a");
    let over = world.jobs["one"].clone();
    world.jobs.clear();
    world.ledger = Ledger::new(world.ledger.limits().clone());
    let two = crate::core::index::fixtures::job("team", "two", 2);
    world.ledger.note(&two, false);
    world.jobs.insert("two".into(), two);
    assert_eq!(world.permit("two"), Permit::Unknown);
    world.ledger.ask(&"two".into());
    assert!(world.ledger.give(at(100)).is_empty());
    world.ledger.note_over(&over);
    world.ledger.complete();
    assert_eq!(world.wait_of("two").expected_at, Some(at(60_000)));
    world.now = 60_000;
    assert_eq!(world.give(), ["two"]);
}

impl World {
    /// A job with a status that does not ask.
    fn record_new(&mut self, name: &str, change: impl FnOnce(&mut Status)) {
        let job = crate::core::index::fixtures::job("team", name, 9);
        self.jobs.insert(name.into(), job);
        self.record(name, change);
    }
}
