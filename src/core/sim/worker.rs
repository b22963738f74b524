//! Pods with stock Celery workers, which misbehave as the real ones do: deaf while draining or solo and busy, putting their own running
//! job back after a connection blip, acking a shared tag, acking early, losing what they popped and did not yet enter.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::job::{SpecHash, TaskId};
use super::super::observed::Ending;
use super::super::status::{Container, Holder, TaskError};
use super::broker::{Document, Message, Tag};
use super::world::{Event, World};
use super::{at, say};

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
}

/// One Pod of the worker Deployment.
#[expect(clippy::struct_excessive_bools, reason = "each is so or not, whatever the others are")]
#[derive(Debug)]
pub struct Pod {
    pub name: Arc<str>,
    /// Which container runs, counted from 0; a restart in place is another one.
    pub container: u32,
    pub started_at: i64,
    /// When it terminated, until another one starts.
    pub finished_at: Option<i64>,
    /// Whether that container runs.
    pub up: bool,
    /// Whether the Pod object is gone.
    pub gone: bool,
    pub draining: bool,
    /// Acknowledges before it runs.
    pub early: bool,
    /// Sends no events and stores no STARTED.
    pub silent: bool,
    /// Runs tasks in its main loop, and hears nothing while it does.
    pub solo: bool,
    pub concurrency: usize,
    /// Popped and not yet entered in `unacked`: lost when the connection goes now.
    in_hand: Option<Message>,
    pub copies: Vec<Copy>,
    revoked: BTreeSet<TaskId>,
}

/// One message that a worker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    pub message: Message,
    /// Number of the run in the world's ledger, once it has begun.
    pub run: Option<usize>,
    pub began_at: Option<i64>,
    /// Whether it counts against the prefetch; not after the channel was closed.
    delivered: bool,
}

/// One run of a task, for the verdict.
#[derive(Debug, Clone)]
pub struct Run {
    pub job: usize,
    pub tag: Tag,
    pub spec: SpecHash,
    pub over: bool,
    pub outcome: Outcome,
    pub succeeded: bool,
    pub acked: bool,
}

impl Pod {
    pub fn new(number: usize, now: i64) -> Self {
        Self {
            name: format!("worker-{number}").into(),
            container: 0,
            started_at: now,
            finished_at: None,
            up: true,
            gone: false,
            draining: false,
            early: false,
            silent: false,
            solo: false,
            concurrency: 1,
            in_hand: None,
            copies: Vec::new(),
            revoked: BTreeSet::new(),
        }
    }

    fn is_hungry(&self) -> bool {
        let delivered = self.copies.iter().filter(|copy| copy.delivered).count();
        self.up && !self.draining && self.in_hand.is_none() && delivered < self.concurrency
    }

    /// Whether it answers and obeys right now.
    pub fn hears(&self) -> bool {
        self.up && !self.draining && !(self.solo && self.running() > 0)
    }

    fn running(&self) -> usize {
        self.copies.iter().filter(|copy| copy.run.is_some()).count()
    }

    /// Who that is to Kubernetes and Celery.
    pub fn holder(&self) -> Holder {
        Holder {
            node: format!("crew@{}", self.name).into(),
            container: Some(Container {
                pod: self.name.clone(),
                pod_uid: self.name.clone(),
                id: self.container.to_string().into(),
                started_at: at(self.started_at),
            }),
        }
    }
}

impl World {
    pub fn add_pod(&mut self) {
        let number = self.pods.len();
        let mut pod = Pod::new(number, self.now);
        pod.early = self.chaos.early_ack && self.rng.per_mille(500);
        pod.silent = self.chaos.silence && self.rng.per_mille(500);
        pod.solo = self.chaos.silence && self.rng.per_mille(400);
        pod.concurrency = if pod.solo { 1 } else { self.rng.one_of(&[1, 1, 2]) };
        say!(
            self,
            "{} comes up{}{}{}, concurrency {}",
            pod.name,
            if pod.early { ", acks early" } else { "" },
            if pod.silent { ", silent" } else { "" },
            if pod.solo { ", solo" } else { "" },
            pod.concurrency
        );
        self.pods.push(pod);
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
        let stalls = self.rng.per_mille(if self.chaos.kills || self.chaos.blips { 150 } else { 30 });
        let gap = if stalls { self.rng.between(100, 4_000) } else { 0 };
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
            self.pods[pod].in_hand = None; // the connection is gone, and the message with it
            return;
        }
        let Some(message) = self.pods[pod].in_hand.take() else { return };
        self.broker.hold(message);
        if self.pods[pod].revoked.contains(&message.id.task) {
            say!(self, "{} drops {}, which is revoked", self.pods[pod].name, self.name_of(message));
            self.broker.store(message.id.task, Document::Ended { how: Ending::Revoked, pod });
            self.broker.ack(message.tag());
            self.hint(message.job, message.id.task);
        } else {
            self.pods[pod].copies.push(Copy { message, run: None, began_at: None, delivered: true });
            self.announce(pod, message, None);
        }
        self.start_runs(pod);
        self.at(1, Event::Poll { pod });
    }

    /// Begins what is reserved while a process is free.
    fn start_runs(&mut self, pod: usize) {
        while self.pods[pod].up && self.pods[pod].running() < self.pods[pod].concurrency {
            let Some(index) = self.pods[pod].copies.iter().position(|copy| copy.run.is_none()) else { return };
            let message = self.pods[pod].copies[index].message;
            let run = self.begin_run(message);
            let copy = &mut self.pods[pod].copies[index];
            copy.run = Some(run);
            copy.began_at = Some(self.now);
            let Pod { container, early, silent, .. } = self.pods[pod];
            say!(self, "{} begins {} (run {run})", self.pods[pod].name, self.name_of(message));
            if early && !self.broker.down {
                self.broker.ack(message.tag());
            }
            if !silent && !self.broker.down {
                self.broker.store(message.id.task, Document::Started { pod });
                self.announce(pod, message, Some(self.now));
                self.hint(message.job, message.id.task);
            }
            let lasts = self.duration_of(message.job);
            self.at(lasts, Event::Finish { pod, container, run });
        }
    }

    /// A run is over: its document is stored.
    pub fn finish(&mut self, pod: usize, container: u32, run: usize) {
        if !self.is_container(pod, container) || !self.pods[pod].copies.iter().any(|copy| copy.run == Some(run)) {
            return;
        }
        if self.broker.down {
            self.at(500, Event::Finish { pod, container, run });
            return;
        }
        let Run { outcome, tag, job, .. } = self.runs[run];
        let how = match outcome {
            Outcome::Succeeds => Ending::Succeeded(self.result_of(job)),
            Outcome::Fails => Ending::Failed(TaskError::new("ValueError", "no luck", None)),
            Outcome::FailsForGood => Ending::Failed(TaskError::new("Fatal", "never again", None)),
            Outcome::KillsChild => Ending::ChildLost(TaskError::new("WorkerLostError", "signal 9", None)),
            Outcome::KillsContainer => {
                say!(self, "{} runs out of memory in run {run}", self.pods[pod].name);
                return self.kill_container(pod);
            }
        };
        say!(self, "{} stores {outcome:?} of run {run}", self.pods[pod].name);
        self.runs[run].over = true;
        self.runs[run].succeeded = outcome == Outcome::Succeeds;
        self.broker.store(tag.0, Document::Ended { how, pod });
        self.hint(job, tag.0);
        let gap = if self.chaos.kills && self.rng.per_mille(200) { self.rng.between(1, 800) } else { 0 };
        if gap == 0 {
            self.ack(pod, container, run);
        } else {
            self.at(gap, Event::Ack { pod, container, run });
        }
    }

    pub fn ack(&mut self, pod: usize, container: u32, run: usize) {
        if !self.is_container(pod, container) {
            return;
        }
        let Some(index) = self.pods[pod].copies.iter().position(|copy| copy.run == Some(run)) else { return };
        let copy = self.pods[pod].copies.remove(index);
        if !self.broker.down {
            self.runs[run].acked = true;
            self.broker.ack(copy.message.tag());
        }
        self.start_runs(pod);
        self.leave_when_drained(pod);
        self.at(1, Event::Poll { pod });
    }

    // === what goes wrong ===

    /// SIGKILL: memory is gone, `unacked` stays, the container restarts in place.
    pub fn kill_container(&mut self, pod: usize) {
        self.stop_container(pod);
        let container = self.pods[pod].container;
        if self.pods[pod].draining {
            self.pods[pod].gone = true;
        } else {
            // The kubelet looks every second, and then it takes a moment.
            self.after(1_100, 5_000, Event::Restart { pod, container });
        }
    }

    fn stop_container(&mut self, pod: usize) {
        for copy in std::mem::take(&mut self.pods[pod].copies) {
            if let Some(run) = copy.run {
                self.runs[run].over = true;
            }
        }
        let now = self.now;
        let pod = &mut self.pods[pod];
        pod.in_hand = None;
        pod.up = false;
        pod.finished_at = Some(now);
        pod.revoked.clear();
        self.wake_operators();
    }

    pub fn restart(&mut self, pod: usize, container: u32) {
        let now = self.now;
        let it = &mut self.pods[pod];
        if it.gone || it.up || it.container != container {
            return;
        }
        it.container += 1;
        it.started_at = now;
        it.finished_at = None;
        it.up = true;
        say!(self, "{} restarts in place", self.pods[pod].name);
        self.at(20, Event::Poll { pod });
    }

    /// The Pod is deleted by force, or its Node is gone; another Pod comes.
    pub fn delete_pod(&mut self, pod: usize) {
        say!(self, "{} is gone", self.pods[pod].name);
        self.stop_container(pod);
        self.pods[pod].gone = true;
        self.after(500, 5_000, Event::AddPod);
    }

    /// SIGTERM: what is reserved goes back, what runs is finished, and nobody hears of it any more.
    pub fn drain(&mut self, pod: usize) {
        if self.pods[pod].draining || !self.pods[pod].up {
            return;
        }
        say!(self, "{} is told to leave", self.pods[pod].name);
        self.pods[pod].draining = true;
        let reserved: Vec<Copy> = self.pods[pod].copies.extract_if(.., |copy| copy.run.is_none()).collect();
        for copy in reserved.iter().filter(|copy| copy.delivered) {
            self.broker.put_back(copy.message.tag(), false);
        }
        self.wake_workers();
        self.leave_when_drained(pod);
        self.after(500, 5_000, Event::AddPod);
    }

    fn leave_when_drained(&mut self, pod: usize) {
        if self.pods[pod].draining && self.pods[pod].copies.is_empty() {
            say!(self, "{} has left", self.pods[pod].name);
            self.stop_container(pod);
            self.pods[pod].gone = true;
        }
    }

    /// The connection is lost and made again: the closing channel puts back all that is not acknowledged, what runs
    /// included. What runs goes on.
    pub fn blip(&mut self, pod: usize) {
        if !self.pods[pod].up {
            return;
        }
        say!(self, "{} loses its connection for a moment", self.pods[pod].name);
        self.pods[pod].in_hand = None;
        let delivered: Vec<Copy> = self.pods[pod].copies.iter().filter(|copy| copy.delivered).cloned().collect();
        for copy in delivered {
            self.broker.put_back(copy.message.tag(), copy.run.is_some());
        }
        self.pods[pod].copies.retain(|copy| copy.run.is_some());
        for copy in &mut self.pods[pod].copies {
            copy.delivered = false;
        }
        self.wake_workers();
    }

    /// `revoke(terminate=True)` to every worker that listens.
    pub fn revoke(&mut self, task: TaskId) {
        for pod in 0..self.pods.len() {
            if !self.pods[pod].hears() || self.rng.per_mille(50) {
                continue;
            }
            self.pods[pod].revoked.insert(task);
            let runs = &self.runs;
            let is_it = |copy: &mut Copy| copy.message.id.task == task && copy.run.is_none_or(|run| !runs[run].over);
            let stopped: Vec<Copy> = self.pods[pod].copies.extract_if(.., is_it).collect();
            for copy in stopped {
                say!(self, "{} stops {}", self.pods[pod].name, self.name_of(copy.message));
                if let Some(run) = copy.run {
                    self.runs[run].over = true;
                }
                self.broker.store(task, Document::Ended { how: Ending::Revoked, pod });
                self.broker.ack(copy.message.tag());
                self.hint(copy.message.job, task);
            }
            self.start_runs(pod);
            self.at(1, Event::Poll { pod });
        }
    }

    fn is_container(&self, pod: usize, container: u32) -> bool {
        self.pods[pod].up && self.pods[pod].container == container
    }
}
