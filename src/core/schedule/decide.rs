//! One look at a schedule: which job it makes now, what becomes of the others, and what is recorded of it.
//!
//! A look makes at most one job, and its record says so only afterwards: where the operator dies in between, the next look
//! decides the same, and finds the job by its name.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::Calendar;

/// Times that wait for the end of a job, under [`Overlap::Queue`].
pub const MOST_QUEUED: usize = 100;
/// Missed times that are made up for, under [`CatchUp::all`].
pub const MOST_CAUGHT_UP: usize = 100;
/// Missed times that are counted one by one; where there are more, the count stays behind.
const MOST_COUNTED: usize = 10_000;
/// A record that is ahead of the clock by more was written by a clock that was wrong.
const WRONG_CLOCK: SignedDuration = SignedDuration::from_hours(24);
/// How many of the next times are recorded.
const SHOWN: usize = 3;
/// How long a job is kept at least: a request of a former leader to make it may still be on its way for so long.
const KEPT: SignedDuration = SignedDuration::from_secs(120);
/// How soon what waits for the end of a job looks for it, should nothing tell of that end.
const AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// What a schedule asks for.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Its name.
    pub name: Arc<str>,
    /// Its UID.
    pub uid: Uuid,
    /// When it was created.
    pub created: Timestamp,
    /// Its generation.
    pub generation: i64,
    /// When it is to run.
    pub calendar: Calendar,
    /// A digest of the lines, their zone, start and end, to notice that they were changed.
    pub digest: Arc<str>,
    /// What to do at a time at which an earlier job has not ended.
    pub overlap: Overlap,
    /// What to do about times that were missed.
    pub catch_up: CatchUp,
    /// Each time is put off by a part of this.
    pub jitter: Duration,
    /// Whether it rests.
    pub suspend: bool,
    /// After how many failed jobs in a row it rests.
    pub pause_after: Option<u32>,
    /// How many finished jobs are kept.
    pub history: History,
    /// No time before this one.
    pub start: Option<Timestamp>,
    /// No time after this one.
    pub end: Option<Timestamp>,
    /// The value of the annotation that asks for a job now.
    pub run_now: Option<Arc<str>>,
}

/// What to do at a time at which an earlier job has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// Nothing.
    Skip,
    /// Wait for its end.
    Queue,
    /// Cancel it.
    CancelRunning,
    /// Run both.
    Allow,
}

/// What to do about times that were missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatchUp {
    /// How late a job may be made.
    pub window: Duration,
    /// Whether each of them is made up for; else only the last one.
    pub all: bool,
}

/// How many finished jobs are kept, of each end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// Of those that succeeded.
    pub succeeded: usize,
    /// Of those that failed.
    pub failed: usize,
    /// Of those that were cancelled.
    pub cancelled: usize,
}

/// Why no job was made for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skip {
    /// An earlier job had not ended.
    Overlap,
    /// It was noticed after the window for that.
    TooLate,
    /// It was missed, and so was a later one.
    Superseded,
    /// More were missed than are made up for.
    TooMany,
    /// The schedule was suspended.
    Suspended,
    /// The schedule was paused after failures.
    Paused,
    /// As many as may wait waited already.
    QueueFull,
    /// Its name belongs to a job that is none of the schedule's.
    NameTaken,
}

/// How often times were skipped for a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// The reason.
    pub why: Skip,
    /// How often.
    pub count: u64,
    /// The last one.
    pub last: Timestamp,
}

/// What is recorded of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The generation that was observed.
    pub generation: i64,
    /// All times up to this one are decided.
    pub decided_until: Option<Timestamp>,
    /// Of the lines and the zone that this was decided for.
    pub digest: Option<Arc<str>>,
    /// Times that wait for the end of a job, in their order.
    pub queued: Vec<Timestamp>,
    /// What was skipped, one entry for each reason.
    pub skipped: Vec<Skipped>,
    /// The value of the annotation that a job was last made for.
    pub ran_now: Option<Arc<str>>,
    /// The last time for which a job was made.
    pub last_scheduled: Option<Timestamp>,
    /// When a job of it last succeeded.
    pub last_success: Option<Timestamp>,
    /// Failures of before do not count.
    pub failures_from: Option<Timestamp>,
    /// Why it rests.
    pub rests: Option<Rest>,
    /// Jobs that were made.
    pub made: u64,
    /// Jobs that have not ended.
    pub active: Vec<Arc<str>>,
    /// The next times.
    pub next: Vec<Timestamp>,
}

/// Why a schedule rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// It is suspended.
    Suspended,
    /// Too many of its jobs failed, one after the other.
    Paused,
}

/// A job of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub name: Arc<str>,
    /// Its UID.
    pub uid: Uuid,
    /// When it was created.
    pub created: Timestamp,
    /// How it is, or has ended.
    pub state: ChildState,
}

/// How a job of a schedule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildState {
    /// It has not ended.
    Active {
        /// Whether it is to be cancelled.
        cancelling: bool,
    },
    /// It has ended.
    Ended {
        /// How.
        how: End,
        /// When.
        at: Timestamp,
    },
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It succeeded.
    Succeeded,
    /// It failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// A job that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    /// Its name, which follows from its time.
    pub name: String,
    /// The time it is for; none where it was asked for by annotation.
    pub planned: Option<Timestamp>,
}

/// What follows from a look, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Jobs that are to be cancelled.
    pub cancel: Vec<Arc<str>>,
    /// The job that is to be made.
    pub birth: Option<Birth>,
    /// What is then recorded.
    pub record: Record,
    /// Finished jobs that are no longer kept.
    pub delete: Vec<(Arc<str>, Uuid)>,
    /// What was skipped by this look.
    pub skipped: Vec<Skipped>,
    /// When to look again, if nothing else asks for it.
    pub again_at: Option<Timestamp>,
}

impl Look {
    /// What follows where the name of the job belongs to a job that is none of the schedule's.
    #[must_use]
    pub fn with_its_name_taken(mut self, before: &Record) -> Self {
        let Some(birth) = self.birth.take() else { return self };
        let record = &mut self.record;
        record.made = record.made.saturating_sub(1);
        record.last_scheduled = before.last_scheduled;
        record.active.retain(|name| **name != *birth.name);
        if let Some(planned) = birth.planned {
            note(&mut self.skipped, planned, 1, Skip::NameTaken);
            note(&mut record.skipped, planned, 1, Skip::NameTaken);
        }
        self
    }
}

fn note(all: &mut Vec<Skipped>, last: Timestamp, count: u64, why: Skip) {
    match all.iter_mut().find(|known| known.why == why) {
        Some(known) => {
            known.count += count;
            known.last = known.last.max(last);
        }
        None => all.push(Skipped { why, count, last }),
    }
}

/// The name of the job for a time.
pub fn name_of(schedule: &str, planned: Timestamp) -> String {
    format!("{schedule}-{}", planned.strftime("%Y%m%d-%H%M"))
}

/// The name of the job that an annotation asks for.
pub fn name_of_run(schedule: &str, uid: Uuid, value: &str) -> String {
    format!("{schedule}-run-{}", &Uuid::new_v5(&uid, value.as_bytes()).simple().to_string()[..10])
}

/// Looks at a schedule. `children` are its jobs, as they are now.
pub fn decide(schedule: &Schedule, record: &Record, children: &[Child], now: Timestamp) -> Look {
    let mut pass = Pass { schedule, children, now, record: record.clone(), skipped: Vec::new(), cancel: Vec::new() };
    pass.note_children();
    pass.follow_spec();
    let birth = pass.birth();
    pass.finish(birth)
}

/// How long a time is put off: always the same, and spread over the schedules.
pub fn put_off(uid: Uuid, planned: Timestamp, jitter: Duration) -> SignedDuration {
    let seconds = jitter.as_secs();
    if seconds == 0 {
        return SignedDuration::ZERO;
    }
    let (high, low) = Uuid::new_v5(&uid, planned.as_second().to_string().as_bytes()).as_u64_pair();
    SignedDuration::from_secs(((high ^ low) % (seconds + 1)).try_into().unwrap_or(0))
}

struct Pass<'a> {
    schedule: &'a Schedule,
    children: &'a [Child],
    now: Timestamp,
    record: Record,
    skipped: Vec<Skipped>,
    cancel: Vec<Arc<str>>,
}

impl Pass<'_> {
    fn active(&self) -> impl Iterator<Item = &Child> {
        self.children.iter().filter(|child| matches!(child.state, ChildState::Active { .. }))
    }

    fn ended(&self) -> impl Iterator<Item = (&Child, End, Timestamp)> {
        self.children.iter().filter_map(|child| match child.state {
            ChildState::Ended { how, at } => Some((child, how, at)),
            ChildState::Active { .. } => None,
        })
    }

    fn note_children(&mut self) {
        let succeeded = self.ended().filter(|(_, how, _)| *how == End::Succeeded).map(|(_, _, at)| at).max();
        self.record.last_success = self.record.last_success.max(succeeded);
    }

    /// What a changed spec changes in the record.
    fn follow_spec(&mut self) {
        let Schedule { digest, generation, created, .. } = self.schedule;
        let was_paused = self.record.rests == Some(Rest::Paused);
        let first = self.record.decided_until.is_none();
        let has_other_times = self.record.digest.as_ref().is_some_and(|known| known != digest);
        let is_ahead = self.record.decided_until.is_some_and(|until| until.duration_since(self.now) > WRONG_CLOCK);
        if first {
            self.record.decided_until = Some(*created);
        } else if has_other_times || is_ahead {
            // What the new lines would have asked for before they were there is not made up for.
            self.record.decided_until = Some(self.now);
        }
        if was_paused && *generation != self.record.generation {
            self.record.failures_from = Some(self.now);
        }
        self.record.digest = Some(digest.clone());
        self.record.generation = *generation;
        let rests = match () {
            () if self.schedule.suspend => Some(Rest::Suspended),
            () if self.has_failed_too_often() => Some(Rest::Paused),
            () => None,
        };
        if let (Some(rest), None) = (self.record.rests, rests) {
            let why = match rest {
                Rest::Suspended => Skip::Suspended,
                Rest::Paused => Skip::Paused,
            };
            self.skip_until(self.now, why, false);
        }
        self.record.rests = rests;
    }

    fn has_failed_too_often(&self) -> bool {
        let Some(most) = self.schedule.pause_after else { return false };
        let since = self.record.last_success.max(self.record.failures_from);
        let failures = self.ended().filter(|(_, how, at)| *how == End::Failed && since.is_none_or(|since| *at > since));
        failures.count() >= usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// The job that is to be made now; skips what comes before it.
    fn birth(&mut self) -> Option<Birth> {
        let Schedule { name, uid, run_now, .. } = self.schedule;
        if let Some(value) = run_now.as_ref().filter(|value| self.record.ran_now.as_ref() != Some(*value)) {
            self.record.ran_now = Some(value.clone());
            self.record.made += 1;
            return Some(Birth { name: name_of_run(name, *uid, value), planned: None });
        }
        if self.record.rests.is_some() {
            return None;
        }
        if let Some(planned) = self.record.queued.first().copied()
            && (self.active().next().is_none() || self.is_there(planned))
        {
            self.record.queued.remove(0);
            return Some(self.made_for(planned));
        }
        self.skip_what_is_too_late();
        self.due().into_iter().find_map(|planned| self.birth_for(planned))
    }

    /// Decides a time that is due.
    fn birth_for(&mut self, planned: Timestamp) -> Option<Birth> {
        self.record.decided_until = Some(planned);
        // A look that died after it had made this job is carried on.
        if self.is_there(planned) {
            return Some(self.made_for(planned));
        }
        let is_busy = self.active().next().is_some();
        match self.schedule.overlap {
            Overlap::Skip if is_busy => self.skip(planned, 1, Skip::Overlap),
            Overlap::Queue if is_busy || !self.record.queued.is_empty() => {
                if self.record.queued.len() < MOST_QUEUED {
                    self.record.queued.push(planned);
                } else {
                    self.skip(planned, 1, Skip::QueueFull);
                }
            }
            Overlap::CancelRunning => {
                let running = self.active().filter(|child| child.state == ChildState::Active { cancelling: false });
                self.cancel = running.map(|child| child.name.clone()).collect();
                return Some(self.made_for(planned));
            }
            Overlap::Skip | Overlap::Queue | Overlap::Allow => return Some(self.made_for(planned)),
        }
        None
    }

    fn is_there(&self, planned: Timestamp) -> bool {
        let name = name_of(&self.schedule.name, planned);
        self.children.iter().any(|child| *child.name == *name)
    }

    fn made_for(&mut self, planned: Timestamp) -> Birth {
        self.record.last_scheduled = self.record.last_scheduled.max(Some(planned));
        self.record.made += 1;
        Birth { name: name_of(&self.schedule.name, planned), planned: Some(planned) }
    }

    /// The times from the first undecided one on.
    fn times(&self) -> impl Iterator<Item = Timestamp> + use<'_> {
        let Schedule { calendar, start, end, created, .. } = self.schedule;
        let before_start = start.and_then(|start| start.checked_sub(SignedDuration::from_nanos(1)).ok());
        let from = self.record.decided_until.unwrap_or(*created).max(before_start.unwrap_or(Timestamp::MIN));
        calendar.after(from).take_while(move |at| end.is_none_or(|end| *at <= end))
    }

    fn due_at(&self, planned: Timestamp) -> Timestamp {
        planned.saturating_add(put_off(self.schedule.uid, planned, self.schedule.jitter)).unwrap_or(planned)
    }

    /// What was missed for longer than the window is past.
    fn skip_what_is_too_late(&mut self) {
        let Schedule { catch_up, jitter, .. } = self.schedule;
        let window = SignedDuration::try_from(catch_up.window + *jitter).unwrap_or(SignedDuration::MAX);
        if let Ok(oldest) = self.now.checked_sub(window)
            && self.record.decided_until.is_none_or(|until| until < oldest)
        {
            self.skip_until(oldest, Skip::TooLate, true);
        }
    }

    /// The times that are due, in their order; those that are not made up for are skipped.
    fn due(&mut self) -> Vec<Timestamp> {
        let due: Vec<Timestamp> = self.times().take_while(|at| self.due_at(*at) <= self.now).collect();
        let (keep, why) =
            if self.schedule.catch_up.all { (MOST_CAUGHT_UP, Skip::TooMany) } else { (1, Skip::Superseded) };
        let (missed, kept) = due.split_at(due.len().saturating_sub(keep));
        // Of a look that died after it had made the job of one, nothing is skipped.
        let first_made = missed.iter().position(|at| self.is_there(*at));
        let (missed, again) = missed.split_at(first_made.unwrap_or(missed.len()));
        if let Some(last) = missed.last() {
            self.record.decided_until = Some(*last);
            self.skip(*last, missed.len() as u64, why);
        }
        again.first().copied().map_or_else(|| kept.to_vec(), |at| vec![at])
    }

    /// Decides all times up to an instant, for none of which a job is made; or only up to the first one that has its job.
    fn skip_until(&mut self, until: Timestamp, why: Skip, spares_made: bool) {
        let mut is_made = false;
        let (mut count, mut last) = (0, None);
        for at in self.times().take_while(|at| *at < until).take(MOST_COUNTED) {
            is_made = spares_made && self.is_there(at);
            if is_made {
                break;
            }
            (count, last) = (count + 1, Some(at));
        }
        if let Some(last) = last {
            self.record.decided_until = Some(last);
            self.skip(last, count, why);
        }
        if is_made {
            return;
        }
        let before = until.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(until);
        self.record.decided_until = self.record.decided_until.max(Some(before));
    }

    fn skip(&mut self, last: Timestamp, count: u64, why: Skip) {
        note(&mut self.skipped, last, count, why);
        note(&mut self.record.skipped, last, count, why);
    }

    fn finish(mut self, birth: Option<Birth>) -> Look {
        let mut active: Vec<Arc<str>> = self.active().map(|child| child.name.clone()).collect();
        if let Some(birth) = &birth
            && !self.children.iter().any(|child| *child.name == birth.name)
        {
            active.push(birth.name.as_str().into());
        }
        active.sort();
        self.record.active = active;
        let rests = self.record.rests.is_some();
        self.record.next = if rests { Vec::new() } else { self.times().take(SHOWN).collect() };
        let due = self.record.next.first().map(|planned| self.due_at(*planned));
        let waits = !rests && !self.record.queued.is_empty();
        let waits_until = waits.then(|| self.now.saturating_add(AGAIN).unwrap_or(self.now));
        let (delete, delete_at) = self.no_longer_kept();
        let again_at = [due, waits_until, delete_at, birth.is_some().then_some(self.now)].into_iter().flatten().min();
        let again_at = again_at.map(|at| at.max(self.now));
        Look { cancel: self.cancel, birth, record: self.record, delete, skipped: self.skipped, again_at }
    }

    /// Finished jobs beyond the history, and when there will be more. Those whose making is not recorded yet are kept: by
    /// their names they are found again.
    fn no_longer_kept(&self) -> (Vec<(Arc<str>, Uuid)>, Option<Timestamp>) {
        let Schedule { name, uid, run_now, history, pause_after, .. } = self.schedule;
        // A pause is decided by failures that are there.
        let failed = history.failed.max(pause_after.map_or(0, |most| most.try_into().unwrap_or(usize::MAX)));
        let due = self.times().take_while(|at| *at <= self.now).take(MOST_COUNTED);
        let mut unrecorded: HashSet<String> =
            due.chain(self.record.queued.iter().copied()).map(|at| name_of(name, at)).collect();
        let asked_for = run_now.as_ref().filter(|value| self.record.ran_now.as_ref() != Some(*value));
        unrecorded.extend(asked_for.map(|value| name_of_run(name, *uid, value)));
        let (mut delete, mut again_at) = (Vec::new(), None);
        for (end, keep) in
            [(End::Succeeded, history.succeeded), (End::Failed, failed), (End::Cancelled, history.cancelled)]
        {
            let mut ended: Vec<_> = self.ended().filter(|(_, how, _)| *how == end).collect();
            ended.sort_by_key(|(child, _, at)| (std::cmp::Reverse(*at), child.name.clone()));
            for (child, ..) in ended.into_iter().skip(keep).filter(|(child, ..)| !unrecorded.contains(&*child.name)) {
                match child.created.saturating_add(KEPT) {
                    Ok(until) if until > self.now => {
                        again_at = Some(again_at.map_or(until, |at: Timestamp| at.min(until)));
                    }
                    Ok(_) | Err(_) => delete.push((child.name.clone(), child.uid)),
                }
            }
        }
        (delete, again_at)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
