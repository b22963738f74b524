use serde_json::json;

use super::*;

fn object(namespace: &str, name: &str, uid: u128, version: u64, spec: &serde_json::Value) -> CrewJob {
    let metadata = json!({
        "name": name, "namespace": namespace, "uid": Uuid::from_u128(uid).to_string(),
        "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": version.to_string(),
    });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
}

fn apply_object(table: &mut Table, object: CrewJob) -> Applied {
    let version: Arc<str> = object.metadata.resource_version.as_deref().unwrap().into();
    table.apply(object.to_job().unwrap(), version, object, false)
}

fn apply(table: &mut Table, uid: u128, version: u64) -> Applied {
    apply_object(table, object("team", "job", uid, version, &json!({ "topic": "t" })))
}

impl Jobs {
    /// A table with one new job.
    pub fn with_one(namespace: &str, name: &str) -> Self {
        let jobs = Self::default();
        apply_object(&mut jobs.lock(), object(namespace, name, 1, 1, &json!({ "topic": "t" })));
        jobs
    }
}

/// Whether the figures are what counting all jobs anew comes to.
fn is_counted_right(table: &Table) -> bool {
    let mut anew = Index::default();
    for (key, entry) in &table.by_key {
        anew.change(key, None, Some(&entry.share()));
    }
    let lanes: HashSet<&ObjectKey> = table.by_key.values().map(|entry| &*entry.lane).collect();
    let fresh = table.by_key.values().filter(|entry| entry.fresh.is_some()).count();
    table.index == anew && lanes == table.lanes.keys().collect() && table.fresh == fresh
}

#[test]
fn the_figures_of_pools_follow_every_change_of_their_jobs() {
    let mut table = Table::default();
    let job = ObjectKey::new("team", "a");
    let pool = |name: &str| ObjectKey::new("team", name);
    let spec = |pool: &str| json!({ "topic": "t", "poolRef": { "name": pool }, "timeouts": { "hard": "90m" } });
    apply_object(&mut table, object("team", "a", 1, 1, &spec("one")));
    apply_object(&mut table, object("team", "b", 2, 2, &spec("one")));
    assert!(is_counted_right(&table));
    let id = table.get(&job).unwrap().job.attempt_in_hand();
    table.note(&job, |_, evidence| evidence.expect(id, Timestamp::UNIX_EPOCH));
    assert_eq!(table.figures(&pool("one")).unwrap().queued(), 1);
    assert!(is_counted_right(&table));
    table.update(&job, |entry| entry.fresh = None);
    assert!(is_counted_right(&table));
    let node: Arc<str> = "crew@worker-1".into();
    let holder = Some(crate::core::status::Holder { node, container: None });
    let word = crate::core::evidence::Word {
        holder,
        said_at: Timestamp::UNIX_EPOCH,
        behind: 0,
        started_at: None,
        celery_retries: 0,
        progress: None,
    };
    table.note(&job, |_, evidence| evidence.hear(word));
    assert_eq!(table.seen_with(&pool("worker-1")).count(), 1, "the worker's Pod is known by its name");
    assert_eq!(table.figures(&pool("one")).unwrap().busy_workers(), 1);
    assert!(is_counted_right(&table));
    table.note_all(&pool("one"), |_| true, Evidence::unread);
    assert_eq!(table.unread_of(&pool("one")).count(), 2);
    assert!(is_counted_right(&table));
    apply_object(&mut table, object("team", "a", 1, 5, &spec("other")));
    assert!(is_counted_right(&table), "a job that asks for another pool counts there");
    assert_eq!(table.figures(&pool("other")).unwrap().hard_limit(), Some(std::time::Duration::from_mins(90)));
    apply_object(&mut table, object("team", "a", 9, 6, &spec("other")));
    assert!(is_counted_right(&table), "another job of the same name");
    table.remove(&job);
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
        apply_object(&mut table, object("noisy", &format!("j{n}"), n, 1, &json!({ "topic": "t" })));
    }
    apply_object(&mut table, object("quiet", "job", 1000, 1, &json!({ "topic": "t" })));
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
    assert_eq!(table.len(), 0);
    assert!(matches!(apply(&mut table, 2, 12), Applied::Changed), "another one of its name is news");
}

#[test]
fn so_many_jobs_are_remembered_to_be_over_and_no_more() {
    let mut over = Over::default();
    for uid in 0..=OVER as u128 {
        over.remember(Uuid::from_u128(uid));
    }
    assert_eq!((over.jobs.len(), over.order.len()), (OVER, OVER));
    assert!(!over.jobs.contains(&Uuid::from_u128(0)) && over.jobs.contains(&Uuid::from_u128(1)));
}
