//! The plan linter: what must hold of every plan, whatever the job and whatever was seen.
//!
//! Nothing here runs in production. The tests of `decide` call it on every plan, the simulation on every decision.

use std::fmt;

use std::time::Duration;

use jiff::Timestamp;

use super::decide::decide;
use super::job::Job;
use super::limits::Permit;
use super::observed::{Ending, Observed, Pool, Search, Task};
use super::once::Claim;
use super::plan::{Effect, Next, Plan, Publication};
use super::policy::Policy;
use super::status::{Attempt, Hold, Kept, Phase, Status, TaskError, Why};

/// A rule that a plan breaks, as a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding(pub &'static str);

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The rules that `plan`, decided at `now` for `job` and what was `seen` of it, breaks; none when all is well.
pub fn check(job: &Job, seen: &Observed, now: Timestamp, plan: &Plan) -> Vec<Finding> {
    let case = Case { job, seen, now, plan, was: &job.status, is: &plan.status };
    RULES.iter().filter(|(_, holds)| !holds(&case)).map(|(rule, _)| Finding(rule)).collect()
}

struct Case<'a> {
    job: &'a Job,
    seen: &'a Observed,
    now: Timestamp,
    plan: &'a Plan,
    was: &'a Status,
    is: &'a Status,
}

type Rule = (&'static str, fn(&Case) -> bool);

const RULES: &[Rule] = &[
    // === the end ===
    ("a terminal phase never changes", |c| !c.was.phase.is_terminal() || c.is.phase == c.was.phase),
    ("the end is set exactly when the phase is terminal, and once", |c| {
        let (was, is) = (c.was.finished_at(), c.is.finished_at());
        is.is_some() == c.is.phase.is_terminal() && (was.is_none() || is == was)
    }),
    ("a result is there exactly when the phase is Succeeded, and never changes", |c| {
        let was_run = !matches!(c.is.why, Why::AlreadyRan { .. });
        // One that is attached to another job has what that one has.
        let is_copied = matches!(c.is.why, Why::Attached { .. });
        (is_copied || c.is.result.is_some() == (c.is.phase == Phase::Succeeded && was_run))
            && (c.was.result.is_none() || c.is.result == c.was.result)
    }),
    ("a result is kept where its size allows, by the effect that puts it there", is_result_kept),
    ("an end is never looked at again, anything else always", |c| {
        (c.plan.next == Next::Never) == c.is.phase.is_terminal()
    }),
    ("an attempt that is over is forgotten, one that is not is not", is_forgotten_when_over),
    ("a Failed job says so in a Warning", |c| {
        c.is.phase != Phase::Failed || c.was.phase == Phase::Failed || c.plan.notices.iter().any(|n| n.warning)
    }),
    // === what is published ===
    ("at most one message is published", |c| c.publications().count() <= 1),
    ("only the attempt in hand is published, under a generation that was never used", is_publication_of_hand),
    ("nothing is published when the job ends", |c| !c.is.phase.is_terminal() || c.publications().count() == 0),
    ("nothing is published while cancel or suspend is declared", |c| {
        !(c.job.spec.cancel || c.job.spec.suspend) || c.publications().count() == 0
    }),
    ("nothing is published that workers of the pool would run in vain", |c| {
        !is_futile(c) || c.publications().count() == 0
    }),
    ("the first message of a job with a run-once key is published once the key is its own", |c| {
        c.job.spec.run_once.is_none() || c.seen.claim == Claim::Ours || c.publications().all(|m| m.id.generation > 0)
    }),
    ("nothing new is published beyond the limits of the pool, or before the permit is recorded", is_permitted),
    ("the first message of a job with a dedup key is published once the job stands for it", |c| {
        let stands = c.was.stands.as_deref() == Some(&c.job.uid);
        let is_first = |m: &Publication| m.id.generation == 0 && m.id.number == 1;
        c.job.spec.dedup.is_none() || stands || !c.publications().any(is_first)
    }),
    ("that a job with a run-once key has run is remembered before its end is recorded", is_run_remembered),
    ("no attempt runs something else than the first one did", |c| {
        c.was.spec_hash.is_none_or(|pinned| pinned == c.job.spec.hash) || c.publications().count() == 0
    }),
    ("every message but the first asks for a live read", |c| {
        c.publications().all(|m| m.again == (m.id.number > 1 || m.id.generation > 0))
    }),
    ("a message is withdrawn or revoked only when that was asked for or the job is over", |c| {
        let has = |is: fn(&Effect) -> bool| c.plan.effects.iter().any(is);
        let may_withdraw = c.job.spec.suspend || is_futile(c) || c.was.phase.is_terminal() || may_end(c);
        (may_withdraw || !has(|effect| matches!(effect, Effect::Withdraw(_))))
            && (may_end(c) || !has(|effect| matches!(effect, Effect::Revoke(_) | Effect::DeletePod(_))))
    }),
    ("without a readable Redis, or on stale evidence, nothing is decided", is_blind_plan_empty),
    ("evidence of an older generation than the recorded one ends nothing", |c| {
        c.was.phase.is_terminal() || !c.is.phase.is_terminal() || !is_behind(c)
    }),
    ("deciding twice on the same observation publishes once", is_repeatable),
    (
        "a plan without effects settles, unless it is looked at again at once: deciding again changes nothing",
        is_settled,
    ),
    // === the record ===
    ("runs and worker losses are never taken back", |c| {
        c.is.attempts >= c.was.attempts && c.is.worker_losses >= c.was.worker_losses
    }),
    ("attempts and generations only go up", |c| match (c.was.attempt, c.is.attempt) {
        (Some(was), Some(is)) => (is.number, is.generation) >= (was.number, was.generation),
        (Some(was), None) => c.is.attempts >= was.number,
        (None, Some(is)) => is.number > c.was.attempts,
        (None, None) => true,
    }),
    ("Retrying is the phase exactly when retry_at is set, with no attempt under way", |c| {
        c.is.retry_at.is_some() == (c.is.phase == Phase::Retrying)
            && (c.is.phase != Phase::Retrying || (c.is.attempt.is_none() && c.is.attempts > 0))
    }),
    ("what is Queued or Running has an attempt, what is Running has begun", |c| match c.is.phase {
        Phase::Queued => c.is.attempt.is_some(),
        Phase::Running => c.is.attempts > 0 && c.is.attempt.is_some_and(|attempt| attempt.started_at.is_some()),
        Phase::Pending | Phase::Retrying | Phase::Succeeded | Phase::Failed | Phase::Cancelled => true,
    }),
    ("the pinned spec never changes, and is pinned when an attempt is recorded", |c| {
        (c.was.spec_hash.is_none() || c.is.spec_hash == c.was.spec_hash)
            && (c.is.attempt.is_none() || c.is.spec_hash.is_some())
    }),
    ("the time of the first publication stays", |c| c.was.queued_at.is_none() || c.is.queued_at == c.was.queued_at),
    ("the history is bounded and only grows at its end", |c| {
        let kept = c.was.history.iter().rev().zip(c.is.history.iter().rev().skip(1)).all(|(was, is)| was == is);
        c.is.history.len() <= Status::HISTORY && (c.is.history == c.was.history || kept)
    }),
    ("texts are bounded", |c| {
        let history = c.is.history.iter().filter_map(|past| past.error.as_ref());
        c.is.error.as_deref().into_iter().chain(history).all(|error| {
            error.kind.len() <= 128
                && error.message.len() <= TaskError::MESSAGE
                && error.traceback.as_ref().is_none_or(|text| text.len() <= TaskError::TRACEBACK)
        })
    }),
    ("looking again at once is for plans that change something", |c| {
        !matches!(c.plan.next, Next::At(at) if at <= c.now) || c.is != c.was
    }),
    ("a hold is recorded only for what is on no worker, unless its pool was deleted", |c| {
        let is_of_deleted_pool = matches!(c.is.why, Why::OnHold(Hold::PoolDeleted { .. })) && !c.is.phase.is_terminal();
        !matches!(c.is.why, Why::OnHold(_))
            || matches!(c.is.phase, Phase::Pending | Phase::Retrying)
            || is_of_deleted_pool
    }),
];

impl<'a> Case<'a> {
    fn publications(&self) -> impl Iterator<Item = &'a Publication> {
        publications(self.plan)
    }

    /// The job once this plan is recorded.
    fn recorded(&self) -> Job {
        Job { status: self.is.clone(), ..self.job.clone() }
    }
}

/// Whether the pool's workers are set up so that a run would be in vain.
fn is_futile(c: &Case) -> bool {
    let Pool::Ready(pool) = &c.seen.pool else { return false };
    pool.futile.as_ref().is_some_and(|futile| futile.concerns(&c.job.spec.task))
}

/// Whether something asks for the job, or for the run in hand, to end: cancel, a deadline, or an overdue hard limit.
fn may_end(c: &Case) -> bool {
    let Pool::Ready(pool) = &c.seen.pool else { return c.job.spec.cancel };
    let policy = Policy::resolve(c.job.spec.overrides.as_deref(), &pool.defaults);
    let attempt = c.was.attempt.map(|attempt| attempt.enqueued_at);
    let passed = |since: Option<Timestamp>, span: Option<Duration>| {
        since.zip(span).and_then(|(since, span)| since.checked_add(span).ok()).is_some_and(|at| at <= c.now)
    };
    let began = match &c.seen.task {
        Task::Held(held) | Task::Absent(Search { seen: Some(held), .. }) => held.started_at,
        Task::Unread
        | Task::Absent(_)
        | Task::Queued { .. }
        | Task::Withdrawn { .. }
        | Task::GoesOn { .. }
        | Task::Ended(_) => None,
    };
    let published_at = c.seen.published.at;
    let recorded = c.was.attempt.map(|attempt| attempt.started_at.unwrap_or(attempt.enqueued_at));
    c.job.spec.cancel
        || passed(c.was.queued_at.or(published_at), policy.total)
        || passed(attempt.or(published_at), policy.queue)
        || passed(began.or(recorded).or(published_at).or(Some(c.now)), Some(policy.hard))
}

fn is_result_kept(c: &Case) -> bool {
    let mut acts = c.plan.effects.iter().filter_map(|effect| {
        if let Effect::ExtendResult { task, ttl } = effect {
            let until = c.now.checked_add(*ttl).unwrap_or(Timestamp::MAX);
            let named = c.is.result.as_ref().and_then(|result| match &result.kept {
                Kept::Redis { key, .. } => Some(key.clone()).filter(|key| key.ends_with(&task.to_string())),
                Kept::Inline | Kept::ConfigMap | Kept::Elsewhere(_) => None,
            });
            return Some((Kept::Redis { key: named.unwrap_or_default(), until }, None));
        }
        if let Effect::StoreResult(output) = effect { Some((Kept::ConfigMap, Some(output))) } else { None }
    });
    let act = acts.next();
    let is_new = c.was.result.is_none();
    match (&c.is.result, act) {
        (Some(result), Some((kept, output))) => {
            is_new && result.kept == kept && output.is_none_or(|output| *output == result.output)
        }
        (Some(result), None) => !is_new || result.kept == Kept::Inline || matches!(c.is.why, Why::Attached { .. }),
        (None, act) => act.is_none(),
    }
}

fn is_permitted(c: &Case) -> bool {
    let is_recorded = match c.seen.permit {
        Permit::Free => true,
        Permit::Granted { at } => c.was.why.is_released() && c.was.released_at.as_deref() == Some(&at),
        Permit::Unknown | Permit::Unasked | Permit::Waits(_) => false,
    };
    let is_under_way = matches!(c.was.phase, Phase::Queued | Phase::Running);
    // A copy that Celery has made of a message is none that the operator publishes.
    is_recorded || is_under_way || c.publications().count() == 0
}

fn is_run_remembered(c: &Case) -> bool {
    let mut acts = c.plan.effects.iter().filter_map(|effect| {
        if let Effect::RememberRun { key, succeeded, .. } = effect { Some((key, *succeeded)) } else { None }
    });
    let is_new = c.is.phase.is_terminal() && !c.was.phase.is_terminal() && c.is.phase != Phase::Cancelled;
    let wanted = c.job.spec.run_once.as_ref().filter(|_| is_new && c.is.attempts > 0);
    acts.next() == wanted.map(|key| (key, c.is.phase == Phase::Succeeded))
}

fn is_forgotten_when_over(c: &Case) -> bool {
    let hand = c.job.attempt_in_hand();
    let over = c.is.phase.is_terminal() || c.is.attempt.is_none() && c.is.attempts >= hand.number;
    let early = c.plan.effects.iter().any(|effect| matches!(effect, Effect::Forget(_) | Effect::Clear(_)));
    !early
        && match &c.plan.afterwards[..] {
            [] => !over,
            [Effect::Forget(task) | Effect::Clear(task)] => over && *task == hand.task,
            _ => false,
        }
}

fn is_publication_of_hand(c: &Case) -> bool {
    let hand = c.job.attempt_in_hand();
    c.plan.effects.iter().all(|effect| {
        if let Effect::Requeue { in_place_of, message, .. } = effect {
            let attempt = c.is.attempt.map(|Attempt { number, generation, .. }| (number, generation));
            return message.id.task == hand.task
                && message.id.number == hand.number
                && message.id.generation > hand.generation
                && in_place_of.generation().is_none_or(|given_up| message.id.generation > given_up)
                && attempt == Some((hand.number, message.id.generation))
                && c.is.phase == Phase::Queued;
        }
        let publication = effect.publication();
        publication.is_none_or(|message| message.id == hand && hand.generation == 0 && c.was.attempt.is_none())
    })
}

/// Redis that could not be read says nothing. What may be recorded then is why a job waits that was never published.
fn is_blind_plan_empty(c: &Case) -> bool {
    let stale = c.seen.of != c.job.attempt_in_hand().task || c.seen.task == Task::Unread;
    let begun = c.was.attempt.is_some() || c.was.attempts > 0;
    let alike = |was: Status| {
        let is = Status { observed_generation: was.observed_generation, ..c.is.clone() };
        was == is.remarked(|it| it.spec_changed = was.remarks().spec_changed)
    };
    let same = alike(c.was.clone());
    let idle = c.plan.effects.is_empty();
    match &c.seen.pool {
        Pool::Ready(_) => !stale || idle && same,
        Pool::Missing { .. } => {
            let says_why = alike(Status { why: c.is.why.clone(), ..c.was.clone() });
            idle && (same || !begun || says_why || c.is.phase == Phase::Cancelled)
        }
        Pool::Unusable(_) => idle && (same || !begun && c.is.phase == Phase::Pending),
    }
}

/// Whether what was seen speaks of an older generation than what is recorded; a result speaks for the whole attempt.
fn is_behind(c: &Case) -> bool {
    let seen = match &c.seen.task {
        Task::Unread => None,
        Task::Absent(search) => search.marker,
        Task::Queued { generation } | Task::Withdrawn { generation } | Task::GoesOn { generation } => Some(*generation),
        Task::Held(held) => Some(held.generation),
        Task::Ended(ended) => ended.marker.filter(|_| matches!(ended.how, Ending::ChildLost(_))),
    };
    matches!(c.seen.pool, Pool::Ready(_))
        && c.was.attempt.is_some_and(|was| seen.is_some_and(|seen| seen < was.generation))
}

/// A second publication must be one that the scripts refuse: the same message, or one in place of the same thing.
fn is_repeatable(c: &Case) -> bool {
    let publishes = |plan: &Plan| plan.effects.iter().find(|effect| effect.publication().is_some()).cloned();
    let Some(first) = publishes(c.plan) else { return true };
    match (first, publishes(&decide(&c.recorded(), c.seen, c.now))) {
        (_, None) => true,
        (Effect::Enqueue(first), Some(Effect::Enqueue(second))) => first.id == second.id,
        (Effect::Requeue { in_place_of, .. }, Some(Effect::Requeue { in_place_of: second, .. })) => {
            in_place_of == second
        }
        (_, Some(_)) => false,
    }
}

fn is_settled(c: &Case) -> bool {
    let is_looked_at = matches!(c.plan.next, Next::At(at) if at <= c.now);
    is_looked_at || !c.plan.effects.is_empty() || decide(&c.recorded(), c.seen, c.now).status == *c.is
}

fn publications(plan: &Plan) -> impl Iterator<Item = &Publication> {
    plan.effects.iter().chain(&plan.afterwards).filter_map(Effect::publication)
}
