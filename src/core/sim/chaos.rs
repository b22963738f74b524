//! What goes wrong, and when.

use super::super::id::{Priority, SpecHash};

use super::super::job::Spec;
use super::broker::{Data, RESULT_EXPIRES};
use super::operator::Order;
use super::rng::Rng;
use super::say;
use super::world::{Event, World};

/// Faults happen only this early, so that every world can come to rest.
pub const CHAOS_ENDS: i64 = 60_000;

/// Which workers there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fleet {
    #[default]
    Stock,
    /// Celery's with the guard, and native ones.
    Leased,
    Mixed,
}

/// What may go wrong in this world.
#[expect(clippy::struct_excessive_bools, reason = "each kind of fault is there or not")]
#[derive(Debug, Clone, Default)]
pub struct Chaos {
    pub fleet: Fleet,
    /// In so many looks of a thousand Redis is read anew; otherwise an operator goes by what it knows.
    pub fresh: u64,
    /// Operators die between any two steps.
    pub crashes: bool,
    /// Operators stop for longer than the Lease lives, between any two steps, and go on as if nothing had happened.
    pub pauses: bool,
    /// The API server is slow: seconds pass between a decision and what is done.
    pub sluggish: bool,
    /// No operator runs for longer than results are kept.
    pub blackouts: bool,
    /// Hints and events get lost, and the watch is slow.
    pub deafness: bool,
    /// Workers are killed, in place and for good.
    pub kills: bool,
    /// Workers are told to leave.
    pub drains: bool,
    /// Workers lose their connection for a moment.
    pub blips: bool,
    /// Some workers acknowledge before they run.
    pub early_ack: bool,
    /// Some workers send no events and store no STARTED.
    pub silence: bool,
    /// Redis is emptied.
    pub flushes: bool,
    /// Redis becomes what it was some time before.
    pub failovers: bool,
    /// Redis goes away for a while.
    pub outages: bool,
    /// People cancel, suspend and edit.
    pub people: bool,
    /// The clocks of some nodes are off by minutes.
    pub skew: bool,
    /// Celery workers limit the rate of the task.
    pub limits: bool,
    /// Jobs have one and the same run-once key.
    pub keys: bool,
    /// Jobs have one and the same dedup key.
    pub twins: bool,
    /// The pool limits how many jobs are in flight and released.
    pub permits: bool,
    /// The clocks of operators jump, as far as permits go by them.
    pub jumps: bool,
}

impl Chaos {
    /// Some kinds of faults together, and most worlds without most of them.
    pub fn seeded(rng: &mut Rng) -> Self {
        let fleet = rng.one_of(&[Fleet::Stock, Fleet::Leased, Fleet::Mixed]);
        let fresh = rng.one_of(&[0, 0, 100, 700]);
        let mut maybe = |chance| rng.per_mille(chance);
        let (kills, failovers) = (maybe(400), maybe(200));
        Self {
            fleet,
            fresh,
            crashes: maybe(400),
            pauses: maybe(350),
            sluggish: maybe(400),
            blackouts: maybe(60),
            deafness: maybe(400),
            kills,
            drains: maybe(300),
            // A copy that is with another worker when its first worker dies is a case of its own.
            blips: maybe(if kills { 400 } else { 200 }),
            early_ack: maybe(200),
            silence: maybe(300),
            flushes: maybe(200),
            failovers,
            outages: maybe(200),
            // A job that is cancelled after Redis went back is a case of its own.
            people: maybe(if failovers { 800 } else { 400 }),
            skew: maybe(400),
            limits: false,
            keys: false,
            twins: false,
            permits: false,
            jumps: false,
        }
    }
}

impl World {
    pub fn plan_faults(&mut self) {
        let faults = [
            (self.chaos.kills, Event::Kill, 4),
            (self.chaos.kills, Event::Delete, 3),
            (self.chaos.drains, Event::Drain, 4),
            (self.chaos.blips, Event::Blip, 4),
            (self.chaos.blips && self.chaos.kills, Event::Falter, 4),
            (self.chaos.flushes, Event::Flush, 4),
            (self.chaos.failovers, Event::Replica, 3),
            (self.chaos.outages, Event::RedisGoes, 2),
            (self.chaos.blackouts, Event::Blackout, 2),
            (self.chaos.people, Event::Person, 6),
            (self.chaos.jumps, Event::Jump, 6),
        ];
        for (there, event, most) in faults {
            if there {
                for _ in 0..self.rng.between(1, most) {
                    let latest = self.rng.one_of(&[3_000, 15_000, CHAOS_ENDS]);
                    self.after(0, latest, event.clone());
                }
            }
        }
    }

    /// Does something to a worker, most often to one that has something to lose.
    pub fn with_some_pod(&mut self, fault: fn(&mut Self, usize)) {
        let all = || (0..self.pods.len()).filter(|pod| self.pods[*pod].up);
        let busy: Vec<usize> = all().filter(|pod| !self.pods[*pod].copies.is_empty()).collect();
        let up: Vec<usize> = all().collect();
        let from = if busy.is_empty() || self.rng.per_mille(300) { up } else { busy };
        if !from.is_empty() {
            let pod = self.rng.one_of(&from);
            fault(self, pod);
        }
    }

    pub fn kill_by_hand(&mut self, pod: usize) {
        say!(self, "{} is killed", self.pods[pod].name);
        self.kill_container(pod);
    }

    /// Kombu puts back what is in flight for too long. Where nothing goes wrong and workers are heard, that is sooner, and
    /// there is nothing to put back: the operator renews what living workers have. Of what a task is replaced by it does
    /// not know which worker has it, so that is to last no longer than the timeout.
    pub fn sweep(&mut self) {
        let is_renewed = self.is_calm() && !self.chaos.deafness && !self.chaos.silence && !self.chaos.skew;
        let (visibility_timeout, every) = if is_renewed { (48_000, 1_000) } else { (300_000, 100_000) };
        if self.broker.sweep(visibility_timeout, is_renewed) {
            say!(self, "Kombu puts back what is in flight for too long");
            self.wake_workers();
            if is_renewed {
                self.broken.push("what a living worker has is put back".to_owned());
            }
        }
        self.at(every, Event::Sweep);
    }

    pub fn flush(&mut self) {
        say!(self, "FLUSHALL");
        self.broker.become_as(Data::default());
        self.reconnect_operators(false);
    }

    /// A replica is cut off now, and takes over later.
    pub fn replica(&mut self) {
        let data = self.broker.data.clone();
        let at = self.now;
        self.after(20, 30_000, Event::Failover { at, data: Box::new(data) });
    }

    pub fn failover(&mut self, at: i64, data: Data) {
        say!(self, "Redis is again as it was at {at} ms");
        self.broker.become_as(data);
        self.broker.ledger.went_back = true;
        if self.chaos.people && self.rng.per_mille(500) {
            self.after(10, 3_000, Event::Person);
        }
        self.reconnect();
    }

    /// Every connection was lost: that of workers is made again at once, operators take a moment.
    fn reconnect(&mut self) {
        for pod in 0..self.pods.len() {
            self.blip(pod);
        }
        self.wake_workers();
        self.reconnect_operators(true);
    }

    /// Leaders find out that Redis is not what it was. Until they do, the fence may be lower than it was.
    fn reconnect_operators(&mut self, was_cut_off: bool) {
        for operator in 0..self.operators.len() {
            if was_cut_off {
                self.disconnected(operator);
            }
            self.order_after(operator, 10, 2_000, Order::Reconnect { was_cut_off });
        }
    }

    pub fn redis_goes(&mut self) {
        if !self.broker.down {
            say!(self, "Redis goes away");
            self.broker.down = true;
            for operator in 0..self.operators.len() {
                self.order_after(operator, 1, 4_000, Order::Disconnect);
            }
            self.after(500, 20_000, Event::RedisComes);
        }
    }

    pub fn redis_comes(&mut self) {
        say!(self, "Redis is back");
        self.broker.down = false;
        self.broker.ledger.down_at = Some(self.now);
        self.reconnect();
    }

    pub fn blackout(&mut self) {
        say!(self, "no operator runs for a while");
        for operator in 0..self.operators.len() {
            self.crash(operator, RESULT_EXPIRES + 30_000);
        }
    }

    pub fn person(&mut self) {
        let job = self.rng.index(self.api.jobs.len());
        if self.api.jobs[job].deleted {
            return;
        }
        match self.rng.between(0, 17) {
            14..17 => self.publish_again(job),
            0..4 => self.edit(job, "cancelled", |spec| spec.cancel = true),
            4..8 => {
                self.edit(job, "suspended", |spec| spec.suspend = true);
                self.after(100, 20_000, Event::Resume { job });
            }
            11..14 => self.delete(job),
            8 => self.edit(job, "made urgent", |spec| spec.priority = Priority::clamped(10)),
            _ => self.edit(job, "changed", |spec| spec.hash = SpecHash([1; 16])),
        }
    }

    /// A person sends a message again that waits or is with a worker: no operator knows of that.
    fn publish_again(&mut self, job: usize) {
        let data = &self.broker.data;
        let mut messages = data.queue.iter().copied().chain(data.unacked.values().map(|entry| entry.message));
        let Some(message) = messages.rfind(|it| it.job == job && !it.is_follower) else { return };
        if self.broker.down || self.api.jobs[job].job.status.phase.is_terminal() {
            return;
        }
        say!(self, "a person publishes {} again", self.name_of(message));
        self.count("published by a person");
        self.doubled.insert(job);
        self.broker.publish_copy(message);
        self.wake_workers();
    }

    fn delete(&mut self, job: usize) {
        say!(self, "job-{job} is deleted by a person");
        self.count("deleted");
        let was = self.api.jobs[job].job.clone();
        self.api.delete(job);
        self.forget_releases(job);
        if !was.status.phase.is_terminal() {
            self.tell_watchers(job, &was);
        }
    }

    pub fn edit(&mut self, job: usize, how: &str, change: impl FnOnce(&mut Spec)) {
        if self.api.jobs[job].deleted {
            return;
        }
        say!(self, "job-{job} is {how} by a person");
        let was = self.api.jobs[job].job.clone();
        self.api.edit(job, change);
        // No operator watches a job that has ended.
        if !was.status.phase.is_terminal() {
            self.tell_watchers(job, &was);
        }
    }
}
