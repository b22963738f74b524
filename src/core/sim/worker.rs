//! Pods with Celery workers, and how they take messages.
//!
//! Stock ones misbehave as the real ones do: deaf while draining or solo and busy, putting their own running job back
//! after a connection blip, acking a shared tag, acking early, losing what they popped and did not yet enter. Leased
//! ones run nothing without a lease on its task id, and put aside what they may not run now: Celery's with the guard do
//! otherwise as stock ones do, native ones do not.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::id::{SpecHash, TaskId};
use super::super::observed::Ending;
use super::super::status::{Container, Holder};
use super::broker::{Document, Message, Tag};
use super::chaos::Fleet;
use super::world::{Event, World};
use super::{at, say};
use jiff::Timestamp;

/// How a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Succeeds,
    Fails,
    FailsForGood,
    /// The child process is killed; the worker lives and says so.
    KillsChild,
    /// The container is killed.
    KillsContainer,
    /// Celery publishes the same task once more, with a countdown or without. Native workers leave that to the operator.
    Retries,
    /// It is replaced by a chain of two: one that has another id, and then one with its own. Not by native workers.
    Replaces,
}

/// What runs in a Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Celery.
    Stock,
    /// Celery that runs a task only under a lease.
    Guarded,
    /// `crewjob worker`: runs a task only under a lease, takes a message in one step and ends its task in one, keeps
    /// what it has when its connection breaks, and hears until it has left.
    Native,
}

/// One Pod of the worker Deployment.
#[expect(clippy::struct_excessive_bools, reason = "each is so or not, whatever the others are")]
#[derive(Debug)]
pub struct Pod {
    pub name: Arc<str>,
    /// Which container runs, counted from 0; a restart in place is another one.
    pub container: u32,
    pub started_at: i64,
    /// How far the clock of its node is ahead, in milliseconds: by it the kubelet and the worker tell times.
    pub ahead: i64,
    /// When it terminated, until another one starts.
    pub finished_at: Option<i64>,
    /// Whether that container runs.
    pub up: bool,
    /// Whether the Pod object is gone.
    pub gone: bool,
    pub draining: bool,
    pub kind: Kind,
    /// Acknowledges before it runs.
    pub early: bool,
    /// Sends no events and stores no STARTED.
    pub silent: bool,
    /// Runs tasks in its main loop, and hears nothing while it does.
    pub solo: bool,
    pub concurrency: usize,
    /// Popped and not yet entered in `unacked`: lost when the connection goes now.
    pub in_hand: Option<Message>,
    pub copies: Vec<Copy>,
    /// What it had put aside when its connection broke: it says that it has it, until it finds out.
    pub imagined: Vec<(u32, TaskId)>,
    pub revoked: BTreeSet<TaskId>,
    /// How many copies it has ever had.
    received: u32,
}

/// One message that a worker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    pub message: Message,
    /// Which of the copies that its worker has ever had.
    pub number: u32,
    /// Number of the run in the world's ledger, once it has begun.
    pub run: Option<usize>,
    pub began_at: Option<i64>,
    /// Whether it is its worker's to give back; not after the channel was closed.
    pub delivered: bool,
    pub waits: Waits,
    /// Whether the run before had the time to renew its lease.
    pub gave_time: bool,
}

/// What a copy waits for that has not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// A free process.
    InLine,
    /// The end of another run's lease: put aside, it takes no process and counts against no limit.
    Aside,
    /// Its turn by the rate limit of its task: it counts as taken, and its worker denies to have it.
    Limited,
    /// A free process, after it was put aside.
    AgainInLine,
}

impl Waits {
    /// Whether it waits for something else than a process.
    pub fn is_put_aside(self) -> bool {
        matches!(self, Self::Aside | Self::Limited)
    }
}

/// What a worker says of a task that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub began_at: Option<i64>,
    /// Not that it says so.
    pub is_aside: bool,
}

/// What a run is of that is none of a job's own task.
pub const NO_JOB: usize = usize::MAX;

/// One run of a task, for the verdict.
#[derive(Debug, Clone)]
pub struct Run {
    /// Which job; [`NO_JOB`] of one that another task was replaced by.
    pub job: usize,
    pub tag: Tag,
    pub spec: SpecHash,
    pub over: bool,
    pub outcome: Outcome,
    pub succeeded: bool,
    /// What its task has stored itself on its way.
    pub noted: Option<Ending>,
    pub began_at: i64,
    /// When its result was stored.
    pub stored_at: Option<i64>,
    /// Whether it has a lease.
    pub leased: bool,
    pub retries: u32,
}

impl Pod {
    pub fn new(number: usize, now: i64) -> Self {
        Self {
            name: format!("worker-{number}").into(),
            container: 0,
            started_at: now,
            ahead: 0,
            finished_at: None,
            up: true,
            gone: false,
            draining: false,
            kind: Kind::Stock,
            early: false,
            silent: false,
            solo: false,
            concurrency: 1,
            in_hand: None,
            copies: Vec::new(),
            imagined: Vec::new(),
            revoked: BTreeSet::new(),
            received: 0,
        }
    }

    fn is_hungry(&self) -> bool {
        let counts = |copy: &&Copy| copy.delivered && copy.waits != Waits::Aside;
        let delivered = self.copies.iter().filter(counts).count();
        self.up && !self.draining && self.in_hand.is_none() && delivered < self.concurrency
    }

    /// Whether it runs a task only under a lease.
    pub fn is_leased(&self) -> bool {
        self.kind != Kind::Stock
    }

    pub fn is_native(&self) -> bool {
        self.kind == Kind::Native
    }

    /// Whether it answers and obeys right now; not between the two halves of a receipt.
    pub fn hears(&self) -> bool {
        let is_deaf = self.draining && !self.is_native() || self.solo && self.running() > 0;
        self.up && !is_deaf && self.in_hand.is_none()
    }

    /// What it says of a task when it is asked; `None` if it denies to have it. What is put aside is here as well.
    pub fn answer(&self, task: TaskId) -> Option<Answer> {
        let is_shown = |copy: &&Copy| copy.message.is_of(task) && copy.waits != Waits::Limited;
        let copy = self.copies.iter().find(is_shown);
        let is_imagined = self.imagined.iter().any(|(_, imagined)| *imagined == task);
        let imagined = is_imagined.then_some(Answer { began_at: None, is_aside: true });
        copy.map(|copy| Answer { began_at: copy.began_at, is_aside: copy.waits == Waits::Aside }).or(imagined)
    }

    pub fn running(&self) -> usize {
        self.copies.iter().filter(|copy| copy.run.is_some()).count()
    }

    /// Its identity in Kubernetes and Celery.
    pub fn holder(&self) -> Holder {
        Holder {
            node: format!("crew@{}", self.name).into(),
            container: Some(Container {
                pod: self.name.clone(),
                pod_uid: self.name.clone(),
                id: self.container.to_string().into(),
                started_at: self.told(self.started_at),
            }),
        }
    }

    /// A time as the clock of its node has it.
    pub fn told(&self, millis: i64) -> Timestamp {
        at(millis + self.ahead)
    }
}

impl World {
    pub fn add_pod(&mut self) {
        let number = self.pods.len();
        let mut pod = Pod::new(number, self.now);
        pod.kind = match self.chaos.fleet {
            Fleet::Stock => Kind::Stock,
            Fleet::Leased => self.rng.one_of(&[Kind::Guarded, Kind::Native]),
            Fleet::Mixed => self.rng.one_of(&[Kind::Stock, Kind::Stock, Kind::Guarded, Kind::Native]),
        };
        pod.early = !pod.is_leased() && self.chaos.early_ack && self.rng.per_mille(500);
        pod.silent = self.chaos.silence && self.rng.per_mille(500);
        pod.solo = !pod.is_native() && self.chaos.silence && self.rng.per_mille(400);
        pod.concurrency = if pod.solo { 1 } else { self.rng.one_of(&[1, 1, 2]) };
        // A clock that nothing is heard of is not known.
        if self.chaos.skew && !pod.silent && self.rng.per_mille(600) {
            pod.ahead = self.rng.between(-600_000, 600_000);
            self.count("clock off");
        }
        say!(
            self,
            "{} comes up, {:?}{}{}{}, concurrency {}, clock {} ms ahead",
            pod.name,
            pod.kind,
            if pod.early { ", acks early" } else { "" },
            if pod.silent { ", silent" } else { "" },
            if pod.solo { ", solo" } else { "" },
            pod.concurrency,
            pod.ahead
        );
        self.pods.push(pod);
        self.tell_pod(number);
        self.after(5, 50, Event::Poll { pod: number });
    }

    /// Wakes the workers that wait in BRPOP.
    pub fn wake_workers(&mut self) {
        for pod in 0..self.pods.len() {
            if self.pods[pod].is_hungry() {
                self.after(1, 15, Event::Poll { pod });
            }
        }
    }

    pub fn poll(&mut self, pod: usize) {
        if !self.pods[pod].is_hungry() {
            return;
        }
        let Some(message) = self.broker.pop() else { return };
        say!(self, "{} pops {}", self.pods[pod].name, self.name_of(message));
        self.pods[pod].in_hand = Some(message);
        let container = self.pods[pod].container;
        let stalls = self.rng.per_mille(match (self.chaos.kills, self.chaos.blips) {
            (true, true) => 400,
            (true, false) | (false, true) => 150,
            (false, false) => 30,
        });
        let gap = if stalls && !self.pods[pod].is_native() { self.rng.between(100, 4_000) } else { 0 };
        if gap == 0 {
            self.enter(pod, container);
        } else {
            self.at(gap, Event::Enter { pod, container });
        }
    }

    /// The second half of a receipt: into `unacked`.
    pub fn enter(&mut self, pod: usize, container: u32) {
        if !self.is_container(pod, container) {
            return;
        }
        if self.broker.down {
            self.lose_in_hand(pod); // the connection is gone, and the message with it
            return;
        }
        let Some(message) = self.pods[pod].in_hand.take() else { return };
        self.broker.hold(message, self.pods[pod].ahead);
        if self.pods[pod].revoked.contains(&message.id.task) {
            say!(self, "{} drops {}, which is revoked", self.pods[pod].name, self.name_of(message));
            let retries = message.retries;
            if message.is_follower {
                self.losses.hit([message.job]); // that is all that an operator can make of it
            } else {
                self.broker.store(message.id.task, Document::Ended { how: Ending::Revoked, pod, retries });
            }
            self.broker.ack(message.tag());
            self.hint(message.id.task);
        } else {
            let it = &mut self.pods[pod];
            it.received += 1;
            let number = it.received;
            it.copies.push(Copy {
                message,
                number,
                run: None,
                began_at: None,
                delivered: true,
                waits: Waits::InLine,
                gave_time: false,
            });
            if !message.is_follower {
                self.announce(pod, message, None);
            }
        }
        self.start_runs(pod);
        self.at(1, Event::Poll { pod });
    }

    pub fn is_container(&self, pod: usize, container: u32) -> bool {
        self.pods[pod].up && self.pods[pod].container == container
    }
}
