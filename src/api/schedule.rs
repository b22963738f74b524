//! Jobs at times: `CrewSchedule`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{CrewJobSpec, CrewScheduleStatus, Duration, schema};
use crate::core::schedule::{self, Calendar, CalendarError};

/// The label of a job that a schedule has made, with the schedule's name.
pub const SCHEDULE_LABEL: &str = "crewjob.dev/schedule";
/// The annotation of a job that a schedule has made, with the time it is for.
pub const PLANNED_AT: &str = "crewjob.dev/planned-at";
/// The annotation of a schedule that asks for a job now, once for each value.
pub const RUN_NOW: &str = "crewjob.dev/run-now";

/// When to make jobs, and which.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "crewjob.dev",
    version = "v1alpha1",
    kind = "CrewSchedule",
    plural = "crewschedules",
    shortname = "crewsched",
    category = "crew",
    namespaced,
    status = "CrewScheduleStatus",
    derive = "PartialEq",
    doc = "Makes a CrewJob at each time that its cron lines name: one for each time, whatever crashes. The time is part of \
           the job's name. Times that cannot be kept are counted by reason in the status, and none is lost silently.",
    printcolumn(name = "Schedules", type_ = "string", json_path = ".spec.schedules", description = "The cron lines"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether jobs are made at its times"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.activeCount", description = "Jobs that have not ended"),
    printcolumn(name = "Last", type_ = "date", json_path = ".status.lastScheduleTime", description = "The last time for which a job was made"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTimes[0]", description = "The next time"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Time zone", type_ = "string", json_path = ".spec.timeZone", priority = 1),
    printcolumn(name = "Overlap", type_ = "string", json_path = ".spec.overlap", priority = 1),
    printcolumn(name = "Made", type_ = "integer", json_path = ".status.made", description = "Jobs that were made", priority = 1),
    printcolumn(name = "Last success", type_ = "date", json_path = ".status.lastSuccessTime", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must have at most 63 characters: it is a label of the jobs")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.start) || !has(self.end) || self.start < self.end",
    "message": "start must be before end",
    "fieldPath": ".start",
}]))]
pub struct CrewScheduleSpec {
    /// Cron lines: minute, hour, day of the month, month and day of the week, such as `30 2 * * MON-FRI`; or `@hourly`,
    /// `@daily`, `@weekly`, `@monthly`, `@yearly`. 1 to 16 lines. Two lines that name the same time make one job. Where day of
    /// the month and day of the week are both restricted, either is enough, as in other crons.
    ///
    /// When the clock is changed, a line that names an hour makes one job for each time it names: a time that is skipped is
    /// moved by as much as the clock, and of one that occurs twice the first counts. A line whose hour begins with `*` makes
    /// jobs at an interval, which goes on through the change.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "atomic"))]
    pub schedules: Vec<String>,

    /// The time zone of the lines, by its name in the IANA database, such as `Europe/Berlin`. Default `Etc/UTC`.
    #[serde(default = "default_zone")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"))]
    pub time_zone: String,

    /// The jobs that are made.
    pub template: JobTemplate,

    /// What to do at a time at which an earlier job of the schedule has not ended. `Skip`: make none. `Queue`: make it when the
    /// earlier ones have ended; at most 100 times wait. `CancelRunning`: cancel the earlier ones, and make it. `Allow`: make
    /// it. Default `Skip`.
    #[serde(default)]
    pub overlap: Overlap,

    /// What to do about times that were missed, because no operator was there or the API server refused the job.
    #[serde(default)]
    pub catch_up: CatchUp,

    /// Each job is made later than its time by a part of this, so that many schedules do not begin at once. It is the same part
    /// whenever the same time is looked at. A duration, at most 24h. Default `0s`.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-validations" = schema::between("0s", "24h")))]
    pub jitter: Duration,

    /// While true, no job is made. Times that pass meanwhile are not made up for; they are counted when the schedule goes on.
    /// Default false.
    #[serde(default)]
    pub suspend: bool,

    /// After so many failed jobs in a row the schedule pauses, until it is changed or a job of it succeeds, such as one that
    /// was asked for with `crewjob.dev/run-now`. 1 to 1000. Default: it never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub pause_after_failures: Option<i32>,

    /// How many finished jobs are kept.
    #[serde(default)]
    pub history: History,

    /// No job for a time before this one. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub start: Option<Time>,

    /// No job for a time after this one. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub end: Option<Time>,
}

/// The jobs that are made.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[schemars(extend("x-kubernetes-validations" = of_a_template()))]
pub struct JobTemplate {
    /// Labels and annotations of the jobs.
    #[serde(default, skip_serializing_if = "TemplateMetadata::is_empty")]
    pub metadata: TemplateMetadata,

    /// The spec of the jobs.
    pub spec: CrewJobSpec,
}

/// Labels and annotations of the jobs. Those that begin with `crewjob.dev/` are the operator's own.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateMetadata {
    /// Labels. At most 32. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "x-kubernetes-validations" = none_of_ours()))]
    pub labels: BTreeMap<String, String>,

    /// Annotations. At most 32. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "x-kubernetes-validations" = none_of_ours()))]
    pub annotations: BTreeMap<String, String>,
}

impl TemplateMetadata {
    fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// What to do at a time at which an earlier job has not ended.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(description = "")]
pub enum Overlap {
    /// Make none.
    #[default]
    Skip,
    /// Make it when the earlier ones have ended.
    Queue,
    /// Cancel the earlier ones, and make it.
    CancelRunning,
    /// Make it.
    Allow,
}

/// What to do about times that were missed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {}))]
pub struct CatchUp {
    /// How late a job may be made. What is noticed later is counted as `TooLate`. A duration, 1m to 168h. Default `1h`.
    #[serde(default = "default_window")]
    #[schemars(extend("x-kubernetes-validations" = schema::between("1m", "168h")))]
    pub window: Duration,

    /// Which of the times within the window are made up for: the `Latest`, or `All` of them, at most the last 100. Default
    /// `Latest`.
    #[serde(default)]
    pub policy: CatchUpPolicy,
}

impl Default for CatchUp {
    fn default() -> Self {
        Self { window: default_window(), policy: CatchUpPolicy::default() }
    }
}

/// Which missed times are made up for.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(description = "")]
pub enum CatchUpPolicy {
    /// The last one.
    #[default]
    Latest,
    /// All of them.
    All,
}

/// How many finished jobs are kept, apart from their own `ttlAfterFinished`. None is deleted within two minutes of its making.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {}))]
pub struct History {
    /// Of those that succeeded. 0 to 1000. Default 3.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 1000))]
    pub succeeded: i32,

    /// Of those that failed; at least as many as `pauseAfterFailures`. 0 to 1000. Default 3.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 1000))]
    pub failed: i32,

    /// Of those that were cancelled. 0 to 1000. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub cancelled: i32,
}

impl Default for History {
    fn default() -> Self {
        Self { succeeded: three(), failed: three(), cancelled: one() }
    }
}

impl CrewScheduleSpec {
    /// The times that it names.
    pub fn calendar(&self) -> Result<Calendar, CalendarError> {
        Calendar::parse(&self.schedules, &self.time_zone)
    }
}

impl CrewSchedule {
    /// What it asks for, in the words of the decision core.
    pub fn to_schedule(&self) -> Result<schedule::Schedule, CalendarError> {
        let spec = &self.spec;
        let keep = |count: i32| usize::try_from(count).unwrap_or(0);
        let metadata = &self.metadata;
        let uid = metadata.uid.as_deref().and_then(|uid| Uuid::try_parse(uid).ok()).unwrap_or_default();
        let times = format!("{:?} {} {:?} {:?}", spec.schedules, spec.time_zone, spec.start, spec.end);
        let run_now = metadata.annotations.as_ref().and_then(|annotations| annotations.get(RUN_NOW));
        Ok(schedule::Schedule {
            name: metadata.name.as_deref().unwrap_or_default().into(),
            uid,
            created: metadata.creation_timestamp.as_ref().map(|at| at.0).unwrap_or_default(),
            generation: metadata.generation.unwrap_or(0),
            calendar: spec.calendar()?,
            digest: Uuid::new_v5(&Uuid::NAMESPACE_OID, times.as_bytes()).simple().to_string().into(),
            overlap: match spec.overlap {
                Overlap::Skip => schedule::Overlap::Skip,
                Overlap::Queue => schedule::Overlap::Queue,
                Overlap::CancelRunning => schedule::Overlap::CancelRunning,
                Overlap::Allow => schedule::Overlap::Allow,
            },
            catch_up: schedule::CatchUp {
                window: spec.catch_up.window.to_std(),
                all: spec.catch_up.policy == CatchUpPolicy::All,
            },
            jitter: spec.jitter.to_std(),
            suspend: spec.suspend,
            pause_after: spec.pause_after_failures.and_then(|most| u32::try_from(most).ok()),
            history: schedule::History {
                succeeded: keep(spec.history.succeeded),
                failed: keep(spec.history.failed),
                cancelled: keep(spec.history.cancelled),
            },
            start: spec.start.as_ref().map(|at| at.0),
            end: spec.end.as_ref().map(|at| at.0),
            run_now: run_now
                .filter(|value| !value.is_empty())
                .map(|value| super::text::head(value, RUN_NOW_BYTES).into()),
        })
    }

    /// The job for a time, or one that was asked for, as it is to be created.
    pub fn job(&self, birth: &schedule::Birth) -> Value {
        let TemplateMetadata { mut labels, mut annotations } = self.spec.template.metadata.clone();
        let name = self.metadata.name.clone().unwrap_or_default();
        labels.insert(SCHEDULE_LABEL.to_owned(), name.clone());
        if let Some(planned) = birth.planned {
            annotations.insert(PLANNED_AT.to_owned(), format!("{planned:.0}"));
        }
        json!({
            "apiVersion": "crewjob.dev/v1alpha1",
            "kind": "CrewJob",
            "metadata": {
                "name": birth.name,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [{
                    "apiVersion": "crewjob.dev/v1alpha1",
                    "kind": "CrewSchedule",
                    "name": name,
                    "uid": self.metadata.uid,
                    "controller": true,
                }],
            },
            "spec": self.spec.template.spec,
        })
    }
}

/// How much of the value of the annotation counts.
const RUN_NOW_BYTES: usize = 256;

fn of_a_template() -> Value {
    json!([
        {
            "rule": "!has(self.spec.runOnce)",
            "message": "runOnce is for a job that is created again; a schedule makes each of its jobs once",
            "fieldPath": ".spec.runOnce",
        },
        {
            "rule": "!has(self.spec.cancel) || !self.spec.cancel",
            "message": "cancel would end each job before it begins; use suspend of the schedule",
            "fieldPath": ".spec.cancel",
        },
        {
            "rule": "!has(self.spec.ttlAfterFinished) || duration(self.spec.ttlAfterFinished) >= duration('2m')",
            "message": "ttlAfterFinished of a schedule's jobs must be at least 2m",
            "fieldPath": ".spec.ttlAfterFinished",
        },
    ])
}

fn none_of_ours() -> Value {
    json!([{
        "rule": "self.all(key, !key.startsWith('crewjob.dev/'))",
        "message": "keys that begin with crewjob.dev/ are the operator's own",
    }])
}

fn default_zone() -> String {
    "Etc/UTC".to_owned()
}

const fn default_window() -> Duration {
    Duration::from_hours(1)
}

const fn three() -> i32 {
    3
}

const fn one() -> i32 {
    1
}
