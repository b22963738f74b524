//! Logs that cannot be written.

use super::*;

/// Writes more to its log than a pipe holds.
const TASKS: &str = r#"
tasks:
  talks: {command: [/bin/sh, -c, "yes 'a line of the log' | head -n 20000 >&2; echo 1"]}
  silent: {command: [echo, "2"]}
"#;

/// A worker whose log goes there.
fn worker(server: &RedisServer, log: impl Into<Stdio>) -> (Child, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tasks.yaml");
    std::fs::write(&file, TASKS).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_crewjob"));
    command.args(["worker", "--without-mingle", "--tasks"]).arg(&file).env("REDIS_URL", server.url(0));
    (command.stdout(Stdio::null()).stderr(log).spawn().unwrap(), folder)
}

#[track_caller]
fn check_runs_tasks(server: &RedisServer, worker: &mut Child) {
    for (task, id) in [("talks", "id-1"), ("silent", "id-2")] {
        send(server, task, id, "[]");
        state(server, id, "SUCCESS");
    }
    assert_eq!(worker.try_wait().unwrap(), None, "it goes on");
    worker.kill().unwrap();
    worker.wait().unwrap();
    server.run::<()>(&["FLUSHALL"]);
}

#[test]
fn a_log_on_a_full_disk_or_in_a_closed_pipe_does_not_end_the_worker() {
    let server = RedisServer::start();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (mut on_full_disk, _folder) = worker(&server, full);
    check_runs_tasks(&server, &mut on_full_disk);
    let (mut in_closed_pipe, _folder) = worker(&server, Stdio::piped());
    drop(in_closed_pipe.stderr.take());
    check_runs_tasks(&server, &mut in_closed_pipe);
}

#[test]
fn a_log_that_nothing_reads_holds_up_no_task_and_no_lease() {
    let server = RedisServer::start();
    let (mut unread, _folder) = worker(&server, Stdio::piped());
    check_runs_tasks(&server, &mut unread);
}
