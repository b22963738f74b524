//! A worker that is killed at each step of a task in turn: before Redis is asked for it, and before the answer comes.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use redis::Script;

use super::told::Told;
use super::*;
use crate::support::gate::{Gate, Side, Words};

/// With results beside the messages; as many again with results elsewhere.
const KILLS: usize = 200;
const OPTIONS: [&str; 7] = ["-c", "1", "-Q", "default", "--log", "error", "--without-mingle"];
const FOLLOWER: &str = r#"[{"task": "backend.tasks.health_check", "args": [], "kwargs": {}, "options": {"queue": "followers"}, "immutable": true}]"#;

/// One of each kind.
const KINDS: [&str; 4] = ["backend.tasks.health_check", "told", "backend.tasks.run_crew_task", "again"];

/// What each of them does between beginning and end.
const MIDDLES: [&[&str]; 4] = [&[], &["state"], &["GET", "SET"], &[]];

/// Names of the worker's scripts, by what Redis calls them: some stand alone, others after what they share.
static SCRIPTS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/channel/lua");
    let [shared, take] = ["prelude.lua", "take.lua"].map(|file| std::fs::read_to_string(folder.join(file)).unwrap());
    let mut names = BTreeMap::new();
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let (name, text) = (path.file_stem().unwrap().display().to_string(), std::fs::read_to_string(&path).unwrap());
        for before in ["", &*shared, &*take, &*format!("{shared}{take}")] {
            let script = format!("{before}{text}");
            names.insert(Script::new(&script).get_hash().to_owned(), name.clone());
        }
    }
    names
});

fn enqueue(server: &RedisServer, kind: &str, id: &str) {
    let args = if kind == KINDS[2] { format!(r#"["{id}", {{"topic": "{id}"}}]"#) } else { "[]".to_owned() };
    send_changed(server, kind, id, &args, |call| call.embed.callbacks = value(FOLLOWER));
}

/// What a command is called here, if it is a step of this task: taking a message, the cache of a crew, and whatever names
/// the task.
fn step(words: &Words, id: &str) -> Option<String> {
    let text = |word: &Vec<u8>| String::from_utf8_lossy(word).into_owned();
    let (verb, first) = (text(words.first()?), words.get(1).map(text).unwrap_or_default());
    let name = match verb.as_str() {
        "EVALSHA" => SCRIPTS.get(&first)?.clone(),
        _ => verb,
    };
    let is_about = |word: &Vec<u8>| word.windows(id.len()).any(|part| part == id.as_bytes());
    let is_cached = first.starts_with("crew-cache:");
    // Heartbeats and renewals of leases name what the worker has, and may come at any time.
    let is_timed = name == "beat" || name == "keep";
    (!is_timed && (name == "reserve" || is_cached || words.iter().any(is_about))).then_some(name)
}

/// The steps of a task of this kind, from a run that is not disturbed. What is sent by the clock goes beside them and
/// delays none.
fn steps(server: &RedisServer, results: u8, kind: &str) -> Vec<String> {
    let id = format!("undisturbed-{kind}");
    enqueue(server, kind, &id);
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (noting, of) = (seen.clone(), id.clone());
    let gate = Gate::before(server.port(), move |words| {
        noting.lock().unwrap().extend(step(words, &of));
        None
    });
    let worker = Worker::start_with(&way(&gate, results), TASKS, &OPTIONS);
    let is_last = |step: &String| step == "settle" || step == "acknowledge";
    until("it is settled", || seen.lock().unwrap().iter().any(is_last).then_some(()));
    drop(worker);
    let mut steps = seen.lock().unwrap().clone();
    // A script that the server does not know yet is sent twice, and a worker that has settled takes the next message.
    steps.dedup();
    steps.truncate(1 + steps.iter().position(is_last).unwrap());
    steps
}

/// A way to Redis, with results in this database.
fn way(gate: &Gate, results: u8) -> [(&'static str, String); 2] {
    [("REDIS_URL", gate.url(0)), ("RESULT_BACKEND_URL", gate.url(results))]
}

#[test]
fn a_worker_killed_at_any_step_loses_no_task_and_no_outcome_counts_twice() {
    killed_at_any_step(0, &["reserve"], &["settle"]);
}

#[test]
fn nor_with_results_in_another_database() {
    killed_at_any_step(3, &["reserve", "begin", "HGET", "GETRANGE"], &["GET", "conclude", "store", "acknowledge"]);
}

#[test]
fn a_worker_that_is_killed_before_it_has_stored_a_result_leaves_the_state_of_the_job() {
    let server = RedisServer::start();
    let state = "crewjob-state:kept";
    let is_there = || server.run::<bool>(&["HEXISTS", state, "archive"]);
    server.run::<()>(&["HSET", state, "run", "earlier", "version", "another", "archive", "what it left"]);
    send_changed(&server, KINDS[1], "kept", "[]", |call| call.retries = 1);
    let gate =
        Gate::before(server.port(), |words| (step(words, "kept").as_deref() == Some("settle")).then_some(Side::Before));
    let worker = Worker::start_with(&way(&gate, 0), TASKS, &OPTIONS);
    assert!(gate.has_closed(PATIENCE), "it was never settled");
    drop(worker);
    assert!(is_there(), "the task is run again, and needs it");
    let open = Gate::before(server.port(), |_| None);
    for tag in server.run::<Vec<String>>(&["HKEYS", "unacked"]) {
        server.run::<()>(&["ZADD", "unacked_index", "1", &tag]);
    }
    server.run::<()>(&["DEL", "unacked_mutex", "crewjob-lease:kept"]);
    let _worker = Worker::start_with(&way(&open, 0), TASKS, &OPTIONS);
    until("it is deleted when the task has succeeded", || (!is_there()).then_some(()));
}

fn killed_at_any_step(results: u8, beginning: &[&str], end: &[&str]) {
    let server = RedisServer::start();
    let told = Told::listen(&server);
    // From here on the server knows the scripts: each step is one command.
    let steps = KINDS.map(|kind| steps(&server, results, kind));
    for (steps, middle) in steps.iter().zip(MIDDLES) {
        assert_eq!(*steps, [beginning, middle, end].concat());
    }

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
        let (wanted, of, mut seen) = (steps[kind][at].clone(), id.clone(), 0);
        let nth = steps[kind][..=at].iter().filter(|step| **step == wanted).count();
        let gate = Gate::before(server.port(), move |words| {
            seen += usize::from(step(words, &of).as_ref() == Some(&wanted));
            (seen == nth).then_some(side)
        });
        let worker = Worker::start_with(&way(&gate, results), TASKS, &OPTIONS);
        assert!(gate.has_closed(PATIENCE), "{} never came to {} {side:?}", KINDS[kind], steps[kind][at]);
        drop(worker);
        ids.push(id);
    }

    // The visibility timeout of what they had runs out, and so do their leases.
    for tag in server.run::<Vec<String>>(&["HKEYS", "unacked"]) {
        server.run::<()>(&["ZADD", "unacked_index", "1", &tag]);
    }
    server.run::<()>(&["DEL", "unacked_mutex"]);
    let open = Gate::before(server.port(), |_| None);
    let _last = Worker::start_with(
        &way(&open, results),
        TASKS,
        &["-c", "4", "-Q", "default", "--log", "error", "--without-mingle"],
    );
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
    assert_eq!(server.run::<usize>(&["LLEN", "followers"]), ids.len(), "what follows is sent once");
    assert_eq!(server.run::<u64>(&["LLEN", "default"]), 0);
}
