//! `crewjob worker` as a process of its own, on a real Redis server.

mod certificates;
mod chords;
mod commands;
mod control;
mod ends;
mod fleet;
mod forms;
mod holding;
mod inheriting;
mod kills;
mod leaving;
mod logs;
mod rights;
mod routing;
mod scarce;
mod servers;
mod steps;
mod tasks;
mod told;

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crewjob::wire::{Call, ResultDocument, Value};
use tempfile::TempDir;

use crate::support::redis::RedisServer;

const PATIENCE: Duration = Duration::from_mins(1);

/// Tasks of every kind that a worker runs: a command with progress, one that succeeds only when it is tried again, and a
/// crew whose output is kept; besides, there are its own.
const TASKS: &str = r#"
tasks:
  told: {command: [/bin/sh, -c, "echo '{\"progress\": 1}'; sleep 0.1; echo 7"]}
  again: {command: [/bin/sh, -c, "[ $CREWJOB_RETRIES -gt 0 ] || exit 75"]}
crew: {name: c, cache: 60, run: {command: [echo, done], output: text}}
"#;

/// A worker, killed when dropped.
struct Worker {
    process: Child,
    log: std::path::PathBuf,
    _folder: TempDir,
}

impl Worker {
    /// Starts one with these tasks (YAML) and options.
    fn start(server: &RedisServer, tasks: &str, options: &[&str]) -> Self {
        Self::start_with(&[("REDIS_URL", server.url(0))], tasks, &[&["--without-mingle"], options].concat())
    }

    /// The same on its own way to Redis, and with nothing left out.
    fn start_with(env: &[(&str, String)], tasks: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (file, log) = (folder.path().join("tasks.yaml"), folder.path().join("log"));
        std::fs::write(&file, tasks).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_crewjob"))
            .args(["worker", "--tasks"])
            .arg(&file)
            .args(options)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { process, log, _folder: folder }
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.process.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Waits until it has gone.
    fn gone(&mut self) -> ExitStatus {
        until("the worker goes", || self.process.try_wait().unwrap())
    }

    /// Waits until it has logged this: what a message is about may be seen in Redis before the message is.
    #[track_caller]
    fn logs(&self, text: &str) {
        until(&format!("it logs {text:?}"), || self.log().contains(text).then_some(()));
    }

    fn log(&self) -> String {
        let mut text = String::new();
        std::fs::File::open(&self.log).unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill().and_then(|()| self.process.wait());
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Waits until there is something.
#[track_caller]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(10));
    }
}

/// Puts a call on the queue `default`, in the most urgent band.
fn send(server: &RedisServer, task: &str, id: &str, args: &str) {
    send_changed(server, task, id, args, |_| ());
}

fn send_changed(server: &RedisServer, task: &str, id: &str, args: &str, change: impl FnOnce(&mut Call)) {
    let mut call = Call::new(task, id, "default");
    call.priority = 0;
    call.args = value(args).as_array().unwrap().to_vec();
    change(&mut call);
    server.run::<()>(&["LPUSH", "default", std::str::from_utf8(&call.envelope().encode()).unwrap()]);
}

fn value(text: &str) -> Value {
    Value::parse(text.as_bytes()).unwrap()
}

fn document(server: &RedisServer, id: &str) -> Option<ResultDocument> {
    let bytes: Option<Vec<u8>> = server.run(&["GET", &format!("celery-task-meta-{id}")]);
    bytes.map(|bytes| ResultDocument::decode(&bytes).unwrap())
}

/// Waits until the task has this state.
#[track_caller]
fn state(server: &RedisServer, id: &str, state: &str) -> ResultDocument {
    let of = |document: &ResultDocument| document.status.as_str() == state;
    until(&format!("{id} is {state}"), || document(server, id).filter(of))
}

fn in_flight(server: &RedisServer) -> u64 {
    server.run(&["HLEN", "unacked"])
}

/// Waits until a file holds something.
#[track_caller]
fn written(path: &Path) -> String {
    until(&format!("{} is written", path.display()), || {
        std::fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'))
    })
}
