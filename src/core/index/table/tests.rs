use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use super::super::fixtures;
use super::*;
use crate::core::evidence::Word;
use crate::core::policy::Overrides;
use crate::core::status::Holder;

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
    let word = Word {
        holder: Some(Holder { node, container: None }),
        said_at: Timestamp::UNIX_EPOCH,
        behind: 0,
        started_at: None,
        celery_retries: 0,
        progress: None,
    };
    table.note(&key, |_, evidence| evidence.hear(word));
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

#[test]
fn a_job_that_took_the_name_of_a_deleted_one_does_not_leave_the_table_with_it() {
    let (mut table, key) = (Table::default(), ObjectKey::new("team", "job"));
    let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
    apply(&mut table, 2, 7);
    assert!(table.remove_job(&key, old).is_none());
    assert!(table.remove_ended(&key, old, "6").is_none(), "what is read late of the old one is no news");
    assert!(table.get(&key).is_some());
    assert_eq!(table.remove_job(&key, new).map(|entry| entry.job.uid), Some(new));
    apply(&mut table, 3, 8);
    let left = table.remove_ended(&key, Uuid::from_u128(4), "9");
    assert_eq!(left.map(|entry| entry.job.uid), Some(Uuid::from_u128(3)), "a newer job of its name has ended already");
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
fn what_the_watch_says_late_of_a_job_that_is_over_brings_it_not_back() {
    let mut table = Table::default();
    assert!(matches!(apply(&mut table, 1, 10), Applied::Changed));
    assert!(matches!(apply(&mut table, 1, 9), Applied::Stale));
    table.remove(&ObjectKey::new("team", "job")).unwrap();
    assert!(matches!(apply(&mut table, 1, 11), Applied::Stale), "it would be published as a new job");
    assert_eq!(table.live(), 0);
    assert!(matches!(apply(&mut table, 2, 12), Applied::Changed), "another one of its name is news");
}
