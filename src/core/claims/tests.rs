use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;

use super::super::usage::Consumed;
use super::clocks::{Clocks, Skew, TOLERANCE, shifted};
use super::fence::{Fence, Term, judge, next_transitions};
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn an_event_on_a_pools_redis_concerns_the_jobs_of_that_pool_only() {
    let pool = ObjectKey::new("a", "default");
    assert_eq!(concern("a", "default", &pool), Concern::Own);
    assert_eq!(concern("b", "default", &pool), Concern::Foreign, "a pool of the same name elsewhere");
    assert_eq!(concern("a", "gpu", &pool), Concern::Foreign);
}

#[test]
fn a_node_name_that_no_worker_can_have_is_not_believed() {
    for fine in ["crew@worker-7d4b9-x2x7q", "w@h", "wörker@host", "a b@c"] {
        assert_eq!(node_name(fine).as_deref(), Some(fine));
    }
    let long = format!("crew@{}", "x".repeat(10_000));
    for wrong in ["", "crew@a\nb", "crew@\u{1b}[31mred", "crew@a\0", "crew@\u{202e}b", &long] {
        assert_eq!(node_name(wrong), None, "{wrong:?}");
    }
}

#[test]
fn the_name_of_an_exception_is_printable_and_short() {
    assert_eq!(exception_name("openai.RateLimitError"), "openai.RateLimitError");
    assert_eq!(exception_name("Value\u{1b}[31mError\n"), "Value[31mError");
    assert_eq!(exception_name("\0\0"), "Unknown");
    assert_eq!(exception_name(""), "Unknown");
    assert!(exception_name(&"ü".repeat(10_000)).len() <= 128);
}

#[test]
fn retries_count_from_the_attempts_first_run_and_never_above_their_bound() {
    assert_eq!([None, Some(0), Some(3)].map(|claimed| celery_retries(1, claimed)), [0, 0, 3]);
    assert_eq!([None, Some(0), Some(5)].map(|claimed| celery_retries(4, claimed)), [0, 0, 2], "a retry that forgot");
    for absurd in [2_000_000_000, 4_294_967_295, i64::MAX] {
        assert_eq!(celery_retries(1, Some(absurd)), RETRIES);
    }
    assert_eq!(celery_retries(u32::MAX, Some(i64::MIN)), 0);
}

#[test]
fn numbers_of_a_marker_that_no_operator_writes_are_not_believed() {
    assert_eq!(
        ["0", "7", "1000001", "4294967295", "-1", "x", ""].map(generation),
        [Some(0), Some(7), None, None, None, None, None]
    );
    assert_eq!(["1", "0", "4294967295"].map(run), [Some(1), None, None]);
    assert_eq!(["10", "11", "-1", "5.5"].map(priority), [Some(Priority::clamped(10)), None, None, None]);
}

#[test]
fn progress_is_between_nothing_and_all() {
    assert_eq!([f64::NAN, -1e300, 41.9, f64::INFINITY].map(percent), [0, 0, 41, 100]);
}

// === the fence ===

const OURS: Term = Term { created: 1_764_150_000, transitions: 7 };

fn fence(created: Option<&str>, epoch: Option<&str>) -> Fence {
    judge(created, epoch, OURS)
}

fn is_closed(created: Option<&str>, epoch: &str) -> bool {
    matches!(fence(created, Some(epoch)), Fence::Closed(_))
}

#[test]
fn a_fence_of_this_term_or_an_earlier_one_is_open() {
    assert_eq!(fence(None, None), Fence::Missing);
    assert_eq!(fence(Some("1764150000"), Some("7")), Fence::Open);
    assert_eq!(fence(Some("1764150000"), Some("6")), Fence::Open);
    assert_eq!(fence(Some("1764149999"), Some("2147483647")), Fence::Open, "its Lease was deleted");
    assert_eq!(fence(None, Some("57")), Fence::Open, "an operator that compared less wrote it");
}

#[test]
fn a_fence_of_a_later_term_or_of_none_is_closed() {
    assert!(is_closed(Some("1764150000"), "8"));
    assert!(is_closed(Some("1764150001"), "1"));
    let absurd = ["", "-1", "1e300", "0x7f", "9.5", "nan", "18446744073709551616", "9007199254740993", "🦀"];
    for wrong in absurd {
        assert!(is_closed(Some("1764150000"), wrong), "{wrong:?}");
        assert!(is_closed(Some(wrong), "1"), "{wrong:?}");
    }
    assert_eq!(fence(None, Some("a\u{1b}[31m\nb")), Fence::Closed("epoch a[31mb, created 0".into()));
}

#[test]
fn a_lease_that_is_created_anew_outranks_whatever_was_counted_on_the_old_one() {
    let old = Term { created: 100, transitions: u32::MAX };
    let new = Term { created: 101, transitions: 1 };
    assert!(new > old && OURS > new);
}

#[test]
fn a_count_of_leaders_that_cannot_go_on_makes_the_lease_anew() {
    assert_eq!(next_transitions(None), Some(1));
    assert_eq!(next_transitions(Some(6)), Some(7));
    assert_eq!(next_transitions(Some(i32::MAX - 1)), Some(2_147_483_647));
    for lost in [i32::MAX, -1, i32::MIN] {
        assert_eq!(next_transitions(Some(lost)), None, "{lost}");
    }
}

// === clocks ===

fn node() -> Arc<str> {
    "crew@w".into()
}

/// What is known of a worker whose clock is behind by so many seconds, after a minute.
fn clocks(behind: i64) -> Clocks {
    let mut clocks = Clocks::default();
    for second in 1000..1060 {
        clocks.hear(&node(), at(second - behind), at(second));
    }
    clocks
}

#[test]
fn the_times_in_a_workers_events_are_converted_to_the_operators_clock() {
    for behind in [-600, 0, 600] {
        let mut clocks = clocks(behind);
        let moment = clocks.hear(&node(), at(1060 - behind), at(1062));
        assert_eq!((moment.at, moment.behind), (at(1060), behind * 1000), "two seconds late");
        assert_eq!(clocks.ours("crew@w", at(1010 - behind), at(1062)), at(1010));
        assert_eq!(clocks.ours("crew@w", at(2000 - behind), at(1062)), at(1062), "nothing has happened later than now");
    }
    assert_eq!(clocks(600).ours("crew@other", at(1010), at(1060)), at(1010), "nothing is known of it");
}

#[test]
fn a_clock_that_is_off_is_named_until_it_is_set_right_or_the_worker_is_gone() {
    let skew = |behind| clocks(behind).skew(at(1060));
    assert_eq!([skew(0), skew(29), skew(-29)], [None, None, None]);
    assert_eq!(skew(600), Some(Skew { node: node(), behind: 600, nodes: 1 }));
    assert_eq!(
        skew(-601).map(|skew| skew.behind),
        Some(-600),
        "to ten seconds, so that it is not written all the time"
    );
    assert_eq!(clocks(600).skew(at(1060 + 200)), None, "it has left");
    for behind in [-600, 600] {
        let mut clocks = clocks(behind);
        for second in 1060..1063 {
            clocks.hear(&node(), at(second), at(second));
        }
        assert_eq!(clocks.skew(at(1063)), None, "it was set by {behind} s");
        assert_eq!(clocks.behind("crew@w"), 0);
    }
}

#[test]
fn a_clock_at_the_limit_is_not_told_of_again_and_again() {
    let limit = i64::try_from(TOLERANCE.as_secs()).unwrap();
    let mut clocks = Clocks::default();
    let mut changes = 0;
    let mut told = false;
    for second in 1000..1300 {
        clocks.hear(&node(), at(second - limit - second % 3 + 1), at(second));
        changes += i32::from(clocks.skew(at(second)).is_some() != told);
        told = clocks.skew(at(second)).is_some();
    }
    assert!(changes <= 1, "{changes}");
}

#[test]
fn the_clocks_of_so_many_workers_are_remembered_and_no_more() {
    let mut clocks = Clocks::default();
    for n in 0..5_000 {
        clocks.hear(&format!("crew@{n}").into(), at(0), at(1000));
    }
    assert_eq!(clocks.skew(at(1000)).unwrap().nodes, 1_000);
    clocks.hear(&"crew@new".into(), at(9000), at(9000));
    assert_eq!((clocks.spread(at(9000)), clocks.behind("crew@new")), (Duration::ZERO, 0), "the silent make room");
}

#[test]
fn the_time_of_an_unnamed_worker_is_known_as_well_as_the_worst_clock() {
    let mut clocks = clocks(-600);
    clocks.hear(&"crew@good".into(), at(1060), at(1060));
    assert_eq!(clocks.spread(at(1060)), Duration::from_mins(10));
}

proptest! {
    #[test]
    fn no_time_whatever_it_is_comes_out_later_than_now(told: i64, offset: i64, heard in 0..4_000_000_000_i64) {
        let told = Timestamp::from_millisecond(told).unwrap_or(Timestamp::MAX);
        let mut clocks = Clocks::default();
        prop_assert!(clocks.hear(&node(), told, at(heard)).at <= at(heard));
        prop_assert!(clocks.ours("crew@w", shifted(told, offset), at(heard)) <= at(heard));
    }
}

#[test]
fn what_a_run_says_of_itself_can_be_seen_and_no_state_was_saved_in_the_future() {
    let now = Timestamp::constant(1_000, 0);
    let usage = Usage::of("a\u{202e}b\n", Consumed { input: 1, ..Consumed::default() });
    let count = Count { id: "o\0ne".into(), usage };
    let state =
        SavedState { saved_at: Some(Timestamp::MAX), problem: Some("too\u{1b}large".into()), ..SavedState::default() };
    let account = account(&count, Some(state), now).unwrap();
    assert_eq!((&*account.count.id, account.count.usage.models().next().unwrap().0), ("one", "ab"));
    let state = account.state.unwrap();
    assert_eq!((state.saved_at, state.problem.as_deref()), (Some(now), Some("toolarge")));
    assert_eq!(super::account(&Count::default(), None, now), None, "it says nothing");
}
