//! What is remembered of the attempt in hand besides the status: what Redis said last, what workers said of themselves,
//! and how thoroughly a message was looked for. It does not survive a restart, and need not.
//!
//! Everything here belongs to one delivery: one attempt, and one generation in its marker. Which worker had an earlier
//! delivery, how often that one was missed and which workers denied it says nothing about this one, so all of it goes
//! when the marker changes.

mod copies;
mod reports;
#[cfg(test)]
mod tests;
mod unconfirmed;

use jiff::Timestamp;

use super::id::{AttemptId, Priority, SpecHash, TaskId};
use super::observed::{Besides, Ended, Ending, Held, Holding, Liveness, Published, Search, Task};
use super::status::{Account, Holder, Phase, Status};

use reports::merge;
pub use reports::{Document, LastRun, Levels, Mark, Place, Report, Sighting};

/// Audits in a row in which all workers must deny a receipt before it counts as without a worker.
const DENIALS: u32 = 2;
/// How often a message that was not found is looked for soon, because that may settle where it is.
pub const SETTLED_AFTER: u32 = 4;

/// What is known of a job's attempt in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    of: TaskId,
    /// Generation in the marker, as far as it is known: everything else here is about this delivery.
    marker: Option<u32>,
    /// When this delivery was published, where we know.
    published_at: Option<Timestamp>,
    /// Digest of what was published.
    spec: Option<SpecHash>,
    /// The priority whose band the message is in.
    priority: Option<Priority>,
    /// That its worker is asked to stop it. In a box, as what few jobs need.
    stop: Option<Box<StopAsked>>,
    /// Where Redis had the message when it was last read; `None` when it must be read before anything is decided.
    place: Option<Found>,
    /// Copies besides, as they were when all messages were last looked at.
    besides: Besides,
    seen: Option<Box<Sighting>>,
    /// What its result document says in the end.
    over: Option<Box<Over>>,
    /// What it says although its message was not acknowledged by then.
    unconfirmed: Option<Box<Unconfirmed>>,
    /// Audits in a row that found no message.
    audits: u32,
    /// Since when workers are asked about it in vain.
    missed_since: Option<Box<Timestamp>>,
    /// Whether all workers were asked after the last audit and denied it.
    denied: bool,
    /// Audits in a row after which the worker that was seen with it has denied it.
    denials_by_holder: u32,
    /// What the last audit saw, until all workers have been asked about it. In a box, as most messages wait in a queue.
    awaiting_answers_about: Option<Box<Place>>,
    /// The receipt that was denied.
    denial: Option<Box<Denial>>,
    may_have_expired_unread: bool,
    /// Whether Redis was read after the holder was found dead.
    is_death_checked: bool,
}

/// That a worker is asked to stop a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StopAsked {
    /// Since when.
    at: Timestamp,
    /// When it was last asked.
    repeated_at: Timestamp,
}

/// A receipt that all workers have denied, or the worker that was seen with the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Denial {
    /// When the message was taken.
    received_at: Option<Timestamp>,
    /// In how many audits all workers have.
    times: u32,
    /// Whether the worker that was seen with the message has denied it itself.
    by_holder: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    At(Place),
    Withdrawn(u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Over {
    how: Ending,
    worker: Option<Holder>,
    celery_retries: u32,
    finished_at: Option<Timestamp>,
    account: Option<Box<Account>>,
}

/// An end state that a document names, of a message that was not acknowledged when it was last looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unconfirmed {
    over: Over,
    /// How often its message was looked up.
    looks: u32,
    /// When it is looked up next; `None` for at once.
    look_at: Option<Timestamp>,
}

impl Evidence {
    /// The evidence about this attempt; what is known of another one goes.
    pub fn about(&mut self, task: TaskId) -> &mut Self {
        if self.of != task {
            *self = Self::none(task);
        }
        self
    }

    /// Nothing is known of this attempt.
    pub fn none(of: TaskId) -> Self {
        Self {
            of,
            marker: None,
            published_at: None,
            spec: None,
            priority: None,
            stop: None,
            place: None,
            besides: Besides::default(),
            seen: None,
            over: None,
            unconfirmed: None,
            audits: 0,
            missed_since: None,
            denied: false,
            denials_by_holder: 0,
            awaiting_answers_about: None,
            denial: None,
            may_have_expired_unread: false,
            is_death_checked: false,
        }
    }

    /// This attempt has ended so, whatever became of its message.
    pub fn ended_with(of: TaskId, document: Document) -> Self {
        let mut evidence = Self::none(of);
        if let Document::Over { how, worker, celery_retries, finished_at, account } = document {
            evidence.over = Some(Box::new(Over { how, worker, celery_retries, finished_at, account }));
        }
        evidence
    }

    /// The end that a result document names, confirmed or not.
    pub fn heard_end(&self) -> Option<Document> {
        let over = self.over.as_deref().or(self.unconfirmed.as_deref().map(|unconfirmed| &unconfirmed.over))?;
        let Over { how, worker, celery_retries, finished_at, account } = over.clone();
        Some(Document::Over { how, worker, celery_retries, finished_at, account })
    }

    /// Nothing was published of this attempt.
    pub fn unsent(of: TaskId) -> Self {
        Self { place: Some(Found::At(Place::Nowhere)), ..Self::none(of) }
    }

    /// Which attempt this is about.
    pub fn of(&self) -> TaskId {
        self.of
    }

    /// Whether Redis must be read before anything is decided.
    pub fn is_unread(&self) -> bool {
        self.place.is_none() && self.over.is_none()
    }

    /// Whether a result document has said how the attempt ended.
    pub fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Bytes of the result that is held until the status is written.
    pub fn text_bytes(&self) -> usize {
        self.ending().map_or(0, Ending::text_bytes)
    }

    /// Leaves the result on Redis until the status is written.
    pub fn drop_text(&mut self) {
        if let Some(over) = &mut self.over {
            over.how.drop_text();
        }
        if let Some(unconfirmed) = &mut self.unconfirmed {
            unconfirmed.over.how.drop_text();
        }
    }

    /// Whether the message waits in a queue, as far as is known.
    pub fn is_queued(&self) -> bool {
        self.over.is_none() && matches!(self.place, Some(Found::At(place)) if place.is_queued())
    }

    /// Whether its message is, or may be, on Redis or with a worker.
    pub fn is_out(&self) -> bool {
        self.over.is_some()
            || self.seen.is_some()
            || matches!(self.place, Some(Found::At(place)) if place != Place::Nowhere)
    }

    /// Whether there ever was a message, as far as is known.
    pub fn is_published(&self) -> bool {
        self.marker.is_some() || self.published_at.is_some()
    }

    /// The worker that has the message, as far as is known.
    pub fn holder_now(&self) -> Option<&Holder> {
        let is_held = matches!(self.place, Some(Found::At(place)) if place.is_in_flight());
        self.holder().filter(|_| is_held && self.over.is_none())
    }

    /// The worker that was last seen with this delivery.
    pub fn holder(&self) -> Option<&Holder> {
        self.sighting().and_then(|seen| seen.report.holder.as_ref())
    }

    /// The worker that was last seen with this delivery, and when.
    pub fn sighting(&self) -> Option<&Sighting> {
        self.seen.as_deref()
    }

    /// When this delivery was published, where we know.
    pub fn published_at(&self) -> Option<Timestamp> {
        self.published_at
    }

    /// What is known of its publication.
    pub fn publication(&self) -> Published {
        Published { at: self.published_at, spec: self.spec, priority: self.priority }
    }

    /// Since when its worker is asked to stop it.
    pub fn stop_asked_at(&self) -> Option<Timestamp> {
        self.stop.as_ref().map(|stop| stop.at)
    }

    /// When its worker was last asked to stop it.
    pub fn stop_repeated_at(&self) -> Option<Timestamp> {
        self.stop.as_ref().map(|stop| stop.repeated_at)
    }

    // === what we do ===

    /// A message is about to be published. A fast worker speaks before Redis answers us, so this comes first.
    pub fn expect(&mut self, id: AttemptId, now: Timestamp) {
        *self = Self {
            marker: Some(id.generation),
            // Of a first delivery it proves nothing: the message may not get through.
            published_at: (id.generation > 0).then_some(now),
            place: Some(Found::At(Place::Queued { generation: id.generation })),
            ..Self::none(id.task)
        };
    }

    /// It was published.
    pub fn published(&mut self, at: Timestamp, spec: SpecHash, priority: Priority) {
        self.published_at = Some(at);
        self.spec = self.spec.or(Some(spec));
        self.priority = Some(priority);
    }

    /// We have moved it to the band of this priority, or it was not there to be moved any more.
    pub fn moved(&mut self, priority: Priority) {
        self.priority = Some(priority);
    }

    /// We have asked the workers to stop it.
    pub fn stop_asked(&mut self, now: Timestamp) {
        let first = || Box::new(StopAsked { at: now, repeated_at: now });
        self.stop.get_or_insert_with(first).repeated_at = now;
    }

    /// We have taken it off its queue.
    pub fn withdrawn(&mut self, generation: u32) {
        self.place = Some(Found::Withdrawn(generation));
    }

    /// What was read of Redis does not hold any more, or may not.
    pub fn unread(&mut self) {
        self.place = None;
        self.over = None;
        self.awaiting_answers_about = None;
    }

    /// The same, unless nothing was published.
    pub fn unread_if_published(&mut self) {
        if self.is_published() || self.is_out() {
            self.unread();
        }
    }

    /// No operator has watched for longer than results are kept.
    pub fn was_unwatched(&mut self) {
        self.may_have_expired_unread = true;
    }

    // === what we are told ===

    /// What the status tells: it outlives the operator that saw it.
    pub fn recall(&mut self, status: &Status) {
        let Some(attempt) = status.attempt.filter(|_| self.seen.is_none()) else { return };
        let Some(holder) = status.worker.as_deref().filter(|_| status.phase == Phase::Running) else { return };
        let said_at = holder.container.as_ref().map_or(attempt.enqueued_at, |container| container.started_at);
        let report = Report {
            holder: Some(holder.clone()),
            said_at,
            behind: 0,
            started_at: attempt.started_at,
            celery_retries: 0,
            progress: status.progress.as_deref().cloned(),
            account: None,
        };
        self.seen = Some(Box::new(Sighting { generation: attempt.generation, report }));
    }

    /// A worker speaks of it. Celery does not say which delivery it means: what was said, or begun, before this one was
    /// published is about an earlier one.
    pub fn hear(&mut self, report: Report) {
        let generation = self.marker.unwrap_or(0);
        let since = report.started_at.unwrap_or(report.said_at);
        let is_earlier = generation > 0 && self.published_at.is_some_and(|at| since < at);
        if is_earlier || self.over.is_some() {
            return;
        }
        if let Some(Found::At(place)) = &mut self.place {
            *place = place.taken(generation);
        }
        // No run begins before its message was published, though the clock of an unknown node may say so.
        let started_at = report.started_at.map(|began| self.published_at.map_or(began, |at| began.max(at)));
        self.see(Report { started_at, ..report });
    }

    /// A message says that its result document was stored. What is heard of a job that was published again may be about
    /// the delivery before, and where the answer to a publication was lost, what ran is not known: then only Redis
    /// itself knows.
    pub fn told(&mut self, document: Document, now: Timestamp) {
        let is_unknown = self.marker.is_some() && self.spec.is_none();
        if self.marker.unwrap_or(0) > 0 || is_unknown {
            return self.unread();
        }
        match document {
            Document::Running(report) => {
                self.unconfirmed = None;
                self.hear(report);
            }
            // The attempt is published again for this. A leader that was paused may hear it late: Redis was emptied
            // meanwhile, and it has published the first delivery once more, as no status told of it.
            Document::Over { how: Ending::ChildLost(_), .. } => self.unread(),
            Document::Over { how, worker, celery_retries, finished_at, account } => {
                self.told_of_end(Over { how, worker, celery_retries, finished_at, account }, now);
            }
        }
    }

    /// Redis was read.
    pub fn read(&mut self, levels: Levels) {
        let Levels { marker, place, besides, document } = levels;
        let before = if let Some(Found::At(place)) = self.place { Some(place) } else { None };
        self.is_at(marker);
        self.besides = besides.unwrap_or(self.besides);
        if place.is_queued() || place.is_of_another_run(before) {
            self.missed_since = None;
        }
        if place.is_of_another_run(before)
            && let Some(seen) = &mut self.seen
        {
            seen.report.started_at = None;
        }
        let withdrawn = marker.filter(|mark| mark.withdrawn && place == Place::Nowhere);
        self.place = Some(withdrawn.map_or(Found::At(place), |mark| Found::Withdrawn(mark.generation)));
        if place != Place::Nowhere {
            self.found();
        }
        match document {
            Some(Document::Over { how, worker, celery_retries, finished_at, account }) => {
                self.read_end(Over { how, worker, celery_retries, finished_at, account });
            }
            // It may be of the run before, and does not say when that began: a worker that is asked does.
            Some(Document::Running(report)) => {
                self.unconfirmed = None;
                let started_at = report.started_at.filter(|_| !place.is_of_another_run(None));
                self.note(Report { started_at, ..report });
            }
            None => self.read_without_document(),
        }
    }

    /// A document says that a run goes on. It does not say since when it says so: once its worker is known to run the
    /// task, it proves no more that the worker lives.
    fn note(&mut self, report: Report) {
        if self.is_by_an_earlier_container(&report) {
            return;
        }
        let is_told_before = |seen: &Report| seen.started_at.is_some() || report.started_at.is_none();
        let known = self.seen.as_ref().filter(|seen| is_told_before(&seen.report));
        let said_at =
            known.filter(|seen| seen.report.same_run_as(&report)).map_or(report.said_at, |seen| seen.report.said_at);
        self.see(Report { said_at, ..report });
    }

    /// A document names a node, not a container. Where the message is gone no later container has taken it: the one
    /// that was known to run it has written the document.
    fn is_by_an_earlier_container(&self, report: &Report) -> bool {
        let is_gone = self.place == Some(Found::At(Place::Nowhere));
        let known = self.seen.as_deref().filter(|seen| is_gone && seen.generation == self.marker.unwrap_or(0));
        known.is_some_and(|Sighting { report: seen, .. }| {
            let is_same_run = seen.node() == report.node() && report.celery_retries <= seen.celery_retries;
            seen.started_at.is_some() && is_same_run && !seen.same_run_as(report)
        })
    }

    /// The worker that was seen is now known by its container.
    pub fn attributed(&mut self, to: &Holder) {
        if let Some(holder) = self.seen.as_mut().and_then(|seen| seen.report.holder.as_mut())
            && holder.node == to.node
        {
            holder.container = holder.container.take().or_else(|| to.container.clone());
        }
    }

    fn see(&mut self, report: Report) {
        let generation = self.marker.unwrap_or(0);
        let before = self.seen.take().filter(|seen| seen.generation == generation).map(|seen| seen.report);
        let is_news = before.as_ref().is_none_or(|before| before.said_at < report.said_at);
        if is_news {
            self.denials_by_holder = 0;
            self.denial = None;
            self.missed_since = None;
            self.is_death_checked = false;
        }
        self.seen = Some(Box::new(Sighting { generation, report: merge(before, report) }));
    }

    /// Redis was read, as the first half of an audit: all workers are asked next, and then comes
    /// [`Evidence::answered`].
    pub fn audit(&mut self, levels: Levels) {
        let place = levels.place;
        self.read(levels);
        self.denied = false;
        let is_asked_about = self.over.is_none() && !place.is_queued();
        self.awaiting_answers_about = is_asked_about.then(|| Box::new(place));
    }

    /// A worker was asked, and says that it has it.
    pub fn claimed(&mut self, report: Report) {
        self.awaiting_answers_about = None;
        self.hear(report);
    }

    /// When the message was taken that all workers are to be asked about now.
    pub fn received_at(&self) -> Option<Timestamp> {
        self.awaiting_answers_about.as_deref().and_then(|place| place.received_at())
    }

    /// All workers were asked, and none has said that it has it: `denied` when all that could have it have answered,
    /// `denied_by_holder` when the worker that was seen with it has.
    pub fn answered(&mut self, denied: bool, denied_by_holder: bool) {
        match self.awaiting_answers_about.take().map(|place| *place) {
            Some(Place::Nowhere) => {
                self.audits += 1;
                self.denied = denied;
                self.denials_by_holder = if denied_by_holder { self.denials_by_holder + 1 } else { 0 };
                if denied || denied_by_holder {
                    self.ended_since_emptied(denied_by_holder);
                }
            }
            // Where there may be workers that are not asked, no number of denials says that none has it. What the worker
            // that was seen with it denies is left to kombu all the same.
            Some(place) if (denied || denied_by_holder) && place.is_in_flight() => {
                let received_at = place.received_at();
                let before = self.denials_of(received_at);
                let times = before.map_or(0, |before| before.times) + u32::from(denied);
                let by_holder = denied_by_holder || before.is_some_and(|denied| denied.by_holder);
                self.denial = Some(Box::new(Denial { received_at, times, by_holder }));
            }
            Some(_) | None => {}
        }
    }

    /// Since when no worker claims it, of all that were asked.
    pub fn missed_since(&mut self, now: Timestamp) -> Timestamp {
        **self.missed_since.get_or_insert_with(|| Box::new(now))
    }

    /// How often in a row it has been looked for in vain; `None` when it was found.
    pub fn misses(&self) -> Option<u32> {
        // Where Redis was emptied nothing tells of a publication, but a message that was asked about is missed.
        let is_awaited = self.is_published() || self.audits > 0;
        let is_absent = self.place == Some(Found::At(Place::Nowhere)) && is_awaited;
        match &self.denial {
            _ if self.over.is_some() => None,
            _ if is_absent => Some(self.audits),
            Some(denied) if denied.times > 0 => Some(denied.times),
            Some(_) | None => None,
        }
    }

    /// That this receipt was denied.
    fn denials_of(&self, received_at: Option<Timestamp>) -> Option<Denial> {
        self.denial.as_deref().copied().filter(|denied| denied.received_at == received_at)
    }

    /// The holder is dead, and its task's result document has been read since, and whether the message of this delivery
    /// is in flight: where it is not, it was acknowledged, and the task may go on by another one.
    pub fn death_checked(&mut self, document: Option<Document>, is_in_flight: bool) {
        self.is_death_checked = true;
        if !is_in_flight && matches!(self.place, Some(Found::At(Place::InFlight { .. }))) {
            self.unread();
        }
        match document {
            Some(Document::Over { how, worker, celery_retries, finished_at, account }) => {
                self.left_by_dead(Over { how, worker, celery_retries, finished_at, account }, is_in_flight);
            }
            // Another worker has it: the message was put back before the holder died.
            Some(Document::Running(report)) if self.holder().map(|dead| &dead.node) != report.node() => {
                self.note(report);
            }
            Some(Document::Running(_)) | None => {}
        }
    }

    /// Whether Redis must be read before this loss is believed: what a worker stored last must be seen.
    pub fn must_check(&self, task: &Task) -> bool {
        let is_dead = |held: &Held| matches!(held.by, Holding::By(_, Liveness::Dead));
        let dead = match task {
            Task::Held(held) => is_dead(held),
            Task::Absent(search) => search.seen.as_ref().is_some_and(is_dead),
            Task::Unread | Task::Queued { .. } | Task::Withdrawn { .. } | Task::GoesOn { .. } | Task::Ended(_) => false,
        };
        dead && !self.is_death_checked
    }

    /// Which worker had an earlier delivery, how often it was missed and which workers denied it says nothing about
    /// this one.
    fn is_at(&mut self, mark: Option<Mark>) {
        let marker = mark.map(|mark| mark.generation);
        if self.marker != marker {
            let seen = self.seen.take().filter(|seen| marker.is_none_or(|generation| generation == seen.generation));
            *self = Self {
                marker,
                published_at: self.published_at.filter(|_| marker.is_none()),
                spec: self.spec,
                stop: self.stop.take(),
                place: self.place,
                besides: self.besides,
                seen,
                unconfirmed: self.unconfirmed.take().filter(|_| marker.is_none()),
                may_have_expired_unread: self.may_have_expired_unread,
                ..Self::none(self.of)
            };
        }
        if let Some(mark) = mark {
            self.spec = mark.spec.or(self.spec);
            self.priority = Some(mark.priority);
            if mark.generation == 0 {
                self.published_at = self.published_at.or(Some(mark.at));
            }
        }
    }

    fn found(&mut self) {
        self.audits = 0;
        self.denied = false;
        self.denials_by_holder = 0;
        self.may_have_expired_unread = false;
    }

    // === what it comes to ===

    /// What is known, with what Kubernetes says of the worker that was seen.
    pub fn task(&self, liveness: impl Fn(&Sighting) -> (Holder, Liveness)) -> Task {
        if let Some(over) = self.over.as_deref() {
            return Task::Ended(self.ended(over));
        }
        match self.place {
            None => Task::Unread,
            Some(Found::Withdrawn(generation)) => Task::Withdrawn { generation },
            Some(Found::At(Place::Queued { generation })) => Task::Queued { generation },
            Some(Found::At(Place::CopyQueued)) => Task::Queued { generation: self.marker.unwrap_or(0) },
            Some(Found::At(Place::GoesOn)) => Task::GoesOn { generation: self.marker.unwrap_or(0) },
            Some(Found::At(place @ (Place::InFlight { .. } | Place::CopyInFlight { .. }))) => {
                let received_at = place.received_at();
                let ours = if let Place::InFlight { generation, .. } = place { Some(generation) } else { self.marker };
                let generation = ours.unwrap_or(0);
                let denied = self.denials_of(received_at).filter(|denied| denied.times >= DENIALS);
                let is_without_worker = denied.is_some();
                let seen = self.seen.as_ref().filter(|seen| seen.generation == generation);
                let held = match seen {
                    Some(seen) => {
                        let held = held(seen, &liveness);
                        // Silence is not denial: where it lives, it has to say that it does not have it. A document of
                        // a task that Celery is to run again names none.
                        let is_named = held.by != Holding::Unattributed;
                        let has_denied = held.is_lost() || !is_named || denied.is_some_and(|denied| denied.by_holder);
                        if is_without_worker && has_denied { Held { by: Holding::NoWorker, ..held } } else { held }
                    }
                    None => Held {
                        generation,
                        started_at: None,
                        by: if is_without_worker { Holding::NoWorker } else { Holding::Unattributed },
                        celery_retries: 0,
                        progress: None,
                        account: None,
                        has_stored_failure: false,
                    },
                };
                let held = Held { has_stored_failure: self.has_stored_failure(), ..held };
                let over = self.end_without_worker().filter(|_| held.by == Holding::NoWorker);
                over.map_or(Task::Held(held), |over| Task::Ended(self.ended(over)))
            }
            Some(Found::At(Place::Nowhere)) => Task::Absent(Search {
                marker: self.marker,
                audits: self.audits,
                denied: self.denied,
                seen: self.seen.as_ref().map(|seen| held(seen, &liveness)),
                denials_by_holder: self.denials_by_holder,
                may_have_expired_unread: self.may_have_expired_unread,
            }),
        }
    }

    fn ended(&self, Over { how, worker, celery_retries, finished_at, account }: &Over) -> Ended {
        Ended {
            marker: self.marker,
            how: how.clone(),
            worker: worker.clone(),
            celery_retries: *celery_retries,
            started_at: self.seen.as_ref().and_then(|seen| seen.report.started_at),
            finished_at: *finished_at,
            account: account.clone(),
        }
    }
}

fn held(seen: &Sighting, liveness: impl Fn(&Sighting) -> (Holder, Liveness)) -> Held {
    let Sighting { generation, report } = seen;
    let by = report.holder.as_ref().map_or(Holding::Unattributed, |_| {
        let (holder, liveness) = liveness(seen);
        Holding::By(holder, liveness)
    });
    Held {
        generation: *generation,
        started_at: report.started_at,
        by,
        celery_retries: report.celery_retries,
        progress: report.progress.clone(),
        account: report.account.clone(),
        has_stored_failure: false,
    }
}
