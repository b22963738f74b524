//! A worker that is killed at each step of a task in turn: before Redis is asked for it, and before the answer comes.

use std::sync::{Arc, LazyLock, Mutex};

use redis::Script;

use super::told::Told;
use super::*;
use crate::support::gate::{Gate, Side, Words};

const KILLS: usize = 200;
const OPTIONS: [&str; 6] = ["-c", "1", "-Q", "default", "--log", "error"];
const FOLLOWER: &str = r#"[{"task": "backend.tasks.health_check", "args": [], "kwargs": {}, "options": {"queue": "followers"}, "immutable": true}]"#;

/// Tasks of every kind that a worker runs: its own, a command with progress, a crew whose output is kept, and one that
/// succeeds only when it is tried again.
const TASKS: &str = r#"
tasks:
  told: {command: [/bin/sh, -c, "echo '{\"progress\": 1}'; sleep 0.1; echo 7"]}
  again: {command: [/bin/sh, -c, "[ $CREWJOB_RETRIES -gt 0 ] || exit 75"]}
crew: {name: c, cache: 60, run: {command: [echo, done], output: text}}
"#;
const KINDS: [&str; 4] = ["backend.tasks.health_check", "told", "backend.tasks.run_crew_task", "again"];

/// Names of the worker's scripts, by what Redis calls them.
static SCRIPTS: LazyLock<Vec<(String, &str)>> = LazyLock::new(|| {
    macro_rules! named {
        ($($name:literal),*) => {
            vec![$((Script::new(include_str!(concat!("../../../src/store/channel/lua/", $name, ".lua"))).get_hash().to_owned(), $name)),*]
        };
    }
    named!("reserve", "begin", "settle", "state")
});

fn enqueue(server: &RedisServer, kind: &str, id: &str) {
    let args = if kind == KINDS[2] { format!(r#"["{id}", {{"topic": "{id}"}}]"#) } else { "[]".to_owned() };
    send_changed(server, kind, id, &args, |call| call.embed.callbacks = value(FOLLOWER));
}

/// What a command is called here, if it is about this task: taking a message, the cache of a crew, and whatever names
/// the task.
fn step(words: &Words, id: &str) -> Option<String> {
    let text = |word: &Vec<u8>| String::from_utf8_lossy(word).into_owned();
    let (verb, first) = (text(words.first()?), words.get(1).map(text).unwrap_or_default());
    let name = match verb.as_str() {
        "EVALSHA" => SCRIPTS.iter().find(|(hash, _)| *hash == first)?.1.to_owned(),
        _ => verb,
    };
    let is_about = |word: &Vec<u8>| word.windows(id.len()).any(|part| part == id.as_bytes());
    let is_cached = first.starts_with("crew-cache:");
    (name == "reserve" || is_cached || words.iter().any(is_about)).then_some(name)
}

/// The steps of a task of this kind, from a run that nobody disturbs. Events are said beside them, in nobody's way.
fn steps(server: &RedisServer, kind: &str) -> Vec<String> {
    let id = format!("undisturbed-{kind}");
    enqueue(server, kind, &id);
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (noting, of) = (seen.clone(), id.clone());
    let gate = Gate::before(server.port(), move |words| {
        noting.lock().unwrap().extend(step(words, &of));
        None
    });
    let worker = Worker::start_at(&gate.url(), TASKS, &OPTIONS);
    until("it is settled", || seen.lock().unwrap().iter().any(|step| step == "settle").then_some(()));
    drop(worker);
    let mut steps = seen.lock().unwrap().clone();
    // A script that the server does not know yet is sent twice, and whoever has settled takes the next one.
    steps.dedup();
    steps.truncate(1 + steps.iter().position(|step| step == "settle").unwrap());
    steps
}

#[test]
fn a_worker_killed_at_any_step_loses_no_task_and_no_outcome_counts_twice() {
    let server = RedisServer::start();
    let told = Told::listen(&server);
    // From here on the server knows the scripts: each step is one command.
    let steps = KINDS.map(|kind| steps(&server, kind));
    assert_eq!(steps[0], ["reserve", "begin", "settle"]);
    assert_eq!(steps[1], ["reserve", "begin", "state", "settle"]);
    assert_eq!(steps[2], ["reserve", "begin", "GET", "SET", "settle"]);
    assert_eq!(steps[3], ["reserve", "begin", "settle"]);

    let places: Vec<(usize, usize, Side)> = (0..KINDS.len())
        .flat_map(|kind| (0..steps[kind].len()).map(move |at| (kind, at)))
        .flat_map(|(kind, at)| [Side::Before, Side::After].map(|side| (kind, at, side)))
        .collect();
    let mut ids: Vec<String> = KINDS.iter().map(|kind| format!("undisturbed-{kind}")).collect();
    for (number, &(kind, at, side)) in places.iter().cycle().take(KILLS).enumerate() {
        let id = format!("task-{number:03}");
        // Before what others have sent again.
        enqueue(&server, KINDS[kind], &id);
        server.run::<()>(&["LMOVE", "default", "default", "LEFT", "RIGHT"]);
        let (wanted, of) = (steps[kind][at].clone(), id.clone());
        let gate =
            Gate::before(server.port(), move |words| (step(words, &of).as_ref() == Some(&wanted)).then_some(side));
        let worker = Worker::start_at(&gate.url(), TASKS, &OPTIONS);
        assert!(gate.has_closed(PATIENCE), "{} never came to {} {side:?}", KINDS[kind], steps[kind][at]);
        drop(worker);
        ids.push(id);
    }

    // The visibility timeout of what they had runs out, and so do their leases.
    for tag in server.run::<Vec<String>>(&["HKEYS", "unacked"]) {
        server.run::<()>(&["ZADD", "unacked_index", "1", &tag]);
    }
    server.run::<()>(&["DEL", "unacked_mutex"]);
    let _last = Worker::start(&server, TASKS, &["-c", "4", "-Q", "default", "--log", "error"]);
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let missing: Vec<_> = ids.iter().filter(|id| !told.is_done(id)).collect();
        if missing.is_empty() && in_flight(&server) == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "not done: {missing:?}, in flight: {}", in_flight(&server));
        sleep(Duration::from_millis(50));
    }
    assert_eq!(told.more_than_once(), Vec::<String>::new());
    assert_eq!(server.run::<usize>(&["LLEN", "followers\u{6}\u{16}3"]), ids.len(), "what follows is sent once");
    assert_eq!(server.run::<u64>(&["LLEN", "default"]), 0);
}
