//! A machine that gives no more threads and process numbers.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A user without any other process: the limit counts all of one user.
const USER: &str = "54321";
/// Tokio ends an idle thread after ten seconds.
const IDLE: Duration = Duration::from_secs(11);

/// As the user itself: where tests run, root may be refused what it may do elsewhere.
fn limit(worker: &Worker, processes: &str) {
    let (of, limit) = (format!("--pid={}", worker.process.id()), format!("--nproc={processes}:"));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "prlimit"]).args([of, limit]);
    assert!(command.status().unwrap().success());
}

#[test]
fn a_worker_that_gets_no_more_threads_and_processes_reconnects_and_runs_its_tasks_later() {
    if !is_root() {
        eprintln!("skipped: not root, which alone may change users");
        return;
    }
    let server = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (tasks, log) = (folder.path().join("tasks.yaml"), folder.path().join("log"));
    std::fs::write(&tasks, "tasks: {one: {command: [echo, '1'], maxRetries: 50}}").unwrap();
    let process = Command::new("setpriv")
        .args(["--reuid", USER, "--regid", USER, "--clear-groups", env!("CARGO_BIN_EXE_crewjob"), "worker", "--tasks"])
        .arg(&tasks)
        // A name, which is looked up at every connection.
        .env("REDIS_URL", server.url(0).replace("127.0.0.1", "localhost"))
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut worker = Worker { process, log, _folder: folder };
    until("it is ready", || worker.log().contains("ready").then_some(()));
    sleep(IDLE);
    let threads = std::fs::read_dir(format!("/proc/{}/task", worker.process.id())).unwrap().count();
    limit(&worker, &threads.to_string());

    server.run::<i64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    server.run::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    send(&server, "backend.tasks.health_check", "id-1", "[]");
    state(&server, "id-1", "SUCCESS");
    send(&server, "one", "id-2", "[]");
    let refused = state(&server, "id-2", "RETRY").exception().unwrap();
    assert_eq!(refused.exc_type, "CommandNotStarted", "{}", refused.message());
    limit(&worker, "1000");
    state(&server, "id-2", "SUCCESS");
    assert_eq!(worker.process.try_wait().unwrap(), None, "it goes on");
}

fn is_root() -> bool {
    String::from_utf8(Command::new("id").arg("-u").output().unwrap().stdout).unwrap().trim() == "0"
}
