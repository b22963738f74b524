//! Copies of a message that no operator has published.

use super::*;

fn copy(tag: u128) -> Place {
    Place::CopyInFlight { tag: Some(Uuid::from_u128(tag)), received_at: Some(at(110)) }
}

fn held_of(evidence: &Evidence) -> Held {
    let Task::Held(held) = task_of(evidence) else { panic!("{:?}", task_of(evidence)) };
    held
}

/// Else the run of the last step of a chain would count from the start of the task that it has replaced, and be stopped
/// at that one's time limit.
#[test]
fn when_a_copy_began_is_told_by_its_worker_and_not_by_what_was_seen_of_the_run_before() {
    let mut evidence = published(0);
    evidence.hear(report("a", 101, Some(101)));
    for place in [Place::CopyQueued, Place::GoesOn, copy(1)] {
        let mut evidence = evidence.clone();
        evidence.read(Levels { document: Some(Document::Running(report("a", 200, Some(200)))), ..levels(0, place) });
        evidence.read(levels(0, copy(1)));
        assert_eq!(held_of(&evidence).started_at, None, "{place:?}");
        evidence.claimed(report("a", 210, Some(205)));
        evidence.read(levels(0, copy(1)));
        assert_eq!(held_of(&evidence).started_at, Some(at(205)), "{place:?}");
        evidence.read(levels(0, copy(2)));
        assert_eq!(held_of(&evidence).started_at, None, "{place:?}: that is another one");
    }
}

#[test]
fn a_worker_that_is_heard_with_a_copy_that_waited_has_that_copy() {
    let mut evidence = published(0);
    evidence.read(levels(0, Place::CopyQueued));
    assert!(evidence.others().is_copy && evidence.is_queued());
    evidence.hear(report("a", 120, Some(120)));
    assert!(evidence.others().is_copy && evidence.holder_now().is_some());
}

#[test]
fn two_denials_of_one_receipt_say_that_a_copy_is_with_no_worker() {
    let mut evidence = published(0);
    for _ in 0..2 {
        evidence.audit(levels(0, copy(1)));
        evidence.answered(true, false);
    }
    assert_eq!(held_of(&evidence).by, Holding::NoWorker);
    assert_eq!(evidence.others().tag, Some(Uuid::from_u128(1)));
}

#[test]
fn a_message_of_a_retry_that_every_worker_denies_is_with_no_worker_and_not_kept_from_being_put_back() {
    let mut evidence = published(0);
    for times in 0..2 {
        let retried = Report { holder: None, celery_retries: 1, ..report("a", 101, None) };
        evidence.audit(Levels { document: Some(Document::Running(retried)), ..levels(0, copy(1)) });
        assert_eq!(evidence.kept().is_some(), times == 0);
        evidence.answered(true, false);
    }
    assert_eq!(held_of(&evidence).by, Holding::NoWorker);
}

#[test]
fn copies_that_were_seen_besides_count_until_all_messages_are_looked_at_again() {
    let waits = Besides { waits: true, ..Besides::default() };
    let mut evidence = published(0);
    evidence.read(Levels { besides: Some(waits), ..levels(0, in_flight(0)) });
    evidence.read(levels(0, in_flight(0)));
    assert_eq!(evidence.others().besides, waits);
    evidence.read(Levels { besides: Some(Besides::default()), ..levels(0, in_flight(0)) });
    assert_eq!(evidence.others().besides, Besides::default());
}

/// A task replaces itself or retries, its first message is acknowledged, and then its worker leaves.
#[test]
fn the_death_of_a_worker_that_had_acknowledged_by_then_is_no_loss_before_all_messages_were_looked_at() {
    let mut evidence = published(0);
    evidence.hear(report("a", 101, Some(101)));
    evidence.death_checked(None, false);
    assert_eq!(task_of_dead(&evidence), Task::Unread);
    evidence.read(levels(0, Place::GoesOn));
    assert_eq!(task_of_dead(&evidence), Task::GoesOn { generation: 0 });
}

#[test]
fn a_withdrawn_marker_says_nothing_while_a_copy_or_what_follows_is_there() {
    let withdrawn = |place| {
        let mut levels = levels(0, place);
        levels.marker = levels.marker.map(|mark| Mark { withdrawn: true, ..mark });
        let mut evidence = published(0);
        evidence.read(levels);
        task_of(&evidence)
    };
    assert_eq!(withdrawn(Place::Nowhere), Task::Withdrawn { generation: 0 });
    assert_eq!(withdrawn(Place::CopyQueued), Task::Queued { generation: 0 });
    assert_eq!(withdrawn(Place::GoesOn), Task::GoesOn { generation: 0 });
}
