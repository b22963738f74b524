//! What is known of a job, put together from memory: no round trip per job.

use jiff::Timestamp;

use super::context::Context;
use super::jobs::Entry;
use crate::core::job::ObjectKey;
use crate::core::observed::{Held, Holding, Liveness, Observed, Search, Task};

/// What is known of one job.
pub struct Observation {
    /// The job's entry.
    pub entry: Entry,
    /// What `decide` may know.
    pub seen: Observed,
    /// Whether the death of the holder is news: what it stored before it died must be read first.
    pub death_is_news: bool,
}

/// What is known of a job; `None` when it is over or gone.
pub fn observe(ctx: &Context, key: &ObjectKey) -> Option<Observation> {
    let entry = ctx.jobs.lock().get(key)?.clone();
    let pool = ctx.pools.view(&entry.job.key.namespace, &entry.job.spec.pool);
    let task = match &entry.task {
        Task::Held(held) => Task::Held(ctx.workers.judged(&key.namespace, held)),
        Task::Absent(search @ Search { seen: Some(held), .. }) => {
            Task::Absent(Search { seen: Some(ctx.workers.judged(&key.namespace, held)), ..search.clone() })
        }
        Task::Unread | Task::Absent(_) | Task::Queued { .. } | Task::Withdrawn { .. } | Task::Ended(_) => {
            entry.task.clone()
        }
    };
    let death_is_news = is_dead(&task) && !is_dead(&entry.task);
    let of = entry.job.attempt_in_hand().task;
    let enqueued_at = entry.enqueued_at.or_else(|| entry.job.status.attempt.map(|attempt| attempt.enqueued_at));
    Some(Observation { entry, seen: Observed { pool, of, enqueued_at, task }, death_is_news })
}

fn is_dead(task: &Task) -> bool {
    let held = match task {
        Task::Held(held) => Some(held),
        Task::Absent(search) => search.seen.as_ref(),
        Task::Unread | Task::Queued { .. } | Task::Withdrawn { .. } | Task::Ended(_) => None,
    };
    held.is_some_and(|held| matches!(held.by, Holding::By(_, Liveness::Dead)))
}

/// A message that a worker has taken, as an event or a reply says.
pub fn held(generation: u32, by: Holding, started_at: Option<Timestamp>, before: Option<&Held>) -> Held {
    let same = before.filter(|before| before.by == by || before.by == Holding::Unattributed);
    Held {
        generation,
        started_at: started_at.or(same.and_then(|before| before.started_at)),
        by,
        celery_retries: before.map_or(0, |before| before.celery_retries),
        progress: same.and_then(|before| before.progress.clone()),
    }
}
