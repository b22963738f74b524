//! A small world around `decide`: API server, Redis, workers with and without leases, and two operators, all of which
//! fail in every way that the design allows for, in an order that a seed determines.
//!
//! `SIM_SEED=17 cargo test --lib sim` tells the story of one seed, `SIM_SEEDS=100000` tries so many.

mod act;
mod apiserver;
mod broker;
mod chaos;
mod hints;
mod ills;
mod kubelet;
mod leases;
mod limits;
mod losses;
mod observe;
mod operator;
mod pass;
mod reading;
mod rng;
mod run;
mod scripts;
mod stages;
mod story;
mod twins;
mod verdict;
mod watch;
mod worker;
mod world;

use std::collections::BTreeMap;
use std::num::NonZero;

use jiff::Timestamp;

use world::World;

/// Tells the story; formats only when it is read.
macro_rules! say {
    ($world:expr, $($line:tt)*) => {
        if $world.story.is_told() {
            let line = format!($($line)*);
            $world.story.tell($world.now, line);
        }
    };
}
use say;

/// So many milliseconds after the world began.
fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_767_225_600_000 + millis).unwrap()
}

fn millis(at: Timestamp) -> i64 {
    at.as_millisecond() - 1_767_225_600_000
}

const SEEDS: u64 = 5_000;

#[test]
fn every_job_ends_once_as_declared_whatever_fails() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SIM_SEED") {
        let world = World::lived(seed, true);
        let broken = world.verdict();
        println!("{}", world.story);
        assert!(broken.is_empty(), "seed {seed}: {broken:#?}");
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let (failed, tally) = lives(seeds);
    if let Some((seed, broken)) = failed.first() {
        let others: Vec<String> =
            failed.iter().skip(1).take(9).map(|(seed, broken)| format!("{seed}: {}", broken[0])).collect();
        panic!(
            "{}\nseed {seed}, one of {} that fail: {broken:#?}\nothers: {others:#?}\nrun it again with SIM_SEED={seed}",
            World::lived(*seed, true).story,
            failed.len(),
        );
    }
    println!("{tally:#?}");
    if seeds >= SEEDS {
        let never: Vec<_> = MUST_HAPPEN.iter().filter(|what| !tally.contains_key(**what)).collect();
        assert!(never.is_empty(), "these worlds are too kind to prove anything about {never:?}");
    }
}

/// What a simulation must have seen before its silence means anything.
const MUST_HAPPEN: &[&str] = &[
    "enqueue",
    "enqueue fenced",
    "requeue in place of nothing",
    "requeue in place of in flight",
    "requeue in place of nowhere",
    "requeue in place of ended",
    "requeue fenced",
    "withdraw",
    "withdraw refused",
    "revoke",
    "stray marker",
    "deleted",
    "taken up",
    "clear",
    "conflict",
    "not as it was",
    "ends: Succeeded",
    "ends: FinishedBeforeCancel",
    "ends: Cancelled",
    "ends: AlreadyRan",
    "key held",
    "released",
    "stands for its key",
    "twin undecided",
    "twin cancelled",
    "ends: Attached",
    "ends: Duplicate",
    "released anew",
    "limit reached",
    "key has run",
    "record fenced",
    "ends: RetriesExhausted",
    "ends: NonRetryableError",
    "ends: WorkerLost",
    "ends: NoResult",
    "ends: ResultExpired",
    "ends: SpecChanged",
    "ends: DeadlineExceeded",
    "ends: QueueTimeout",
    "delete Pod",
    "deleted by force",
    "retire",
    "held for a rate limit",
    "refused: its result is there",
    "dead, and its message not in flight",
    "sent again",
    "answer lost",
    "done before",
    "down",
    "write unanswered",
    "watch broken",
    "left the watch",
    "stale watch event",
    "late watch event",
    "reading overtaken",
    "reading failed",
    "audit spared",
    "put aside",
    "put aside: it was put back",
    "put aside: no answer",
    "asked while it is put aside",
    "copy dropped",
    "lease lost",
    "two runs between leases",
    "published once more after a flush",
    "clock off",
    "retried by Celery",
    "held for a countdown",
    "replaced",
    "published by a person",
    "requeue in place of a copy",
    "stopped while what it was replaced by goes on",
    "drop",
    "noted a success",
    "noted a failure",
    "noted what cannot be read",
];

type Failed = Vec<(u64, Vec<String>)>;
type Tally = BTreeMap<&'static str, u32>;

/// Lives the worlds of all seeds below `seeds` on all processors: those that break a promise, and what happened in all.
fn lives(seeds: u64) -> (Failed, Tally) {
    let lanes = std::thread::available_parallelism().map_or(1, NonZero::get);
    let lane = |first: u64| {
        let (mut failed, mut tally) = (Failed::new(), Tally::new());
        for seed in (first..seeds).step_by(lanes) {
            let world = World::lived(seed, false);
            for (what, times) in &world.tally {
                *tally.entry(what).or_default() += times;
            }
            let broken = world.verdict();
            if !broken.is_empty() {
                failed.push((seed, broken));
            }
        }
        (failed, tally)
    };
    let (mut failed, mut tally) = (Failed::new(), Tally::new());
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes as u64).map(|first| scope.spawn(move || lane(first))).collect();
        for lane in lanes {
            let (some, others) = lane.join().unwrap();
            failed.extend(some);
            for (what, times) in others {
                *tally.entry(what).or_default() += times;
            }
        }
    });
    failed.sort();
    (failed, tally)
}
