//! Everything there is, the clock, and what happens next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use uuid::Uuid;

use super::super::id::{ObjectKey, Priority, SpecHash, TaskId};
use super::super::index::pods::{Fleet, Pods};
use super::super::job::{Job, Spec};
use super::super::observed::PoolFacts;
use super::super::policy::{OnUnknown, Overrides};
use super::super::status::Status;
use super::apiserver::ApiServer;
use super::broker::{Broker, Data, Message, RESULT_EXPIRES};
use super::chaos::{CHAOS_ENDS, Chaos};
use super::kubelet;
use super::limits::{self, Permits};
use super::losses::Losses;
use super::operator::{Operator, Order};
use super::rng::Rng;
use super::story::Story;
use super::worker::{NO_JOB, Outcome, Pod, Run};
use super::{at, say};

/// A world that has not come to rest by then is stuck.
const STUCK: i64 = 1_200_000;
/// The same where one job waits for another.
const STUCK_IN_TURN: i64 = 6_000_000;
/// How long a world goes on after its last job has ended.
const COOL_DOWN: i64 = 200_000;

/// What is to happen at some time.
#[derive(Debug, Clone)]
pub enum Event {
    Create,
    // Workers.
    AddPod,
    /// The time of Pods that were deleted by force is over.
    PodsExpire,
    Poll {
        pod: usize,
    },
    Enter {
        pod: usize,
        container: u32,
    },
    Finish {
        pod: usize,
        container: u32,
        run: usize,
    },
    Ack {
        pod: usize,
        container: u32,
        run: usize,
    },
    /// A task stores an end state itself, and goes on.
    Note {
        pod: usize,
        container: u32,
        run: usize,
    },
    /// A copy that was put aside.
    TryAgain {
        pod: usize,
        container: u32,
        number: u32,
    },
    /// The lease of a run.
    Renew {
        pod: usize,
        container: u32,
        run: usize,
    },
    Die {
        pod: usize,
        container: u32,
    },
    Restart {
        pod: usize,
        container: u32,
    },
    Sweep,
    // Operators.
    Boot {
        operator: usize,
    },
    /// Dropped when that life of the operator is over.
    Operate {
        operator: usize,
        life: u32,
        order: Order,
    },
    // Faults.
    Kill,
    Delete,
    Drain,
    Blip,
    Falter,
    Flush,
    Replica,
    Failover {
        at: i64,
        data: Box<Data>,
    },
    RedisGoes,
    RedisComes,
    Blackout,
    Person,
    Jump,
    Resume {
        job: usize,
    },
}

/// Which job has this key, or had it before it was deleted.
pub fn number_of(key: &ObjectKey) -> usize {
    let name = key.name.split('@').next().unwrap();
    name.strip_prefix("job-").unwrap().parse().unwrap()
}

/// How a job's runs go.
#[derive(Debug, Clone)]
pub struct Script {
    outcomes: Vec<Outcome>,
    lasts: i64,
    result: Arc<str>,
    begun: usize,
}

/// The world.
pub struct World {
    pub now: i64,
    pub rng: Rng,
    pub chaos: Chaos,
    pub api: ApiServer,
    pub broker: Broker,
    pub pods: Vec<Pod>,
    /// Where they run.
    pub fleet: Fleet,
    /// The Pods as the API server has them.
    pub known_pods: Arc<Pods>,
    pub operators: Vec<Operator>,
    pub runs: Vec<Run>,
    pub losses: Losses,
    pub story: Story,
    /// Promises that were broken on the way.
    pub broken: Vec<String>,
    /// Jobs that are with two workers because Redis forgot: the design lets that happen.
    pub doubled: BTreeSet<usize>,
    /// What happened how often, to know that the worlds are as bad as they are meant to be.
    pub tally: BTreeMap<&'static str, u32>,
    /// The pool of all jobs.
    pub pool: ObjectKey,
    pub facts: Arc<PoolFacts>,
    pub permits: Permits,
    /// Whether everything has ended and the world cools down.
    pub at_rest: bool,
    scripts: Vec<Script>,
    tasks: BTreeMap<TaskId, String>,
    events: BTreeMap<(i64, u64), Event>,
    sequence: u64,
}

static RESULTS: LazyLock<[Arc<str>; 2]> = LazyLock::new(|| [Arc::from("1"), "x".repeat(5_000).into()]);

impl World {
    /// A world that has lived until everything was over, or until it was plain that it never will be.
    pub fn lived(seed: u64, told: bool) -> Self {
        let mut world = Self::seeded(seed, told);
        let mut quiet_at = None;
        while let Some(((now, _), event)) = world.events.pop_first() {
            world.now = now;
            world.broker.now = now;
            if quiet_at.is_none() && now > CHAOS_ENDS && world.is_everything_over() {
                say!(world, "every job has ended");
                world.at_rest = true;
                quiet_at = Some(now);
            }
            let stuck = if world.chaos.permits { STUCK_IN_TURN } else { STUCK };
            if quiet_at.is_some_and(|at| now > at + COOL_DOWN) || now > stuck {
                break;
            }
            world.happen(event);
        }
        world
    }

    fn seeded(seed: u64, told: bool) -> Self {
        let mut rng = Rng::seeded(seed);
        // Not by chance: the other worlds stay as they are.
        let chaos = Chaos {
            limits: seed % 8 == 5,
            keys: seed % 8 == 3,
            permits: seed % 8 == 1,
            twins: seed % 8 == 7,
            jumps: seed % 16 == 9,
            ..Chaos::seeded(&mut rng)
        };
        let facts = PoolFacts {
            defaults: Overrides {
                backoff_max: Some(Duration::from_secs(10)),
                hard: Some(Duration::from_mins(1)),
                ..Overrides::default()
            },
            result_expires: Duration::from_millis(RESULT_EXPIRES.unsigned_abs()),
            keep_large_results: Duration::from_hours(1),
            limits: chaos.permits.then(|| limits::declared(&mut rng)),
            ..PoolFacts::default()
        };
        let fleet = kubelet::fleet();
        let mut world = Self {
            now: 0,
            rng,
            chaos,
            api: ApiServer::default(),
            broker: Broker::default(),
            pods: Vec::new(),
            known_pods: Arc::new(kubelet::no_pods(&fleet)),
            fleet,
            operators: vec![Operator::default(), Operator::default()],
            runs: Vec::new(),
            losses: Losses::default(),
            story: Story::new(told),
            broken: Vec::new(),
            doubled: BTreeSet::new(),
            tally: BTreeMap::new(),
            pool: ObjectKey::new("team", "default"),
            facts: Arc::new(facts),
            permits: Permits::default(),
            at_rest: false,
            scripts: Vec::new(),
            tasks: BTreeMap::new(),
            events: BTreeMap::new(),
            sequence: 0,
        };
        say!(world, "seed {seed}: {:?}", world.chaos);
        world.people_and_things();
        world.plan_faults();
        world
    }

    fn people_and_things(&mut self) {
        for operator in 0..self.operators.len() {
            self.after(0, 2_000, Event::Boot { operator });
        }
        let late = self.rng.per_mille(200);
        for _ in 0..self.rng.between(1, 4) {
            let latest = if late { 20_000 } else { 100 };
            self.after(0, latest, Event::AddPod);
        }
        self.at(1_000, Event::Sweep);
        self.create_job();
        for _ in 1..self.rng.between(1, 5) {
            if self.rng.per_mille(500) {
                self.create_job();
            } else {
                self.after(0, 15_000, Event::Create);
            }
        }
    }

    fn create_job(&mut self) {
        let number = self.api.jobs.len();
        let rng = &mut self.rng;
        let mut outcomes = Vec::new();
        for _ in 0..6 {
            outcomes.push(match rng.between(0, 100) {
                0..58 => Outcome::Succeeds,
                58..64 => Outcome::Retries,
                64..70 => Outcome::Replaces,
                70..85 => Outcome::Fails,
                85..88 => Outcome::FailsForGood,
                88..94 => Outcome::KillsChild,
                _ => Outcome::KillsContainer,
            });
        }
        let lasts = rng.one_of(&[20, 200, 900, 3_000, 8_000, 20_000, 50_000]);
        let policy = Overrides {
            max_retries: Some(u32::try_from(rng.between(0, 4)).unwrap()),
            max_worker_losses: Some(u32::try_from(rng.between(1, 4)).unwrap()),
            non_retryable: Some(Arc::new(["Fatal".into()])),
            queue: rng.per_mille(100).then_some(Duration::from_secs(15)),
            total: rng.per_mille(100).then_some(Duration::from_secs(40)),
            on_unknown: Some(if rng.per_mille(500) { OnUnknown::Fail } else { OnUnknown::Retry }),
            ..Overrides::default()
        };
        let job = Job {
            key: ObjectKey::new("team", format!("job-{number}")),
            uid: Uuid::from_u128(u128::from(rng.between(1, i64::MAX).unsigned_abs())),
            // To the second, as the API server has it: in some worlds that is all that orders jobs.
            created_at: at(if self.chaos.twins { self.now / 1_000 * 1_000 } else { self.now }),
            spec: Spec {
                generation: 1,
                pool: "default".into(),
                queue: None,
                task: "run".into(),
                priority: Priority::default(),
                overrides: Some(Box::new(policy)),
                suspend: false,
                cancel: false,
                run_once: self.chaos.keys.then(|| "key".into()).filter(|_| number % 3 != 2),
                dedup: self.chaos.twins.then(|| Box::new(self.dedup())),
                hash: SpecHash([0; 16]),
                invalid: None,
            },
            labels: if self.chaos.permits { limits::labels(number) } else { Box::default() },
            cause: None,
            status: Status::default(),
        };
        if self.story.is_told() {
            for attempt in 1..12 {
                self.tasks.insert(TaskId::derive(job.uid, attempt), format!("{}/{attempt}", job.key.name));
            }
        }
        let result = RESULTS[self.rng.index(RESULTS.len())].clone();
        say!(self, "{} is created: runs {lasts} ms, {outcomes:?}, {:?}", job.key.name, job.spec.overrides);
        self.scripts.push(Script { outcomes, lasts, result, begun: 0 });
        self.api.create(job.clone());
        self.tell_watchers(number, &job);
    }

    // === time ===

    /// So many milliseconds from now.
    pub fn at(&mut self, millis: i64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + millis, self.sequence), event);
    }

    /// At some time from `low` to `high` milliseconds from now.
    pub fn after(&mut self, low: i64, high: i64, event: Event) {
        let millis = self.rng.between(low, high);
        self.at(millis, event);
    }

    pub fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    fn is_everything_over(&self) -> bool {
        self.api.jobs.iter().all(|stored| stored.deleted || stored.job.status.phase.is_terminal())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Create => self.create_job(),
            Event::AddPod => self.add_pod(),
            Event::PodsExpire => self.pods_expire(),
            Event::Poll { pod } => self.poll(pod),
            Event::Enter { pod, container } => self.enter(pod, container),
            Event::Finish { pod, container, run } => self.finish(pod, container, run),
            Event::Ack { pod, container, run } => self.ack(pod, container, run),
            Event::Note { pod, container, run } => self.note(pod, container, run),
            Event::TryAgain { pod, container, number } => self.try_again(pod, container, number),
            Event::Renew { pod, container, run } => self.renew_lease(pod, container, run),
            Event::Die { pod, container } => self.die(pod, container),
            Event::Restart { pod, container } => self.restart(pod, container),
            Event::Sweep => self.sweep(),
            Event::Boot { operator } => self.boot(operator),
            Event::Operate { operator, life, order } => self.operate(operator, life, order),
            Event::Kill => self.with_some_pod(Self::kill_by_hand),
            Event::Delete => self.with_some_pod(Self::delete_pod),
            Event::Drain => self.with_some_pod(Self::drain),
            Event::Blip => self.with_some_pod(Self::blip),
            Event::Falter => self.with_some_pod(Self::falter),
            Event::Flush => self.flush(),
            Event::Replica => self.replica(),
            Event::Failover { at, data } => self.failover(at, *data),
            Event::RedisGoes => self.redis_goes(),
            Event::RedisComes => self.redis_comes(),
            Event::Blackout => self.blackout(),
            Event::Person => self.person(),
            Event::Jump => self.jump(),
            Event::Resume { job } => self.edit(job, "resumed", |spec| spec.suspend = false),
        }
    }

    // === what workers ask of the world ===

    pub fn begin_run(&mut self, message: Message, leased: bool, native: bool) -> usize {
        let script = &mut self.scripts[message.job];
        let outcome = match script.outcomes.get(script.begun).copied() {
            _ if message.is_follower => Outcome::Succeeds,
            Some(Outcome::Retries) if native => Outcome::Fails,
            Some(Outcome::Replaces) | None if native => Outcome::Succeeds,
            outcome => outcome.unwrap_or(Outcome::Succeeds),
        };
        if !message.is_follower {
            script.begun += 1;
            self.judge_run(message, leased);
        }
        let run = Run {
            job: if message.is_follower { NO_JOB } else { message.job },
            tag: message.tag(),
            spec: message.spec,
            over: false,
            outcome,
            succeeded: false,
            noted: None,
            began_at: self.now,
            stored_at: None,
            leased,
            retries: message.retries,
        };
        self.runs.push(run);
        self.runs.len() - 1
    }

    pub fn duration_of(&self, job: usize) -> i64 {
        self.scripts[job].lasts
    }

    pub fn result_of(&self, job: usize) -> Arc<str> {
        self.scripts[job].result.clone()
    }

    pub fn name_of(&self, message: Message) -> String {
        format!("{}#{}", self.task_name(message.id.task), message.id.generation)
    }

    pub fn task_name(&self, task: TaskId) -> &str {
        self.tasks.get(&task).map_or("?", String::as_str)
    }
}
