//! What goes wrong, and when.

use super::super::job::{Priority, Spec, SpecHash};
use super::broker::{Data, RESULT_EXPIRES};
use super::rng::Rng;
use super::say;
use super::world::{Event, World};

/// Faults happen only this early, so that every world can come to rest.
pub const CHAOS_ENDS: i64 = 60_000;
/// What may go wrong in this world.
#[expect(clippy::struct_excessive_bools, reason = "each kind of fault is there or not")]
#[derive(Debug, Clone, Default)]
pub struct Chaos {
    /// Operators die between any two steps.
    pub crashes: bool,
    /// Operators stop for longer than the Lease lives, between any two steps, and go on as if nothing had happened.
    pub pauses: bool,
    /// Nobody operates for longer than results are kept.
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
}

impl Chaos {
    /// Some kinds of faults together, and most worlds without most of them.
    pub fn seeded(rng: &mut Rng) -> Self {
        let mut maybe = |chance| rng.per_mille(chance);
        Self {
            crashes: maybe(400),
            pauses: maybe(350),
            blackouts: maybe(60),
            deafness: maybe(400),
            kills: maybe(400),
            drains: maybe(300),
            blips: maybe(200),
            early_ack: maybe(200),
            silence: maybe(300),
            flushes: maybe(200),
            failovers: maybe(200),
            outages: maybe(200),
            people: maybe(400),
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
            (self.chaos.flushes, Event::Flush, 4),
            (self.chaos.failovers, Event::Replica, 3),
            (self.chaos.outages, Event::RedisGoes, 2),
            (self.chaos.blackouts, Event::Blackout, 2),
            (self.chaos.people, Event::Person, 6),
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

    pub fn with_some_pod(&mut self, fault: fn(&mut Self, usize)) {
        let up: Vec<usize> = (0..self.pods.len()).filter(|pod| self.pods[*pod].up).collect();
        if !up.is_empty() {
            let pod = self.rng.one_of(&up);
            fault(self, pod);
        }
    }

    pub fn kill_by_hand(&mut self, pod: usize) {
        say!(self, "{} is killed", self.pods[pod].name);
        self.kill_container(pod);
    }

    pub fn sweep(&mut self) {
        if self.broker.sweep() {
            say!(self, "Kombu puts back what is in flight for too long");
            self.wake_workers();
        }
        self.at(100_000, Event::Sweep);
    }

    pub fn flush(&mut self) {
        say!(self, "FLUSHALL");
        self.broker.flush();
    }

    /// A replica is cut off now, and takes over later.
    pub fn replica(&mut self) {
        let data = self.broker.data();
        let at = self.now;
        self.after(20, 30_000, Event::Failover { at, data: Box::new(data) });
    }

    pub fn failover(&mut self, at: i64, data: Data) {
        say!(self, "Redis is again as it was at {at} ms");
        self.broker.become_as(data);
        for pod in 0..self.pods.len() {
            self.blip(pod);
        }
        self.wake_workers();
        for operator in 0..self.operators.len() {
            self.renewed_redis(operator);
        }
    }

    pub fn redis_goes(&mut self) {
        if !self.broker.down {
            say!(self, "Redis goes away");
            self.broker.down = true;
            self.after(500, 20_000, Event::RedisComes);
        }
    }

    pub fn redis_comes(&mut self) {
        say!(self, "Redis is back");
        self.broker.down = false;
        for pod in 0..self.pods.len() {
            self.blip(pod);
        }
        self.wake_workers();
    }

    pub fn blackout(&mut self) {
        say!(self, "nobody operates for a while");
        for operator in 0..self.operators.len() {
            self.crash(operator, RESULT_EXPIRES + 30_000);
        }
    }

    pub fn person(&mut self) {
        let job = self.rng.index(self.api.jobs.len());
        match self.rng.between(0, 11) {
            0..4 => self.edit(job, "cancelled", |spec| spec.cancel = true),
            4..8 => {
                self.edit(job, "suspended", |spec| spec.suspend = true);
                self.after(100, 20_000, Event::Resume { job });
            }
            8 => self.edit(job, "made urgent", |spec| spec.priority = Priority::clamped(10)),
            _ => self.edit(job, "changed", |spec| spec.hash = SpecHash([1; 16])),
        }
    }

    pub fn edit(&mut self, job: usize, how: &str, change: impl FnOnce(&mut Spec)) {
        say!(self, "job-{job} is {how} by a person");
        self.api.edit(job, change);
        self.tell_watchers(job);
    }
}
