//! Waking up when a message arrives.

use crewjob::store::channel::Arrivals;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);
const QUEUES: [&str; 2] = ["crew_jobs", "default"];

async fn woken(arrivals: &Arrivals) {
    timeout(PATIENCE, arrivals.wait()).await.expect("it wakes");
}

/// Waits until so many workers wait for a wake-up while one watches the queues.
async fn idle(server: &RedisServer, others: usize) {
    let count = |what: &str| server.run::<String>(&["CLIENT", "LIST"]).matches(what).count();
    let all = async {
        while count("flags=t ") != 1 || count("cmd=blpop") < others {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, all).await.expect("all are idle");
}

/// How often a command was run.
fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats: String = server.run(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

fn sent(server: &RedisServer) -> u64 {
    let stats: String = server.run(&["INFO", "stats"]);
    stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:")).unwrap().trim().parse().unwrap()
}

/// Workers that take a message each and run it for good; the set ends with those that have one.
async fn fleet(server: &RedisServer, size: usize) -> JoinSet<String> {
    let mut workers = JoinSet::new();
    for number in 0..size {
        let channel = channel(server).await;
        workers.spawn(async move {
            let arrivals = channel.arrivals(&QUEUES, &format!("worker-{number}"));
            loop {
                arrivals.wait().await;
                if let Some(delivery) = channel.reserve(&QUEUES, &format!("asker-{number}"), "").await.unwrap().0 {
                    // It goes on watching, as a worker does while its tasks run.
                    tokio::spawn(async move {
                        let _arrivals = arrivals;
                        std::future::pending::<()>().await;
                    });
                    return delivery.tag;
                }
            }
        });
    }
    idle(server, size - 1).await;
    workers
}

#[tokio::test]
async fn an_arriving_message_wakes_the_waiting_worker_and_stays_on_its_queue() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    let arrivals = channel.arrivals(&QUEUES, "me");
    for (queue, priority) in [("crew_jobs", 5), ("default", 9), ("crew_jobs", 0)] {
        let sent = async {
            // Not before the worker waits; the next test is about an arrival in between.
            idle(&server, 0).await;
            send(&server, queue, "1", priority);
        };
        tokio::join!(woken(&arrivals), sent);
        assert_eq!(reserve(&channel).await.map(|(tag, _)| tag).as_deref(), Some("t1"), "it is still there");
    }
}

#[tokio::test]
async fn an_arrival_before_the_waiting_begins_is_not_missed() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    let arrivals = channel.arrivals(&["crew_jobs"], "me");
    for id in ["1", "2", "3"] {
        while reserve(&channel).await.is_some() {}
        send(&server, "crew_jobs", id, 5);
        let taken = async {
            while reserve(&channel).await.is_none() {
                arrivals.wait().await;
            }
        };
        timeout(PATIENCE, async { arrivals.wait().await }).await.expect("it wakes");
        timeout(PATIENCE, taken).await.expect("it is there");
    }
}

#[tokio::test]
async fn a_message_wakes_one_of_all_idle_workers_and_is_sent_to_no_other() {
    let server = RedisServer::start();
    let mut workers = fleet(&server, 30).await;
    let mut call = Call::new("a.task", "1", "default");
    call.args = vec!["x".repeat(300_000).into()];
    let message = String::from_utf8(call.envelope().encode()).unwrap();
    let before = (calls(&server, "evalsha"), sent(&server));
    server.run::<()>(&["LPUSH", "default", &message]);
    timeout(PATIENCE, workers.join_next()).await.expect("it is taken").unwrap().unwrap();
    let (scripts, bytes) = (calls(&server, "evalsha") - before.0, sent(&server) - before.1);
    // The worker takes it; besides, one of all looks now and then.
    assert!(scripts <= 10, "{scripts} scripts");
    assert!(bytes < 600_000, "{bytes} bytes for a message of {}", message.len());
}

#[tokio::test]
async fn messages_that_come_together_wake_as_many_idle_workers() {
    let server = RedisServer::start();
    let mut workers = fleet(&server, 20).await;
    for number in 0..20 {
        send(&server, QUEUES[number % 2], &number.to_string(), 5);
    }
    let mut taken = Vec::new();
    while let Some(tag) = timeout(PATIENCE, workers.join_next()).await.expect("all are woken") {
        taken.push(tag.unwrap());
    }
    assert_eq!(taken.len(), 20);
}

#[tokio::test]
async fn another_worker_watches_when_the_watcher_leaves_and_when_it_dies() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    for dies in [false, true] {
        let first = channel.arrivals(&QUEUES, "first");
        idle(&server, 0).await;
        let second = channel.arrivals(&QUEUES, "second");
        let sent = async {
            idle(&server, 1).await;
            assert_eq!(server.run::<String>(&["GET", "crewjob-watch:default"]), "first");
            if dies {
                drop(first);
            } else {
                first.close().await.unwrap();
            }
            send(&server, "default", "1", 0);
        };
        tokio::join!(woken(&second), sent);
        assert!(reserve(&channel).await.is_some());
        let waits = async {
            loop {
                second.wait().await;
            }
        };
        let watched = async {
            while server.run::<Option<String>>(&["GET", "crewjob-watch:default"]).as_deref() != Some("second") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = waits => {}
            watched = timeout(PATIENCE, watched) => watched.expect("the second one watches"),
        }
        second.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_tells_of_no_changes_is_asked_instead() {
    let server = RedisServer::start();
    let worker = "+@all -client|tracking";
    server.run::<()>(&["ACL", "SETUSER", "worker", "on", ">secret", "~*", "&*", "+@all", "-client|tracking"]);
    let channel = Channel::connect(&Access::new(Secret::new(server.url_as("worker", "secret")))).await.expect(worker);
    let arrivals = channel.arrivals(&QUEUES, "me");
    for id in ["1", "2"] {
        let ((), ()) = tokio::join!(woken(&arrivals), async { send(&server, "default", id, 5) });
        while reserve(&channel).await.is_some() {}
    }
}
