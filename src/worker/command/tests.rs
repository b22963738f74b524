//! Real commands.

mod failures;
mod kin;
mod limits;
mod output;

use std::future::Future;

use super::*;
use crate::wire::{Exception, Object, RawJson, Value};
use crate::worker::outcome::Failure;

/// Longer than anything here takes, also on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_mins(1);
/// An hour of sleep, for a process that the worker must end.
const FOREVER: &str = "sleep 3600";

pub(super) fn shell(script: &str) -> Spec {
    Spec::new(["/bin/sh", "-c", script])
}

fn call() -> Call {
    Call {
        task: "shop.ship".to_owned(),
        id: "c0ffee".to_owned(),
        args: vec!["parcel".into(), 2.into()],
        kwargs: Object::new().with("express", true),
        job: None,
        idempotency_key: "c0ffee".to_owned(),
        retries: 1,
        worker: "native@host".to_owned(),
        soft: None,
        hard: None,
        state_dir: None,
        trace: Object::new(),
    }
}

async fn bounded<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("a test that ends")
}

async fn report_within(bounds: &Bounds, spec: &Spec, call: &Call) -> Report {
    let (_stop, stopped) = oneshot::channel();
    let (started, _) = oneshot::channel();
    let reports = Reports::default();
    bounded(run_within(bounds, spec, call, stopped, started, &reports)).await
}

pub(super) async fn report(spec: &Spec) -> Report {
    report_within(&Bounds::usual(), spec, &call()).await
}

async fn outcome(spec: &Spec) -> Outcome {
    report(spec).await.outcome
}

fn succeeded(json: &str) -> Outcome {
    Outcome::Succeeded(RawJson::new(json).unwrap())
}

#[track_caller]
fn failure(outcome: Outcome) -> (Failure, bool) {
    match outcome {
        Outcome::Failed { failure, retryable } => (failure, retryable),
        other @ (Outcome::Succeeded(_) | Outcome::Stopped { .. }) => panic!("{other:?}"),
    }
}

/// Type and message of a failure that is not retryable.
#[track_caller]
fn refused(outcome: Outcome) -> (String, String) {
    let (Failure { exception, .. }, retryable) = failure(outcome);
    assert!(!retryable);
    assert_eq!(exception.exc_module.as_deref(), Some(MODULE));
    (exception.exc_type.clone(), exception.message())
}

#[track_caller]
fn check_billiard(outcome: Outcome, kind: &str, exc_message: Vec<Value>) {
    let (failure, retryable) = failure(outcome);
    let exc_module = Some("billiard.exceptions".to_owned());
    assert_eq!(failure.exception, Exception { exc_type: kind.to_owned(), exc_message, exc_module });
    assert!(!retryable);
}

/// Waits until `condition` holds, which something outside brings about.
pub(super) async fn until(condition: impl Fn() -> bool) {
    bounded(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Whether a process is there and is no zombie.
fn lives(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The process id that a script has written to a file.
fn written(file: &std::path::Path) -> Option<u32> {
    let text = std::fs::read_to_string(file).ok()?;
    text.strip_suffix('\n')?.trim().parse().ok()
}
