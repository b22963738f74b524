//! What the operator reports of a schedule: the status of a `CrewSchedule`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConditionType, Reason, Verdict, schema, set_condition};
use crate::core::schedule::{Record, Rest, Skip, Skipped};

/// How many of the jobs that have not ended are named.
const NAMED: usize = 20;

/// What a schedule has made, and what comes next. Written by the operator.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {}))]
pub struct CrewScheduleStatus {
    /// The `metadata.generation` that this status was derived from; 0 while no operator has looked at the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("default" = 0))]
    pub observed_generation: Option<i64>,

    /// The last time for which a job was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_schedule_time: Option<Time>,

    /// When a job of the schedule last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub last_success_time: Option<Time>,

    /// The next three times. A job is made later than its time by its part of `spec.jitter`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), schema_with = "schema::times")]
    pub next_schedule_times: Vec<Time>,

    /// Jobs that have not ended, the first 20 by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub active: Vec<String>,

    /// How many jobs have not ended.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub active_count: i64,

    /// Times that wait for the end of a job, with `overlap: Queue`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), schema_with = "schema::times")]
    pub queued: Vec<Time>,

    /// Jobs that were made, those that were asked for by annotation included.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub made: i64,

    /// Times for which no job was made, by reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["reason"])
    )]
    pub skipped: Vec<SkippedTimes>,

    /// All times up to this one are decided: their jobs were made, wait or were skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub decided_until: Option<Time>,

    /// A digest of the times that this was decided for. When it changes, what the new ones would have asked for before is not
    /// made up for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub times_digest: Option<String>,

    /// The value of the annotation `crewjob.dev/run-now` for which a job was last made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub ran_now: Option<String>,

    /// Failures before this time do not count for `spec.pauseAfterFailures`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub failures_from: Option<Time>,

    /// Why the schedule rests, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rests: Option<Rests>,

    /// The state in one aspect: `Ready`, whether jobs are made at the schedule's times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Times for which no job was made.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SkippedTimes {
    /// Why.
    pub reason: SkipReason,

    /// How many. Of more than 10,000 that are noticed at once only so many are counted.
    #[schemars(range(min = 0))]
    pub count: i64,

    /// The last one.
    #[schemars(schema_with = "schema::time")]
    pub last_time: Time,
}

/// Why no job was made for a time.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(description = "")]
pub enum SkipReason {
    /// An earlier job had not ended, and `spec.overlap` is `Skip`.
    Overlap,
    /// It was noticed later than `spec.catchUp.window` allows, or the API server refused the job for so long.
    TooLate,
    /// It was missed, a later one too, and `spec.catchUp.policy` is `Latest`.
    Superseded,
    /// More than 100 were missed.
    TooMany,
    /// `spec.suspend` was true.
    Suspended,
    /// The schedule was paused after failures.
    Paused,
    /// 100 times waited already, with `overlap: Queue`.
    QueueFull,
    /// A job with its name exists and is none of the schedule's.
    NameTaken,
}

/// Why a schedule rests.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(description = "")]
pub enum Rests {
    /// `spec.suspend` is true.
    Suspended,
    /// As many jobs failed in a row as `spec.pauseAfterFailures` says.
    Paused,
}

impl SkipReason {
    /// One sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Overlap => "an earlier job has not ended, and spec.overlap is Skip",
            Self::TooLate => "it was noticed, or could be made, only after spec.catchUp.window",
            Self::Superseded => "a later time was missed, too, and spec.catchUp.policy is Latest",
            Self::TooMany => "more than 100 times were missed",
            Self::Suspended => "the schedule was suspended",
            Self::Paused => "the schedule was paused after failures",
            Self::QueueFull => "100 times wait already for the end of earlier jobs",
            Self::NameTaken => "a CrewJob of that name exists and is none of this schedule's",
        }
    }
}

impl From<Skip> for SkipReason {
    fn from(skip: Skip) -> Self {
        match skip {
            Skip::Overlap => Self::Overlap,
            Skip::TooLate => Self::TooLate,
            Skip::Superseded => Self::Superseded,
            Skip::TooMany => Self::TooMany,
            Skip::Suspended => Self::Suspended,
            Skip::Paused => Self::Paused,
            Skip::QueueFull => Self::QueueFull,
            Skip::NameTaken => Self::NameTaken,
        }
    }
}

impl From<SkipReason> for Skip {
    fn from(reason: SkipReason) -> Self {
        match reason {
            SkipReason::Overlap => Self::Overlap,
            SkipReason::TooLate => Self::TooLate,
            SkipReason::Superseded => Self::Superseded,
            SkipReason::TooMany => Self::TooMany,
            SkipReason::Suspended => Self::Suspended,
            SkipReason::Paused => Self::Paused,
            SkipReason::QueueFull => Self::QueueFull,
            SkipReason::NameTaken => Self::NameTaken,
        }
    }
}

impl CrewScheduleStatus {
    /// What is recorded, in the words of the decision core.
    pub fn record(&self) -> Record {
        let time = |at: &Option<Time>| at.as_ref().map(|at| at.0);
        let times = |list: &[Time]| list.iter().map(|at| at.0).collect();
        Record {
            generation: self.observed_generation.unwrap_or(0),
            decided_until: time(&self.decided_until),
            digest: self.times_digest.as_deref().map(Into::into),
            queued: times(&self.queued),
            skipped: self
                .skipped
                .iter()
                .map(|it| Skipped {
                    why: it.reason.into(),
                    count: it.count.try_into().unwrap_or(0),
                    last: it.last_time.0,
                })
                .collect(),
            ran_now: self.ran_now.as_deref().map(Into::into),
            last_scheduled: time(&self.last_schedule_time),
            last_success: time(&self.last_success_time),
            failures_from: time(&self.failures_from),
            rests: self.rests.map(|rests| match rests {
                Rests::Suspended => Rest::Suspended,
                Rests::Paused => Rest::Paused,
            }),
            made: self.made.try_into().unwrap_or(0),
            active: self.active.iter().map(|name| name.as_str().into()).collect(),
            next: times(&self.next_schedule_times),
        }
    }

    /// The status that says what is recorded, and how the schedule is.
    #[must_use]
    pub fn of(&self, record: &Record, ready: (bool, Reason, String), now: Timestamp) -> Self {
        let time = |at: Timestamp| Time(Timestamp::new(at.as_second(), 0).unwrap_or(at));
        let times = |list: &[Timestamp]| list.iter().copied().map(time).collect();
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (holds, reason, message) = ready;
        let mut conditions = self.conditions.clone();
        let verdict = Verdict { type_: ConditionType::Ready, holds: Some(holds), reason, message };
        set_condition(&mut conditions, verdict, Some(record.generation), time(now));
        Self {
            observed_generation: Some(record.generation),
            last_schedule_time: record.last_scheduled.map(time),
            last_success_time: record.last_success.map(time),
            next_schedule_times: times(&record.next),
            active: record.active.iter().take(NAMED).map(ToString::to_string).collect(),
            active_count: number(record.active.len() as u64),
            queued: times(&record.queued),
            made: number(record.made),
            skipped: record
                .skipped
                .iter()
                .map(|it| SkippedTimes { reason: it.why.into(), count: number(it.count), last_time: time(it.last) })
                .collect(),
            decided_until: record.decided_until.map(time),
            times_digest: record.digest.as_deref().map(str::to_owned),
            ran_now: record.ran_now.as_deref().map(str::to_owned),
            failures_from: record.failures_from.map(time),
            rests: record.rests.map(|rest| match rest {
                Rest::Suspended => Rests::Suspended,
                Rest::Paused => Rests::Paused,
            }),
            conditions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_795_694_400, 0);

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = Record {
            generation: 3,
            decided_until: Some(NOW),
            digest: Some("d".into()),
            queued: vec![NOW],
            skipped: vec![Skipped { why: Skip::QueueFull, count: 2, last: NOW }],
            ran_now: Some("a".into()),
            last_scheduled: Some(NOW),
            last_success: Some(NOW),
            failures_from: Some(NOW),
            rests: Some(Rest::Paused),
            made: 7,
            active: vec!["a".into()],
            next: vec![NOW],
        };
        let status = CrewScheduleStatus::default().of(&record, (false, Reason::AsExpected, String::new()), NOW);
        assert_eq!(status.record(), record);
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<CrewScheduleStatus>(&text).unwrap(), status);
    }
}
