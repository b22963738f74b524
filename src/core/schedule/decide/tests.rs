use super::*;

/// 2026-11-26T12:00:00Z, a Thursday.
const NOON: Timestamp = Timestamp::constant(1_795_694_400, 0);

fn minutes(minutes: i64) -> Timestamp {
    NOON + SignedDuration::from_mins(minutes)
}

fn hourly() -> Schedule {
    Schedule {
        name: "nightly".into(),
        uid: Uuid::from_u128(7),
        created: minutes(-30),
        generation: 1,
        calendar: Calendar::parse(&["0 * * * *"], "Etc/UTC").unwrap(),
        digest: "hourly".into(),
        overlap: Overlap::Skip,
        catch_up: CatchUp { window: Duration::from_hours(1), all: false },
        jitter: Duration::ZERO,
        suspend: false,
        pause_after: None,
        history: History { succeeded: 3, failed: 3, cancelled: 1 },
        start: None,
        end: None,
        run_now: None,
    }
}

fn every_minute() -> Schedule {
    Schedule { calendar: Calendar::parse(&["* * * * *"], "Etc/UTC").unwrap(), ..hourly() }
}

fn child(planned: Timestamp, state: ChildState) -> Child {
    let name: Arc<str> = name_of("nightly", planned).into();
    Child { uid: Uuid::new_v5(&Uuid::NAMESPACE_DNS, name.as_bytes()), name, created: planned, state }
}

const ACTIVE: ChildState = ChildState::Active { cancelling: false };

fn ended(how: End, at: Timestamp) -> ChildState {
    ChildState::Ended { how, at }
}

fn born(look: &Look) -> Option<&str> {
    look.birth.as_ref().map(|birth| birth.name.as_str())
}

fn skips(look: &Look) -> Vec<(Skip, u64)> {
    look.skipped.iter().map(|skipped| (skipped.why, skipped.count)).collect()
}

#[test]
fn a_job_is_made_at_its_time_and_named_by_it_and_not_before() {
    let early = decide(&hourly(), &Record::default(), &[], minutes(-1));
    assert_eq!((born(&early), early.again_at), (None, Some(NOON)));
    assert_eq!(early.record.next, [NOON, minutes(60), minutes(120)]);
    let look = decide(&hourly(), &early.record, &[], NOON);
    assert_eq!(born(&look), Some("nightly-20261126-1200"));
    assert_eq!((look.record.last_scheduled, look.record.made), (Some(NOON), 1));
    assert_eq!(look.record.active, [Arc::<str>::from("nightly-20261126-1200")]);
    assert_eq!(look.record.next[0], minutes(60));
    let after = decide(&hourly(), &look.record, &[child(NOON, ACTIVE)], NOON);
    assert_eq!((born(&after), after.again_at), (None, Some(minutes(60))));
}

#[test]
fn a_look_that_died_after_it_had_made_a_job_is_carried_on_and_counts_once() {
    let schedule = every_minute();
    let record = Record { decided_until: Some(minutes(-3)), ..Record::default() };
    let first = decide(&schedule, &record, &[], NOON);
    assert_eq!((born(&first), skips(&first)), (Some("nightly-20261126-1200"), vec![(Skip::Superseded, 2)]));
    // What it recorded is lost, and a minute is over.
    let again = decide(&schedule, &record, &[child(NOON, ACTIVE)], minutes(1));
    assert_eq!((born(&again), skips(&again)), (Some("nightly-20261126-1200"), vec![(Skip::Superseded, 2)]));
    assert_eq!((again.record.decided_until, again.record.made), (Some(NOON), 1));
}

#[test]
fn an_earlier_job_that_has_not_ended_is_what_overlap_is_about() {
    let running = [child(minutes(-60), ACTIVE)];
    let at_noon = |overlap, running: &[Child]| {
        let record = Record { decided_until: Some(minutes(-60)), ..Record::default() };
        decide(&Schedule { overlap, ..hourly() }, &record, running, NOON)
    };
    let skip = at_noon(Overlap::Skip, &running);
    assert_eq!((born(&skip), skips(&skip)), (None, vec![(Skip::Overlap, 1)]));
    assert_eq!(skip.record.decided_until, Some(NOON));
    assert!(born(&at_noon(Overlap::Allow, &running)).is_some());
    let cancel = at_noon(Overlap::CancelRunning, &running);
    assert!(born(&cancel).is_some());
    assert_eq!(cancel.cancel, [running[0].name.clone()]);
    let cancelling = [child(minutes(-60), ChildState::Active { cancelling: true })];
    assert!(at_noon(Overlap::CancelRunning, &cancelling).cancel.is_empty(), "that was asked for before");
    let over = [child(minutes(-60), ended(End::Failed, minutes(-50)))];
    for overlap in [Overlap::Skip, Overlap::Queue, Overlap::CancelRunning, Overlap::Allow] {
        assert!(born(&at_noon(overlap, &over)).is_some(), "{overlap:?}");
    }
}

#[test]
fn times_that_queue_are_made_one_after_the_other_as_jobs_end() {
    let schedule = Schedule { overlap: Overlap::Queue, ..hourly() };
    let record = Record { decided_until: Some(minutes(-60)), ..Record::default() };
    let first = child(minutes(-60), ACTIVE);
    let look = decide(&schedule, &record, std::slice::from_ref(&first), NOON);
    assert_eq!((born(&look), &look.record.queued), (None, &vec![NOON]));
    assert_eq!(look.again_at, Some(minutes(1)), "should nothing tell of the end");
    let look = decide(&schedule, &look.record, std::slice::from_ref(&first), minutes(60));
    assert_eq!((born(&look), &look.record.queued), (None, &vec![NOON, minutes(60)]));
    let over = child(minutes(-60), ended(End::Succeeded, minutes(61)));
    let look = decide(&schedule, &look.record, std::slice::from_ref(&over), minutes(61));
    assert_eq!((born(&look), &look.record.queued), (Some("nightly-20261126-1200"), &vec![minutes(60)]));
    let look = decide(&schedule, &look.record, &[over, child(NOON, ACTIVE)], minutes(62));
    assert_eq!((born(&look), &look.record.queued), (None, &vec![minutes(60)]), "one at a time");
    let full = Record { queued: vec![minutes(-120); MOST_QUEUED], ..record };
    assert_eq!(skips(&decide(&schedule, &full, &[first], NOON)), [(Skip::QueueFull, 1)]);
}

#[test]
fn of_what_was_missed_within_the_window_the_last_one_is_made_or_all() {
    let missed = Record { decided_until: Some(minutes(-10)), ..Record::default() };
    let latest = decide(&every_minute(), &missed, &[], NOON);
    assert_eq!((born(&latest), skips(&latest)), (Some("nightly-20261126-1200"), vec![(Skip::Superseded, 9)]));

    let catch_up = CatchUp { window: Duration::from_hours(1), all: true };
    let all = Schedule { catch_up, overlap: Overlap::Allow, ..every_minute() };
    let (mut record, mut children) = (missed, Vec::new());
    for minute in -9..=0 {
        let look = decide(&all, &record, &children, NOON);
        assert_eq!(born(&look), Some(&*name_of("nightly", minutes(minute))));
        assert_eq!((skips(&look), look.again_at), (vec![], Some(NOON)), "at once");
        children.push(child(minutes(minute), ACTIVE));
        record = look.record;
    }
    assert_eq!(born(&decide(&all, &record, &children, NOON)), None);
    assert_eq!(record.made, 10);
}

#[test]
fn a_thousand_missed_times_or_a_year_of_them_end_nothing() {
    for (since, too_late) in [(minutes(-1060), 999), (minutes(-60 * 24 * 365), 10_000)] {
        let record = Record { decided_until: Some(since), ..Record::default() };
        let look = decide(&every_minute(), &record, &[], NOON);
        assert_eq!(born(&look), Some("nightly-20261126-1200"));
        assert_eq!(skips(&look), [(Skip::TooLate, too_late), (Skip::Superseded, 60)]);
    }
    let catch_up = CatchUp { window: Duration::from_hours(168), all: true };
    let all = Schedule { catch_up, overlap: Overlap::Allow, ..every_minute() };
    let look = decide(&all, &Record { decided_until: Some(minutes(-10_000)), ..Record::default() }, &[], NOON);
    assert_eq!(skips(&look), [(Skip::TooMany, 9_900)]);
    assert_eq!(born(&look), Some(&*name_of("nightly", minutes(-99))));
}

#[test]
fn what_passes_while_a_schedule_is_suspended_is_counted_when_it_goes_on_and_not_made_up_for() {
    let suspended = Schedule { suspend: true, ..every_minute() };
    let record = Record { decided_until: Some(minutes(-10)), ..Record::default() };
    let look = decide(&suspended, &record, &[], NOON);
    assert_eq!((born(&look), look.again_at, look.record.rests), (None, None, Some(Rest::Suspended)));
    assert_eq!((skips(&look), &look.record.next), (vec![], &vec![]));
    let look = decide(&every_minute(), &look.record, &[], minutes(5) + SignedDuration::from_secs(30));
    assert_eq!((born(&look), skips(&look)), (None, vec![(Skip::Suspended, 15)]));
    assert_eq!(look.again_at, Some(minutes(6)));
}

#[test]
fn a_schedule_pauses_after_failures_in_a_row_until_it_is_changed_or_a_job_succeeds() {
    let failed = |minute| child(minutes(minute), ended(End::Failed, minutes(minute)));
    let schedule = Schedule { pause_after: Some(2), ..every_minute() };
    let record = Record { decided_until: Some(minutes(-1)), generation: 1, ..Record::default() };
    let one = decide(&schedule, &record, &[failed(-2)], NOON);
    assert!(born(&one).is_some());
    let children = [failed(-2), failed(-1)];
    let two = decide(&schedule, &record, &children, NOON);
    assert_eq!((born(&two), two.record.rests), (None, Some(Rest::Paused)));
    let succeeded = child(minutes(-3), ended(End::Succeeded, minutes(-1) + SignedDuration::from_secs(30)));
    let between = [failed(-2), failed(-1), succeeded.clone(), failed(0)];
    assert!(born(&decide(&schedule, &record, &between, NOON)).is_some(), "one since a job has succeeded");

    let changed = Schedule { generation: 2, ..schedule.clone() };
    let goes_on = decide(&changed, &two.record, &children, minutes(3));
    assert_eq!((goes_on.record.rests, skips(&goes_on)), (None, vec![(Skip::Paused, 3)]));
    assert_eq!(born(&goes_on), Some(&*name_of("nightly", minutes(3))), "the time that is now");
    let still = decide(&schedule, &two.record, &children, minutes(3));
    assert_eq!((born(&still), still.record.rests), (None, Some(Rest::Paused)));
    let run = Schedule { run_now: Some("again".into()), ..schedule };
    assert!(born(&decide(&run, &two.record, &children, minutes(3))).is_some(), "a job can be asked for all the same");
}

#[test]
fn an_annotation_asks_for_one_job_for_each_of_its_values_also_while_the_schedule_rests() {
    let schedule = Schedule { run_now: Some("a".into()), suspend: true, ..hourly() };
    let look = decide(&schedule, &Record::default(), &[], NOON);
    let name = look.birth.clone().unwrap().name;
    assert!(name.starts_with("nightly-run-") && name.len() == "nightly-run-".len() + 10, "{name}");
    assert_eq!(born(&decide(&schedule, &look.record, &[], minutes(1))), None);
    let other = Schedule { run_now: Some("b".into()), ..schedule };
    assert_ne!(decide(&other, &look.record, &[], minutes(1)).birth.unwrap().name, name);
}

#[test]
fn times_lie_between_start_and_end_both_included() {
    let schedule = Schedule { start: Some(NOON), end: Some(minutes(60)), created: minutes(-300), ..hourly() };
    let look = decide(&schedule, &Record::default(), &[], minutes(-100));
    assert_eq!(look.record.next, [NOON, minutes(60)]);
    let look = decide(&schedule, &Record { decided_until: Some(minutes(60)), ..look.record }, &[], minutes(61));
    assert_eq!((look.record.next.len(), look.again_at), (0, None));
}

#[test]
fn lines_that_are_changed_do_not_ask_for_what_they_would_have_asked_for_before() {
    let record = Record { decided_until: Some(minutes(-60)), digest: Some("daily".into()), ..Record::default() };
    let look = decide(&hourly(), &record, &[], minutes(30));
    assert_eq!((born(&look), skips(&look), look.record.next[0]), (None, vec![], minutes(60)));
}

#[test]
fn a_record_of_a_clock_that_was_years_ahead_is_not_believed() {
    let record = Record { decided_until: Some(minutes(60 * 24 * 365)), ..Record::default() };
    assert_eq!(decide(&hourly(), &record, &[], NOON).record.next[0], minutes(60));
    let a_bit = Record { decided_until: Some(minutes(60)), ..Record::default() };
    assert_eq!(decide(&hourly(), &a_bit, &[], NOON).record.next[0], minutes(120), "decided is decided");
}

#[test]
fn a_time_is_put_off_by_the_same_part_of_the_jitter_each_time_and_by_another_in_each_schedule() {
    let jitter = Duration::from_mins(10);
    let put_off = |schedule: u128| put_off(Uuid::from_u128(schedule), NOON, jitter);
    assert_eq!(put_off(1), put_off(1));
    let all: Vec<i64> = (0..1000).map(|uid| put_off(uid).as_secs()).collect();
    assert!(all.iter().all(|seconds| (0..=600).contains(seconds)));
    assert!(all.iter().sum::<i64>() / 1000 > 250 && all.iter().sum::<i64>() / 1000 < 350);
    let schedule = Schedule { jitter, uid: Uuid::from_u128(1), ..hourly() };
    let at = NOON + put_off(1);
    let record = Record { decided_until: Some(minutes(-60)), ..Record::default() };
    assert_eq!(decide(&schedule, &record, &[], at - SignedDuration::from_secs(1)).again_at, Some(at));
    assert_eq!(born(&decide(&schedule, &record, &[], at)), Some("nightly-20261126-1200"), "named by what was planned");
}

#[test]
fn of_finished_jobs_the_last_of_each_end_are_kept_and_none_that_is_not_recorded_or_new() {
    let record = Record { decided_until: Some(minutes(60)), ..Record::default() };
    let now = minutes(61);
    let mut children: Vec<Child> =
        (0..5).map(|n| child(minutes(n * 10), ended(End::Succeeded, minutes(n * 10 + 1)))).collect();
    children.push(child(minutes(5), ended(End::Cancelled, minutes(7))));
    children.push(child(minutes(15), ended(End::Cancelled, minutes(16))));
    children.push(child(minutes(25), ACTIVE));
    let deleted = |look: &Look| look.delete.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
    let look = decide(&hourly(), &record, &children, now);
    let expected = [minutes(10), minutes(0), minutes(5)].map(|at| name_of("nightly", at));
    assert_eq!(deleted(&look), expected);
    let none = Schedule { history: History { succeeded: 0, failed: 0, cancelled: 0 }, ..hourly() };
    let fresh = [child(minutes(60), ended(End::Succeeded, minutes(60)))];
    let look = decide(&none, &record, &fresh, now);
    assert_eq!((deleted(&look), look.again_at), (vec![], Some(minutes(62))), "a former leader may be about to make it");
    assert_eq!(deleted(&decide(&none, &record, &fresh, minutes(62))).len(), 1);
    let behind = Record { decided_until: Some(minutes(59)), ..Record::default() };
    let unrecorded = decide(&Schedule { suspend: true, ..none }, &behind, &fresh, minutes(100));
    assert_eq!(deleted(&unrecorded), [""; 0]);
    let pausing = Schedule { pause_after: Some(4), history: History { failed: 1, ..hourly().history }, ..hourly() };
    let failures: Vec<Child> = (0..5).map(|n| child(minutes(n), ended(End::Failed, minutes(n)))).collect();
    assert_eq!(deleted(&decide(&pausing, &record, &failures, now)).len(), 1, "those that a pause is decided by");
}
