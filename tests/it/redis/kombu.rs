//! The store and kombu on one Redis.

use std::path::Path;
use std::process::Command;

use crewjob::store::{Keys, Place, Store};

use super::*;

/// What a worker's kombu took, in order, before it went away without acknowledging anything.
fn taken(server: &RedisServer, options: &str, count: usize) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/redis/kombu.py");
    let mut python = Command::new("python3");
    let done = python.arg(script).arg(server.url(0)).arg(options).arg(count.to_string()).output().expect("python3");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).expect("a JSON line")
}

#[tokio::test]
async fn kombu_takes_what_we_publish_and_we_find_what_it_puts_back() {
    let other = Keys {
        separator: ":p".into(),
        priority_steps: vec![0, 2, 5, 8],
        global_prefix: "app1:".into(),
        unacked: "held".into(),
        ..Keys::default()
    };
    let options = r#"{"sep": ":p", "priority_steps": [0, 2, 5, 8], "global_keyprefix": "app1:", "unacked_key": "held",
        "unacked_index_key": "held_index"}"#;
    for (keys, options) in [(Keys::default(), "{}"), (other, options)] {
        let server = RedisServer::start();
        let store = Store::connect(&changed(settings(&server), |access| access.keys = keys)).await.unwrap();
        store.declare(&queues()).await.unwrap();
        let jobs: [(u128, i32); 4] = [(1, 0), (2, 10), (3, 6), (4, 3)];
        for (job, priority) in jobs {
            store.enqueue(FIRST, &message_of(attempt(job), job, priority, "")).await.unwrap();
        }
        let urgent_first = [2, 3, 4, 1].map(|job| attempt(job).task.to_string());
        assert_eq!(taken(&server, options, 4), urgent_first);

        let audit = store.audit(&queues()).await.unwrap();
        for (job, priority) in jobs {
            let place = Place::Queued {
                tag: attempt(job).tag().into(),
                queue: "crew_jobs".into(),
                band: store.band(Priority::clamped(priority)),
                redelivered: true,
            };
            assert_eq!(audit.places[&attempt(job).task], [place]);
        }
        assert_eq!(audit.poisoned, 0);

        let ids = jobs.map(|(job, _)| message(job).marker());
        assert_eq!(store.sweep(FIRST, &all_gone(ids), &queues()).await.unwrap().len(), 4);
        let left = store.snapshot(&queues()).await.unwrap().queues[0].depth();
        assert_eq!(left, 1, "a producer that names the exchange finds the queue");
    }
}
