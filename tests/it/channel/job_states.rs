//! The states of jobs, and which run may save them.

use super::*;

const KEEP: Duration = Duration::from_mins(10);

/// The archive that a run finds when it opens a state.
async fn open(channel: &Channel, job: &str, run: &str, other: Option<&str>, anew: bool) -> Option<Vec<u8>> {
    channel.open_state(job, run, other, anew, KEEP).await.unwrap().map(|found| found.archive)
}

async fn save(channel: &Channel, job: &str, run: &str, archive: &[u8]) -> bool {
    channel.save_state(job, run, "v1", archive, KEEP).await.unwrap().is_some()
}

#[tokio::test]
async fn a_run_finds_what_the_last_one_saved_with_its_version_and_time() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    assert_eq!(open(&channel, "job", "first", None, false).await, None);
    let saved_at = channel.save_state("job", "first", "v1", b"\0\xffwhole", KEEP).await.unwrap();
    let found = channel.open_state("job", "second", None, false, KEEP).await.unwrap().unwrap();
    assert_eq!((&*found.version, &*found.archive, found.saved_at), ("v1", &b"\0\xffwhole"[..], saved_at));
    assert!((590..=600).contains(&server.run::<i64>(&["TTL", "crewjob-state:job"])));
}

#[tokio::test]
async fn a_first_run_needs_not_open_a_state_to_save_it() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    assert!(save(&channel, "job", "first", b"one").await);
    assert!(save(&channel, "job", "first", b"two").await);
    assert_eq!(open(&channel, "job", "second", None, false).await, Some(b"two".to_vec()));
}

#[tokio::test]
async fn a_run_that_was_taken_for_dead_neither_saves_nor_deletes_the_state_of_a_later_one() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    assert!(save(&channel, "job", "first", b"early").await);
    open(&channel, "job", "second", None, false).await;
    assert!(!save(&channel, "job", "first", b"late").await);
    channel.drop_state("job", "first").await.unwrap();
    assert!(save(&channel, "job", "second", b"its own").await);
    assert_eq!(open(&channel, "job", "second", None, false).await, Some(b"its own".to_vec()));
    channel.drop_state("job", "second").await.unwrap();
    assert!(server.run::<Vec<String>>(&["KEYS", "*"]).is_empty());
}

#[tokio::test]
async fn a_later_run_is_known_also_where_nothing_was_saved() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    assert_eq!(open(&channel, "job", "second", None, false).await, None);
    assert!(!save(&channel, "job", "first", b"late").await);
}

#[tokio::test]
async fn a_job_begins_with_the_state_of_another_one_only_until_it_has_saved_its_own() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    assert!(save(&channel, "old", "run", b"old").await);
    assert_eq!(open(&channel, "new", "first", Some("old"), false).await, Some(b"old".to_vec()));
    assert_eq!(open(&channel, "new", "second", Some("old"), false).await, Some(b"old".to_vec()));
    assert!(save(&channel, "new", "second", b"new").await);
    assert_eq!(open(&channel, "new", "third", Some("old"), false).await, Some(b"new".to_vec()));
    assert_eq!(open(&channel, "old", "again", None, false).await, Some(b"old".to_vec()), "it is left alone");
}

#[tokio::test]
async fn a_run_that_begins_anew_finds_nothing_and_leaves_nothing_of_before() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    assert!(save(&channel, "job", "first", b"before").await);
    assert_eq!(open(&channel, "job", "second", None, true).await, None);
    assert_eq!(open(&channel, "job", "third", None, false).await, None);
}

#[tokio::test]
async fn a_state_can_be_read_from_a_redis_that_is_full_and_what_cannot_be_saved_leaves_the_last_one() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    assert!(save(&channel, "job", "first", b"before").await);
    server.run::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(open(&channel, "job", "second", None, false).await, Some(b"before".to_vec()));
    let refused = channel.save_state("job", "second", "v1", b"after", KEEP).await;
    assert!(
        refused.as_ref().is_err_and(|error| error.is_for_good() || error.to_string().contains("OOM")),
        "{refused:?}"
    );
    server.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(open(&channel, "job", "third", None, false).await, Some(b"before".to_vec()));
}

/// The next number of a sequence that looks random, and is the same each time.
fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[tokio::test]
async fn whatever_runs_do_each_finds_what_the_latest_run_of_its_job_saved_last() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    for seed in 1..=20_u64 {
        server.run::<()>(&["FLUSHALL"]);
        let mut seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Of two jobs: the run that may save, and what is saved.
        let mut model: [(Option<String>, Option<Vec<u8>>); 2] = Default::default();
        for number in 0..200 {
            let (job, act) = ((next(&mut seed) % 2) as usize, next(&mut seed) % 8);
            let (name, run) = (format!("job-{job}"), format!("run-{}", next(&mut seed) % 4));
            let (owner, saved) = &mut model[job];
            let is_owner = owner.as_ref().is_none_or(|owner| *owner == run);
            match act {
                0..=2 => {
                    let anew = act == 2;
                    if anew {
                        *saved = None;
                    }
                    *owner = Some(run.clone());
                    assert_eq!(open(&channel, &name, &run, None, anew).await, *saved, "step {number}");
                }
                3..=6 => {
                    let content = format!("{job}: {number}").into_bytes();
                    let is_saved = save(&channel, &name, &run, &content).await;
                    assert_eq!(is_saved, is_owner, "step {number}");
                    if is_saved {
                        (*owner, *saved) = (Some(run), Some(content));
                    }
                }
                _ => {
                    channel.drop_state(&name, &run).await.unwrap();
                    if is_owner {
                        (*owner, *saved) = (None, None);
                    }
                }
            }
        }
    }
}

#[test]
fn the_package_for_python_workers_runs_the_same_scripts() {
    let package = include_str!("../../../python/crewjob/state.py");
    for script in [
        include_str!("../../../src/store/channel/lua/state_open.lua"),
        include_str!("../../../src/store/channel/lua/state_save.lua"),
        include_str!("../../../src/store/channel/lua/state_drop.lua"),
    ] {
        let code: String =
            script.lines().filter(|line| !line.starts_with("--")).flat_map(|line| [line, "\n"]).collect();
        assert!(package.contains(&code), "the package has another script than\n{code}");
    }
}
