//! What an operator knows: levels from Redis and the Pods, what workers said of themselves, and two-step audits.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;

use super::super::evidence::{Document, Evidence, LastRun, Levels, Mark, Place, Sighting, Word};
use super::super::id::TaskId;
use super::super::job::Job;
use super::super::observed::{Liveness, Observed, PodDeletion, Pool, Published, Task};
use super::super::status::{Holder, PoolProblem, PoolProblemKind};
use super::at;
use super::broker::{self, RESULT_EXPIRES, Sight};
use super::operator::{Operator, Order};
use super::worker::{Answer, Pod};
use super::world::World;

pub const AUDIT_EVERY: i64 = 20_000;
/// How soon a message that was not found is looked for again.
const AUDIT_AGAIN: i64 = 3_000;

/// A Pod as the watch had it when a pass began.
#[derive(Debug, Clone, Copy)]
pub struct PodSight {
    /// Which container ran last.
    container: u32,
    last_run: LastRun,
    gone: bool,
}

impl PodSight {
    pub fn of(pod: &Pod) -> Self {
        let last_run =
            LastRun { started_at: pod.told(pod.started_at), finished_at: pod.finished_at.map(|at| pod.told(at)) };
        Self { container: pod.container, last_run, gone: pod.gone }
    }

    fn is_dead(&self, seen: &Word) -> bool {
        let container = seen.holder.as_ref().and_then(|holder| holder.container.as_ref());
        let is_it = container.is_some_and(|container| *container.id == *self.container.to_string());
        self.gone || self.last_run.is_over_since(seen.said_at_its_node(), is_it)
    }
}

impl Operator {
    /// What it remembers of a job's attempt in hand.
    pub fn evidence(&mut self, job: usize, of: TaskId) -> &mut Evidence {
        self.notes.entry(job).or_insert_with(|| Evidence::none(of)).about(of)
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
        if self.broker.down || !self.operators[operator].connected {
            return Observed {
                pool: Pool::Unusable(DOWN.clone()),
                of,
                published: Published::default(),
                stop_asked_at: None,
                pod_deletion: PodDeletion::Useless,
                task: Task::Unread,
            };
        }
        self.note_blindness(operator);
        // As a rule the operator goes by what it read before: levels are read per pool and once in a while. Before a
        // death is believed, what the worker stored last is read, but not where the message is.
        let is_fresh = self.rng.per_mille(self.chaos.fresh);
        let notes = self.operators[operator].evidence(job, of);
        notes.recall(&is.status);
        if is_fresh {
            notes.unread();
        }
        let mut seen = self.understand(operator, job, pods);
        if seen == Task::Unread {
            let levels = self.levels(operator, of);
            self.operators[operator].evidence(job, of).read(levels);
            seen = self.understand(operator, job, pods);
        }
        if self.operators[operator].evidence(job, of).must_check(&seen) {
            self.check_death(operator, job, of);
            seen = self.understand(operator, job, pods);
        }
        let notes = self.operators[operator].evidence(job, of);
        let (published, stop_asked_at) = (notes.publication(), notes.stop_asked_at());
        let pod_deletion = self.pod_deletion(operator, job);
        let pool = Pool::Ready(Arc::clone(&self.facts));
        Observed { pool, of, published, stop_asked_at, pod_deletion, task: seen }
    }

    /// The holder is dead: what it stored last is read. Where it had not begun, only an audit can tell where the
    /// message is.
    fn check_death(&mut self, operator: usize, job: usize, of: TaskId) {
        let said = self.broker.document(of).map(|document| self.heard_of(operator, self.told(document)));
        let notes = self.operators[operator].evidence(job, of);
        let has_begun = notes.sighting().is_some_and(|seen| seen.word.started_at.is_some());
        notes.death_checked(said);
        if !has_begun {
            self.plan_audit(operator, 10);
        }
    }

    /// What is known, with what the Pods say.
    fn understand(&self, operator: usize, job: usize, pods: &[PodSight]) -> Task {
        let Some(notes) = self.operators[operator].notes.get(&job) else { return Task::Unread };
        notes.task(|seen| {
            let holder = seen.word.holder.clone().unwrap();
            let pod = pods.get(pod_of(&holder));
            let dead = pod.is_some_and(|pod| pod.is_dead(&seen.word));
            (holder, if dead { Liveness::Dead } else { Liveness::Alive })
        })
    }

    /// What Redis says of an attempt now.
    fn levels(&self, operator: usize, task: TaskId) -> Levels {
        let Sight { marker, queued, in_flight, document } = self.broker.look(task);
        let place = match (in_flight, queued) {
            (Some(entry), _) => {
                let generation = entry.message.id.generation;
                Place::InFlight { generation, received_at: Some(at(entry.score)) }
            }
            (None, Some(generation)) => Place::Queued { generation },
            (None, None) => Place::Nowhere,
        };
        let marker = marker.map(|marker| Mark {
            generation: marker.generation,
            withdrawn: marker.withdrawn,
            at: at(marker.at),
            spec: Some(marker.spec),
            priority: marker.priority,
        });
        Levels { marker, place, document: document.map(|document| self.heard_of(operator, self.told(&document))) }
    }

    /// A result document as operators read it.
    pub fn told(&self, document: &broker::Document) -> Document {
        match document {
            broker::Document::Started { pod } => Document::Running(self.word(*pod, at(self.now), Some(at(self.now)))),
            broker::Document::Ended { how, pod } => Document::Over {
                how: how.clone(),
                worker: Some(self.pods[*pod].holder()),
                celery_retries: 0,
                finished_at: None,
            },
        }
    }

    /// What is said by a worker, with what the operator knows of its clock.
    pub fn heard_of(&self, operator: usize, document: Document) -> Document {
        match document {
            Document::Running(mut word) => {
                let node = word.holder.as_ref().map(|holder| &*holder.node);
                word.behind = node.map_or(0, |node| self.operators[operator].clocks.behind(node));
                Document::Running(word)
            }
            over @ Document::Over { .. } => over,
        }
    }

    /// What a worker says of a task that it has.
    pub fn word(&self, pod: usize, said_at: Timestamp, started_at: Option<Timestamp>) -> Word {
        Word {
            holder: Some(self.pods[pod].holder()),
            said_at,
            behind: 0,
            started_at,
            celery_retries: 0,
            progress: None,
        }
    }

    /// Results may have come and gone since Redis was last read: that is noted of every job before anything is decided.
    fn note_blindness(&mut self, operator: usize) {
        let it = &mut self.operators[operator];
        if self.now - it.read_at > RESULT_EXPIRES - AUDIT_EVERY {
            it.read_at = self.now;
            for (job, (_, is)) in &it.cache {
                let of = is.attempt_in_hand().task;
                it.notes.entry(*job).or_insert_with(|| Evidence::none(of)).about(of).was_unwatched();
            }
        }
    }

    /// The first half of an audit: looks for every message.
    pub fn audit(&mut self, operator: usize) {
        self.plan_audit(operator, AUDIT_EVERY);
        if self.broker.down || !self.operators[operator].connected {
            return;
        }
        self.note_blindness(operator);
        self.operators[operator].read_at = self.now;
        let hands: Vec<(usize, TaskId)> =
            self.operators[operator].cache.iter().map(|(job, (_, is))| (*job, is.attempt_in_hand().task)).collect();
        for (job, task) in hands {
            let levels = self.levels(operator, task);
            self.operators[operator].evidence(job, task).audit(levels);
        }
        self.forget_strays(operator);
        self.order_after(operator, 50, 500, Order::Inspect);
    }

    /// Whether the Pod of the job's worker runs one task at a time, as far as the pool's settings tell, and stays.
    fn pod_deletion(&self, operator: usize, job: usize) -> PodDeletion {
        let holder = self.operators[operator].notes.get(&job).and_then(Evidence::holder);
        match holder.map(|holder| &self.pods[pod_of(holder)]) {
            Some(pod) if pod.concurrency == 1 && !pod.draining => PodDeletion::Fine,
            Some(_) | None => PodDeletion::Useless,
        }
    }

    fn is_in_good_hands(&self, notes: &Evidence) -> bool {
        let Some(seen) = notes.sighting() else { return false };
        let Some(holder) = &seen.word.holder else { return false };
        !PodSight::of(&self.pods[pod_of(holder)]).is_dead(&seen.word)
    }

    /// The second half: asks every worker what it has, and keeps what is in good hands from being put back. Some do not
    /// hear, some replies get lost.
    pub fn inspect(&mut self, operator: usize) {
        let lost = if self.chaos.deafness { 150 } else { 20 };
        let replied: Vec<bool> =
            (0..self.pods.len()).map(|pod| self.pods[pod].hears() && !self.rng.per_mille(lost)).collect();
        let asked: Vec<(usize, TaskId, Option<Timestamp>)> = self.operators[operator]
            .notes
            .iter()
            .filter(|(job, _)| self.operators[operator].cache.contains_key(job))
            .map(|(job, notes)| (*job, notes.of(), notes.received_at()))
            .collect();
        for (job, of, received_at) in asked {
            let denied = self.ask(operator, job, of, received_at, &replied);
            let replied = |seen: &Sighting| {
                let holder = seen.word.holder.as_ref().map(pod_of);
                holder.is_some_and(|pod| self.pods[pod].up && replied[pod] && !self.broker.down)
            };
            let disowned = self.operators[operator].notes.get(&job).and_then(Evidence::sighting).is_some_and(replied);
            self.operators[operator].evidence(job, of).answered(denied, disowned);
            let notes = &self.operators[operator].notes[&job];
            if let Some(generation) = notes.kept().filter(|_| self.is_in_good_hands(notes)) {
                self.broker.renew((of, generation));
            }
        }
        if self.operators[operator].epoch == Some(self.api.lease.transitions) {
            // What this audit found is acted on only now; what the one before found, has been.
            self.api.lease.audited_at = self.now - AUDIT_EVERY;
        }
        if self.operators[operator].notes.values().any(|it: &Evidence| it.misses().is_some()) {
            self.plan_audit(operator, AUDIT_AGAIN);
        }
        self.look_at_all(operator, 0, 10);
    }

    /// Asks every worker for a task: whether all that could have it have denied it.
    fn ask(
        &mut self,
        operator: usize,
        job: usize,
        of: TaskId,
        received_at: Option<Timestamp>,
        replied: &[bool],
    ) -> bool {
        let mut denied = true;
        let spread = self.operators[operator].clocks.spread(at(self.now));
        for (pod, replied) in replied.iter().enumerate() {
            let it = &self.pods[pod];
            match (it.up, *replied && !self.broker.down, it.answer(of)) {
                (true, true, Some(Answer { began_at, is_aside })) => {
                    denied = false;
                    let (node, now) = (self.pods[pod].holder().node, at(self.now));
                    let clocks = &self.operators[operator].clocks;
                    let began_at = began_at.map(|began| clocks.ours(&node, self.pods[pod].told(began), now));
                    let word = Word { behind: clocks.behind(&node), ..self.word(pod, now, began_at) };
                    self.operators[operator].evidence(job, of).claimed(word);
                    if is_aside {
                        self.count("asked while it is put aside");
                    }
                }
                (true, false, _) => {
                    let latest = received_at.and_then(|at| at.checked_add(spread).ok());
                    denied &= latest.is_some_and(|latest| it.told(it.started_at) > latest);
                }
                (false, ..) | (true, true, None) => {}
            }
        }
        denied
    }
}

/// Which Pod that is.
fn pod_of(holder: &Holder) -> usize {
    holder.node.strip_prefix("crew@worker-").unwrap().parse().unwrap()
}
