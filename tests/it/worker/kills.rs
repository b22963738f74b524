//! A worker that is killed again and again, at any step.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

const TASKS: usize = 4000;
const KILLS: usize = 200;

/// How often each task was said to have succeeded, to whoever waits for results.
struct Told {
    counts: Arc<Mutex<HashMap<String, usize>>>,
    over: Arc<AtomicBool>,
}

impl Told {
    fn listen(server: &RedisServer) -> Self {
        let counts: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let mut connection = server.connection();
        connection.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let (told, stop) = (counts.clone(), over.clone());
        std::thread::spawn(move || {
            let mut results = connection.as_pubsub();
            results.psubscribe("celery-task-meta-*").unwrap();
            while !stop.load(Ordering::Relaxed) {
                let Ok(message) = results.get_message() else { continue };
                let document = ResultDocument::decode(message.get_payload_bytes()).unwrap();
                if document.status.as_str() == "SUCCESS" {
                    *told.lock().unwrap().entry(document.task_id).or_default() += 1;
                }
            }
        });
        Self { counts, over }
    }

    fn done(&self) -> usize {
        self.counts.lock().unwrap().len()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_task_is_lost_or_done_twice_however_often_the_worker_is_killed() {
    let server = RedisServer::start();
    let told = Told::listen(&server);
    let follower = r#"[{"task": "backend.tasks.health_check", "args": [], "kwargs": {}, "options": {"queue": "followers"}, "immutable": true}]"#;
    for number in 0..TASKS {
        let task = if number % 4 == 0 { "echo" } else { "backend.tasks.health_check" };
        send_changed(&server, task, &format!("id-{number}"), "[]", |call| call.embed.callbacks = value(follower));
    }
    let tasks = "tasks: {echo: {command: [cat]}}";
    // Moments that have nothing to do with what the worker does then.
    let mut moment = 1_u64;
    let mut caught = 0;
    for _ in 0..KILLS {
        let worker = Worker::start(&server, tasks, &["-c", "2", "-Q", "default", "--log", "error"]);
        let begun = told.done();
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let after = Duration::from_micros((moment >> 33) % 20_000);
        until("it works", || (told.done() > begun || server.run::<u64>(&["LLEN", "default"]) == 0).then_some(()));
        sleep(after);
        drop(worker);
        // The visibility timeout of what it had runs out, and so does the lock of a sweep that it had begun.
        server.run::<()>(&["DEL", "unacked_mutex"]);
        for tag in server.run::<Vec<String>>(&["HKEYS", "unacked"]) {
            caught += 1;
            server.run::<()>(&["ZADD", "unacked_index", "1", &tag]);
        }
    }
    assert!(caught > KILLS / 4, "kills in the middle of a task: {caught}");
    let _last = Worker::start(&server, tasks, &["-c", "2", "-Q", "default", "--log", "error"]);
    let deadline = Instant::now() + Duration::from_mins(2);
    while told.done() < TASKS || in_flight(&server) > 0 {
        assert!(Instant::now() < deadline, "{} of {TASKS} are done", told.done());
        sleep(Duration::from_millis(50));
    }
    let counts = told.counts.lock().unwrap();
    let twice: Vec<_> = counts.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(server.run::<u64>(&["LLEN", "followers\u{6}\u{16}3"]), TASKS as u64, "what follows is sent once");
    assert_eq!(server.run::<u64>(&["LLEN", "default"]), 0);
}
