//! One look at a schedule: read it and its jobs, decide, act, and record what was done.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::jobs::{Jobs, Made};
use crate::api::{CrewSchedule, Guard, Reason, SkipReason, merge_patch};
use crate::core::id::ObjectKey;
use crate::core::plan::Notice;
use crate::core::schedule::{Look, Record, Rest, Skip, decide};
use crate::operator::context::Context;
use crate::runtime::clock;
use crate::runtime::metrics::{ScheduleOutcome, WriteOutcome, Written};

/// Why a look has not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The API server did not do what it was asked for.
    #[error("{act}: {source}")]
    Call {
        /// What it was asked for.
        act: &'static str,
        /// Why it did not.
        source: Box<kube::Error>,
    },
    /// The job was refused; the status says why.
    #[error("the API server refuses the job: {0}")]
    Refused(String),
}

fn call(act: &'static str) -> impl FnOnce(kube::Error) -> LookError {
    move |source| LookError::Call { act, source: Box::new(source) }
}

/// Looks at a schedule. When to look again, if nothing else asks for it.
pub async fn look(ctx: &Context, key: &ObjectKey) -> Result<Option<Timestamp>, LookError> {
    let _call = ctx.call().await;
    let api: Api<Guard<CrewSchedule>> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let Some(live) = api.get_opt(&key.name).await.map_err(call("reading the schedule"))? else { return Ok(None) };
    let live = match live.0 {
        Ok(live) => live,
        Err(error) => {
            tracing::error!(schedule = %key, %error, "a CrewSchedule of another schema is left alone");
            return Ok(None);
        }
    };
    let status = live.status.clone().unwrap_or_default();
    let record = status.record();
    let schedule = match live.to_schedule() {
        Ok(schedule) => schedule,
        Err(error) => {
            let seen = Record { generation: live.metadata.generation.unwrap_or(0), next: Vec::new(), ..record };
            write(ctx, &live, &seen, (false, Reason::ScheduleInvalid, error.to_string())).await?;
            return Ok(None);
        }
    };
    let jobs = Jobs::new(&ctx.client, &key.namespace);
    let children = jobs.of(&live).await.map_err(call("listing the jobs of the schedule"))?;
    let now = clock::now();
    let mut look = decide(&schedule, &record, &children, now);
    // A request of a former leader that is late makes no second job: a job is kept for longer than a request takes.
    if !ctx.leadership.holds() {
        return Ok(Some(now));
    }
    for name in &look.cancel {
        jobs.cancel(name).await.map_err(call("cancelling an earlier job of the schedule"))?;
    }
    if let Some(birth) = look.birth.clone() {
        match jobs.make(&live, &birth).await.map_err(call("creating the job of the schedule"))? {
            Made::Done => {
                tracing::info!(schedule = %key, job = birth.name, "made the job of a schedule");
                ctx.metrics.schedule_time(ScheduleOutcome::Made, 1);
            }
            Made::NameTaken => look = look.with_its_name_taken(&record),
            Made::Refused(why) => {
                let seen = Record { generation: schedule.generation, next: look.record.next, ..record };
                let message = format!("job {} is refused: {why}", birth.name);
                write(ctx, &live, &seen, (false, Reason::JobNotCreated, message)).await?;
                return Err(LookError::Refused(why));
            }
        }
    }
    let ready = ready(&look, schedule.pause_after, now);
    if !write(ctx, &live, &look.record, ready).await? {
        return Ok(Some(now));
    }
    announce(ctx, &live, &look);
    for (name, uid) in &look.delete {
        jobs.delete(name, *uid).await.map_err(call("deleting a finished job of the schedule"))?;
    }
    Ok(look.again_at)
}

/// Whether jobs are made, and why.
fn ready(look: &Look, pause_after: Option<u32>, now: Timestamp) -> (bool, Reason, String) {
    match look.record.rests {
        Some(Rest::Suspended) => (true, Reason::Suspended, "spec.suspend is true: no job is made".to_owned()),
        Some(Rest::Paused) => {
            let message = format!(
                "the last {} jobs failed; change the spec, or have one made with: kubectl crewjob schedule run NAME",
                pause_after.unwrap_or_default()
            );
            (false, Reason::SchedulePaused, message)
        }
        None if look.record.next.is_empty() && look.birth.is_none() => {
            (true, Reason::ScheduleEnded, "spec.end is past: no further job is made".to_owned())
        }
        None => {
            let at = look.record.next.iter().find(|at| **at > now);
            let message = at.map(|at| format!("the next time is {at:.0}")).unwrap_or_default();
            (true, Reason::AsExpected, message)
        }
    }
}

/// Records what was done. Whether the schedule was still as it was read.
async fn write(
    ctx: &Context,
    live: &CrewSchedule,
    record: &Record,
    ready: (bool, Reason, String),
) -> Result<bool, LookError> {
    let old = live.status.clone().unwrap_or_default();
    let new = old.of(record, ready, clock::now());
    let Some(patch) = merge_patch(&old, &new) else { return Ok(true) };
    let patch = json!({ "metadata": { "resourceVersion": live.metadata.resource_version }, "status": patch });
    let api: Api<CrewSchedule> = Api::namespaced(ctx.client.clone(), &live.namespace().unwrap_or_default());
    match api.patch_status(&live.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => {
            ctx.metrics.wrote(Written::ScheduleStatus, WriteOutcome::Done);
            Ok(true)
        }
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => {
            ctx.metrics.wrote(Written::ScheduleStatus, WriteOutcome::Conflict);
            Ok(false)
        }
        Err(source) => {
            ctx.metrics.wrote(Written::ScheduleStatus, WriteOutcome::Failed);
            Err(call("recording what the schedule has made")(source))
        }
    }
}

/// Tells of the times that were skipped.
fn announce(ctx: &Context, live: &CrewSchedule, look: &Look) {
    let notices = look.skipped.iter().map(|skipped| {
        ctx.metrics.schedule_time(ScheduleOutcome::from(skipped.why), skipped.count);
        let sentence = SkipReason::from(skipped.why).sentence();
        let times = match skipped.count {
            1 => format!("no job is made for {:.0}", skipped.last),
            count => format!("no job is made for {count} times up to {:.0}", skipped.last),
        };
        Notice {
            warning: matches!(skipped.why, Skip::TooLate | Skip::TooMany | Skip::QueueFull | Skip::NameTaken),
            reason: "TimeSkipped".into(),
            message: format!("{times}: {sentence}").into(),
        }
    });
    ctx.events.announce_of_schedule(live, notices.collect());
}
