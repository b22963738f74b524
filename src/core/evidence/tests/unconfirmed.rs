//! Tasks that store an end state themselves, and go on.

use jiff::SignedDuration;

use super::*;
use crate::core::observed::Failure;
use crate::core::status::Output;

fn over(how: Ending) -> Document {
    Document::Over { how, worker: Some(holder("a")), celery_retries: 0, finished_at: None, account: None }
}

fn success() -> Document {
    over(Ending::Succeeded(Output::of("7")))
}

/// `update_state(state="FAILURE", meta={…})`: there is no exception in it.
fn noted() -> Document {
    let failure = TaskError::new("Unknown", "{}", None).into();
    over(Ending::Failed(Failure { names_exception: false, ..failure }))
}

fn unreadable() -> Document {
    over(Ending::Unreadable("pickle".into()))
}

/// Begun by `a` at second 101.
fn runs() -> Evidence {
    let mut evidence = published(0);
    evidence.hear(report("a", 101, Some(101)));
    evidence
}

fn is_held(evidence: &Evidence) -> bool {
    matches!(task_of(evidence), Task::Held(held) if held.by == Holding::By(holder("a"), Liveness::Alive))
}

fn how(evidence: &Evidence) -> Option<Ending> {
    if let Task::Ended(ended) = task_of(evidence) { Some(ended.how) } else { None }
}

#[test]
fn an_end_state_that_is_heard_or_read_is_no_end_while_the_message_is_in_flight_with_a_living_worker() {
    for document in [success(), failure(), noted(), over(Ending::Revoked), unreadable()] {
        let (mut heard, mut read) = (runs(), runs());
        heard.told(document.clone(), at(102));
        heard.looked_up(Some(0), true, None, at(102));
        read.read(Levels { document: Some(document), ..levels(0, in_flight(0)) });
        assert!(is_held(&heard) && is_held(&read), "{heard:?} {read:?}");
        for mut evidence in [heard, read] {
            evidence.looked_up(Some(0), false, Some(success()), at(103));
            assert_eq!(how(&evidence), Some(Ending::Succeeded(Output::of("7"))), "what is there after the message");
        }
    }
}

#[test]
fn an_end_state_whose_message_was_acknowledged_is_an_end() {
    for document in [success(), failure(), noted(), unreadable()] {
        let mut evidence = runs();
        evidence.read(Levels { document: Some(document), ..levels(0, Place::Nowhere) });
        assert!(how(&evidence).is_some());
    }
}

#[test]
fn its_message_is_looked_up_soon_then_ever_later_and_at_once_when_its_worker_says_that_the_run_has_ended() {
    let mut evidence = runs();
    assert_eq!(evidence.looks_up(), None);
    evidence.told(noted(), at(102));
    let (first, tag) = evidence.looks_up().unwrap();
    assert_eq!(tag, task().to_string());
    assert!(first < at(102) + SignedDuration::from_millis(100));
    let mut before = SignedDuration::ZERO;
    for _ in 0..40 {
        evidence.looked_up(Some(0), true, None, at(103));
        let wait = evidence.looks_up().unwrap().0.duration_since(at(103));
        assert!(before <= wait && wait <= SignedDuration::from_secs(5));
        before = wait;
    }
    evidence.run_ended();
    assert!(evidence.looks_up().unwrap().0 < at(103));
    evidence.told(Document::Running(report("a", 104, None)), at(104));
    assert_eq!(evidence.looks_up(), None, "its task has stored that it goes on");
}

#[test]
fn the_workers_are_asked_once_about_a_message_that_stays_in_flight_after_its_end() {
    let mut evidence = runs();
    evidence.told(success(), at(102));
    let asked = (0..40).filter(|_| {
        evidence.looked_up(Some(0), true, None, at(103));
        evidence.is_long_unconfirmed()
    });
    assert_eq!(asked.count(), 1);
    for _ in 0..2 {
        evidence.audit(Levels { document: Some(success()), ..levels(0, in_flight(0)) });
        assert!(is_held(&evidence));
        evidence.answered(true, true);
    }
    assert!(how(&evidence).is_some(), "its worker does not have it any more");
}

#[test]
fn what_a_dead_worker_has_stored_is_an_end_unless_only_its_task_can_have_stored_it() {
    for (document, is_end) in [(success(), true), (failure(), true), (unreadable(), true), (noted(), false)] {
        let mut evidence = runs();
        evidence.told(document.clone(), at(102));
        assert!(evidence.must_check(&task_of_dead(&evidence)));
        evidence.death_checked(Some(document), true);
        match task_of_dead(&evidence) {
            Task::Ended(_) => assert!(is_end),
            Task::Held(held) => assert!(!is_end && held.is_lost() && held.has_stored_failure),
            Task::Unread | Task::Absent(_) | Task::Queued { .. } | Task::Withdrawn { .. } | Task::GoesOn { .. } => {
                panic!("{evidence:?}")
            }
        }
    }
}

#[test]
fn a_failure_that_a_task_has_stored_is_no_end_of_a_message_that_was_put_back() {
    let mut evidence = runs();
    evidence.read(Levels { document: Some(noted()), ..levels(0, Place::Queued { generation: 0 }) });
    assert_eq!(task_of(&evidence), Task::Queued { generation: 0 });
}

#[test]
fn an_end_state_without_message_and_marker_counts_once_all_workers_have_denied_the_task() {
    let mut evidence = runs();
    let emptied = || Levels { marker: None, document: Some(noted()), ..levels(0, Place::Nowhere) };
    evidence.told(noted(), at(102));
    evidence.looked_up(None, false, None, at(103));
    assert_eq!(task_of(&evidence), Task::Unread, "Redis was emptied: what it has lost was not acknowledged");
    evidence.audit(emptied());
    evidence.claimed(report("a", 104, Some(101)));
    assert!(is_held(&evidence));
    evidence.looked_up(None, false, None, at(105));
    assert!(is_held(&evidence) && evidence.looks_up().is_some_and(|(at_last, _)| at_last > at(105)));
    evidence.audit(emptied());
    evidence.answered(true, true);
    assert!(how(&evidence).is_some());
}

#[test]
fn an_end_state_without_message_and_marker_counts_once_the_worker_that_ran_the_task_denies_it_though_others_are_silent()
{
    let mut evidence = runs();
    for _ in 0..2 {
        evidence.audit(Levels { marker: None, ..levels(0, Place::Nowhere) });
        evidence.answered(false, true);
        assert_eq!(how(&evidence), None, "nothing was stored");
    }
    evidence.audit(Levels { marker: None, document: Some(success()), ..levels(0, Place::Nowhere) });
    assert_eq!(how(&evidence), None, "what it said before is about a document that was not there yet");
    evidence.answered(false, true);
    assert!(how(&evidence).is_some());
}

#[test]
fn an_end_that_was_heard_just_before_redis_was_emptied_counts_once_the_worker_that_ran_the_task_denies_it() {
    for (document, by_holder) in [(success(), true), (noted(), true), (success(), false), (noted(), false)] {
        let mut evidence = runs();
        evidence.told(document, at(102));
        evidence.unread();
        evidence.audit(Levels { marker: None, ..levels(0, Place::Nowhere) });
        assert_eq!(how(&evidence), None, "it may have been stored on its way");
        evidence.answered(true, by_holder);
        let is_of_task_alone = evidence.has_stored_failure();
        assert_eq!(how(&evidence).is_some(), by_holder || !is_of_task_alone);
    }
}

#[test]
fn an_end_that_was_heard_counts_although_redis_went_back_to_before_it() {
    let mut heard = runs();
    heard.told(success(), at(102));
    let mut in_flight_again = heard.clone();
    for _ in 0..2 {
        in_flight_again.audit(levels(0, in_flight(0)));
        assert!(is_held(&in_flight_again));
        in_flight_again.answered(true, true);
    }
    assert!(how(&in_flight_again).is_some(), "its worker has it no more");
    heard.read(levels(0, Place::Queued { generation: 0 }));
    assert!(how(&heard).is_some());
    let mut goes_on = runs();
    goes_on.told(noted(), at(102));
    goes_on.read(levels(0, Place::Queued { generation: 0 }));
    assert_eq!(task_of(&goes_on), Task::Queued { generation: 0 }, "it was the task's own");
}

#[test]
fn after_a_retry_of_celerys_own_an_audit_tells_whether_a_failure_of_the_tasks_own_is_an_end() {
    let mut evidence = runs();
    let again = |document| match document {
        Document::Over { how, worker, finished_at, .. } => {
            Document::Over { how, worker, celery_retries: 1, finished_at, account: None }
        }
        Document::Running(_) => unreachable!(),
    };
    let failed = || again(noted());
    evidence.told(failed(), at(102));
    evidence.looked_up(Some(0), false, Some(failed()), at(103));
    assert_eq!(task_of(&evidence), Task::Unread);
    let tag = Some(Uuid::from_u128(7));
    evidence.audit(Levels { document: Some(failed()), ..levels(0, Place::CopyInFlight { tag, received_at: None }) });
    assert!(matches!(task_of(&evidence), Task::Held(_)));
    assert_eq!(evidence.looks_up().unwrap().1, Uuid::from_u128(7).to_string());
    evidence.looked_up(Some(0), false, Some(failed()), at(104));
    assert_eq!(task_of(&evidence), Task::Unread, "there may be a later one");
    evidence.audit(Levels { document: Some(failed()), ..levels(0, Place::Nowhere) });
    assert!(how(&evidence).is_some());
}

#[test]
fn a_failure_of_the_tasks_own_is_looked_for_among_all_messages_where_a_copy_waited_that_a_worker_may_have_taken() {
    for (document, known) in [(noted(), false), (failure(), true)] {
        let mut evidence = runs();
        evidence.audit(levels(0, Place::CopyQueued));
        evidence.told(document, at(102));
        assert_eq!((how(&evidence).is_some(), evidence.is_unread()), (known, !known));
    }
}

#[test]
fn what_a_worker_has_stored_that_died_after_a_retry_of_celerys_own_is_an_end_once_an_audit_found_no_copy() {
    let Document::Over { how: noted, worker, .. } = noted() else { unreachable!() };
    let retried = || Document::Over {
        how: noted.clone(),
        worker: worker.clone(),
        celery_retries: 1,
        finished_at: None,
        account: None,
    };
    let mut evidence = runs();
    evidence.death_checked(Some(retried()), false);
    assert_eq!(task_of_dead(&evidence), Task::Unread);
    let copy = Place::CopyInFlight { tag: Some(Uuid::from_u128(7)), received_at: None };
    for (place, is_end) in [(copy, false), (Place::Nowhere, true)] {
        let mut evidence = evidence.clone();
        evidence.audit(Levels { document: Some(retried()), ..levels(0, place) });
        assert_eq!(how(&evidence).is_some(), is_end);
    }
}
