//! A small world: an API server, two operators that crash, pause and lose the lead, clocks that jump, jobs that end.
//!
//! Held in every world: for a time a job is made at most once, none is lost within its window, and each time is either made or
//! counted as skipped.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// A generator of numbers that is the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick(&mut self, of: u64) -> usize {
        self.roll(of).try_into().unwrap()
    }
}

/// What an operator is about to do.
#[derive(Clone)]
enum Step {
    Look,
    Cancel(Look, u64),
    Make(Look, u64),
    Record(Look, u64),
    Delete(Vec<(Arc<str>, Uuid)>),
}

struct World {
    dice: Dice,
    schedule: Schedule,
    now: Timestamp,
    record: Record,
    version: u64,
    children: BTreeMap<Arc<str>, Child>,
    /// Jobs by name, as often as they were made.
    made: BTreeMap<Arc<str>, u32>,
    leader: usize,
    steps: [Step; 2],
    /// When the leader looks again; at once where none is set.
    again_at: Option<Timestamp>,
    /// Requests to make a job that are on their way, and when they arrive.
    on_their_way: Vec<(Timestamp, Birth)>,
    born: u128,
    happened: BTreeSet<&'static str>,
}

impl World {
    fn new(seed: u64, schedule: Schedule) -> Self {
        Self {
            dice: Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1),
            now: schedule.created,
            schedule,
            record: Record::default(),
            version: 0,
            children: BTreeMap::new(),
            made: BTreeMap::new(),
            leader: 0,
            steps: [Step::Look, Step::Look],
            again_at: None,
            on_their_way: Vec::new(),
            born: 0,
            happened: BTreeSet::new(),
        }
    }

    fn arrive(&mut self, birth: &Birth) {
        let name: Arc<str> = birth.name.as_str().into();
        if self.children.contains_key(&name) {
            self.happened.insert("found again by its name");
            return;
        }
        self.born += 1;
        let child = Child {
            name: name.clone(),
            uid: Uuid::from_u128(self.born),
            created: self.now,
            state: ChildState::Active { cancelling: false },
        };
        *self.made.entry(name.clone()).or_default() += 1;
        self.children.insert(name, child);
    }

    /// The next step of an operator. The lead is checked before each, as the operator does.
    fn step(&mut self, operator: usize) {
        if operator != self.leader {
            return;
        }
        let step = std::mem::replace(&mut self.steps[operator], Step::Look);
        self.steps[operator] = match step {
            Step::Look if self.again_at.is_some_and(|at| at > self.now) => Step::Look,
            Step::Look => {
                self.again_at = None;
                let children: Vec<Child> = self.children.values().cloned().collect();
                Step::Cancel(decide(&self.schedule, &self.record, &children, self.now), self.version)
            }
            Step::Cancel(look, version) => {
                for name in &look.cancel {
                    if let Some(child) = self.children.get_mut(name)
                        && let ChildState::Active { cancelling } = &mut child.state
                    {
                        *cancelling = true;
                        self.happened.insert("cancelled");
                    }
                }
                Step::Make(look, version)
            }
            Step::Make(look, version) => {
                if let Some(birth) = look.birth.clone() {
                    if self.dice.roll(20) == 0 {
                        // It is on its way, while the lead is lost.
                        self.happened.insert("arrived after the lead was lost");
                        let late = self.now + SignedDuration::from_secs(self.dice.roll(60).cast_signed());
                        self.on_their_way.push((late, birth));
                        self.leader = 1 - self.leader;
                        self.begin();
                        return;
                    }
                    self.arrive(&birth);
                }
                Step::Record(look, version)
            }
            Step::Record(look, version) => {
                if version != self.version {
                    return;
                }
                self.version += 1;
                self.record = look.record;
                // The clock is looked at every half minute.
                let half_a_minute = self.now + SignedDuration::from_secs(30);
                self.again_at = Some(look.again_at.map_or(half_a_minute, |at| at.min(half_a_minute)));
                Step::Delete(look.delete)
            }
            Step::Delete(children) => {
                for (name, uid) in children {
                    if self.children.get(&name).is_some_and(|child| child.uid == uid) {
                        self.children.remove(&name);
                        self.happened.insert("deleted");
                    }
                }
                Step::Look
            }
        };
    }

    /// A leader begins, knowing nothing.
    fn begin(&mut self) {
        self.steps = [Step::Look, Step::Look];
        self.again_at = None;
    }

    fn jobs_end(&mut self) {
        let now = self.now;
        for child in self.children.values_mut() {
            if let ChildState::Active { cancelling } = child.state
                && self.dice.roll(100) < 3
            {
                let how = match self.dice.roll(3) {
                    _ if cancelling => End::Cancelled,
                    0 => End::Failed,
                    _ => End::Succeeded,
                };
                child.state = ChildState::Ended { how, at: now };
                self.again_at = None;
            }
        }
    }

    /// Lives so many seconds, more or less.
    fn live(&mut self, seconds: i64) {
        let end = self.now + SignedDuration::from_secs(seconds);
        while self.now < end {
            match self.dice.roll(200) {
                0 => {
                    self.happened.insert("crashed");
                    self.begin();
                }
                1 => {
                    self.happened.insert("another leads");
                    self.leader = 1 - self.leader;
                    // What a former leader was about to do ends with its lead.
                    self.begin();
                }
                2 => {
                    self.happened.insert("nothing led for minutes");
                    self.now += SignedDuration::from_secs(self.dice.roll(1500).cast_signed());
                }
                3 => {
                    self.happened.insert("a clock went back");
                    let back = SignedDuration::from_secs(self.dice.roll(90).cast_signed());
                    self.now -= back;
                    // A request is not on its way for longer because of that.
                    self.on_their_way.iter_mut().for_each(|(at, _)| *at -= back);
                }
                _ => {}
            }
            let now = self.now;
            let (arrived, waiting) = self.on_their_way.drain(..).partition(|(at, _)| *at <= now);
            self.on_their_way = waiting;
            let arrived: Vec<(Timestamp, Birth)> = arrived;
            for (_, birth) in &arrived {
                self.arrive(birth);
            }
            for _ in 0..=self.dice.roll(4) {
                self.step(self.leader);
            }
            self.jobs_end();
            self.now += SignedDuration::from_millis(self.dice.roll(12_000).cast_signed());
        }
    }

    fn judge(&self, seed: u64) {
        for (name, made) in &self.made {
            assert_eq!(*made, 1, "seed {seed}: {name} was made {made} times");
        }
        let until = self.record.decided_until.unwrap();
        let times: Vec<Timestamp> =
            self.schedule.calendar.after(self.schedule.created).take_while(|at| *at <= until).collect();
        let skipped: u64 = self.record.skipped.iter().map(|skipped| skipped.count).sum();
        let queued = self.record.queued.len() as u64;
        assert_eq!(self.record.made + skipped + queued, times.len() as u64, "seed {seed}: {:?}", self.record);
        if self.schedule.overlap == Overlap::Allow && self.schedule.catch_up.all {
            assert_eq!(skipped, 0, "seed {seed}: every time lies in its window");
            let missing = times.iter().find(|at| !self.made.contains_key(&*name_of(&self.schedule.name, **at)));
            assert_eq!(missing, None, "seed {seed}");
        }
        let next = self.schedule.calendar.next(until).unwrap();
        assert!(
            next > self.now - SignedDuration::from_mins(10),
            "seed {seed}: it stands at {until}, now is {}",
            self.now
        );
    }
}

/// Both changes of the clock in three zones, half a day before each.
const CHANGES: [(&str, &str); 6] = [
    ("Europe/Berlin", "2026-03-28T22:00:00Z"),
    ("Europe/Berlin", "2026-10-24T22:00:00Z"),
    ("America/New_York", "2026-03-08T03:00:00Z"),
    ("America/New_York", "2026-11-01T02:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T12:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T12:00:00Z"),
];

fn schedule(seed: u64) -> Schedule {
    let mut dice = Dice(seed);
    let (zone, created) = CHANGES[dice.pick(6)];
    let lines: &[&str] = match dice.roll(3) {
        0 => &["*/5 * * * *"],
        1 => &["*/7 * * * *", "30 1,2,3 * * *"],
        _ => &["0,10,20,30,40,50 0-5 * * *"],
    };
    let overlap = [Overlap::Skip, Overlap::Queue, Overlap::CancelRunning, Overlap::Allow][dice.pick(4)];
    let keep = dice.pick(3);
    Schedule {
        name: "s".into(),
        uid: Uuid::from_u128(seed.into()),
        created: created.parse().unwrap(),
        generation: 1,
        calendar: Calendar::parse(lines, zone).unwrap(),
        digest: "".into(),
        overlap,
        catch_up: CatchUp { window: Duration::from_hours(2), all: dice.roll(2) == 0 },
        jitter: Duration::from_secs([0, 100][dice.pick(2)]),
        suspend: false,
        pause_after: None,
        history: History { succeeded: keep, failed: keep, cancelled: keep },
        start: None,
        end: None,
        run_now: None,
    }
}

#[test]
fn each_time_makes_one_job_through_crashes_changes_of_leader_jumps_of_clocks_and_of_summer_time() {
    let mut happened = BTreeSet::new();
    for seed in 0..150 {
        let mut world = World::new(seed, schedule(seed));
        world.live(8 * 3600);
        // What is on its way comes to rest.
        for _ in 0..200 {
            world.step(world.leader);
        }
        world.judge(seed);
        happened.extend(world.happened);
    }
    for event in [
        "arrived after the lead was lost",
        "found again by its name",
        "crashed",
        "another leads",
        "nothing led for minutes",
        "a clock went back",
        "deleted",
        "cancelled",
    ] {
        assert!(happened.contains(event), "{event} has not happened: {happened:?}");
    }
}
