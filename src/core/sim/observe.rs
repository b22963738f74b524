//! What an operator knows: levels from Redis and the Pods, what workers said of themselves, and two-step audits.

use std::sync::{Arc, LazyLock};

use super::super::job::{AttemptId, Job, TaskId};
use super::super::observed::{Ended, Held, Holding, Liveness, Observed, Pool, Search, Task};
use super::super::status::{Phase, PoolProblem, PoolProblemKind};
use super::broker::{Document, RESULT_EXPIRES, Sight};
use super::operator::Order;
use super::worker::Pod;
use super::world::World;
use super::{at, millis};

pub const AUDIT_EVERY: i64 = 20_000;

/// What an operator remembers of a job besides its status. It does not survive a restart.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    of: Option<TaskId>,
    /// What the marker says; everything here is about this delivery.
    marker: Option<u32>,
    enqueued_at: Option<i64>,
    /// Redis as it was last read for this job.
    known: Option<Sight>,
    seen: Option<Sighted>,
    /// Audits in a row that found no message.
    audits: u32,
    /// Whether everybody was asked after the last audit and denied it.
    denied: bool,
    /// What the last audit saw, to be asked about.
    audited: Option<Audited>,
    /// The receipt that everybody denied.
    nobody: Option<i64>,
    blind: bool,
}

/// A worker that was seen with a message. It gives its node name, which is its Pod's; when it was seen tells which
/// container that was.
#[derive(Debug, Clone, Copy)]
pub struct Sighted {
    pub generation: u32,
    pub pod: usize,
    pub seen_at: i64,
    pub began_at: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audited {
    Absent,
    InFlight { received_at: i64 },
}

/// A Pod as the watch had it when a pass began.
#[derive(Debug, Clone, Copy)]
pub struct PodSight {
    started_at: i64,
    /// When its last container terminated, if none runs.
    finished_at: Option<i64>,
    gone: bool,
}

impl PodSight {
    pub fn of(pod: &Pod) -> Self {
        Self { started_at: pod.started_at, finished_at: pod.finished_at, gone: pod.gone }
    }

    /// Whether the container that was seen then is surely dead: the Pod is gone, another container has started since,
    /// or this one has terminated since. A sighting after that may be of the next container.
    fn is_dead_since(&self, seen_at: i64) -> bool {
        self.gone || self.started_at > seen_at || self.finished_at.is_some_and(|finished_at| finished_at >= seen_at)
    }
}

impl Notes {
    /// The notes about this attempt; what was noted about another one is dropped.
    pub fn of(&mut self, task: TaskId) -> &mut Self {
        if self.of != Some(task) {
            *self = Self { of: Some(task), ..Self::default() };
        }
        self
    }

    /// A worker has it. Celery does not say which delivery; what is older than this one is about an earlier one.
    pub fn see(&mut self, pod: usize, sent_at: i64, seen_at: i64, began_at: Option<i64>) {
        if self.enqueued_at.is_none_or(|enqueued_at| sent_at >= enqueued_at) {
            self.seen = Some(Sighted { generation: self.marker.unwrap_or(0), pod, seen_at, began_at });
            self.nobody = None;
        }
    }

    /// Who had an earlier delivery, how often it was missed and who denied it says nothing about this one.
    fn is_at(&mut self, marker: Option<u32>) {
        if self.marker != marker {
            let seen = self.seen.filter(|seen| marker.is_none_or(|generation| generation == seen.generation));
            *self = Self {
                of: self.of,
                marker,
                enqueued_at: self.enqueued_at.filter(|_| marker.is_none()),
                seen,
                blind: self.blind,
                ..Self::default()
            };
        }
    }

    /// What was read does not hold any more, or may not.
    pub fn read_again(&mut self) {
        self.known = None;
    }

    /// A message was published: nobody has been asked about it yet.
    pub fn published(&mut self, id: AttemptId, now: i64) {
        let AttemptId { task, generation, number: _ } = id;
        *self = Self { of: Some(task), marker: Some(generation), enqueued_at: Some(now), ..Self::default() };
    }

    fn present(&mut self) {
        self.audits = 0;
        self.denied = false;
        self.blind = false;
    }
}

impl World {
    /// What `operator` sees of its job now, having seen the Pods before.
    pub fn observe(&mut self, operator: usize, job: usize, is: &Job, pods: &[PodSight]) -> Observed {
        static DOWN: LazyLock<PoolProblem> = LazyLock::new(|| PoolProblem {
            kind: PoolProblemKind::BrokerUnreachable,
            detail: "Redis cannot be reached".into(),
        });
        let of = is.attempt_in_hand().task;
        if self.broker.down {
            return Observed { pool: Pool::Unusable(DOWN.clone()), of, enqueued_at: None, task: Task::Unread };
        }
        self.note_blindness(operator);
        // As a rule the operator goes by what it read before: levels are read per pool and once in a while. A loss is
        // only believed of what was read after it was heard of: what the worker stored last must be seen.
        let known = self.operators[operator].notes.entry(job).or_default().of(of).known.clone();
        let mut seen = match known.filter(|_| self.rng.per_mille(300)) {
            Some(known) => self.understand(operator, job, is, pods, known),
            None => Task::Unread,
        };
        if seen == Task::Unread || is_loss(&seen) {
            let sight = self.broker.look(of);
            seen = self.understand(operator, job, is, pods, sight);
        }
        let enqueued_at = self.operators[operator].notes.get(&job).and_then(|notes| notes.enqueued_at).map(at);
        Observed { pool: Pool::Ready(Arc::clone(&self.facts)), of, enqueued_at, task: seen }
    }

    /// What Redis, the notes and the Pods say together.
    fn understand(&mut self, operator: usize, job: usize, is: &Job, pods: &[PodSight], sight: Sight) -> Task {
        let Self { operators, pods: names, now, .. } = self;
        let notes = operators[operator].notes.entry(job).or_default();
        notes.is_at(sight.marker.map(|marker| marker.generation));
        if notes.seen.is_none() {
            notes.seen = recorded_holder(is);
        }
        if let Some(Document::Started { pod }) = &sight.document
            && notes.seen.is_none_or(|seen| seen.pod != *pod || seen.began_at.is_none())
        {
            notes.see(*pod, *now, *now, Some(*now));
        }
        let task = read_task(notes, &sight, pods, names);
        notes.known = Some(sight);
        task
    }

    /// Results may have come and gone since Redis was last read: that is noted of every job before anything is decided.
    fn note_blindness(&mut self, operator: usize) {
        let it = &mut self.operators[operator];
        if self.now - it.read_at > RESULT_EXPIRES - AUDIT_EVERY {
            it.read_at = self.now;
            for (job, (_, is)) in &it.cache {
                it.notes.entry(*job).or_default().of(is.attempt_in_hand().task).blind = true;
            }
        }
    }

    /// The first half of an audit: looks for every message, and keeps what is in good hands from being put back.
    pub fn audit(&mut self, operator: usize) {
        self.order(operator, AUDIT_EVERY, Order::Audit);
        let Some(epoch) = self.operators[operator].epoch else { return };
        if self.broker.down {
            return;
        }
        self.note_blindness(operator);
        self.operators[operator].read_at = self.now;
        let hands: Vec<(usize, TaskId)> =
            self.operators[operator].cache.iter().map(|(job, (_, is))| (*job, is.attempt_in_hand().task)).collect();
        for (job, task) in hands {
            let sight = self.broker.look(task);
            let notes = self.operators[operator].notes.entry(job).or_default().of(task);
            notes.is_at(sight.marker.map(|marker| marker.generation));
            notes.denied = false;
            notes.known = Some(sight.clone());
            notes.audited = match (&sight.document, sight.in_flight, sight.queued) {
                (Some(Document::Ended { .. }), ..) => None,
                (_, None, Some(_)) => {
                    notes.present();
                    None
                }
                (_, Some(entry), _) => {
                    notes.present();
                    let tag = entry.message.tag();
                    if notes.seen.is_some_and(|seen| !PodSight::of(&self.pods[seen.pod]).is_dead_since(seen.seen_at)) {
                        self.broker.renew(epoch, tag);
                    }
                    Some(Audited::InFlight { received_at: entry.received_at })
                }
                (_, None, None) => Some(Audited::Absent),
            };
        }
        self.forget_strays(operator);
        self.order_after(operator, 50, 500, Order::Inspect);
    }

    /// The second half: asks every worker what it has. Some do not hear, some replies get lost.
    pub fn inspect(&mut self, operator: usize) {
        let lost = if self.chaos.deafness { 150 } else { 20 };
        let replied: Vec<bool> =
            (0..self.pods.len()).map(|pod| self.pods[pod].hears() && !self.rng.per_mille(lost)).collect();
        let Self { operators, pods, broker, now, .. } = self;
        let operator_is = &mut operators[operator];
        for (job, notes) in &mut operator_is.notes {
            let Some(of) = notes.of.filter(|_| operator_is.cache.contains_key(job)) else { continue };
            let mut denied = true;
            for (number, pod) in pods.iter().enumerate().filter(|(_, pod)| pod.up) {
                let copy = pod.copies.iter().find(|copy| copy.message.id.task == of);
                match (replied[number] && !broker.down, copy) {
                    (true, Some(copy)) => {
                        denied = false;
                        notes.see(number, *now, *now, copy.began_at);
                    }
                    (true, None) => {}
                    (false, _) => {
                        let came_later = matches!(notes.audited, Some(Audited::InFlight { received_at }) if pod.started_at > received_at);
                        denied &= came_later;
                    }
                }
            }
            match notes.audited.take() {
                Some(Audited::Absent) => {
                    notes.audits += 1;
                    notes.denied = denied;
                }
                Some(Audited::InFlight { received_at }) if denied => notes.nobody = Some(received_at),
                Some(Audited::InFlight { .. }) | None => {}
            }
        }
        if self.operators[operator].epoch == Some(self.api.lease.transitions) {
            // What this audit found is acted on only now; what the one before found, has been.
            self.api.lease.audited_at = self.now - AUDIT_EVERY;
        }
        self.look_at_all(operator, 0, 10);
    }
}

/// The holder that the status names: it outlives the operator that saw it.
fn recorded_holder(is: &Job) -> Option<Sighted> {
    let attempt = is.status.attempt.filter(|_| is.status.phase == Phase::Running)?;
    let container = is.status.worker.as_ref()?.container.as_ref()?;
    Some(Sighted {
        generation: attempt.generation,
        pod: container.pod.strip_prefix("worker-")?.parse().ok()?,
        seen_at: millis(container.started_at),
        began_at: attempt.started_at.map(millis),
    })
}

fn is_loss(task: &Task) -> bool {
    let is_dead = |held: &Held| matches!(held.by, Holding::By(_, Liveness::Dead) | Holding::Nobody);
    match task {
        Task::Held(held) => is_dead(held),
        Task::Absent(search) => search.denied || search.seen.as_ref().is_some_and(is_dead),
        Task::Unread | Task::Queued { .. } | Task::Withdrawn { .. } | Task::Ended(_) => false,
    }
}

fn read_task(notes: &mut Notes, sight: &Sight, pods: &[PodSight], names: &[Pod]) -> Task {
    let marker = sight.marker.map(|marker| marker.generation);
    let held = |seen: Sighted| {
        let dead = pods.get(seen.pod).is_some_and(|pod| pod.is_dead_since(seen.seen_at));
        let liveness = if dead { Liveness::Dead } else { Liveness::Alive };
        let holder = names[seen.pod].holder();
        Held {
            generation: seen.generation,
            started_at: seen.began_at.map(at),
            by: Holding::By(holder, liveness),
            celery_retries: 0,
            progress: None,
        }
    };
    if let Some(Document::Ended { how, pod }) = &sight.document {
        let worker = Some(names[*pod].holder());
        let started_at = notes.seen.and_then(|seen| seen.began_at).map(at);
        return Task::Ended(Ended {
            marker,
            how: how.clone(),
            worker,
            celery_retries: 0,
            started_at,
            finished_at: None,
        });
    }
    if let Some(entry) = sight.in_flight {
        notes.present();
        let generation = entry.message.id.generation;
        let attributed = notes.seen.filter(|seen| seen.generation == generation).map(held);
        let is_nobodys = notes.nobody == Some(entry.received_at);
        return Task::Held(match attributed {
            Some(held) if !is_nobodys => held,
            _ => {
                let by = if is_nobodys { Holding::Nobody } else { Holding::Unattributed };
                Held { generation, started_at: None, by, celery_retries: 0, progress: None }
            }
        });
    }
    if let Some(generation) = sight.queued {
        notes.present();
        return Task::Queued { generation };
    }
    if let Some(marker) = sight.marker.filter(|marker| marker.withdrawn) {
        return Task::Withdrawn { generation: marker.generation };
    }
    let seen = notes.seen.map(held);
    Task::Absent(Search { marker, audits: notes.audits, denied: notes.denied, seen, blind: notes.blind })
}
