//! Which Normal Events a job has.

use super::super::id::TaskId;
use super::super::index::fixtures::job as fixture;
use super::super::status::{Attempt, AttemptOutcome, End, PastAttempt, Phase, TaskError, Why};
use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// A job that was created at 0.
fn job() -> Job {
    fixture("team", "crew", 7)
}

fn attempt(number: u32, started_at: Option<i64>) -> Attempt {
    Attempt { number, generation: 0, enqueued_at: at(0), started_at: started_at.map(at) }
}

fn queued() -> Status {
    Status {
        phase: Phase::Queued,
        attempt: Some(attempt(1, None)),
        queued_at: Some(at(0)),
        queue: Some("crew_jobs".into()),
        ..Status::default()
    }
}

fn running(number: u32, since: i64) -> Status {
    Status { phase: Phase::Running, attempt: Some(attempt(number, Some(since))), ..queued() }
}

fn failed(number: u32, from: i64, to: i64) -> PastAttempt {
    PastAttempt {
        number,
        task: TaskId::derive(job().uid, number),
        outcome: AttemptOutcome::Failed,
        worker: Some("crew@a".into()),
        enqueued_at: Some(at(from)),
        started_at: Some(at(from)),
        finished_at: at(to),
        error: Some(TaskError::new("ValueError", "no", None)),
        account: None,
    }
}

fn retrying() -> Status {
    Status {
        phase: Phase::Retrying,
        attempt: None,
        retry_at: Some(Box::new(at(60))),
        history: vec![failed(1, 1, 7)],
        ..queued()
    }
}

fn finished(status: Status, seconds: i64) -> Status {
    Status { phase: Phase::Succeeded, why: Why::Succeeded, end: Some(Box::new(End::new(at(seconds)))), ..status }
}

/// Lives through these statuses, each recorded at its time, and returns what was told of and when.
fn life(statuses: &[(i64, Status)]) -> Vec<(i64, &'static str, u32)> {
    let (mut job, mut told, mut said) = (job(), Told::default(), Vec::new());
    for (seconds, status) in statuses {
        let due = due(&job, status, told, at(*seconds));
        told = due.told;
        said.extend(due.milestones.iter().map(|it| (*seconds, it.what.reason(), it.attempt)));
        job.status = status.clone();
    }
    said
}

#[test]
fn a_job_that_is_over_within_five_seconds_has_no_events_and_asks_for_no_further_look() {
    let end = finished(running(1, 1), 4);
    assert_eq!(life(&[(0, queued()), (2, running(1, 1)), (4, end.clone())]), []);
    assert_eq!(due(&job(), &end, Told::default(), at(4)).again, None);
}

#[test]
fn a_job_of_ten_seconds_is_enqueued_started_and_finished() {
    let run = running(1, 1);
    assert_eq!(
        life(&[(0, queued()), (2, run.clone()), (5, run.clone()), (8, run.clone()), (11, finished(run, 11))]),
        [(5, "Enqueued", 0), (5, "Started", 1), (11, "Finished", 0)]
    );
}

#[test]
fn a_young_job_with_something_to_tell_is_looked_at_again_when_it_is_old_enough() {
    assert_eq!(due(&job(), &queued(), Told::default(), at(1)).again, Some(at(5)));
    assert_eq!(due(&job(), &Status::default(), Told::default(), at(1)).again, None, "nothing has happened yet");
    assert_eq!(due(&job(), &queued(), Told::default(), at(5)).again, None);
}

#[test]
fn what_was_never_recorded_by_itself_is_told_of_at_the_end() {
    let end = finished(Status { history: vec![failed(1, 300, 301)], ..running(1, 300) }, 301);
    assert_eq!(life(&[(5, queued()), (301, end)]), [(5, "Enqueued", 0), (301, "Started", 1), (301, "Finished", 0)]);
}

#[test]
fn a_retried_job_says_which_attempt_failed_and_when_the_next_one_is_published() {
    let second = Status { retry_at: None, attempt: Some(attempt(2, Some(61))), ..retrying() };
    let lives = [(2, running(1, 1)), (7, retrying()), (62, second.clone()), (80, finished(second, 80))];
    assert_eq!(
        life(&lives),
        [(7, "Enqueued", 0), (7, "Started", 1), (7, "Retried", 1), (62, "Started", 2), (80, "Finished", 0)]
    );
    let said = due(&job(), &retrying(), Told::default(), at(7)).milestones;
    assert_eq!(said[2].message, "attempt 1 failed (ValueError: no); the next one is published at 1970-01-01T00:01:00Z");
    assert_eq!((said[1].message.as_str(), said[1].at), ("worker crew@a has begun attempt 1", at(1)));
}

#[test]
fn an_attempt_that_goes_on_after_the_death_of_its_worker_is_no_retry_and_is_told_of_once() {
    let lost = PastAttempt { outcome: AttemptOutcome::WorkerLost, ..failed(1, 1, 7) };
    let again = Status { history: vec![lost.clone(), lost], ..running(1, 9) };
    assert_eq!(life(&[(10, again)]), [(10, "Enqueued", 0), (10, "Started", 1)]);
}

#[test]
fn another_leader_tells_of_what_was_recorded_shortly_before_it_came_and_not_of_what_is_long_past() {
    let recorded = Job { status: running(1, 1), ..job() };
    let told = |now| due(&recorded, &recorded.status, Told::default(), at(now)).milestones.len();
    assert_eq!(told(20), 2, "the former leader may have died before it could");
    assert_eq!(told(200), 0);
    let end = finished(recorded.status.clone(), 200);
    let later = due(&recorded, &end, Told::default(), at(200));
    assert_eq!(later.milestones.iter().map(|it| it.what).collect::<Vec<_>>(), [Happening::Finished]);
}

#[test]
fn what_is_found_out_late_is_told_of_however_long_ago_it_happened() {
    let lives = [(600, Status { queued_at: Some(at(100)), ..queued() })];
    assert_eq!(life(&lives), [(600, "Enqueued", 0)]);
}
