use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const FEW: Limits = Limits { all: 8, lane: 4 };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn ten_thousand_jobs_of_one_pool_do_not_come_before_the_first_of_another() {
    let mut turns = Turns::new(Limits { all: 64, lane: 32 });
    for n in 0..10_000 {
        turns.push("noisy", n);
    }
    turns.push("quiet", 10_001);
    assert_eq!([turns.take(), turns.take(), turns.take()], [Some(0), Some(10_001), Some(1)]);
}

#[test]
fn a_pool_whose_jobs_are_stuck_takes_no_more_than_its_limit() {
    let mut turns = Turns::new(Limits { all: 1024, lane: 32 });
    for n in 0..1000 {
        turns.push("slow", n);
    }
    let stuck = std::iter::from_fn(|| turns.take()).count();
    assert_eq!(stuck, 32);
    turns.push("quick", 1000);
    assert_eq!(turns.take(), Some(1000), "others go on");
    turns.done(1000);
    turns.done(0);
    assert_eq!((turns.take(), turns.take()), (Some(32), None));
}

#[test]
fn two_hundred_pools_that_are_all_stuck_leave_room_for_the_next_one() {
    let mut turns = Turns::new(Limits { all: 512, lane: 32 });
    for pool in 0..200 {
        for n in 0..100 {
            turns.push(pool, pool * 1000 + n);
        }
    }
    let stuck = std::iter::from_fn(|| turns.take()).count();
    assert!((200..512).contains(&stuck), "each has begun, and not all room is taken: {stuck}");
    turns.push(500, 500_000);
    assert_eq!(turns.take(), Some(500_000));
}

#[test]
fn a_key_asked_for_while_it_is_looked_at_comes_again_afterwards_and_not_before() {
    let mut turns = Turns::new(FEW);
    turns.push("lane", "a");
    assert_eq!(turns.take(), Some("a"));
    turns.push("lane", "a");
    assert_eq!(turns.take(), None);
    assert!(turns.done("a"));
    assert_eq!(turns.take(), Some("a"));
}

#[test]
fn the_earliest_timer_of_a_key_wins_and_a_forgotten_key_has_none() {
    let mut turns = Turns::new(FEW);
    turns.push_at("lane", "a", at(10));
    turns.push_at("lane", "a", at(5));
    turns.push_at("lane", "a", at(20));
    turns.push_at("lane", "b", at(7));
    turns.forget(&"b");
    assert_eq!(turns.due(at(4)), (false, Some(at(5))));
    assert_eq!(turns.due(at(5)), (true, None));
    assert_eq!((turns.take(), turns.take()), (Some("a"), None));
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8, u8),
    PushAt(u8, u8, i64),
    Forget(u8),
    Due(i64),
    Take,
    /// The key that is out, by its place among those.
    Done(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4_u8, 0..12_u8).prop_map(|(lane, key)| Step::Push(lane, key)),
        1 => (0..4_u8, 0..12_u8, 0..20_i64).prop_map(|(lane, key, at)| Step::PushAt(lane, key, at)),
        1 => (0..12_u8).prop_map(Step::Forget),
        1 => (0..20_i64).prop_map(Step::Due),
        3 => Just(Step::Take),
        2 => (0..8_usize).prop_map(Step::Done),
    ]
}

proptest! {
    #[test]
    fn no_request_is_lost_no_key_is_out_twice_and_no_lane_is_above_its_limit(steps in vec(step(), 0..120)) {
        let mut turns = Turns::new(FEW);
        // Keys asked for since they were last handed out, the keys that are out, and the timers.
        let (mut asked, mut out, mut timers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for step in steps {
            match step {
                Step::Push(lane, key) => {
                    turns.push(lane, key);
                    asked.entry(key).or_insert(lane);
                }
                Step::PushAt(lane, key, second) => {
                    turns.push_at(lane, key, at(second));
                    let timer = timers.entry(key).or_insert((second, lane));
                    if second < timer.0 {
                        *timer = (second, lane);
                    }
                }
                Step::Forget(key) => {
                    turns.forget(&key);
                    timers.remove(&key);
                }
                Step::Due(now) => {
                    turns.due(at(now));
                    for (key, (_, lane)) in timers.extract_if(.., |_, (second, _)| *second <= now) {
                        asked.entry(key).or_insert(lane);
                    }
                }
                Step::Take => match turns.take() {
                    Some(key) => {
                        prop_assert!(asked.remove(&key).is_some(), "{key} was not asked for");
                        let lane = turns.out[&key].lane;
                        prop_assert!(out.insert(key, lane).is_none(), "{key} is out twice");
                        prop_assert!(out.values().filter(|it| **it == lane).count() <= FEW.lane);
                        prop_assert!(out.len() <= FEW.all);
                    }
                    // Whatever is ready and not handed out belongs to a lane that has some out already.
                    None if out.len() < FEW.all => for key in turns.ready.clone() {
                        let lane = turns.lanes.iter().find(|(_, keys)| keys.ready.contains(&key)).map(|(it, _)| *it);
                        prop_assert!(out.values().any(|it| Some(*it) == lane), "{key} is stuck");
                    },
                    None => {}
                },
                Step::Done(nth) => {
                    if let Some(key) = out.keys().nth(nth).copied() {
                        out.remove(&key);
                        turns.done(key);
                    }
                }
            }
        }
        // Everything that was asked for comes in the end.
        for key in std::mem::take(&mut out).into_keys() {
            turns.done(key);
        }
        while let Some(key) = turns.take() {
            prop_assert!(asked.remove(&key).is_some());
            turns.done(key);
        }
        prop_assert!(asked.is_empty(), "lost: {asked:?}");
        prop_assert!(turns.lanes.is_empty() && turns.order.is_empty() && turns.ready.is_empty() && turns.out.is_empty());
    }
}
