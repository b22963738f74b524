//! Two operators as the real one works: a Lease between them, hints that get lost, one pass per job at a time. What they
//! know is in the tables of `core::index`, as in the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use uuid::Uuid;

use super::super::claims::clocks::Clocks;
use super::super::evidence::{Document, Evidence};
use super::super::id::{ObjectKey, TaskId};
use super::super::index::{Lane, Limits, LookUp, LookedUp, Table, Turns};
use super::super::job::Job;
use super::hints::Heard;
use super::pass::Pass;
use super::reading::Readings;
use super::scripts::Reply;
use super::world::{Event, World};
use super::{at, say};

const LEASE: i64 = 10_000;
const TICK: i64 = 2_000;
/// How often a worker says that it is there.
const HEARTBEAT: i64 = 2_000;
/// A claim that was not renewed for so long is not acted on.
const STALE_CLAIM: i64 = 5_500;

/// Jobs that are looked at side by side, as in the real one.
const LIMITS: Limits = Limits { all: 1024, lane: 32 };
/// Jobs that are remembered to be over: more than a world has.
const OVER: usize = 8;

/// One of the two processes.
#[derive(Debug)]
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
    /// The unfinished jobs.
    pub table: Table<()>,
    /// The jobs that it knows to be over.
    pub over: BTreeSet<ObjectKey>,
    /// Which of them is looked at next.
    pub turns: Turns<Lane, ObjectKey>,
    /// The clocks of workers, as far as it has heard them.
    pub clocks: Clocks,
    /// By how many milliseconds its own clock is ahead, as far as permits go by it.
    pub ahead: i64,
    /// When it next looks whether a rate allows a permit.
    pub gives_at: i64,
    pub passes: BTreeMap<ObjectKey, Pass>,
    /// When its watch delivers what it has to deliver till now: in order.
    pub watched_until: i64,
    pub readings: Readings,
}

/// What an operator does next.
#[derive(Debug, Clone)]
pub enum Order {
    /// Renews the Lease, or tries to get it.
    Tick,
    /// Begins a reading of Redis, if one is due or asked for.
    BeginReading,
    /// Goes on with this reading, unless it was given up.
    Read { number: u32 },
    /// Looks at markers whose jobs are over or gone.
    Strays,
    /// Looks at a job.
    Look { key: ObjectKey },
    /// Looks at the jobs whose time has come.
    Timers,
    /// Goes on with a pass.
    Step { key: ObjectKey },
    /// The watch says what the job is.
    Watch { version: u64, is: Box<Job> },
    /// The watch says that the job was deleted, with its old content: it does not meet the selector any more.
    Left { was: Box<Job> },
    /// The answer to a GET of the job with this UID comes.
    Live { key: ObjectKey, uid: Uuid },
    /// The watch was broken, and everything is listed again.
    List,
    /// Redis is found not to answer, unless it does by now.
    Disconnect,
    /// Redis is connected again, or found not to be what it was.
    Reconnect { was_cut_off: bool },
    /// The workers' heartbeats.
    Heartbeats,
    /// A worker's event.
    Hear(Heard),
    /// Looks up the message of a task whose document names an end state.
    LookUp { it: LookUp },
    /// Reads the document after that.
    LookUpDocument { it: LookUp, generation: Option<u32>, is_in_flight: bool },
    /// Notes what was found.
    LookedUp { it: LookUp, found: Box<LookedUp> },
    /// A result document, as it was when it was stored.
    Told { task: TaskId, document: Box<Document> },
}

impl Default for Operator {
    fn default() -> Self {
        Self {
            life: 0,
            up: false,
            boots_at: 0,
            paused_until: 0,
            epoch: None,
            renewed_at: 0,
            connected: false,
            table: Table::remembering(OVER),
            over: BTreeSet::new(),
            turns: Turns::new(LIMITS),
            clocks: Clocks::default(),
            ahead: 0,
            gives_at: 0,
            passes: BTreeMap::new(),
            watched_until: 0,
            readings: Readings::default(),
        }
    }
}

impl Operator {
    /// The jobs of the pool, in an order that is the same at every run.
    pub fn jobs(&self, pool: &ObjectKey) -> Vec<ObjectKey> {
        let mut keys: Vec<ObjectKey> = self.table.of_pool(pool).map(|entry| entry.job.key.clone()).collect();
        keys.sort();
        keys
    }
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
            Order::Step { key } => self.proceed(operator, key),
            _ if it.epoch.is_none() => {}
            Order::Read { number } => self.read_on(operator, number),
            Order::Strays => self.look_for_strays(operator),
            Order::Look { key } => self.look_upon_hint(operator, &key),
            Order::Timers => {
                self.operators[operator].turns.due(at(self.now));
            }
            Order::Watch { version, is } => self.watched(operator, version, *is),
            Order::Left { was } => self.left(operator, &was),
            Order::Live { key, uid } => self.read_live(operator, &key, uid),
            Order::List => self.listed(operator),
            Order::Disconnect if self.broker.down => self.disconnected(operator),
            Order::BeginReading | Order::Disconnect => {} // a reading begins after every order
            Order::Reconnect { was_cut_off } => self.reconnected(operator, was_cut_off),
            Order::Heartbeats => self.heartbeats(operator),
            Order::Hear(heard) => self.heard(operator, &heard),
            Order::LookUp { it } => self.look_up(operator, it),
            Order::LookUpDocument { it, generation, is_in_flight } => {
                self.look_up_document(operator, it, generation, is_in_flight);
            }
            Order::LookedUp { it, found } => self.looked_up(operator, &it, *found),
            Order::Told { task, document } => self.told_of(operator, task, *document),
        }
        self.give_permits(operator);
        self.take_turns(operator);
        self.begin_reading(operator);
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
            let audited_at = lease.audited_at;
            lease.holder = Some(operator);
            lease.transitions += 1;
            lease.renewed_at = self.now;
            let epoch = lease.transitions;
            self.lead(operator, epoch, audited_at);
        }
    }

    fn lead(&mut self, operator: usize, epoch: u64, audited_at: i64) {
        say!(self, "operator {operator} leads, epoch {epoch}");
        // The fence goes up before anything is read: what the last leader does from now on is refused, not overlooked.
        let admitted = self.broker.admit(epoch);
        let it = &mut self.operators[operator];
        it.epoch = Some(epoch);
        it.renewed_at = self.now;
        it.connected = admitted == Reply::Done;
        it.readings = Readings::after(audited_at);
        it.table.limit(&self.pool, self.facts.limits.as_ref());
        for stored in self.api.finished().filter(|_| self.facts.limits.is_some()) {
            it.table.note_over(&stored.job);
        }
        it.table.releases_known(&self.pool);
        for stored in self.api.unfinished() {
            it.table.apply(stored.job.clone(), stored.version.to_string().into(), 0, || (), true);
        }
        self.look_at_all(operator, 1, 100);
        self.ask_for_audit(operator);
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

    pub fn step_down(&mut self, operator: usize) {
        say!(self, "operator {operator} does not lead any more");
        let it = &mut self.operators[operator];
        // A process that lost its Lease exits; what it was about to do dies with it.
        *it = Operator { life: it.life + 1, up: true, ..Operator::default() };
        self.order(operator, TICK, Order::Tick);
    }

    /// The connection to Redis is lost, and all that goes on over it.
    pub fn disconnected(&mut self, operator: usize) {
        let it = &mut self.operators[operator];
        if mem::take(&mut it.connected) {
            it.readings.give_up();
            self.look_at_all(operator, 0, 10);
        }
    }

    /// The fence goes up again. Where the connection was lost, what happened in between is not known: all is read again.
    fn reconnected(&mut self, operator: usize, was_cut_off: bool) {
        let Some(epoch) = self.operators[operator].epoch else { return };
        match self.broker.admit(epoch) {
            Reply::Fenced => return self.step_down(operator),
            Reply::Down => return,
            Reply::Done | Reply::DoneBefore | Reply::Refused | Reply::Lost => self.operators[operator].connected = true,
        }
        if was_cut_off {
            self.operators[operator].table.note_all(&self.pool, |_| true, Evidence::unread_if_published);
            self.look_at_all(operator, 0, 10);
        }
        self.ask_for_audit(operator);
    }
}
