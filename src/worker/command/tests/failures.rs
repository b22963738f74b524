//! What goes wrong by itself.

use std::fs;

use super::*;

#[tokio::test]
async fn an_exit_status_is_told_with_the_last_words() {
    let (failure, retryable) =
        failure(outcome(&shell("echo Traceback >&2; echo 'it broke' >&2; echo 1; exit 3")).await);
    assert_eq!(failure.exception.exc_type, "CommandFailed");
    assert_eq!(failure.exception.message(), "exit status 3: it broke");
    assert_eq!(failure.traceback.as_deref(), Some("Traceback\nit broke"));
    assert!(!retryable);
}

#[tokio::test]
async fn status_75_may_be_tried_again_unless_others_are_named() {
    assert!(failure(outcome(&shell("exit 75")).await).1);
    let others = Spec { retry_exit_codes: vec![3], ..shell("exit 75") };
    assert!(!failure(outcome(&others).await).1);
    assert!(failure(outcome(&Spec { command: shell("exit 3").command, ..others }).await).1);
}

#[tokio::test]
async fn a_command_names_its_failure() {
    let script = r#"echo '{"error": {"type": "NoStock", "message": "0 left"}}'; exit 1"#;
    assert_eq!(refused(outcome(&shell(script)).await), ("NoStock".to_owned(), "0 left".to_owned()));
}

#[tokio::test]
async fn a_python_traceback_is_the_traceback() {
    let (failure, _) = failure(outcome(&Spec::new(["python3", "-c", "raise ValueError('no such parcel')"])).await);
    assert_eq!(failure.exception.message(), "exit status 1: ValueError: no such parcel");
    assert!(failure.traceback.unwrap().starts_with("Traceback (most recent call last):\n"));
}

#[tokio::test]
async fn a_flood_of_errors_does_not_block_the_command() {
    let (failure, _) =
        failure(outcome(&shell("yes error | head -n 100000 >&2; head -c 10M /dev/zero >&2; exit 1")).await);
    assert!(failure.traceback.unwrap().len() <= 8 << 10);
}

#[tokio::test]
async fn a_signal_from_elsewhere_is_a_lost_worker() {
    for (name, number) in [("KILL", 9), ("SEGV", 11), ("TERM", 15)] {
        let message = format!("Worker exited prematurely: signal {number} (SIG{name}) Job: c0ffee.");
        let report = report(&shell(&format!("kill -{name} $$"))).await;
        check_billiard(report.outcome, "WorkerLostError", vec![message.into()]);
        assert!(!report.memory.unwrap().oom_killed);
    }
}

#[tokio::test]
async fn a_kill_for_lack_of_memory_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.events");
    fs::write(&file, "oom 0\noom_kill 4\n").unwrap();
    let bounds = Bounds { oom_kills: OomKills::counted_in(file.clone()), ..Bounds::usual() };
    let report = report_within(&bounds, &shell("kill -KILL $$"), &call()).await;
    assert!(!report.memory.unwrap().oom_killed, "no process was killed meanwhile");
    let script = format!("echo 'oom_kill 5' > {}; kill -KILL $$", file.display());
    let report = report_within(&bounds, &shell(&script), &call()).await;
    let message = "Worker exited prematurely: signal 9 (SIGKILL) Job: c0ffee. It ran out of memory.";
    check_billiard(report.outcome, "WorkerLostError", vec![message.into()]);
    assert!(report.memory.unwrap().oom_killed);
}

#[tokio::test]
async fn the_failure_of_a_missing_command_names_the_remedy() {
    let nothing = tempfile::tempdir().unwrap();
    let missing = nothing.path().join("missing");
    for (command, says) in [
        (vec!["no-such-command".to_owned()], "is in no folder of PATH: install it in the worker's image"),
        (vec![missing.display().to_string()], "does not exist: install it"),
        (vec![], "name a program"),
    ] {
        let report = report(&Spec::new(command)).await;
        let (kind, message) = refused(report.outcome);
        assert_eq!(kind, "CommandNotFound");
        assert!(message.contains(says), "{message}");
        assert_eq!(report.pid, None);
    }
}

#[tokio::test]
async fn the_failure_of_a_file_that_is_no_program_names_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: &str| {
        let path = folder.path().join(name);
        // By another process: a program that a process still has open for writing cannot be started, and a test that
        // forks at this moment would inherit what is open here.
        let write = format!("printf '%s\\n' '{text}' >{0}; chmod {mode} {0}", path.display());
        assert!(std::process::Command::new("/bin/sh").args(["-c", &write]).status().unwrap().success());
        Spec::new([path.display().to_string()])
    };
    for (spec, expected, says) in [
        (file("plain", "#!/bin/sh", "644"), "CommandNotExecutable", "`chmod +x` it"),
        (file("no-start", "echo 1", "755"), "CommandNotExecutable", "begin a script with a line like `#!/bin/sh`"),
        (file("no-interpreter", "#!/no/such/shell", "755"), "CommandNotFound", "not what its `#!` line"),
        (Spec::new([folder.path().display().to_string()]), "CommandNotExecutable", "may not be executed"),
        (Spec::new(["/bin/sh\0"]), "CommandNotStarted", "/bin/sh\\0 could not be started"),
    ] {
        let (kind, message) = refused(outcome(&spec).await);
        assert_eq!(kind, expected);
        assert!(message.contains(says), "{message}");
    }
}

#[tokio::test]
async fn a_directory_that_is_none_is_told() {
    let spec = Spec { directory: Some("/no/such/directory".into()), ..shell("echo 1") };
    let (kind, message) = refused(outcome(&spec).await);
    assert_eq!(kind, "DirectoryNotFound");
    assert!(message.contains("/no/such/directory is no directory: create it"), "{message}");
}

#[tokio::test]
async fn processes_that_a_command_leaves_in_its_group_are_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let report = report(&shell(&format!("({FOREVER}) & echo $! > {}; echo 1", file.display()))).await;
    assert_eq!(report.outcome, succeeded("1"));
    until(|| !lives(written(&file).unwrap())).await;
}

#[tokio::test]
async fn a_daemon_that_holds_the_output_open_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    // The script ends only when the daemon has left the group, and was seen: from then on nothing kills it.
    let script = format!(
        "setsid sh -c 'echo $$ > {0}; exec {FOREVER}' & while [ ! -s {0} ]; do sleep 0.01; done; sleep 0.3; echo 1",
        file.display()
    );
    let report = report(&shell(&script)).await;
    assert_eq!(report.outcome, succeeded("1"));
    let daemon = written(&file).unwrap();
    assert!(lives(daemon), "it has escaped");
    let pid = rustix::process::Pid::from_raw(daemon.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert!((1.0..30.0).contains(&report.seconds), "{}", report.seconds);
}

#[tokio::test]
async fn a_command_is_killed_when_its_run_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let (_stop, stopped) = oneshot::channel();
    let (started, process) = oneshot::channel();
    let (spec, call) = (shell(&format!("trap '' TERM; ({FOREVER}) & echo $! > {}; wait", file.display())), call());
    let task = tokio::spawn(async move {
        let reports = Reports::default();
        run(&spec, &call, stopped, started, &reports).await
    });
    let leader = bounded(process).await.unwrap();
    until(|| written(&file).is_some()).await;
    assert!(lives(leader));
    task.abort();
    until(|| !lives(leader) && !lives(written(&file).unwrap())).await;
}
