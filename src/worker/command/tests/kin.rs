//! Processes that have left the group of their command, as everything behind `timeout` does.

use std::path::{Path, PathBuf};

use super::limits::{SOON, limited, stopped};
use super::*;

/// A script that runs `inner` behind `timeout`, and reports progress when its number is in `file`.
fn behind_timeout(file: &Path, before: &str) -> String {
    let inner = format!("{before} echo $$ > {}; echo \"{{\\\"progress\\\":0}}\"; exec {FOREVER}", file.display());
    format!("timeout 3600 sh -c '{inner}'; :")
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    (folder, file)
}

async fn check_gone(file: &Path) {
    let process = written(file).unwrap();
    until(|| !lives(process)).await;
}

#[tokio::test]
async fn a_stop_reaches_processes_that_have_left_the_group() {
    for signal in [15, 9] {
        let (_folder, file) = file();
        let report = stopped(&behind_timeout(&file, ""), PATIENCE, signal).await;
        assert_eq!(report.outcome, Outcome::Stopped { signal });
        check_gone(&file).await;
    }
}

#[tokio::test]
async fn a_process_that_has_left_the_group_and_ignores_a_stop_is_killed() {
    let (_folder, file) = file();
    let script = format!("trap \"\" TERM; {}", behind_timeout(&file, ""));
    let report = stopped(&script, Duration::from_millis(300), 15).await;
    assert_eq!(report.outcome, Outcome::Stopped { signal: 15 });
    check_gone(&file).await;
}

#[tokio::test]
async fn a_process_that_has_left_the_group_does_not_outlive_a_leader_that_ends_at_once() {
    let (_folder, file) = file();
    // Not even after its grace period: the leader ends first.
    let report = stopped(&behind_timeout(&file, "trap \"\" TERM;"), PATIENCE, 15).await;
    assert_eq!(report.outcome, Outcome::Stopped { signal: 15 });
    check_gone(&file).await;
}

#[tokio::test]
async fn the_hard_limit_reaches_processes_that_have_left_the_group_or_the_session() {
    for how in ["", "setsid "] {
        let (_folder, file) = file();
        let report = limited(&format!("{how}{}", behind_timeout(&file, "")), None, SOON).await;
        check_billiard(report.outcome, "TimeLimitExceeded", vec![1.into()]);
        check_gone(&file).await;
    }
}

#[tokio::test]
async fn a_command_that_ends_by_itself_leaves_no_process_behind_timeout() {
    let (_folder, file) = file();
    let script = format!("({}) & sleep 1; echo 1; exit 1", behind_timeout(&file, ""));
    report(&shell(&script)).await;
    check_gone(&file).await;
}

#[tokio::test]
async fn a_process_that_forks_without_end_is_killed() {
    let (_folder, file) = file();
    // The kernel sends SIGHUP and SIGCONT to stopped processes of a group whose last tie to its session ends: these
    // processes ignore SIGHUP. There are many, so that it takes a while to kill them.
    let fork = "import os, signal, time\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nos.setpgid(0, 0)\nopen(os.environ['FILE'], 'w')\n\
                def start(what):\n if os.fork() == 0: what(); os._exit(0)\n\
                def doze(): time.sleep(90)\n\
                def forks():\n for _ in range(500): start(doze); time.sleep(0.01)\n\
                for _ in range(500): start(doze)\n\
                for _ in range(4): start(forks)\ndoze()";
    let spec = Spec {
        env: vec![("FILE".to_owned(), file.display().to_string())],
        ..Spec::new(["sh", "-c", "python3 -c \"$0\"; :", fork])
    };
    let call = Call { hard: SOON, ..call() };
    let report = report_within(&Bounds::usual(), &spec, &call).await;
    check_billiard(report.outcome, "TimeLimitExceeded", vec![1.into()]);
    assert!(file.exists(), "it has begun");
    let mark = file.display().to_string();
    let left = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter(|process| {
            std::fs::read(process.path().join("environ"))
                .is_ok_and(|environ| String::from_utf8_lossy(&environ).contains(&mark))
        })
        .count()
    };
    until(|| left() == 0).await;
}

#[tokio::test]
async fn a_process_that_has_left_the_group_is_killed_when_its_run_is_dropped() {
    let (_folder, file) = file();
    let (_stop, stopped) = oneshot::channel();
    let (started, _) = oneshot::channel();
    let (spec, call) = (shell(&behind_timeout(&file, "")), call());
    let task = tokio::spawn(async move {
        let reports = Reports::default();
        run(&spec, &call, stopped, started, &reports).await
    });
    until(|| written(&file).is_some()).await;
    task.abort();
    check_gone(&file).await;
}
