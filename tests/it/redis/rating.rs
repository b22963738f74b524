//! The requests of callers, counted on Redis.

use std::time::Duration;

use crewjob::core::gateway::rate::{Rate, Taken};
use crewjob::store::Callers;

use super::*;

const KEY: &str = "crewjob:rate:caller";

fn callers(server: &RedisServer) -> Callers {
    Callers::new(&settings(server).access).expect("a usable address")
}

fn rate(count: u32, seconds: u64) -> Rate {
    Rate { count, per: Duration::from_secs(seconds) }
}

#[tokio::test]
async fn a_caller_has_its_requests_once_over_all_processes_and_takes_none_of_another_ones() {
    let server = RedisServer::start();
    let (one, other, rate) = (callers(&server), callers(&server), rate(3, 3600));
    let mut remaining = Vec::new();
    for callers in [&one, &other, &one] {
        let taken = callers.take("caller", rate).await.unwrap();
        assert!(taken.is_allowed);
        remaining.push(taken.remaining);
    }
    assert_eq!(remaining, [2, 1, 0]);
    let refused = other.take("caller", rate).await.unwrap();
    assert!(!refused.is_allowed && refused.remaining == 0, "{refused:?}");
    assert!((1190..=1200).contains(&refused.retry_after.as_secs()), "{refused:?}");
    assert!((3590..=3600).contains(&refused.reset.as_secs()), "{refused:?}");
    assert!(one.take("neighbour", rate).await.unwrap().is_allowed);
}

#[tokio::test]
async fn the_script_decides_as_the_gateway_alone_would() {
    let server = RedisServer::start();
    let callers = callers(&server);
    for (count, per) in [(1, 60), (2, 60), (7, 60), (1000, 3600)] {
        server.run::<()>(&["DEL", KEY]);
        let (rate, mut full_at) = (rate(count, per), None);
        for _ in 0..10 {
            let on_redis = callers.take("caller", rate).await.unwrap();
            let (alone, left) = rate.take(full_at, 1_000_000);
            full_at = Some(left);
            let decided = |taken: Taken| (taken.is_allowed, taken.remaining);
            assert_eq!(decided(on_redis), decided(alone), "{count} in {per} s");
            let apart = on_redis.reset.abs_diff(alone.reset);
            assert!(apart < Duration::from_secs(5), "{on_redis:?} {alone:?}");
        }
    }
}

#[tokio::test]
async fn what_was_used_is_forgotten_when_it_is_free_again() {
    let server = RedisServer::start();
    callers(&server).take("caller", rate(10, 60)).await.unwrap();
    let lives: i64 = server.run(&["PTTL", KEY]);
    assert!((5_000..=7_001).contains(&lives), "{lives}");
}

#[tokio::test]
async fn what_others_plant_at_a_callers_key_costs_it_one_time_at_most() {
    let server = RedisServer::start();
    let (callers, rate) = (callers(&server), rate(1, 1));
    for planted in ["text", "-1", "nan", "0x10", "", "1e3"] {
        server.run::<()>(&["SET", KEY, planted]);
        assert!(callers.take("caller", rate).await.unwrap().is_allowed, "{planted:?}");
    }
    for planted in ["1e300", "inf", "99999999999999999999"] {
        server.run::<()>(&["SET", KEY, planted]);
        let taken = callers.take("caller", rate).await.unwrap();
        assert!(!taken.is_allowed && taken.reset <= Duration::from_secs(1), "{planted:?}: {taken:?}");
        let lives: i64 = server.run(&["PTTL", KEY]);
        assert!((0..=2_001).contains(&lives), "{planted:?}: {lives}");
    }
    server.run::<()>(&["DEL", KEY]);
    server.run::<()>(&["LPUSH", KEY, "a"]);
    assert!(callers.take("caller", rate).await.unwrap().is_allowed, "a list is written over");
}
