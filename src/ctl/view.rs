//! What is to be seen of a job.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::Value;

/// The phase of a job that no operator has seen, too.
pub const PENDING: &str = "Pending";

/// The phases that this version knows.
pub const PHASES: [&str; 7] = [PENDING, "Queued", "Running", "Retrying", "Succeeded", "Failed", "Cancelled"];

/// How a job has ended, as an exit status says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It has succeeded.
    Succeeded,
    /// It has failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// It has not finished in time.
    TimedOut,
}

impl End {
    /// The exit status.
    pub const fn status(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Failed => 1,
            Self::Cancelled => 3,
            Self::TimedOut => 4,
        }
    }
}

/// How it has ended, if it has.
pub fn end(job: &DynamicObject) -> Option<End> {
    match phase(job) {
        "Succeeded" => Some(End::Succeeded),
        "Failed" => Some(End::Failed),
        "Cancelled" => Some(End::Cancelled),
        _ => None,
    }
}

/// A text of the spec or status; empty where there is none.
pub fn text<'a>(job: &'a DynamicObject, at: &str) -> &'a str {
    job.data.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

/// The phase. A job that no operator has seen has none yet.
pub fn phase(job: &DynamicObject) -> &str {
    match text(job, "/status/phase") {
        "" => PENDING,
        phase => phase,
    }
}

/// The condition that says where the job is in its life.
fn reconciling(job: &DynamicObject) -> Option<&Value> {
    let conditions = job.data.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Reconciling")
}

/// Why it is where it is.
pub fn reason(job: &DynamicObject) -> &str {
    reconciling(job).and_then(|condition| condition["reason"].as_str()).unwrap_or_default()
}

/// The same in a sentence.
pub fn message(job: &DynamicObject) -> &str {
    reconciling(job).and_then(|condition| condition["message"].as_str()).unwrap_or_default()
}

/// A number of the spec or status, as text.
pub fn number(job: &DynamicObject, at: &str) -> String {
    job.data.pointer(at).and_then(Value::as_i64).map(|number| number.to_string()).unwrap_or_default()
}

/// How old the object is.
pub fn age(job: &DynamicObject, now: Timestamp) -> Option<Duration> {
    job.metadata.creation_timestamp.as_ref().map(|created| between(created.0, now))
}

/// How long the current or last attempt has run.
pub fn runs(job: &DynamicObject, now: Timestamp) -> Option<Duration> {
    let at = |field: &str| text(job, field).parse::<Timestamp>().ok();
    let until = if end(job).is_some() { at("/status/finishedAt")? } else { now };
    Some(between(at("/status/startedAt")?, until))
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// A length of time in at most two units, as kubectl writes it.
pub fn length(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |more: u64, unit: &str, less: u64, lesser: &str| match less {
        0 => format!("{more}{unit}"),
        less => format!("{more}{unit}{less}{lesser}"),
    };
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=599 => two(minutes, "m", seconds % 60, "s"),
        600..=10_799 => format!("{minutes}m"),
        10_800..=28_799 => two(hours, "h", minutes % 60, "m"),
        28_800..=172_799 => format!("{hours}h"),
        172_800..=691_199 => two(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

/// One line on what the job does now.
pub fn line(job: &DynamicObject) -> String {
    let behind = |sign: &str, text: &str| if text.is_empty() { String::new() } else { format!("{sign}{text}") };
    let phase = phase(job);
    let line = if phase == "Running" {
        let percent = behind(", ", &number(job, "/status/progress/percent"));
        let percent = if percent.is_empty() { percent } else { format!("{percent} %") };
        let worker = behind(" on ", text(job, "/status/worker/name"));
        format!("{phase}{worker}{percent}{}", behind(": ", text(job, "/status/progress/message")))
    } else {
        let reason = Some(reason(job)).filter(|reason| !reason.is_empty() && *reason != phase);
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        let explanation = match text(job, "/status/error/type") {
            error if phase == "Failed" && !error.is_empty() => {
                behind(": ", &format!("{error}: {}", text(job, "/status/error/message")))
            }
            _ => behind(": ", message(job)),
        };
        format!("{phase}{reason}{explanation}")
    };
    one_line(&line)
}

/// A text that comes from a task, without anything that would move a terminal's cursor.
pub fn one_line(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}

/// Kind and name, as kubectl prints them.
pub fn name(job: &DynamicObject) -> String {
    format!("crewjob.crewjob.dev/{}", job.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(status: &Value) -> DynamicObject {
        let object = json!({
            "apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob", "metadata": { "name": "tea" }, "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_job_that_no_operator_has_seen_is_pending_and_an_unknown_phase_is_shown_as_it_is() {
        assert_eq!((phase(&job(&Value::Null)), end(&job(&Value::Null))), ("Pending", None));
        let newer = job(&json!({ "phase": "Hibernating", "conditions": "none" }));
        assert_eq!((phase(&newer), reason(&newer), end(&newer)), ("Hibernating", "", None));
    }

    #[test]
    fn the_exit_status_tells_the_ends_apart() {
        let status = |phase: &str| end(&job(&json!({ "phase": phase }))).map(End::status);
        assert_eq!(["Succeeded", "Failed", "Cancelled", "Running"].map(status), [Some(0), Some(1), Some(3), None]);
    }

    #[test]
    fn lengths_are_written_in_at_most_two_units() {
        let written = [0, 119, 150, 180, 605, 11_000, 30_000, 200_000, 900_000].map(|s| length(Duration::from_secs(s)));
        assert_eq!(written, ["0s", "119s", "2m30s", "3m", "10m", "3h3m", "8h", "2d7h", "10d"]);
    }

    #[test]
    fn a_line_says_the_phase_and_what_explains_it_and_moves_no_cursor() {
        let running = job(&json!({
            "phase": "Running", "worker": { "name": "crew@pod" }, "progress": { "percent": 40, "message": "draft\u{1b}[2J" },
        }));
        assert_eq!(line(&running), "Running on crew@pod, 40 %: draft [2J");
        let waits = job(&json!({
            "phase": "Pending",
            "conditions": [{ "type": "Reconciling", "reason": "PoolMissing", "message": "there is no pool" }],
        }));
        assert_eq!(line(&waits), "Pending (PoolMissing): there is no pool");
        let failed = job(&json!({
            "phase": "Failed",
            "error": { "type": "ValueError", "message": "no\ntopic" },
            "conditions": [{ "type": "Reconciling", "reason": "TaskFailed" }],
        }));
        assert_eq!(line(&failed), "Failed (TaskFailed): ValueError: no topic");
    }
}
