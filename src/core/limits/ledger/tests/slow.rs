//! Keys that are slowed down because their tasks were told that there are too many requests.

use super::*;
use crate::core::id::TaskId;
use crate::core::limits::SlowDown;
use crate::core::status::TaskError;

fn slowed(most: u32) -> Limit {
    let slow_down = SlowDown { errors: vec!["RateLimitError".into()], exit_statuses: Vec::new() };
    Limit { slow_down: Some(slow_down), ..tenants(most) }
}

impl World {
    /// An attempt failed for too many requests, and is to be repeated.
    fn is_told(&mut self, name: &str, message: &str) {
        let finished_at = at(self.now);
        self.record(name, |status| {
            status.phase = Phase::Retrying;
            status.why = Why::RetryScheduled;
            status.history.push(PastAttempt {
                number: 1,
                task: TaskId::derive(Uuid::nil(), 1),
                outcome: AttemptOutcome::Failed,
                worker: None,
                enqueued_at: status.released_at.as_deref().copied(),
                started_at: None,
                finished_at,
                error: Some(TaskError::new("RateLimitError", message, None)),
                account: None,
            });
        });
    }

    /// The first of the jobs in flight ends otherwise.
    fn end_one(&mut self, tenant: &str) {
        let first = self.in_flight(tenant)[0].clone();
        self.ends(&first);
        self.give();
    }

    fn in_flight(&self, tenant: &str) -> Vec<String> {
        self.released().iter().filter(|name| name.starts_with(tenant)).map(ToString::to_string).collect()
    }
}

fn crowd() -> World {
    let mut world = World::of([slowed(4)]);
    for tenant in ["a", "b"] {
        for number in 10..40 {
            world.create(&format!("{tenant}{number}"), tenant);
        }
    }
    world
}

#[test]
fn a_key_is_slowed_down_alone_waits_for_the_time_that_was_told_and_grows_again() {
    let mut world = crowd();
    world.now = 1_000;
    world.is_told("a10", "quota exceeded. Retry-After: 20");
    assert_eq!(world.give(), [] as [&str; 0]);
    assert_eq!(world.wait_of("a14").reached, Reached::Paused);
    world.ends("b10");
    assert_eq!(world.give(), ["b14"], "the other key goes on");
    world.now = 21_000;
    assert_eq!(world.give(), [] as [&str; 0], "three are in flight");
    assert_eq!(world.wait_of("a14").reached, Reached::Slowed(2));
    let most = (0..3).map(|_| {
        world.end_one("a");
        world.in_flight("a").len()
    });
    assert_eq!(most.collect::<Vec<_>>(), [2, 2, 3], "it grows by one in a round");
    while world.in_flight("a").len() < 4 {
        let first = world.in_flight("a")[0].clone();
        world.ends(&first);
        assert!(!world.give().is_empty(), "it grows until its limit holds again");
    }
    assert_eq!(world.wait_of("a30").reached, Reached::InFlight(4));
}

#[test]
fn jobs_that_were_in_flight_together_slow_their_key_down_once() {
    let mut world = crowd();
    world.now = 1_000;
    for name in ["a10", "a11", "a12"] {
        world.is_told(name, "quota exceeded");
    }
    assert_eq!(world.give().len(), 1, "of two one is left");
    assert_eq!(world.wait_of("a20").reached, Reached::Slowed(2));
}

#[test]
fn a_failure_that_is_told_again_after_its_key_has_grown_slows_nothing() {
    let mut world = crowd();
    world.now = 1_000;
    world.is_told("a10", "quota exceeded");
    world.end_one("a");
    while world.in_flight("a").len() < 4 {
        world.end_one("a");
    }
    // It still waits for its backoff, and its status changes.
    world.record("a10", |status| status.observed_generation += 1);
    world.end_one("a");
    assert_eq!(world.in_flight("a").len(), 4);
    assert_eq!(world.wait_of("a30").reached, Reached::InFlight(4));
}

#[test]
fn a_key_that_has_grown_and_is_idle_knows_for_an_hour_what_it_was_told() {
    let mut world = World::of([slowed(4)]);
    for name in ["a1", "a2", "a3", "a4"] {
        world.create(name, "a");
    }
    world.is_told("a1", "quota exceeded");
    for name in ["a2", "a3", "a4"] {
        world.ends(name);
    }
    for number in 10..30 {
        world.create(&format!("a{number}"), "a");
        world.ends(&format!("a{number}"));
    }
    for _ in 0..2 {
        world.now += 11 * 60_000; // what counts nothing is forgotten every ten minutes
        world.give();
    }
    world.record("a1", |status| status.observed_generation += 1);
    for name in ["a5", "a6", "a7", "a8"] {
        world.create(name, "a");
    }
    assert_eq!(world.in_flight("a").len(), 4);
}

#[test]
fn another_leader_knows_of_it_by_the_statuses() {
    let mut world = crowd();
    world.now = 1_000;
    world.is_told("a10", "Retry-After: 20");
    world.another_leader();
    world.ask("a14");
    assert_eq!(world.wait_of("a14").reached, Reached::Paused);
}
