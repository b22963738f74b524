//! Limits and stops.

use super::*;

/// Long enough for a shell to set its traps, also on a machine that is busy with something else.
pub(super) const SOON: Option<Duration> = Some(Duration::from_secs(1));

pub(super) async fn limited(script: &str, soft: Option<Duration>, hard: Option<Duration>) -> Report {
    report_within(&Bounds::usual(), &shell(script), &Call { soft, hard, ..call() }).await
}

/// Stops a command, once it is ready, with this signal.
pub(super) async fn stopped(script: &str, grace: Duration, signal: i32) -> Report {
    let (stop, asked) = oneshot::channel();
    let (started, _) = oneshot::channel();
    let reports = Reports::default();
    let mut latest = reports.progress.subscribe();
    let (spec, call) = (Spec { grace, ..shell(script) }, call());
    let ask = async {
        latest.changed().await.unwrap();
        stop.send(signal).unwrap();
    };
    bounded(async { tokio::join!(run(&spec, &call, asked, started, &reports), ask) }).await.0
}

#[tokio::test]
async fn the_soft_limit_ends_a_command_that_does_not_handle_the_signal() {
    let report = limited(FOREVER, SOON, None).await;
    check_billiard(report.outcome, "SoftTimeLimitExceeded", vec![]);
    assert!(report.seconds >= 1.0);
}

#[tokio::test]
async fn the_soft_limit_reaches_the_whole_group() {
    let report = limited(&format!("{FOREVER}; {FOREVER}; echo 1"), SOON, None).await;
    check_billiard(report.outcome, "SoftTimeLimitExceeded", vec![]);
}

#[tokio::test]
async fn a_command_that_finishes_after_the_soft_limit_has_succeeded() {
    let script = format!("trap 'echo 7; exit 0' TERM; {FOREVER} & wait");
    assert_eq!(limited(&script, SOON, None).await.outcome, succeeded("7"));
    let without_result = format!("trap 'exit 0' TERM; {FOREVER} & wait");
    check_billiard(limited(&without_result, SOON, None).await.outcome, "SoftTimeLimitExceeded", vec![]);
}

#[tokio::test]
async fn a_command_that_ignores_the_soft_limit_runs_into_the_hard_one() {
    let script = format!("trap '' TERM; {FOREVER}");
    let report = limited(&script, SOON, Some(Duration::from_millis(1500))).await;
    check_billiard(report.outcome, "TimeLimitExceeded", vec![1.5.into()]);
    assert!(report.seconds >= 1.5);
}

#[tokio::test]
async fn limits_hold_for_a_command_that_has_closed_its_output() {
    let report = limited(&format!("exec >&- 2>&-; {FOREVER}"), None, SOON).await;
    check_billiard(report.outcome, "TimeLimitExceeded", vec![1.into()]);
}

#[tokio::test]
async fn the_hard_limit_is_told_as_celery_does() {
    let report = limited(&format!("echo last words >&2; {FOREVER}"), None, Some(Duration::from_secs(1))).await;
    let (failure, _) = failure(report.outcome.clone());
    assert_eq!(failure.traceback, None);
    check_billiard(report.outcome, "TimeLimitExceeded", vec![1.into()]);
}

#[tokio::test]
async fn limits_that_have_not_passed_change_nothing() {
    let hour = Some(Duration::from_hours(1));
    assert_eq!(limited("echo 1", hour, hour).await.outcome, succeeded("1"));
    assert_eq!(limited("echo 1", Some(Duration::MAX), Some(Duration::MAX)).await.outcome, succeeded("1"));
}

#[tokio::test]
async fn a_stop_sends_the_signal_that_was_asked_for() {
    for (signal, name) in [(15, "TERM"), (10, "USR1"), (12, "USR2")] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("got");
        let script = format!(
            "trap 'echo {name} > {}; echo 1; exit 0' {name}; echo '{{\"progress\":0}}'; while :; do sleep 0.01; done",
            file.display()
        );
        assert_eq!(stopped(&script, PATIENCE, signal).await.outcome, Outcome::Stopped { signal });
        assert_eq!(std::fs::read_to_string(file).unwrap().trim(), name);
    }
}

#[tokio::test]
async fn a_command_that_ignores_a_stop_is_killed_after_the_grace_period() {
    let script = format!("trap '' TERM; echo '{{\"progress\":0}}'; {FOREVER}; {FOREVER}");
    let report = stopped(&script, Duration::from_millis(400), 15).await;
    assert_eq!(report.outcome, Outcome::Stopped { signal: 15 });
    assert!(report.seconds >= 0.4, "{}", report.seconds);
}

#[tokio::test]
async fn a_stop_by_sigkill_waits_for_nothing() {
    let script = format!("trap '' TERM; echo '{{\"progress\":0}}'; {FOREVER}");
    assert_eq!(stopped(&script, PATIENCE * 2, 9).await.outcome, Outcome::Stopped { signal: 9 });
}

#[tokio::test]
async fn a_stop_before_the_start_counts() {
    let (stop, asked) = oneshot::channel();
    let (started, _) = oneshot::channel();
    let reports = Reports::default();
    stop.send(15).unwrap();
    let report = bounded(run(&shell(FOREVER), &call(), asked, started, &reports)).await;
    assert_eq!(report.outcome, Outcome::Stopped { signal: 15 });
}

#[tokio::test]
async fn a_dropped_stop_handle_is_no_stop() {
    let (stop, asked) = oneshot::channel();
    let (started, _) = oneshot::channel();
    let reports = Reports::default();
    drop(stop);
    let report = bounded(run(&shell("sleep 0.1; echo 1"), &call(), asked, started, &reports)).await;
    assert_eq!(report.outcome, succeeded("1"));
}

#[tokio::test]
async fn a_command_whose_leader_alone_is_asked_to_stop_keeps_the_processes_that_it_needs() {
    let script = "sh -c 'sleep 2.5; echo \\\"saved\\\"' & child=$!; trap 'wait $child; exit 0' TERM; wait $child";
    let limited = Call { soft: Some(Duration::from_secs(1)), ..call() };
    let [leader, group] = [Recipient::Leader, Recipient::Group].map(|signal| Spec { signal, ..shell(script) });
    let bounds = Bounds::usual();
    let (leader, group) =
        tokio::join!(report_within(&bounds, &leader, &limited), report_within(&bounds, &group, &limited));
    let (leader, group) = (leader.outcome, group.outcome);
    assert_eq!(leader, succeeded("\"saved\""));
    check_billiard(group, "SoftTimeLimitExceeded", vec![]);
}
