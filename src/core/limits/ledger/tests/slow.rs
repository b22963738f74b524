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
            });
        });
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
        let first = world.in_flight("a")[0].clone();
        world.ends(&first);
        world.give();
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
fn another_leader_knows_of_it_by_the_statuses() {
    let mut world = crowd();
    world.now = 1_000;
    world.is_told("a10", "Retry-After: 20");
    world.another_leader();
    world.ask("a14");
    assert_eq!(world.wait_of("a14").reached, Reached::Paused);
}
