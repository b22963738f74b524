//! A worker that is killed again and again, at any step.

use super::told::Told;
use super::*;

const TASKS: usize = 4000;
const KILLS: usize = 200;

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
    assert_eq!(told.more_than_once(), Vec::<String>::new());
    assert_eq!(server.run::<u64>(&["LLEN", "followers"]), TASKS as u64, "what follows is sent once");
    assert_eq!(server.run::<u64>(&["LLEN", "default"]), 0);
}
