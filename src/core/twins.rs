//! Jobs that were submitted more than once: of those with one key, created within a window, one runs.
//!
//! That a job stands for its key is recorded in its status before anything is published. It may be recorded only after a
//! list of all jobs with that key has shown no other one that stands for it, or may come to. No other record is needed: of
//! two jobs, one was created before the other has made its list, and so is in it. So one of them waits for the other, or
//! gives way to it, whatever leaders there are.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::dedup::OnConflict;
use super::job::Job;
use super::once::earlier;
use super::status::{Phase, StoredResult, TaskError};

/// How soon the jobs with a key are listed again, if nothing is heard of the one that is waited for.
pub const AGAIN: Duration = Duration::from_secs(30);
/// The same where another job is to give way, as it does at once.
pub const SOON: Duration = Duration::from_secs(1);

/// Another job with the same key and pool, as it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twin {
    /// Its name.
    pub job: Arc<str>,
    /// Its UID.
    pub uid: Uuid,
    /// When it was created.
    pub created_at: Timestamp,
    /// Which job stands for the key, as its status says: itself, or the one that it is attached to.
    pub stands: Option<Uuid>,
    /// How it has ended, once it has.
    pub end: Option<TwinEnd>,
}

/// How a job has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinEnd {
    /// In which phase.
    pub phase: Phase,
    /// With what, if it succeeded.
    pub result: Option<Box<StoredResult>>,
    /// Why, if it failed.
    pub error: Option<Box<TaskError>>,
}

/// What a list of all jobs with the key means for one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Verdict {
    /// None was made.
    #[default]
    Unread,
    /// It stands for the key.
    Alone,
    /// Another job, created later, is to give way first.
    Undecided {
        /// Its name.
        by: Arc<str>,
        /// When that was read.
        read_at: Timestamp,
    },
    /// Another job stands for the key, or is to.
    Of {
        /// That job.
        twin: Box<Twin>,
        /// When that was read.
        read_at: Timestamp,
    },
}

impl Verdict {
    /// The same, to be asked for again soon.
    #[must_use]
    pub fn to_be_read_soon(self) -> Self {
        match self {
            Self::Of { twin, read_at } => Self::Of { twin, read_at: earlier(read_at, AGAIN.saturating_sub(SOON)) },
            known @ (Self::Unread | Self::Alone | Self::Undecided { .. }) => known,
        }
    }
}

impl Twin {
    fn is_older_than(&self, job: &Job) -> bool {
        (self.created_at, &self.job) < (job.created_at, &job.key.name)
    }
}

/// What the list of the jobs with its key means for a job that does not stand for it yet.
pub fn judge(job: &Job, twins: &[Twin], read_at: Timestamp) -> Verdict {
    let Some(dedup) = job.spec.dedup.as_deref() else { return Verdict::Alone };
    let replaces = dedup.on_conflict == OnConflict::Replace;
    let is_near = |twin: &Twin| {
        let apart = twin.created_at.duration_since(job.created_at).unsigned_abs();
        twin.uid != job.uid && apart < dedup.window
    };
    let has_stood = |twin: &Twin| twin.stands == Some(twin.uid);
    // One that is attached to another job waits for that, and may come to stand itself if that never stood.
    let awaited: Vec<Uuid> = twins.iter().filter(|it| has_stood(it) || it.end.is_none()).map(|it| it.uid).collect();
    let is_attached = |twin: &Twin| twin.stands.is_some_and(|uid| uid == job.uid || awaited.contains(&uid));
    let mut near: Vec<&Twin> = twins.iter().filter(|it| is_near(it)).collect();
    near.sort_by(|a, b| (a.created_at, &a.job).cmp(&(b.created_at, &b.job)));
    let stands = |twin: &Twin| has_stood(twin) && !(replaces && twin.end.is_some());
    let may_stand = |twin: &Twin| twin.end.is_none() && !has_stood(twin) && !is_attached(twin);
    let first = near.iter().find(|twin| stands(twin));
    let older = || near.iter().find(|twin| may_stand(twin) && twin.is_older_than(job));
    if let Some(twin) = first.or_else(older) {
        return Verdict::Of { twin: Box::new(Twin::clone(twin)), read_at };
    }
    match near.iter().find(|twin| may_stand(twin)) {
        Some(twin) => Verdict::Undecided { by: twin.job.clone(), read_at },
        None => Verdict::Alone,
    }
}

/// Whether the one that is to run in place of the other was created after it.
pub fn is_newer(job: &Job, twin: &Twin) -> bool {
    twin.is_older_than(job)
}

#[cfg(test)]
mod tests {
    use super::super::dedup::Dedup;
    use super::super::index::fixtures;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn job(name: &str, created: i64, on_conflict: OnConflict) -> Job {
        let mut job = fixtures::job("team", name, u128::from(name.as_bytes()[0]));
        job.created_at = at(created);
        let window = Duration::from_mins(1);
        job.spec.dedup = Some(Box::new(Dedup { key: "k".into(), window, on_conflict }));
        job
    }

    fn twin(name: &str, created: i64) -> Twin {
        let uid = Uuid::from_u128(u128::from(name.as_bytes()[0]));
        Twin { job: name.into(), uid, created_at: at(created), stands: None, end: None }
    }

    fn standing(name: &str, created: i64) -> Twin {
        let twin = twin(name, created);
        Twin { stands: Some(twin.uid), ..twin }
    }

    fn ended(twin: Twin) -> Twin {
        Twin { end: Some(TwinEnd { phase: Phase::Succeeded, result: None, error: None }), ..twin }
    }

    fn verdict(of: &Job, twins: &[Twin]) -> String {
        match judge(of, twins, at(0)) {
            Verdict::Unread => "unread".to_owned(),
            Verdict::Alone => "alone".to_owned(),
            Verdict::Undecided { by, .. } => format!("waits for {by}"),
            Verdict::Of { twin, .. } => format!("of {}", twin.job),
        }
    }

    #[test]
    fn the_oldest_stands_for_the_key_once_the_younger_ones_have_given_way() {
        let b = job("b", 10, OnConflict::Reject);
        assert_eq!(verdict(&b, &[twin("b", 10)]), "alone");
        assert_eq!(verdict(&b, &[twin("a", 10), twin("c", 11)]), "of a");
        assert_eq!(verdict(&b, &[twin("c", 11)]), "waits for c");
        assert_eq!(verdict(&b, &[ended(twin("c", 11)), ended(twin("a", 9))]), "alone", "they gave way, or never stood");
    }

    #[test]
    fn one_that_stands_for_the_key_is_the_first_whenever_it_was_created_and_however_it_ended() {
        let b = job("b", 10, OnConflict::Reject);
        assert_eq!(verdict(&b, &[twin("a", 9), standing("c", 11)]), "of c");
        assert_eq!(verdict(&b, &[ended(standing("a", 9))]), "of a");
    }

    #[test]
    fn one_that_is_attached_to_a_job_which_never_stood_may_come_to_stand_itself() {
        let attached = |it: Twin, to: &Twin| Twin { stands: Some(to.uid), ..it };
        let (b, a) = (job("b", 10, OnConflict::Attach), twin("a", 9));
        let c = attached(twin("c", 11), &a);
        assert_eq!(verdict(&b, &[c.clone(), a.clone()]), "of a", "both wait for it");
        assert_eq!(verdict(&b, &[c.clone(), ended(a.clone())]), "waits for c");
        assert_eq!(verdict(&b, std::slice::from_ref(&c)), "waits for c", "it was deleted");
        let stood = Twin { stands: Some(a.uid), ..ended(a) };
        assert_eq!(verdict(&b, &[c.clone(), stood]), "of a");
        assert_eq!(verdict(&b, &[Twin { stands: Some(b.uid), ..c }]), "alone", "that one waits for this");
        let older = attached(twin("a", 9), &twin("x", 8));
        assert_eq!(verdict(&b, &[older]), "of a");
    }

    #[test]
    fn jobs_outside_of_the_window_are_no_duplicates() {
        let b = job("b", 100, OnConflict::Reject);
        assert_eq!(verdict(&b, &[standing("a", 40), standing("c", 160)]), "alone");
        assert_eq!(verdict(&b, &[standing("a", 41)]), "of a");
    }

    #[test]
    fn one_that_replaces_others_does_not_care_for_those_that_have_ended() {
        let b = job("b", 10, OnConflict::Replace);
        assert_eq!(verdict(&b, &[ended(standing("a", 9))]), "alone");
        assert_eq!(verdict(&b, &[standing("a", 9)]), "of a");
    }

    /// Whatever two jobs see of each other, and in whichever order: not both come to stand for the key.
    #[test]
    fn of_two_jobs_that_list_and_record_in_any_order_one_stands_for_the_key() {
        // Each lists, then records; the second may be created before or after the first has listed.
        for (first, second) in [((1, "a"), (1, "b")), ((1, "b"), (1, "a")), ((1, "a"), (2, "b"))] {
            for is_created_late in [false, true] {
                let (one, other) =
                    (job(first.1, first.0, OnConflict::Reject), job(second.1, second.0, OnConflict::Reject));
                let seen_by_one = if is_created_late { vec![] } else { vec![twin(second.1, second.0)] };
                let one_stands = judge(&one, &seen_by_one, at(0)) == Verdict::Alone;
                for is_recorded in [false, true] {
                    let known =
                        if one_stands && is_recorded { standing(first.1, first.0) } else { twin(first.1, first.0) };
                    let other_stands = judge(&other, &[known], at(0)) == Verdict::Alone;
                    assert!(!(one_stands && other_stands));
                }
            }
        }
    }
}
