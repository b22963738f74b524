//! Copies of a message that no operator has published, and what follows from its task.

use uuid::Uuid;

use super::*;
use crate::core::observed::Besides;

/// A copy that no operator has published, with a worker.
fn copy(tag: u128) -> Place {
    Place::CopyInFlight { tag: Some(Uuid::from_u128(tag)), received_at: Some(at(200)) }
}

#[test]
fn a_copy_that_no_operator_has_published_counts_whatever_its_tag_and_so_does_what_follows_from_the_task() {
    let (waits, flies) =
        (Besides { waits: true, ..Besides::default() }, Besides { is_in_flight: true, ..Besides::default() });
    let none = Besides::default();
    let table = [
        (vec![Place::CopyQueued], Place::CopyQueued, none),
        (vec![Place::CopyQueued, copy(1)], copy(1), waits),
        (vec![copy(1), copy(1)], copy(1), none),
        (vec![copy(1), copy(2)], copy(1), flies),
        (vec![queued(1), Place::CopyQueued], queued(1), waits),
        (vec![queued(1), copy(1)], copy(1), waits),
        (vec![in_flight(1), queued(1)], in_flight(1), none),
        (vec![in_flight(1), copy(1)], in_flight(1), flies),
        (vec![in_flight(0), Place::CopyQueued], Place::CopyQueued, none),
    ];
    for (copies, place, besides) in table {
        let mut found = found(Some(mark(1)), &copies);
        found.followed.insert(task());
        assert_eq!((found.place(task()), found.besides(task())), (place, besides), "{copies:?}");
    }
    let mut found = found(Some(mark(1)), &[in_flight(0)]);
    assert_eq!(found.place(task()), Place::Nowhere);
    found.followed.insert(task());
    assert_eq!(found.place(task()), Place::GoesOn);
}

#[test]
fn a_retry_that_lies_in_a_queue_is_not_missed_and_not_asked_about() {
    let mut scene = Scene::new();
    scene.hear(report("crew@w", 200, Some(150)));
    let outcome = scene.audit(found(Some(mark(0)), &[Place::CopyQueued]));
    assert_eq!((scene.known(), outcome.missed), (Task::Queued { generation: 0 }, vec![]));
    let tracked = &Tracked::all(&scene.table, &pool())[0];
    assert!(!is_to_be_asked_about(&scene.table, tracked, &found(Some(mark(0)), &[Place::CopyQueued])));
}

#[test]
fn a_task_that_has_replaced_itself_is_not_missed_however_often_it_is_looked_for() {
    let mut scene = Scene::new();
    scene.hear(report("crew@w", 200, Some(150)));
    for _ in 0..3 {
        let mut found = scene.denials(&[]);
        found.followed.insert(task());
        let outcome = scene.audit(found);
        assert_eq!((scene.known(), outcome.missed), (Task::GoesOn { generation: 0 }, vec![]));
    }
}

#[test]
fn a_document_of_a_task_that_celery_is_to_run_again_does_not_tell_where_its_message_is() {
    let retried = Report { holder: None, celery_retries: 1, ..report("crew@w", 200, None) };
    let mut found = found(Some(mark(0)), &[in_flight(0)]);
    found.results.document(task(), Document::Running(retried));
    assert!(!found.is_placed(task()), "the retry is another message");
}

#[test]
fn a_copy_that_a_living_worker_has_is_kept_from_being_put_back() {
    let mut scene = Scene::new();
    let tracked = Tracked::all(&scene.table, &pool());
    let answers = scene.answers(&[], &[(task(), Some(at(210)))]);
    scene.audit(Findings { answers: Some(answers), ..found(Some(mark(0)), &[copy(7)]) });
    scene.apply(&Tracked::all(&scene.table, &pool()), found(Some(mark(0)), &[copy(7)]));
    let fleet = fleet();
    let workers =
        Workers { pods: &scene.pods, fleet: Some(&fleet), clocks: &scene.clocks, restarts_unreachable: false };
    let renewed = to_renew(&scene.table, &tracked, &workers, Duration::from_mins(10), at(300));
    assert_eq!(renewed, [Uuid::from_u128(7).to_string()]);
}
