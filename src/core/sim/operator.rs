//! Two operators as the real one works: a Lease between them, hints that get lost, one pass per job at a time.

use std::collections::{BTreeMap, BTreeSet};

use super::super::claims::clocks::Clocks;
use super::super::evidence::{Document, Evidence, Word};
use super::super::id::TaskId;
use super::super::job::Job;
use super::broker::Message;
use super::pass::Pass;
use super::scripts::Reply;
use super::world::{Event, World};
use super::{at, say};

const LEASE: i64 = 10_000;
const TICK: i64 = 2_000;
/// How often a worker says that it is there.
const HEARTBEAT: i64 = 2_000;
/// A claim that was not renewed for so long is not acted on.
const STALE_CLAIM: i64 = 5_500;

/// One of the two processes.
#[derive(Debug, Default)]
pub struct Operator {
    /// How often it was started; what was meant for an earlier life is dropped.
    pub life: u32,
    pub up: bool,
    boots_at: i64,
    pub paused_until: i64,
    /// The fencing epoch, while it believes that it leads.
    pub epoch: Option<u64>,
    /// When it last renewed its claim on the Lease.
    renewed_at: i64,
    /// Whether it has a connection to Redis, over which it has raised the fence.
    pub connected: bool,
    /// Unfinished jobs as its watch and its own writes have them.
    pub cache: BTreeMap<usize, (u64, Job)>,
    pub notes: BTreeMap<usize, Evidence>,
    /// The clocks of workers, as far as it has heard them.
    pub clocks: Clocks,
    /// When it last read Redis, or a leader before it completed an audit.
    pub read_at: i64,
    pub passes: BTreeMap<usize, Pass>,
    /// Jobs that a hint came for during their pass.
    pub again: BTreeSet<usize>,
    /// Jobs whose end is being written: that they leave the watch is no news.
    pub closing: BTreeSet<usize>,
    /// Jobs that it has seen as they were created, and nothing since: their first message needs no live look.
    pub fresh: BTreeSet<usize>,
    /// Jobs that it knows to have ended: what the watch still says of them is old.
    pub ended: BTreeSet<usize>,
    /// Jobs that were deleted, as long as something of them is left on Redis.
    pub deleted: BTreeSet<usize>,
    /// When its watch delivers what it has to deliver till now: in order.
    pub watched_until: i64,
    /// How many audits were planned: only the last of them takes place.
    audits: u32,
}

/// What an operator does next.
#[derive(Debug, Clone)]
pub enum Order {
    /// Renews the Lease, or tries to get it.
    Tick,
    /// Begins an audit, unless another one was planned since.
    Audit { number: u32 },
    /// Ends an audit.
    Inspect,
    /// Begins a pass over a job.
    Look { job: usize },
    /// Goes on with a pass.
    Step { job: usize },
    /// The watch says what the job is.
    Watch { job: usize, version: u64, is: Box<Job> },
    /// The watch says that the job was deleted, with its old content: it does not meet the selector any more.
    Left { job: usize, was: Box<Job> },
    /// The answer to a GET of the job comes.
    Live { job: usize },
    /// The watch was broken, and everything is listed again.
    List,
    /// Redis is connected again, or found not to be what it was.
    Reconnect { was_cut_off: bool },
    /// The workers' heartbeats.
    Heartbeats,
    /// A worker's event.
    Hear(Heard),
    /// A result document, as it was when it was stored.
    Told { job: usize, task: TaskId, document: Box<Document> },
}

/// What a worker's event says.
#[derive(Debug, Clone)]
pub struct Heard {
    job: usize,
    task: TaskId,
    pod: usize,
    sent_at: i64,
    began_at: Option<i64>,
}

impl World {
    /// Something for an operator to do, unless that life of it is over.
    pub fn operate(&mut self, operator: usize, life: u32, order: Order) {
        let it = &self.operators[operator];
        if it.life != life || !it.up {
            return;
        }
        if it.paused_until > self.now {
            let wait = it.paused_until - self.now;
            return self.at(wait, Event::Operate { operator, life, order });
        }
        match order {
            Order::Tick => self.tick(operator),
            Order::Step { job } => self.proceed(operator, job),
            _ if it.epoch.is_none() => {}
            Order::Audit { number } if number != it.audits => {}
            Order::Audit { .. } => self.audit(operator),
            Order::Inspect => self.inspect(operator),
            Order::Look { job } => self.look(operator, job),
            Order::Watch { job, version, is } => self.watched(operator, job, version, *is),
            Order::Left { job, was } => self.left(operator, job, &was),
            Order::Live { job } => self.read_live(operator, job),
            Order::List => self.listed(operator),
            Order::Reconnect { was_cut_off } => self.reconnected(operator, was_cut_off),
            Order::Heartbeats => self.heartbeats(operator),
            Order::Hear(heard) => self.heard(operator, &heard),
            Order::Told { job, task, document } => self.told_of(operator, job, task, *document),
        }
    }

    /// Whether its claim on the Lease is fresh enough to act on: after a pause it is not.
    pub fn may_act(&self, operator: usize) -> bool {
        self.now < self.operators[operator].renewed_at + STALE_CLAIM
    }

    /// Orders an operator to do something so many milliseconds from now.
    pub fn order(&mut self, operator: usize, millis: i64, order: Order) {
        let life = self.operators[operator].life;
        self.at(millis, Event::Operate { operator, life, order });
    }

    /// The same, at some time from `low` to `high` milliseconds from now.
    pub fn order_after(&mut self, operator: usize, low: i64, high: i64, order: Order) {
        let millis = self.rng.between(low, high);
        self.order(operator, millis, order);
    }

    // === life and the Lease ===

    pub fn boot(&mut self, operator: usize) {
        let it = &mut self.operators[operator];
        if it.up || self.now < it.boots_at {
            return;
        }
        it.up = true;
        self.tick(operator);
    }

    pub fn crash(&mut self, operator: usize, away: i64) {
        say!(self, "operator {operator} dies");
        let boots_at = self.operators[operator].boots_at.max(self.now + away);
        let life = self.operators[operator].life + 1;
        self.operators[operator] = Operator { life, boots_at, ..Operator::default() };
        self.at(boots_at - self.now, Event::Boot { operator });
    }

    fn tick(&mut self, operator: usize) {
        self.order(operator, TICK, Order::Tick);
        let lease = &mut self.api.lease;
        if let Some(epoch) = self.operators[operator].epoch {
            if lease.transitions == epoch {
                lease.renewed_at = self.now;
                self.operators[operator].renewed_at = self.now;
            } else {
                self.step_down(operator);
            }
        } else if lease.holder.is_none() || lease.holder == Some(operator) || lease.renewed_at + LEASE < self.now {
            let read_at = lease.audited_at;
            lease.holder = Some(operator);
            lease.transitions += 1;
            lease.renewed_at = self.now;
            let epoch = lease.transitions;
            self.lead(operator, epoch, read_at);
        }
    }

    fn lead(&mut self, operator: usize, epoch: u64, read_at: i64) {
        say!(self, "operator {operator} leads, epoch {epoch}");
        // The fence goes up before anything is read: what the last leader does from now on is refused, not overlooked.
        let admitted = self.broker.admit(epoch);
        let unfinished = self
            .api
            .jobs
            .iter()
            .enumerate()
            .filter(|(_, stored)| !stored.deleted && !stored.job.status.phase.is_terminal());
        let cache = unfinished.map(|(number, stored)| (number, (stored.version, stored.job.clone()))).collect();
        let it = &mut self.operators[operator];
        it.epoch = Some(epoch);
        it.renewed_at = self.now;
        it.connected = admitted == Reply::Done;
        it.read_at = read_at;
        it.cache = cache;
        self.look_at_all(operator, 1, 100);
        self.plan_audit(operator, 200);
        if self.chaos.skew {
            self.order_after(operator, 1, HEARTBEAT, Order::Heartbeats);
        }
    }

    /// Every worker that sends events has sent one of late, and says the time by its clock.
    fn heartbeats(&mut self, operator: usize) {
        self.order(operator, HEARTBEAT, Order::Heartbeats);
        for pod in 0..self.pods.len() {
            if self.pods[pod].up && !self.pods[pod].silent && !self.broker.down && !self.is_lost() {
                let late = self.rng.between(1, 20);
                let (node, told) = (self.pods[pod].holder().node, self.pods[pod].told(self.now - late));
                self.operators[operator].clocks.hear(&node, told, at(self.now));
            }
        }
    }

    /// Plans the next audit, in place of the one that was planned.
    pub fn plan_audit(&mut self, operator: usize, wait: i64) {
        self.operators[operator].audits += 1;
        let number = self.operators[operator].audits;
        self.order(operator, wait, Order::Audit { number });
    }

    pub fn step_down(&mut self, operator: usize) {
        say!(self, "operator {operator} does not lead any more");
        let it = &mut self.operators[operator];
        // A process that lost its Lease exits; what it was about to do dies with it.
        *it = Operator { life: it.life + 1, up: true, ..Operator::default() };
        self.order(operator, TICK, Order::Tick);
    }

    /// The fence goes up again. Where the connection was lost, what happened in between is not known: all is read again.
    fn reconnected(&mut self, operator: usize, was_cut_off: bool) {
        let Some(epoch) = self.operators[operator].epoch else { return };
        match self.broker.admit(epoch) {
            Reply::Fenced => return self.step_down(operator),
            Reply::Down => return,
            Reply::Done | Reply::Refused | Reply::Lost => self.operators[operator].connected = true,
        }
        if was_cut_off {
            for notes in self.operators[operator].notes.values_mut() {
                notes.unread_if_published();
            }
        }
        let wait = self.rng.between(100, 1_000);
        self.plan_audit(operator, wait);
    }

    // === hints ===

    pub fn leaders(&self) -> impl Iterator<Item = usize> + use<> {
        let leads: Vec<bool> = self.operators.iter().map(|it| it.epoch.is_some()).collect();
        leads.into_iter().enumerate().filter(|(_, leads)| *leads).map(|(operator, _)| operator)
    }

    fn is_lost(&mut self) -> bool {
        let chance = if self.chaos.deafness { 400 } else { 30 };
        self.rng.per_mille(chance)
    }

    /// A result message on Redis.
    pub fn hint(&mut self, job: usize, task: TaskId) {
        let Some(document) = self.broker.look(task).document.map(|document| self.told(&document)) else { return };
        for operator in self.leaders() {
            if !self.is_lost() {
                let document = Box::new(document.clone());
                self.order_after(operator, 1, 30, Order::Told { job, task, document });
            }
        }
    }

    /// A task event of a worker.
    pub fn announce(&mut self, pod: usize, message: Message, began_at: Option<i64>) {
        if self.pods[pod].silent {
            return;
        }
        let sent_at = self.now;
        for operator in self.leaders() {
            if !self.is_lost() {
                let heard = Heard { job: message.job, task: message.id.task, pod, sent_at, began_at };
                self.order_after(operator, 1, 20, Order::Hear(heard));
            }
        }
    }

    /// The watch on Pods.
    pub fn wake_operators(&mut self) {
        for operator in self.leaders() {
            self.look_at_all(operator, 10, if self.chaos.deafness { 3_000 } else { 200 });
        }
    }

    pub fn look_at_all(&mut self, operator: usize, earliest: i64, latest: i64) {
        let jobs: Vec<usize> = self.operators[operator].cache.keys().copied().collect();
        for job in jobs {
            self.order_after(operator, earliest, latest, Order::Look { job });
        }
    }

    fn heard(&mut self, operator: usize, heard: &Heard) {
        let (node, told) = (self.pods[heard.pod].holder().node, self.pods[heard.pod].told(heard.sent_at));
        let moment = self.operators[operator].clocks.hear(&node, told, at(self.now));
        let began_at = heard.began_at.map(|_| moment.at); // the event says nothing else
        let word = Word { behind: moment.behind, ..self.word(heard.pod, moment.at, began_at) };
        let it = &mut self.operators[operator];
        let Some((_, job)) = it.cache.get(&heard.job) else { return };
        if job.attempt_in_hand().task != heard.task {
            return; // about an earlier attempt
        }
        it.evidence(heard.job, heard.task).hear(word);
        self.look(operator, heard.job);
    }

    fn told_of(&mut self, operator: usize, job: usize, task: TaskId, document: Document) {
        let it = &self.operators[operator];
        if it.cache.get(&job).is_some_and(|(_, is)| is.attempt_in_hand().task == task) {
            let document = self.heard_of(operator, document);
            self.operators[operator].evidence(job, task).told(document);
            self.look(operator, job);
        }
    }
}
