//! Rates, by whatever clock.

use super::*;

fn past(number: u32, enqueued_at: i64) -> PastAttempt {
    PastAttempt {
        number,
        task: crate::core::id::TaskId::derive(Uuid::nil(), number),
        outcome: AttemptOutcome::Failed,
        worker: None,
        enqueued_at: Some(at(enqueued_at)),
        started_at: None,
        finished_at: at(enqueued_at),
        error: None,
        account: None,
    }
}

#[test]
fn in_no_span_of_its_length_more_are_released_than_a_rate_says() {
    let mut world = World::of([rate(3, 10)]);
    for step in 0..400 {
        world.now = step * 137;
        if step % 2 == 0 {
            world.create(&format!("job-{step:03}"), "a");
        }
        world.give();
        for name in world.released().iter().map(ToString::to_string).collect::<Vec<_>>() {
            world.ends(&name);
        }
    }
    assert!(world.times.len() >= 15, "{:?}", world.times);
    assert!(world.times.windows(4).all(|span| span[3] - span[0] >= 10_000), "{:?}", world.times);
}

#[test]
fn a_leader_that_takes_over_counts_what_the_last_one_released() {
    let mut world = World::of([rate(2, 60)]);
    for name in ["one", "two", "three"] {
        world.create(name, "a");
        world.now += 1_000;
    }
    world.another_leader();
    for name in ["one", "two"] {
        world.ask(name); // released at 0 and 1 s, and published only now
    }
    assert!(world.give().is_empty());
    world.now = 61_000;
    assert!(world.give().is_empty(), "they count from when they were published");
    world.now = 63_000;
    assert_eq!(world.give(), ["three"]);
}

#[test]
fn earlier_attempts_of_a_job_count_and_a_message_in_place_of_a_lost_one_does_not() {
    let mut world = World::of([rate(2, 60)]);
    world.record_new("one", |status| {
        (status.phase, status.why) = (Phase::Retrying, Why::RetryScheduled);
        status.attempts = 2;
        status.history = vec![past(1, 10_000), past(1, 12_000), past(2, 20_000)];
        status.released_at = Some(Box::new(at(19_999)));
    });
    world.another_leader();
    world.now = 30_000;
    world.create("two", "a");
    assert_eq!(
        world.wait_of("two").expected_at,
        Some(at(71_000)),
        "the first one was published at 10 s, or a little later"
    );
}

#[test]
fn a_clock_that_is_set_back_releases_nothing_sooner() {
    let mut world = World::of([rate(1, 60)]);
    world.now = 3_600_000;
    world.create("one", "a");
    world.create("two", "a");
    world.now = 100_000;
    assert!(world.give().is_empty());
    world.now = 3_660_000;
    assert_eq!(world.give(), ["two"]);
}

#[test]
fn what_does_not_count_any_more_is_forgotten() {
    let mut world = World::of([tenants(1), Limit { by: By::Label("tenant".into()), ..rate(1, 60) }]);
    for index in 0..100 {
        world.create(&format!("job-{index}"), &format!("tenant-{index}"));
        world.ends(&format!("job-{index}"));
    }
    assert_eq!(world.ledger.counts[1].len(), 100);
    world.now = 24 * 3_600_000;
    world.create("last", "a");
    world.give();
    assert!(world.ledger.counts.iter().all(|counts| counts.len() <= 1), "{:?}", world.ledger.counts);
    assert!(world.ledger.lines.is_empty() || world.ledger.lines.len() == 1);
}
