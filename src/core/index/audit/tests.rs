mod copies;

use std::sync::Arc;

use super::super::fixtures::job;
use super::super::pods::PodView;
use super::super::pods::fixtures::{at, fleet, pod, pods, team};
use super::*;
use crate::core::id::{Priority, SpecHash};
use crate::core::observed::{Ending, Holding, Search, Task};
use crate::core::status::{Attempt, Holder, Output};

/// A pool with one job, whose first attempt is recorded as published at 100, and the worker `crew@w` in a Pod.
struct Scene {
    table: Table<()>,
    pods: Pods,
    clocks: Clocks,
}

fn key() -> ObjectKey {
    ObjectKey::new("team", "job")
}

fn pool() -> ObjectKey {
    ObjectKey::new("team", "default")
}

fn task() -> TaskId {
    job("team", "job", 1).attempt_in_hand().task
}

impl Scene {
    fn new() -> Self {
        let mut job = job("team", "job", 1);
        job.created_at = at(90);
        job.status.attempt = Some(Attempt { number: 1, generation: 0, enqueued_at: at(100), started_at: None });
        let mut table = Table::default();
        table.apply(job, "1".into(), 100, || (), true);
        Self { table, pods: pods(&[pod()]), clocks: Clocks::default() }
    }

    fn hear(&mut self, report: Report) {
        self.table.note(&key(), |_, evidence| evidence.hear(report));
    }

    /// Notes these findings at 300, of what was tracked before.
    fn apply(&mut self, tracked: &[Tracked], found: Findings) -> Outcome {
        self.apply_at(300, tracked, found)
    }

    fn apply_at(&mut self, now: i64, tracked: &[Tracked], mut found: Findings) -> Outcome {
        let mut outcome = Outcome::default();
        let fleet = fleet();
        let workers =
            Workers { pods: &self.pods, fleet: Some(&fleet), clocks: &self.clocks, restarts_unreachable: false };
        apply_findings(&mut self.table, tracked, &mut found, &workers, at(now), &mut outcome);
        outcome
    }

    /// An audit that finds this, with nothing in between.
    fn audit(&mut self, found: Findings) -> Outcome {
        let tracked = Tracked::all(&self.table, &pool());
        self.apply(&tracked, found)
    }

    /// The answers of all that could have the message: the worker in the Pod, and these.
    fn answers(&self, others: &[&str], has: &[(TaskId, Option<Timestamp>)]) -> Answers {
        let answer = |node: &str| Answer { node: node.into(), has: Vec::new() };
        let mut answers: Vec<Answer> = others.iter().map(|node| answer(node)).collect();
        answers.push(Answer { node: "crew@w".into(), has: has.to_vec() });
        Asked::of(&self.pods, Some(&fleet())).answered(answers, &[], false)
    }

    fn denials(&self, others: &[&str]) -> Findings {
        Findings { answers: Some(self.answers(others, &[])), ..nowhere() }
    }

    fn known(&self) -> Task {
        let evidence = &self.table.get(&key()).unwrap().evidence;
        evidence.task(|seen| self.pods.judge(Some(&fleet()), &team(), seen))
    }

    fn search(&self) -> Search {
        let Task::Absent(search) = self.known() else { panic!("{:?}", self.known()) };
        search
    }
}

fn mark(generation: u32) -> Mark {
    Mark { generation, withdrawn: false, at: at(100), spec: Some(SpecHash([0; 16])), priority: Priority::default() }
}

fn found(mark: Option<Mark>, copies: &[Place]) -> Findings {
    let mut found = Findings::of_audit(Results::default());
    found.marks.extend(mark.map(|mark| (task(), mark)));
    found.copies.insert(task(), copies.to_vec());
    found
}

/// A marker, and no message.
fn nowhere() -> Findings {
    found(Some(mark(0)), &[])
}

fn queued(generation: u32) -> Place {
    Place::Queued { generation }
}

fn in_flight(generation: u32) -> Place {
    Place::InFlight { generation, received_at: Some(at(200)) }
}

/// What a worker says that has the message.
fn report(node: &str, said_at: i64, started_at: Option<i64>) -> Report {
    let holder = Some(Holder { node: node.into(), container: None });
    let started_at = started_at.map(at);
    Report { holder, said_at: at(said_at), behind: 0, started_at, celery_retries: 0, progress: None, account: None }
}

fn ended() -> Document {
    let how = Ending::Unreadable("?".into());
    Document::Over { how, worker: None, celery_retries: 0, finished_at: None, account: None }
}

#[test]
fn the_message_is_where_a_copy_of_the_delivery_in_the_marker_is_and_one_in_flight_counts_more() {
    let table = [
        (None, vec![], Place::Nowhere),
        (None, vec![queued(3)], queued(3)),
        (Some(0), vec![queued(0)], queued(0)),
        (Some(0), vec![queued(0), in_flight(0)], in_flight(0)),
        (Some(1), vec![queued(0), in_flight(0)], Place::Nowhere),
        (Some(1), vec![in_flight(0), queued(1)], queued(1)),
        (Some(1), vec![in_flight(0), in_flight(1)], in_flight(1)),
    ];
    for (marked, copies, expected) in table {
        let found = found(marked.map(mark), &copies);
        assert_eq!(found.place(task()), expected, "marker {marked:?}, copies {copies:?}");
    }
}

#[test]
fn a_queue_a_document_of_a_run_or_a_result_tells_where_a_message_is_and_otherwise_all_messages_are_read() {
    let running = || Some(Document::Running(report("crew@w", 200, None)));
    let table = [
        (Some(queued(0)), None, true),
        (Some(in_flight(0)), running(), true),
        (Some(in_flight(0)), None, false),
        (None, Some(ended()), true),
        (None, running(), false),
        (None, None, false),
    ];
    for (copy, document, expected) in table {
        let mut found = found(Some(mark(0)), copy.as_slice());
        if let Some(document) = document.clone() {
            found.results.document(task(), document);
        }
        assert_eq!(found.is_placed(task()), expected, "{copy:?}, {document:?}");
    }
}

#[test]
fn workers_are_asked_about_what_is_in_flight_or_nowhere_and_not_about_what_waits_or_was_withdrawn_or_never_sent() {
    let withdrawn = Mark { withdrawn: true, ..mark(0) };
    let scene = Scene::new();
    let tracked = &Tracked::all(&scene.table, &pool())[0];
    let table = [
        ("it waits", found(Some(mark(0)), &[queued(0)]), false),
        ("it is in flight", found(Some(mark(0)), &[in_flight(0)]), true),
        ("it is nowhere", nowhere(), true),
        ("it was withdrawn", found(Some(withdrawn), &[]), false),
        ("it was withdrawn, and a worker was faster", found(Some(withdrawn), &[in_flight(0)]), true),
        ("Redis was emptied, and the status says that it was sent", found(None, &[]), true),
    ];
    for (case, found, expected) in table {
        assert_eq!(is_to_be_asked_about(&scene.table, tracked, &found), expected, "{case}");
    }
    let mut unsent = Table::default();
    unsent.apply(job("team", "job", 1), "1".into(), 100, || (), true);
    let tracked = &Tracked::unread(&unsent, &pool())[0];
    assert!(!is_to_be_asked_about(&unsent, tracked, &found(None, &[])), "nothing says that it was sent");
    assert!(is_to_be_asked_about(&unsent, tracked, &nowhere()), "only the marker says that it was sent");
}

#[test]
fn an_audit_reads_jobs_that_are_unread_or_have_begun_and_not_those_that_are_new_or_have_a_result() {
    let mut table = Table::default();
    for (name, uid, is_old) in [("unread", 1, true), ("begun", 2, false), ("new", 3, false), ("ended", 4, false)] {
        table.apply(job("team", name, uid), "1".into(), 100, || (), is_old);
    }
    let begun = job("team", "begun", 2).attempt_in_hand();
    table.note(&ObjectKey::new("team", "begun"), |_, evidence| evidence.expect(begun, at(100)));
    table.note(&ObjectKey::new("team", "ended"), |_, evidence| {
        *evidence = Evidence::ended_with(evidence.of(), ended());
    });
    let names = |tracked: Vec<Tracked>| {
        let mut names: Vec<_> = tracked.into_iter().map(|it| it.key.name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(names(Tracked::all(&table, &pool())), ["begun", "unread"]);
    assert_eq!(names(Tracked::unread(&table, &pool())), ["unread"]);
}

#[test]
fn a_reading_that_was_overtaken_changes_nothing_and_is_repeated_where_the_job_must_be_read() {
    let mut scene = Scene::new();
    let tracked = Tracked::all(&scene.table, &pool());
    scene.hear(report("crew@w", 210, Some(205)));
    let known = scene.known();
    let outcome = scene.apply(&tracked, nowhere());
    assert_eq!(scene.known(), known);
    assert_eq!((outcome.changed.len(), outcome.is_overtaken), (0, true), "it is still unread");

    scene.audit(found(Some(mark(0)), &[queued(0)]));
    let tracked = Tracked::all(&scene.table, &pool());
    scene.hear(report("crew@w", 220, Some(205)));
    let known = scene.known();
    let outcome = scene.apply(&tracked, nowhere());
    assert_eq!(scene.known(), known, "the worker has it since");
    assert!(!outcome.is_overtaken, "the next audit is soon enough");
}

#[test]
fn findings_about_a_job_that_is_gone_are_dropped() {
    let mut scene = Scene::new();
    let tracked = Tracked::all(&scene.table, &pool());
    scene.table.remove(&key());
    let outcome = scene.apply(&tracked, nowhere());
    assert_eq!((outcome.changed.len(), outcome.missed.len(), outcome.is_overtaken), (0, 0, false));
}

#[test]
fn a_withdrawn_marker_without_a_message_says_that_the_attempt_is_taken_back_and_is_no_miss() {
    let mut scene = Scene::new();
    let outcome = scene.audit(found(Some(Mark { withdrawn: true, ..mark(0) }), &[]));
    assert_eq!(scene.known(), Task::Withdrawn { generation: 0 });
    assert_eq!(outcome.missed, [] as [u32; 0]);
}

#[test]
fn a_message_that_is_nowhere_is_missed_once_more_with_each_audit_that_all_workers_have_answered() {
    let mut scene = Scene::new();
    for audits in 1..=2 {
        let denials = scene.denials(&[]);
        let outcome = scene.audit(denials);
        assert_eq!((outcome.missed, outcome.changed.len()), (vec![audits], 1));
        assert_eq!((scene.search().audits, scene.search().denied), (audits, true));
    }
    scene.audit(found(Some(mark(0)), &[queued(0)]));
    let denials = scene.denials(&[]);
    assert_eq!(scene.audit(denials).missed, [1], "it was found in between");
}

#[test]
fn a_reading_without_all_messages_counts_no_miss() {
    let mut scene = Scene::new();
    let denials = scene.denials(&[]);
    scene.audit(Findings { is_audit: false, ..denials });
    assert_eq!((scene.search().audits, scene.search().denied), (0, false));
}

#[test]
fn a_finding_that_says_what_was_known_asks_for_no_look() {
    let mut scene = Scene::new();
    assert_eq!(scene.audit(found(Some(mark(0)), &[queued(0)])).changed.len(), 1);
    assert_eq!(scene.audit(found(Some(mark(0)), &[queued(0)])).changed.len(), 0);
}

#[test]
fn a_worker_that_claims_a_message_is_its_holder_by_its_container_and_in_the_operators_time() {
    let mut scene = Scene::new();
    // Its clock is 60 s behind.
    scene.clocks.hear(&"crew@w".into(), at(180), at(240));
    let answers = scene.answers(&[], &[(task(), Some(at(190)))]);
    scene.audit(Findings { answers: Some(answers), ..nowhere() });
    let Task::Held(held) = scene.known() else { panic!("{:?}", scene.known()) };
    assert_eq!(held.started_at, Some(at(250)));
    let Holding::By(holder, Liveness::Alive) = held.by else { panic!("{:?}", held.by) };
    assert_eq!(holder, scene.pods.holder(Some(&fleet()), &"crew@w".into()));
    assert!(holder.container.is_some());
}

#[test]
fn a_worker_that_is_no_pod_and_was_seen_with_the_message_has_to_deny_it_itself() {
    let mut scene = Scene::new();
    scene.hear(report("celery@vm", 210, Some(205)));
    let denials = scene.denials(&[]);
    scene.audit(denials);
    assert_eq!((scene.search().denied, scene.search().denials_by_holder), (false, 0), "it is silent");
    let denials = scene.denials(&["celery@vm"]);
    scene.audit(denials);
    assert_eq!((scene.search().denied, scene.search().denials_by_holder), (true, 1));

    let mut scene = Scene::new();
    scene.hear(report("crew@w", 210, Some(205)));
    let silent = Findings { answers: Some(Asked::Pods(vec![]).answered(vec![], &[], false)), ..nowhere() };
    scene.audit(silent);
    assert!(scene.search().denied, "Kubernetes tells when a Pod ends");
}

#[test]
fn the_time_of_a_publication_lies_between_the_creation_of_the_job_and_now_whatever_redis_says() {
    for (told, expected) in [(50, 90), (120, 120), (900, 300)] {
        let mut scene = Scene::new();
        scene.audit(found(Some(Mark { at: at(told), ..mark(0) }), &[queued(0)]));
        let published_at = scene.table.get(&key()).unwrap().evidence.published_at();
        assert_eq!(published_at, Some(at(expected)));
    }
}

#[test]
fn jobs_that_were_published_before_results_expired_may_have_ended_unseen_and_later_ones_not() {
    for (expired, expected) in [(100, false), (101, true)] {
        let mut scene = Scene::new();
        note_possible_expiry(&mut scene.table, &pool(), at(expired));
        scene.audit(nowhere());
        assert_eq!(scene.search().may_have_expired_unread, expected);
    }
}

#[test]
fn an_audit_may_be_spared_while_all_jobs_that_have_begun_wait_in_a_queue_and_none_is_unread() {
    let mut scene = Scene::new();
    assert!(!all_wait(&scene.table, &pool()), "it is unread");
    scene.audit(found(Some(mark(0)), &[queued(0)]));
    assert!(all_wait(&scene.table, &pool()));
    scene.audit(found(Some(mark(0)), &[in_flight(0)]));
    assert!(!all_wait(&scene.table, &pool()));
    assert!(all_wait(&scene.table, &ObjectKey::new("team", "other")));

    scene.audit(found(Some(mark(0)), &[queued(0)]));
    scene.table.apply(job("team", "listed", 2), "1".into(), 100, || (), true);
    assert!(!all_wait(&scene.table, &pool()), "an operator that died may have published it");
}

#[test]
fn messages_of_living_workers_are_renewed_and_not_those_of_dead_ones_or_of_silent_ones_that_are_no_pods() {
    let hour = Duration::from_hours(1);
    let renewed = |report: Report, are_pods_gone: bool, now: i64| {
        let mut scene = Scene::new();
        let holder = report.holder.as_ref().map(|it| scene.pods.holder(Some(&fleet()), &it.node));
        scene.hear(Report { holder, ..report });
        scene.audit(found(Some(mark(0)), &[in_flight(0)]));
        let tracked = Tracked::all(&scene.table, &pool());
        if are_pods_gone {
            scene.pods = pods(&[]);
        }
        let workers =
            Workers { pods: &scene.pods, fleet: Some(&fleet()), clocks: &scene.clocks, restarts_unreachable: false };
        to_renew(&scene.table, &tracked, &workers, hour, at(now))
    };
    let tag = vec![task().delivery_tag(0)];
    assert_eq!(renewed(report("crew@w", 210, None), false, 9000), tag);
    assert_eq!(renewed(report("crew@w", 210, None), true, 9000), [] as [String; 0], "its Pod is gone");
    assert_eq!(renewed(report("celery@vm", 210, None), false, 3810), tag);
    assert_eq!(renewed(report("celery@vm", 210, None), false, 3811), [] as [String; 0], "silent for an hour");
    assert_eq!(renewed(report("celery@vm", 210, Some(205)), false, 9000), tag, "it has begun it");
    assert_eq!(renewed(Report { holder: None, ..report("", 210, None) }, false, 300), tag);
}

#[test]
fn the_message_of_an_unreachable_worker_is_renewed_unless_its_pool_treats_it_as_dead() {
    let mut scene = Scene::new();
    scene.hear(Report {
        holder: Some(scene.pods.holder(Some(&fleet()), &"crew@w".into())),
        ..report("crew@w", 210, None)
    });
    scene.audit(found(Some(mark(0)), &[in_flight(0)]));
    scene.pods = pods(&[PodView { unreachable: true, ..pod() }]);
    let tracked = Tracked::all(&scene.table, &pool());
    let renewed = |restarts_unreachable| {
        let workers = Workers { pods: &scene.pods, fleet: Some(&fleet()), clocks: &scene.clocks, restarts_unreachable };
        to_renew(&scene.table, &tracked, &workers, Duration::from_hours(1), at(300)).len()
    };
    assert_eq!([renewed(false), renewed(true)], [1, 0]);
}

#[test]
fn what_is_missed_is_looked_for_again_soon_and_then_more_and_more_rarely() {
    let seconds = |misses| look_again_after(misses, Duration::from_mins(1)).as_secs();
    assert_eq!([0, 1, 4, 5, 6, 8, 9, 4000].map(seconds), [3, 3, 3, 6, 12, 48, 60, 60]);
    assert_eq!(look_again_after(1, Duration::from_secs(1)), Duration::from_secs(1), "never later than without");
}

#[test]
fn one_reading_holds_4_mib_of_results_and_of_the_others_only_size_and_digest() {
    let result = |number: u32| {
        let output = Output { bytes: 1 << 20, sha256: [7; 32], text: Some("x".repeat(1 << 20).into()) };
        let how = Ending::Succeeded(Arc::new(output));
        let task = TaskId::derive(job("team", "job", 1).uid, number);
        (task, Document::Over { how, worker: None, celery_retries: 0, finished_at: None, account: None })
    };
    let mut found = Findings::of_audit(Results::default());
    for number in 1..=5 {
        let (task, document) = result(number);
        found.results.document(task, document);
    }
    assert_eq!(found.results.documents.values().map(Document::text_bytes).sum::<usize>(), 4 << 20);
    assert_eq!(found.results.documents[&result(5).0].text_bytes(), 0);
}

/// Whether a message at this place that all deny in four audits, up to then, is taken for lost, where a worker
/// limits the rate of this task so.
fn is_lost(scene: &mut Scene, place: Place, task: &str, (every, prefetched): (u64, i64), last: i64) -> bool {
    for now in [300, 310, last, last + 3] {
        let mut answers = scene.answers(&[], &[]);
        answers.limited(vec![RateLimit {
            task: task.into(),
            every: Duration::from_secs(every),
            prefetched: Some(prefetched),
        }]);
        let mark = (place != Place::Nowhere).then(|| mark(0));
        let copies: &[Place] = if place == Place::Nowhere { &[] } else { &[place] };
        let found = Findings { answers: Some(answers), ..found(mark, copies) };
        let tracked = Tracked::all(&scene.table, &pool());
        scene.apply_at(now, &tracked, found);
    }
    match scene.known() {
        Task::Held(held) => held.by == Holding::NoWorker,
        Task::Absent(search) => search.denied,
        Task::Unread | Task::Queued { .. } | Task::Withdrawn { .. } | Task::GoesOn { .. } | Task::Ended(_) => {
            panic!("it is nowhere or in flight")
        }
    }
}

#[test]
fn a_message_that_all_deny_may_wait_in_its_worker_for_a_rate_limit_as_long_as_that_can_take() {
    for place in [in_flight(0), Place::Nowhere] {
        let lost = |task, limit, last| is_lost(&mut Scene::new(), place, task, limit, last);
        assert!(!lost("run", (60, 1), 415) && lost("run", (60, 1), 9_000), "its turn comes after two minutes at most");
        assert!(!lost("run", (60, 2), 475), "another one goes first");
        assert!(lost("another", (60, 1), 415), "its own task has no limit");
        assert!(!lost("run", (1, 0), 1_290), "its worker may have taken any number");
        let mut begun = Scene::new();
        begun.hear(report("crew@w", 250, Some(250)));
        let has_denied = is_lost(&mut begun, place, "run", (60, 1), 415);
        assert!(has_denied, "what has begun waits no more");
    }
}

#[test]
fn each_copy_that_celery_publishes_may_wait_for_the_rate_limit_anew() {
    let copy = |tag| Place::CopyInFlight { tag: Some(uuid::Uuid::from_u128(tag)), received_at: Some(at(200)) };
    let mut scene = Scene::new();
    scene.hear(report("crew@w", 250, Some(250)));
    assert!(!is_lost(&mut scene, copy(1), "run", (60, 1), 415));
    assert!(!is_lost(&mut scene, copy(2), "run", (60, 1), 415));
}
