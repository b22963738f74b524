use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::super::fixtures;
use super::*;
use crate::core::evidence::{Levels, Mark, Place, Report};
use crate::core::limits::{By, Limit, Limits, Permit};
use crate::core::observed::Ending;
use crate::core::policy::Overrides;
use crate::core::reason::{Hold, Why};
use crate::core::status::{Attempt, Holder, Output, Phase, TaskError};

/// A job of a pool.
fn job(namespace: &str, name: &str, uid: u128, pool: &str) -> Job {
    let mut job = fixtures::job(namespace, name, uid);
    job.spec.pool = pool.into();
    job
}

fn arrive(table: &mut Table<()>, job: Job, version: u64) -> Applied<()> {
    table.apply(job, version.to_string().into(), 100, || (), false)
}

fn apply(table: &mut Table<()>, uid: u128, version: u64) -> Applied<()> {
    arrive(table, job("team", "job", uid, "default"), version)
}

/// Whether the figures are what counting all jobs anew comes to.
fn is_counted_right(table: &Table<()>) -> bool {
    let mut anew = Index::default();
    for (key, entry) in &table.by_key {
        anew.change(key, None, Some(&entry.share()));
    }
    let lanes: HashSet<&ObjectKey> = table.by_key.values().map(|entry| &*entry.lane).collect();
    let fresh = table.by_key.values().filter(|entry| entry.fresh.is_some()).count();
    let by_task = table.by_key.iter().map(|(key, entry)| (entry.job.attempt_in_hand().task, key.clone())).collect();
    table.index == anew
        && lanes == table.lanes.keys().collect()
        && table.fresh == fresh
        && table.by_task == by_task
        && table.texts == table.by_key.values().map(|entry| entry.evidence.text_bytes()).sum::<usize>()
}

#[test]
fn the_figures_of_pools_follow_every_change_of_their_jobs() {
    let mut table = Table::default();
    let key = ObjectKey::new("team", "a");
    let pool = |name: &str| ObjectKey::new("team", name);
    let of = |name: &str, uid: u128, pool: &str| {
        let mut job = job("team", name, uid, pool);
        job.spec.overrides = Some(Box::new(Overrides { hard: Some(Duration::from_mins(90)), ..Overrides::default() }));
        job
    };
    arrive(&mut table, of("a", 1, "one"), 1);
    arrive(&mut table, of("b", 2, "one"), 2);
    assert!(is_counted_right(&table));
    let id = table.get(&key).unwrap().job.attempt_in_hand();
    table.note(&key, |_, evidence| evidence.expect(id, Timestamp::UNIX_EPOCH));
    assert_eq!(table.figures(&pool("one")).unwrap().queued(), 1);
    assert!(is_counted_right(&table));
    table.update(&key, |entry| entry.fresh = None);
    assert!(is_counted_right(&table));
    let node: Arc<str> = "crew@worker-1".into();
    let report = Report {
        holder: Some(Holder { node, container: None }),
        said_at: Timestamp::UNIX_EPOCH,
        behind: 0,
        started_at: None,
        celery_retries: 0,
        progress: None,
        account: None,
    };
    table.note(&key, |_, evidence| evidence.hear(report));
    assert_eq!(table.seen_with(&pool("worker-1")).count(), 1, "the worker's Pod is known by its name");
    assert_eq!(table.figures(&pool("one")).unwrap().busy_workers(), 1);
    assert!(is_counted_right(&table));
    table.note_all(&pool("one"), |_| true, Evidence::unread);
    assert_eq!(table.unread_of(&pool("one")).count(), 2);
    assert!(is_counted_right(&table));
    arrive(&mut table, of("a", 1, "other"), 5);
    assert!(is_counted_right(&table), "a job that asks for another pool counts there");
    assert_eq!(table.figures(&pool("other")).unwrap().hard_limit(), Some(Duration::from_mins(90)));
    arrive(&mut table, of("a", 9, "other"), 6);
    assert!(is_counted_right(&table), "another job of the same name");
    table.remove(&key);
    table.remove(&pool("b"));
    assert!(is_counted_right(&table));
    assert_eq!(table.index, Index::default());
}

/// As another writer has recorded it: this attempt is out.
fn with_attempt(mut job: Job, number: u32, generation: u32) -> Job {
    let enqueued_at = Timestamp::UNIX_EPOCH;
    job.status.attempt = Some(Attempt { number, generation, enqueued_at, started_at: None });
    job.status.phase = Phase::Queued;
    job
}

fn ended(mut job: Job) -> Job {
    job.status.phase = Phase::Succeeded;
    job
}

fn new_job(uid: u128) -> Job {
    job("team", "job", uid, "default")
}

fn entry(table: &Table<()>) -> &Entry<()> {
    table.get(&ObjectKey::new("team", "job")).unwrap()
}

#[test]
fn a_job_that_took_the_name_of_a_deleted_one_does_not_leave_the_table_with_it() {
    let (mut table, key) = (Table::default(), ObjectKey::new("team", "job"));
    let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
    apply(&mut table, 2, 7);
    assert!(table.remove_job(&key, old).is_none());
    let late = arrive(&mut table, ended(new_job(1)), 6);
    assert!(matches!(late, Applied::Stale), "what is read late of the old one is no news");
    assert!(table.get(&key).is_some());
    assert_eq!(table.remove_job(&key, new).map(|entry| entry.job.uid), Some(new));
    apply(&mut table, 3, 8);
    let Applied::Replaced(left) = arrive(&mut table, ended(new_job(4)), 9) else {
        panic!("a newer job of its name has ended already");
    };
    assert_eq!((left.job.uid, table.live()), (Uuid::from_u128(3), 0));
}

#[test]
fn a_job_whose_end_another_writer_has_recorded_leaves_the_table_for_good() {
    let mut table = Table::default();
    apply(&mut table, 1, 7);
    assert!(matches!(arrive(&mut table, ended(new_job(1)), 9), Applied::Ended(_)));
    assert!(matches!(arrive(&mut table, ended(new_job(1)), 9), Applied::Stale));
    assert!(matches!(apply(&mut table, 1, 8), Applied::Stale), "what the watch says late of it");
    assert!(is_counted_right(&table));
}

#[test]
fn a_job_is_new_only_where_it_comes_after_the_first_list_and_no_status_names_an_attempt() {
    let mut table = Table::default();
    let is_new = |table: &Table<()>| (!entry(table).evidence.is_unread(), entry(table).fresh.is_some());
    apply(&mut table, 1, 1);
    assert_eq!(is_new(&table), (true, true));
    table.remove(&ObjectKey::new("team", "job"));
    table.apply(new_job(2), "2".into(), 100, || (), true);
    assert_eq!(is_new(&table), (false, false), "it may have been published before it was listed");
    table.remove(&ObjectKey::new("team", "job"));
    arrive(&mut table, with_attempt(new_job(3), 1, 0), 3);
    assert_eq!(is_new(&table), (false, false));
    table.remove(&ObjectKey::new("team", "job"));
    let mut retried = new_job(4);
    retried.status.attempts = 1;
    arrive(&mut table, retried, 4);
    assert_eq!(is_new(&table), (false, false));
}

#[test]
fn a_status_that_another_writer_has_written_makes_redis_be_read_again() {
    let (mut table, key) = (Table::default(), ObjectKey::new("team", "job"));
    apply(&mut table, 1, 1);
    let before = entry(&table).evidence_version;
    let mut edited = new_job(1);
    edited.spec.suspend = true;
    arrive(&mut table, edited, 2);
    assert!(
        !entry(&table).evidence.is_unread() && entry(&table).evidence_version == before,
        "a spec says nothing of Redis"
    );
    assert!(entry(&table).fresh.is_none(), "it is not what was created any more");
    arrive(&mut table, with_attempt(new_job(1), 1, 0), 3);
    assert!(entry(&table).evidence.is_unread() && entry(&table).evidence_version != before);
    table.note(&key, |_, evidence| {
        evidence.read(Levels { marker: None, place: Place::Nowhere, besides: None, document: None });
    });
    arrive(&mut table, with_attempt(new_job(1), 2, 0), 4);
    let of = TaskId::derive(Uuid::from_u128(1), 2);
    assert!(entry(&table).evidence.is_unread() && entry(&table).evidence.of() == of);
    assert!(is_counted_right(&table), "and is found by the task of its new attempt");
}

#[test]
fn the_worker_that_a_foreign_status_names_is_recalled() {
    let mut table = Table::default();
    apply(&mut table, 1, 1);
    let mut running = with_attempt(new_job(1), 1, 0);
    running.status.phase = Phase::Running;
    running.status.worker = Some(Box::new(Holder { node: "crew@w".into(), container: None }));
    arrive(&mut table, running.clone(), 2);
    assert_eq!(&*entry(&table).evidence.holder().unwrap().node, "crew@w");
    table.remove(&ObjectKey::new("team", "job"));
    running.uid = Uuid::from_u128(2);
    table.apply(running, "3".into(), 100, || (), true);
    assert_eq!(&*entry(&table).evidence.holder().unwrap().node, "crew@w", "also when it is met for the first time");
}

#[test]
fn what_is_known_of_one_attempt_is_not_taken_for_the_next() {
    let (mut table, key) = (Table::default(), ObjectKey::new("team", "job"));
    apply(&mut table, 1, 1);
    let first = new_job(1);
    let id = first.attempt_in_hand();
    table.learn(&first, |evidence| evidence.expect(id, Timestamp::UNIX_EPOCH));
    assert!(entry(&table).evidence.is_queued());
    table.update(&key, |entry| entry.job.status.attempts = 1);
    assert_eq!(entry(&table).evidence, Evidence::unsent(TaskId::derive(first.uid, 2)));
    assert!(is_counted_right(&table));
    table.learn(&first, |evidence| evidence.expect(id, Timestamp::UNIX_EPOCH));
    assert!(!entry(&table).evidence.is_published(), "an answer about an attempt that is not in hand any more");
    let mut other = new_job(2);
    other.status.attempts = 1;
    table.learn(&other, |evidence| evidence.expect(id, Timestamp::UNIX_EPOCH));
    assert!(!entry(&table).evidence.is_published(), "an answer about another job of that name");
}

#[test]
fn what_is_heard_of_a_task_is_noted_of_the_job_that_has_it_in_hand() {
    let mut table = Table::default();
    apply(&mut table, 1, 1);
    let task = new_job(1).attempt_in_hand().task;
    let before = entry(&table).evidence_version;
    let heard = table.hear(task, |_, evidence| evidence.unread()).unwrap();
    assert!(heard.is_unread && heard.turn.1 == new_job(1).key);
    assert_ne!(entry(&table).evidence_version, before, "a reading that began before does not overwrite it");
    assert!(table.hear(TaskId::derive(Uuid::from_u128(1), 2), |_, evidence| evidence.unread()).is_none());
}

#[test]
fn what_a_dead_worker_has_stored_does_not_count_where_more_was_heard_since() {
    let mut table = Table::default();
    apply(&mut table, 1, 1);
    let before = entry(&table).clone();
    let failed = || {
        let how = Ending::Failed(TaskError::new("ValueError", "no", None).into());
        Some(Document::Over { how, worker: None, celery_retries: 0, finished_at: None, account: None })
    };
    table.note(&before.job.key, |_, evidence| evidence.unread());
    table.death_checked(&before, failed(), true);
    assert!(!entry(&table).evidence.is_over());
    let now = entry(&table).clone();
    table.death_checked(&now, failed(), true);
    assert!(entry(&table).evidence.is_over());
}

#[test]
fn a_message_that_is_found_in_flight_overtakes_no_reading_and_one_that_is_gone_does() {
    let mut table = Table::default();
    apply(&mut table, 1, 1);
    let key = new_job(1).key;
    let how = Ending::Failed(TaskError::new("ValueError", "no", None).into());
    let document = Some(Document::Over { how, worker: None, celery_retries: 0, finished_at: None, account: None });
    let (marker, place) = (None, Place::InFlight { generation: 0, received_at: None });
    let levels = Levels { marker, place, besides: None, document: document.clone() };
    table.note(&key, |_, evidence| evidence.read(levels));
    let (asked, before) = (entry(&table).look_up().unwrap(), entry(&table).evidence_version);
    let found = |is_in_flight| LookedUp { generation: None, is_in_flight, document: document.clone() };
    table.looked_up(&asked, found(true), Timestamp::UNIX_EPOCH);
    let again = entry(&table).look_up().unwrap();
    assert!(again.at > asked.at);
    assert_eq!(entry(&table).evidence_version, before);
    table.note(&key, |_, evidence| evidence.stop_asked(Timestamp::UNIX_EPOCH));
    let before = entry(&table).evidence_version;
    table.looked_up(&asked, LookedUp { generation: Some(0), ..found(false) }, Timestamp::UNIX_EPOCH);
    assert!(entry(&table).evidence.is_unread(), "another marker than the one that was read");
    assert_ne!(entry(&table).evidence_version, before);
    let now = entry(&table).evidence.clone();
    table.looked_up(&asked, found(true), Timestamp::UNIX_EPOCH);
    assert_eq!(entry(&table).evidence, now, "there is nothing to look up any more");
}

#[test]
fn a_status_that_was_written_counts_unless_more_is_known_already() {
    let mut table = Table::default();
    apply(&mut table, 1, 5);
    let written = with_attempt(new_job(1), 1, 0).status;
    table.recorded(&new_job(1), &"6".into(), &written);
    assert_eq!((&*entry(&table).version, &entry(&table).job.status), ("6", &written));
    arrive(&mut table, with_attempt(new_job(1), 2, 0), 8);
    table.recorded(&new_job(1), &"7".into(), &written);
    assert_eq!(&*entry(&table).version, "8", "the watch was faster than the answer, and knew more");
    assert_eq!(entry(&table).job.status.attempt.unwrap().number, 2);
    table.recorded(&new_job(2), &"9".into(), &written);
    assert_eq!(&*entry(&table).version, "8", "another job has that name by now");
}

#[test]
fn what_is_left_of_a_deleted_job_is_brought_to_its_end_under_a_name_of_its_own() {
    let (mut table, key) = (Table::default(), ObjectKey::new("team", "job"));
    apply(&mut table, 1, 1);
    assert!(table.remove(&key).unwrap().remains().is_none(), "nothing of it was published");
    arrive(&mut table, with_attempt(new_job(2), 1, 0), 2);
    let task = entry(&table).evidence.of();
    let (job, evidence) = table.remove(&key).unwrap().remains().unwrap();
    assert!(job.spec.cancel && job.key.is_deleted());
    table.keep(job, evidence);
    assert!(table.is_in_hand("team", task) && is_counted_right(&table));
    apply(&mut table, 3, 3);
    let listed = HashSet::new();
    assert_eq!(table.missing_from(&listed).len(), 1, "no list contains what was deleted");
    let stray = Stray {
        job: key.clone(),
        uid: Uuid::from_u128(2),
        number: 1,
        pool: "default".into(),
        queue: None,
        mark: Mark {
            generation: 3,
            withdrawn: false,
            at: Timestamp::UNIX_EPOCH,
            spec: None,
            priority: crate::core::id::Priority::default(),
        },
    };
    let taken_up = stray.clone().into_job(task).unwrap();
    assert_eq!((taken_up.key, taken_up.status.attempt.unwrap().generation), (key.deleted(task), 3));
    assert!(stray.into_job(TaskId::derive(Uuid::from_u128(9), 1)).is_none(), "a marker of another task");
}

#[test]
fn a_job_that_waits_for_a_permit_keeps_its_place_when_the_watch_tells_its_own_status_first() {
    let (mut table, pool) = (Table::<()>::default(), ObjectKey::new("team", "default"));
    let (by, max_in_flight, weights) = (By::All, Some(1), BTreeMap::new());
    let limit = Limit { name: "all".into(), by, max_in_flight, rate: None, slow_down: None, weight: 1, weights };
    let limits = Limits { pool: "default".into(), all: vec![limit], aging: Duration::from_hours(1) };
    table.limit(&pool, Some(&Arc::new(limits)));
    let now = Timestamp::UNIX_EPOCH;
    for (uid, name) in (1..).zip(["a", "b", "c"]) {
        arrive(&mut table, job("team", name, uid, "default"), 1);
        table.ask_for_permit(&ObjectKey::new("team", name), now);
    }
    let place = |table: &Table<()>, name: &str| {
        let permit = table.permit(&ObjectKey::new("team", name), now);
        if let Permit::Waits(wait) = permit { (wait.position, Some(wait)) } else { (0, None) }
    };
    let (first, wait) = place(&table, "b");
    assert_eq!((first, place(&table, "c").0), (1, 2));
    let mut told = job("team", "b", 2, "default");
    told.status.why = Why::OnHold(Hold::LimitReached(wait.unwrap()));
    arrive(&mut table, told, 2);
    assert!(table.get(&ObjectKey::new("team", "b")).unwrap().evidence.is_unread());
    assert_eq!((place(&table, "b").0, place(&table, "c").0), (1, 2));
}

#[test]
fn a_message_may_be_on_its_way_of_a_job_that_is_deleted_with_its_permit_recorded() {
    let (mut table, key) = (Table::default(), ObjectKey::new("team", "job"));
    let mut job = new_job(1);
    job.labels = Box::new([("tenant".into(), "a".into())]);
    job.status.why = Why::Released;
    job.status.released_at = Some(Box::new(Timestamp::UNIX_EPOCH));
    arrive(&mut table, job, 1);
    let nowhere = Levels { marker: None, place: Place::Nowhere, besides: None, document: None };
    table.note(&key, |_, evidence| evidence.read(nowhere));
    let (job, evidence) = table.remove(&key).unwrap().remains().unwrap();
    assert_eq!((job.status.phase, job.attempt_in_hand().number), (Phase::Queued, 1));
    assert!(evidence.is_unread(), "what was read before tells nothing");
    assert_eq!(job.label("tenant").map(|value| &**value), Some("a"), "it counts under its own key");
}

#[test]
fn what_is_being_read_counts_although_the_worker_is_asked_again_to_stop() {
    let (mut table, key) = (Table::default(), ObjectKey::new("team", "job"));
    arrive(&mut table, with_attempt(new_job(1), 1, 0), 1);
    let (job, before) = (entry(&table).job.clone(), entry(&table).evidence_version);
    table.stop_asked(&job, Timestamp::UNIX_EPOCH);
    assert_eq!(entry(&table).evidence.stop_asked_at(), Some(Timestamp::UNIX_EPOCH));
    assert_eq!(entry(&table).evidence_version, before, "it says nothing of where the message is");
    table.note(&key, |_, evidence| evidence.unread());
    assert_ne!(entry(&table).evidence_version, before);
    table.stop_asked(&new_job(2), Timestamp::UNIX_EPOCH);
    assert_eq!(entry(&table).job.uid, Uuid::from_u128(1), "another job has that name by now");
}

#[test]
fn what_is_left_of_a_deleted_job_counts_once_and_holds_no_result() {
    let (mut table, key) = (Table::default(), ObjectKey::new("team", "job"));
    arrive(&mut table, with_attempt(new_job(1), 1, 0), 1);
    let output = Output { bytes: 2, sha256: [7; 32], text: Some("42".into()) };
    let how = Ending::Succeeded(Arc::new(output));
    let document = Some(Document::Over { how, worker: None, celery_retries: 0, finished_at: None, account: None });
    let levels = Levels { marker: None, place: Place::Nowhere, besides: None, document };
    table.note(&key, |_, evidence| evidence.read(levels));
    let (job, evidence) = table.remove(&key).unwrap().remains().unwrap();
    assert!(evidence.text_bytes() > 0);
    table.keep(job.clone(), evidence.clone());
    assert!(is_counted_right(&table), "its result belongs to nothing");
    table.keep(job.clone(), evidence);
    assert!(is_counted_right(&table), "a marker may be found again of what is known");
    table.remove(&job.key);
    assert_eq!((table.live(), &table.index), (0, &Index::default()));
}

#[test]
fn one_pool_does_not_take_all_the_room_for_whole_objects_of_new_jobs() {
    let mut table = Table::default();
    for n in 0..1000 {
        arrive(&mut table, job("noisy", &format!("j{n}"), n, "default"), 1);
    }
    arrive(&mut table, job("quiet", "job", 1000, "default"), 1);
    let kept = |namespace: &str| table.figures(&ObjectKey::new(namespace, "default")).unwrap().fresh();
    assert_eq!((kept("noisy"), kept("quiet")), (510, 1));
}

#[test]
fn a_stale_watch_event_does_not_bring_back_a_finished_job() {
    let mut table = Table::default();
    assert!(matches!(apply(&mut table, 1, 10), Applied::Changed));
    assert!(matches!(apply(&mut table, 1, 9), Applied::Stale));
    table.remove(&ObjectKey::new("team", "job")).unwrap();
    assert!(matches!(apply(&mut table, 1, 11), Applied::Stale), "it would be published as a new job");
    assert_eq!(table.live(), 0);
    assert!(matches!(apply(&mut table, 2, 12), Applied::Changed), "another one of its name is news");
}

/// 100,000 waiting jobs and 200 pools are to fit into 200 MB (`make bench`).
#[test]
fn a_job_that_waits_takes_at_most_768_bytes_and_its_names() {
    assert!(size_of::<Entry<u64>>() <= 768, "{}", size_of::<Entry<u64>>());
}
