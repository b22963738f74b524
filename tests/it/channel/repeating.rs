//! Every step on Redis, done again: its answer may have been lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crewjob::store::channel::{Publication, Settlement};

use super::settling::{FAILURE, RETRY, SUCCESS, TAKEN, begun, end, next, settle};
use super::*;
use crate::support::gate::{Gate, Words};

/// All that the databases of a server hold, but what goes on by itself: leases and marks of ends.
fn all(server: &RedisServer) -> BTreeMap<String, Vec<u8>> {
    let mut connection = server.connection();
    let mut found = BTreeMap::new();
    for database in [0, 3] {
        redis::cmd("SELECT").arg(database).exec(&mut connection).unwrap();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
        for key in keys {
            let dump = redis::cmd("DUMP").arg(&key).query(&mut connection).unwrap();
            found.insert(format!("{database} {key}"), dump);
        }
    }
    found
}

/// What happens between an end whose answer is lost and its repetition.
#[derive(Debug, Clone, Copy)]
enum Meanwhile {
    Nothing,
    /// The client has seen the result and forgets it.
    Forgotten,
    /// A renewal on its way brings the lease back.
    LeaseRenewed,
    /// A retry of the task has ended.
    EndedElsewhere,
    /// A retry of the task runs.
    RunsElsewhere,
}

#[tokio::test]
async fn an_end_that_is_repeated_has_no_second_effect_whatever_it_is_and_whatever_happens_meanwhile() {
    use Meanwhile::{EndedElsewhere, Forgotten, LeaseRenewed, Nothing, RunsElsewhere};
    let server = RedisServer::start();
    let rest_of_chain = [("2".to_owned(), FAILURE.to_vec()), ("3".to_owned(), FAILURE.to_vec())];
    for results in [0, 3] {
        for document in [Some(SUCCESS), Some(FAILURE), Some(RETRY), None] {
            for (publish, others) in [(0, 0), (1, 0), (2, 0), (0, 2), (1, 2)] {
                for meanwhile in [Nothing, Forgotten, LeaseRenewed, EndedElsewhere, RunsElsewhere] {
                    let case = format!(
                        "{results} {:?} {publish} {others} {meanwhile:?}",
                        document.map(String::from_utf8_lossy)
                    );
                    server.run::<()>(&["FLUSHALL"]);
                    begun(&server).await;
                    let mut access = Access::new(Secret::new(server.url(0)));
                    access.result_url = Some(Secret::new(server.url(results)));
                    let channel = Channel::connect(&access).await.unwrap();
                    let publish: Vec<Publication> = next().into_iter().cycle().take(publish).collect();
                    let end = Settlement {
                        document,
                        publish: &publish,
                        others: &rest_of_chain[..others],
                        ..end(document.unwrap_or(SUCCESS))
                    };
                    assert_eq!(settle(&channel, &end).await, Ok(TAKEN), "{case}");
                    let stored = |command: &[&str]| {
                        let mut connection = server.connection();
                        redis::cmd("SELECT").arg(results).exec(&mut connection).unwrap();
                        redis::cmd(command[0]).arg(&command[1..]).exec(&mut connection).unwrap();
                    };
                    let mut is_ours = true;
                    match meanwhile {
                        Nothing => {}
                        Forgotten => stored(&["DEL", "celery-task-meta-1"]),
                        LeaseRenewed => server.run::<()>(&["SET", "crewjob-lease:1", "me"]),
                        EndedElsewhere => {
                            stored(&["SET", "celery-task-meta-1", r#"{"status": "FAILURE", "result": 7}"#]);
                        }
                        RunsElsewhere => {
                            server.run::<()>(&["SET", "crewjob-lease:1", "another"]);
                            is_ours = false;
                        }
                    }
                    let mut before = all(&server);
                    if matches!(meanwhile, LeaseRenewed) {
                        before.remove("0 crewjob-lease:1");
                    }
                    let mut listener = server.connection();
                    let mut heard = listener.as_pubsub();
                    heard.psubscribe("*").unwrap();
                    for _ in 0..3 {
                        let settled = settle(&channel, &end).await.unwrap();
                        assert_eq!((settled.taken, settled.acknowledged), (true, is_ours), "{case}");
                        assert!(all(&server) == before, "{case}: {:?}", changed(&before, &all(&server)));
                    }
                    heard.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                    assert!(heard.get_message().is_err(), "nothing is published again: {case}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_end_whose_publication_is_refused_goes_on_where_it_was_and_publishes_nothing_twice() {
    for results in [0, 3] {
        let server = RedisServer::start();
        begun(&server).await;
        let mut access = Access::new(Secret::new(server.url(0)));
        access.result_url = Some(Secret::new(server.url(results)));
        let channel = Channel::connect(&access).await.unwrap();
        let to = |queue: &str| Publication { queue: queue.into(), priority: None, envelope: b"next".to_vec() };
        let publish = ["first", "second", "no-list", "last"].map(to);
        server.run::<()>(&["SET", "no-list", "text"]);
        let end = Settlement { publish: &publish, ..end(SUCCESS) };
        for _ in 0..3 {
            let refused = settle(&channel, &end).await.unwrap_err();
            assert!(refused.is_for_good(), "{refused}");
        }
        let lengths = |lists: [&str; 4]| lists.map(|list| server.run::<u64>(&["LLEN", list]));
        server.run::<()>(&["DEL", "no-list"]);
        assert_eq!(lengths(["first", "second", "no-list", "last"]), [1, 1, 0, 0]);
        for _ in 0..2 {
            assert_eq!(settle(&channel, &end).await, Ok(TAKEN));
        }
        assert_eq!(lengths(["first", "second", "no-list", "last"]), [1; 4]);
    }
}

#[tokio::test]
async fn every_other_step_of_a_worker_may_be_repeated() {
    let server = RedisServer::start();
    let channel = begun(&server).await;
    server.run::<()>(&["HSET", "unacked", "junk", "junk"]);
    server.run::<()>(&["ZADD", "unacked_index", "1", "junk"]);
    send(&server, "crew_jobs", "2", 5);
    let visible = Duration::from_hours(10);
    for step in ["reserve", "begin", "keep", "state", "revoke", "discard", "noted", "restore", "drop", "visible"] {
        let mut before = None;
        for _ in 0..3 {
            match step {
                "reserve" => assert!(channel.reserve(&["crew_jobs"], "asker", "").await.unwrap().0.is_some()),
                "begin" => drop(channel.begin("1", "t1", "me", LEASE).await.unwrap()),
                "keep" => drop(channel.keep(&[("1", "me")], LEASE).await.unwrap()),
                "state" => drop(channel.store_state("1", br#"{"status": "PROGRESS"}"#, None).await.unwrap()),
                "revoke" => drop(channel.revoke_unseen("9", br#"{"status": "REVOKED"}"#, None).await.unwrap()),
                "discard" => drop(channel.discard("junk").await.unwrap()),
                "noted" => channel.store_noted("t1", None).await.unwrap(),
                "restore" => drop(channel.restore("t1", "1", "me", &queues()).await.unwrap()),
                "drop" => drop(channel.acknowledge_ended("2", "t2", "").await.unwrap()),
                _ => drop(channel.restore_visible(visible, "me", &queues()).await.unwrap()),
            }
            let now = all(&server);
            let same = before.get_or_insert_with(|| now.clone());
            assert!(*same == now, "{step}: {:?}", changed(same, &now));
        }
    }
}

#[tokio::test]
async fn a_message_that_was_put_back_and_taken_by_another_worker_since_is_not_taken_from_it() {
    let server = RedisServer::start();
    begun(&server).await;
    let asked: Arc<Mutex<Vec<Words>>> = Arc::default();
    let noted = asked.clone();
    let gate = Gate::before(server.port(), move |words| {
        noted.lock().unwrap().push(words.clone());
        None
    });
    let ours = Channel::connect(&Access::new(Secret::new(gate.url(0)))).await.unwrap();
    assert_eq!(ours.restore("t1", "1", "me", &queues()).await, Ok(true));
    assert_eq!(reserve(&channel(&server).await).await.map(|(tag, _)| tag).as_deref(), Some("t1"));
    // The answer was lost: the connection asks for it once more.
    let script = asked.lock().unwrap().iter().rfind(|words| words[0] == b"EVALSHA").unwrap().clone();
    let again: i64 = redis::cmd("EVALSHA").arg(&script[1..]).query(&mut server.connection()).unwrap();
    assert_eq!(again, 0);
    assert!(in_flight(&server, "t1").is_some(), "the other worker has it");
}

fn changed(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
    keys.filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
}
