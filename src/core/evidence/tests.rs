mod copies;
mod unconfirmed;

use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::core::status::{Attempt, Container, TaskError};

const AGAIN: Place = Place::Queued { generation: 1 };

fn task() -> TaskId {
    TaskId::derive(Uuid::from_u128(1), 1)
}

fn id(generation: u32) -> AttemptId {
    AttemptId { number: 1, task: task(), generation }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn holder(pod: &str) -> Holder {
    let container =
        Container { pod: pod.into(), pod_uid: "uid".into(), id: format!("{pod}-0").into(), started_at: at(0) };
    Holder { node: format!("crew@{pod}").into(), container: Some(container) }
}

fn report(pod: &str, said: i64, began: Option<i64>) -> Report {
    Report {
        holder: Some(holder(pod)),
        said_at: at(said),
        behind: 0,
        started_at: began.map(at),
        celery_retries: 0,
        progress: None,
        account: None,
    }
}

fn levels(generation: u32, place: Place) -> Levels {
    let mark = Mark { generation, withdrawn: false, at: at(0), spec: None, priority: Priority::default() };
    Levels { marker: Some(mark), place, besides: None, document: None }
}

fn in_flight(generation: u32) -> Place {
    Place::InFlight { generation, received_at: Some(at(10)) }
}

fn failure() -> Document {
    let how = Ending::Failed(TaskError::new("ValueError", "no", None).into());
    Document::Over { how, worker: None, celery_retries: 0, finished_at: None, account: None }
}

/// Published so often again, at second 100.
fn published(generation: u32) -> Evidence {
    let mut evidence = Evidence::unsent(task());
    evidence.expect(id(generation), at(100));
    evidence.published(at(100), SpecHash([0; 16]), Priority::default());
    evidence
}

fn task_of(evidence: &Evidence) -> Task {
    evidence.task(|seen| (seen.report.holder.clone().unwrap(), Liveness::Alive))
}

fn task_of_dead(evidence: &Evidence) -> Task {
    evidence.task(|seen| (seen.report.holder.clone().unwrap(), Liveness::Dead))
}

#[test]
fn a_report_from_before_a_delivery_was_published_is_about_an_earlier_one() {
    let mut again = published(1);
    again.hear(report("old", 99, Some(99)));
    again.claimed(report("still-at-it", 105, Some(99)));
    assert_eq!((again.sighting(), task_of(&again)), (None, Task::Queued { generation: 1 }));
    again.hear(report("new", 101, Some(101)));
    assert!(matches!(task_of(&again), Task::Held(held) if held.generation == 1 && held.started_at == Some(at(101))));
}

#[test]
fn of_a_first_delivery_even_a_worker_with_a_slow_clock_is_believed() {
    let mut first = published(0);
    first.hear(report("slow", 40, Some(40)));
    assert!(matches!(task_of(&first), Task::Held(_)));
}

#[test]
fn a_result_that_is_heard_counts_once_its_message_is_gone_unless_it_may_be_of_an_earlier_delivery() {
    let mut first = published(0);
    first.told(failure(), at(101));
    assert!(matches!(task_of(&first), Task::Held(_)));
    first.looked_up(Some(0), false, Some(failure()), at(101));
    assert!(matches!(task_of(&first), Task::Ended(ended) if ended.marker == Some(0)));
    let mut again = published(1);
    again.told(failure(), at(101));
    assert_eq!(task_of(&again), Task::Unread);
}

/// It may be of a delivery from before Redis was emptied, that a paused leader hears of after it has published the next.
#[test]
fn a_child_process_that_is_heard_to_have_died_counts_once_redis_says_so() {
    let how = || Ending::ChildLost(TaskError::new("WorkerLostError", "signal 9", None));
    let child_lost =
        || Document::Over { how: how(), worker: None, celery_retries: 0, finished_at: None, account: None };
    let mut evidence = published(0);
    evidence.told(child_lost(), at(101));
    assert_eq!(task_of(&evidence), Task::Unread);
    let mut earlier = evidence.clone();
    earlier.read(levels(0, Place::InFlight { generation: 0, received_at: None }));
    assert!(matches!(task_of(&earlier), Task::Held(_)));
    evidence.read(Levels { document: Some(child_lost()), ..levels(0, Place::Nowhere) });
    assert!(matches!(task_of(&evidence), Task::Ended(ended) if ended.how == how()));
}

#[test]
fn the_result_of_a_message_that_may_have_been_published_counts_once_its_marker_is_read() {
    let mut evidence = Evidence::unsent(task());
    evidence.expect(id(0), at(100));
    evidence.unread(); // the answer was lost
    evidence.told(failure(), at(101));
    assert_eq!(task_of(&evidence), Task::Unread);
    let mark = Mark {
        generation: 0,
        withdrawn: false,
        at: at(100),
        spec: Some(SpecHash([7; 16])),
        priority: Priority::default(),
    };
    evidence.read(Levels { marker: Some(mark), place: Place::Nowhere, besides: None, document: Some(failure()) });
    assert!(matches!(task_of(&evidence), Task::Ended(_)));
    assert_eq!(evidence.publication().spec, Some(SpecHash([7; 16])));
}

#[test]
fn audits_denials_and_sightings_belong_to_one_delivery() {
    let mut evidence = published(0);
    evidence.hear(report("a", 101, Some(101)));
    for _ in 0..3 {
        evidence.audit(levels(0, Place::Nowhere));
        evidence.answered(true, false);
    }
    assert!(matches!(task_of(&evidence), Task::Absent(Search { audits: 3, denied: true, seen: Some(_), .. })));
    evidence.audit(levels(1, Place::Nowhere));
    assert!(matches!(task_of(&evidence), Task::Absent(Search { audits: 0, denied: false, seen: None, .. })));
}

#[test]
fn a_message_that_is_nowhere_is_missed_when_it_was_published_or_asked_about() {
    let task = TaskId::derive(uuid::Uuid::from_u128(1), 1);
    assert_eq!(Evidence::unsent(task).misses(), None, "it was never published");
    assert_eq!(published(0).misses(), None, "it is queued");
    let emptied = Levels { marker: None, place: Place::Nowhere, besides: None, document: None };
    let mut after_a_restart = Evidence::none(task);
    for rounds in 1..=2 {
        after_a_restart.audit(emptied.clone());
        after_a_restart.answered(false, false);
        assert_eq!(after_a_restart.misses(), Some(rounds), "a worker that does not answer may have it");
    }
    after_a_restart.audit(levels(0, Place::Queued { generation: 0 }));
    assert_eq!(after_a_restart.misses(), None);
}

#[test]
fn a_document_that_is_read_again_and_again_proves_not_that_its_worker_lives() {
    let mut evidence = published(0);
    for second in [100, 200, 300] {
        let document = Some(Document::Running(report("a", second, None)));
        evidence.audit(Levels { document, ..levels(0, Place::InFlight { generation: 0, received_at: Some(at(50)) }) });
        evidence.answered(true, false);
    }
    assert_eq!((evidence.misses(), evidence.sighting().unwrap().report.said_at), (Some(3), at(100)));
}

#[test]
fn a_message_that_was_found_has_not_been_missed() {
    let mut evidence = published(1);
    evidence.audit(levels(1, Place::Nowhere));
    evidence.answered(true, false);
    evidence.audit(levels(1, AGAIN));
    evidence.answered(true, false);
    evidence.audit(levels(1, Place::Nowhere));
    evidence.answered(false, false);
    assert!(matches!(task_of(&evidence), Task::Absent(Search { audits: 1, denied: false, .. })));
}

#[test]
fn an_answer_counts_only_for_the_audit_before_it() {
    let mut evidence = published(0);
    evidence.answered(true, false);
    evidence.audit(levels(0, Place::Nowhere));
    evidence.unread();
    evidence.answered(true, false);
    evidence.read(levels(0, Place::Nowhere));
    assert!(matches!(task_of(&evidence), Task::Absent(Search { audits: 0, denied: false, .. })));
}

#[test]
fn a_message_in_flight_has_no_worker_once_all_workers_have_denied_the_same_receipt_twice() {
    let mut evidence = published(0);
    let mut audit = |place| {
        evidence.audit(levels(0, place));
        evidence.answered(true, false);
        matches!(task_of(&evidence), Task::Held(held) if held.by == Holding::NoWorker)
    };
    let another = Place::InFlight { generation: 0, received_at: Some(at(20)) };
    assert_eq!([in_flight(0), another, another, in_flight(0)].map(&mut audit), [false, false, true, false]);
}

#[test]
fn a_message_that_every_worker_denies_is_not_kept_from_being_put_back() {
    let mut evidence = published(0);
    evidence.hear(report("a", 101, Some(101)));
    let mut audit = |place, denied| {
        evidence.audit(levels(0, place));
        evidence.answered(denied, denied);
        evidence.kept()
    };
    assert_eq!(audit(in_flight(0), false), Some(id(0).tag()), "its worker lives and does not hear");
    assert_eq!(audit(in_flight(0), true), None, "its worker has forgotten it");
    let taken_again = Place::InFlight { generation: 0, received_at: Some(at(200)) };
    assert_eq!(audit(taken_again, false), Some(id(0).tag()), "another one has it");
    assert_eq!(audit(Place::Nowhere, false), None);
}

#[test]
fn what_its_own_worker_denies_is_left_to_kombu_where_other_workers_may_not_have_been_asked() {
    let mut evidence = published(0);
    evidence.hear(report("a", 101, Some(101)));
    evidence.audit(levels(0, in_flight(0)));
    assert_eq!(evidence.kept(), Some(id(0).tag()), "no worker has answered yet");
    for _ in 0..5 {
        evidence.audit(levels(0, in_flight(0)));
        evidence.answered(false, true);
        assert_eq!((evidence.kept(), evidence.misses()), (None, None));
        assert!(matches!(task_of(&evidence), Task::Held(held) if held.by != Holding::NoWorker));
    }
    evidence.hear(report("a", 201, Some(101)));
    assert_eq!(evidence.kept(), Some(id(0).tag()), "it has it after all");
}

/// Times tell that other workers cannot have it, as they started later. Its own may be told by a clock that is not known.
#[test]
fn a_living_worker_that_was_seen_with_a_message_in_flight_has_to_deny_it_itself() {
    let audited = |denied_by_holder| {
        let mut evidence = published(0);
        evidence.hear(report("a", 101, Some(101)));
        for _ in 0..2 {
            evidence.audit(levels(0, in_flight(0)));
            evidence.answered(true, denied_by_holder);
        }
        evidence
    };
    let (silent, heard) = (audited(false), audited(true));
    let by = |task| matches!(task, Task::Held(held) if held.by == Holding::NoWorker);
    assert_eq!((by(task_of(&silent)), silent.kept()), (false, Some(id(0).tag())));
    assert_eq!((by(task_of(&heard)), heard.kept()), (true, None));
    assert!(by(task_of_dead(&silent)), "a dead one cannot");
}

#[test]
fn a_worker_that_claims_the_message_ends_the_doubt() {
    let mut evidence = published(0);
    for _ in 0..2 {
        evidence.audit(levels(0, in_flight(0)));
        evidence.answered(true, false);
    }
    evidence.audit(levels(0, in_flight(0)));
    evidence.claimed(report("a", 120, None));
    assert!(matches!(task_of(&evidence), Task::Held(held) if held.by == Holding::By(holder("a"), Liveness::Alive)));
}

#[test]
fn reading_a_started_document_once_more_does_not_prove_that_its_worker_lives_still() {
    let mut evidence = published(0);
    evidence.hear(report("a", 101, Some(101)));
    let document = Some(Document::Running(report("a", 500, Some(500))));
    evidence.read(Levels { document, ..levels(0, in_flight(0)) });
    let seen = evidence.sighting().unwrap();
    assert_eq!((seen.report.said_at, seen.report.started_at), (at(101), Some(at(101))));
}

#[test]
fn a_document_that_outlives_the_message_is_not_by_the_container_that_came_after() {
    let restarted = |second| {
        let Holder { node, container } = holder("a");
        let container = container.map(|before| Container { id: "a-1".into(), started_at: at(103), ..before });
        Report { holder: Some(Holder { node, container }), ..report("a", second, Some(second)) }
    };
    let document = |second| Some(Document::Running(restarted(second)));
    let mut evidence = published(0);
    evidence.hear(report("a", 101, Some(101)));
    evidence.read(Levels { document: document(500), ..levels(0, Place::Nowhere) });
    assert_eq!(evidence.holder(), Some(&holder("a")), "its worker died with it");
    evidence.read(Levels { document: document(501), ..levels(0, in_flight(0)) });
    assert_eq!(evidence.holder(), restarted(501).holder.as_ref(), "it may have been taken once more");
}

#[test]
fn a_retry_by_celery_itself_is_a_run_whose_worker_is_not_known_yet() {
    let mut evidence = published(0);
    evidence.hear(report("a", 101, Some(101)));
    let retried = Report { holder: None, celery_retries: 1, ..report("a", 102, None) };
    evidence.told(Document::Running(retried), at(102));
    let Task::Held(held) = task_of(&evidence) else { panic!("{evidence:?}") };
    assert_eq!((held.by, held.started_at, held.celery_retries), (Holding::Unattributed, None, 1));
    evidence.hear(report("b", 103, Some(103)));
    let Task::Held(held) = task_of(&evidence) else { panic!("{evidence:?}") };
    assert_eq!((held.by, held.celery_retries), (Holding::By(holder("b"), Liveness::Alive), 1));
}

#[test]
fn the_last_result_of_a_worker_is_read_before_its_death_counts() {
    let mut evidence = published(0);
    evidence.hear(report("a", 101, Some(101)));
    assert!(!evidence.must_check(&task_of(&evidence)), "it lives");
    assert!(evidence.must_check(&task_of_dead(&evidence)));
    evidence.death_checked(Some(failure()), true);
    assert!(matches!(task_of_dead(&evidence), Task::Ended(_)));
}

#[test]
fn a_death_that_was_checked_counts_until_another_worker_has_the_message() {
    let mut evidence = published(0);
    evidence.hear(report("a", 101, Some(101)));
    evidence.death_checked(Some(Document::Running(report("a", 110, Some(110)))), true);
    assert!(!evidence.must_check(&task_of_dead(&evidence)));
    evidence.death_checked(Some(Document::Running(report("b", 111, Some(111)))), true);
    assert_eq!(evidence.holder().map(|holder| &*holder.node), Some("crew@b"));
    assert!(evidence.must_check(&task_of_dead(&evidence)), "b has not been checked");
}

#[test]
fn the_holder_in_the_status_outlives_the_operator_that_saw_it() {
    let attempt = Attempt { number: 1, generation: 2, enqueued_at: at(1), started_at: Some(at(3)) };
    let status = Status {
        phase: Phase::Running,
        attempt: Some(attempt),
        worker: Some(Box::new(holder("a"))),
        ..Status::default()
    };
    let mut evidence = Evidence::none(task());
    evidence.recall(&status);
    evidence.read(levels(2, in_flight(2)));
    assert!(matches!(task_of_dead(&evidence), Task::Held(held) if held.by == Holding::By(holder("a"), Liveness::Dead)));
    let mut later = Evidence::none(task());
    later.recall(&status);
    later.read(levels(3, in_flight(3)));
    assert!(matches!(task_of_dead(&later), Task::Held(held) if held.by == Holding::Unattributed));
}

#[test]
fn a_container_is_dead_when_it_ended_or_another_began_after_it_was_seen() {
    let run = |started: i64, finished: Option<i64>| LastRun { started_at: at(started), finished_at: finished.map(at) };
    assert!(!run(5, None).is_over_since(at(7), false), "it runs");
    assert!(run(5, Some(7)).is_over_since(at(7), false), "it ended in the same second");
    assert!(run(9, None).is_over_since(at(7), false), "it was started again");
    assert!(!run(5, Some(6)).is_over_since(at(7), false), "what was seen after its end is of the next one");
    assert!(!run(7, None).is_over_since(at(7) + Duration::from_millis(900), false), "Kubernetes counts whole seconds");
    assert!(!run(9, None).is_over_since(at(7), true), "its node's clock is ahead, which is not known yet");
    assert!(run(5, Some(7)).is_over_since(at(7), true), "the very container has ended");
}

#[test]
fn an_end_stays_known_when_its_document_expires() {
    let mut evidence = published(0);
    evidence.read(Levels { document: Some(failure()), ..levels(0, in_flight(0)) });
    evidence.read(levels(0, Place::Nowhere));
    assert!(matches!(task_of(&evidence), Task::Ended(_)));
    evidence.read(levels(1, AGAIN));
    assert_eq!(task_of(&evidence), Task::Queued { generation: 1 }, "another delivery has another end");
}

#[test]
fn an_emptied_redis_is_told_from_one_on_which_nothing_was_published() {
    let mut evidence = published(0);
    evidence.read(Levels { marker: None, place: Place::Nowhere, besides: None, document: None });
    assert!(evidence.is_published());
    let mut refused = Evidence::unsent(task());
    refused.expect(id(0), at(100));
    refused.unread();
    refused.read(Levels { marker: None, place: Place::Nowhere, besides: None, document: None });
    assert!(!refused.is_published());
}

#[test]
fn a_worker_disowns_a_task_by_denying_it_after_each_of_several_audits() {
    let mut evidence = published(0);
    evidence.hear(report("a", 101, Some(101)));
    let mut audit = |denied_by_holder| {
        evidence.audit(levels(0, Place::Nowhere));
        evidence.answered(false, denied_by_holder);
        let Task::Absent(search) = task_of(&evidence) else { panic!("{evidence:?}") };
        search.denials_by_holder
    };
    assert_eq!([true, true, false, true].map(&mut audit), [1, 2, 0, 1]);
    evidence.claimed(report("a", 150, Some(101)));
    evidence.audit(levels(0, Place::Nowhere));
    assert!(matches!(task_of(&evidence), Task::Absent(Search { denials_by_holder: 0, .. })));
}

#[test]
fn a_worker_that_speaks_after_its_pod_is_gone_stays_the_one_that_it_was() {
    let mut evidence = published(0);
    evidence.hear(report("a", 101, Some(101)));
    let nameless = Holder { container: None, ..holder("a") };
    evidence.hear(Report { holder: Some(nameless), ..report("a", 103, None) });
    assert_eq!(evidence.holder(), Some(&holder("a")));
}
