use super::*;
use crate::wire::Call;

const EARLY: &str = "2026-11-22T11:59:59+00:00";
const LATE: &str = "2026-11-22T12:00:01+00:00";
const MINUTE: Duration = Duration::from_mins(1);

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn task(change: impl FnOnce(&mut Message)) -> Message {
    let mut message = Message::decode(&Call::new("a.task", "id-1", "default").envelope()).unwrap();
    change(&mut message);
    message
}

/// A message that has its slot and was announced.
fn seen(message: &Message) -> Seen<'_> {
    Seen {
        message,
        redelivered: false,
        is_revoked: false,
        is_announced: true,
        has_slot: true,
        answer: None,
        aside: None,
    }
}

#[test]
fn a_message_is_announced_then_waits_for_its_eta_then_for_a_slot_then_asks_for_its_lease() {
    let plain = task(|_| ());
    let fresh = Seen { is_announced: false, has_slot: false, ..seen(&plain) };
    assert_eq!(next(&fresh, now()), Step::Announce);
    let announced = Seen { is_announced: true, ..fresh };
    assert_eq!(next(&announced, now()), Step::TakeSlot);
    assert_eq!(next(&seen(&plain), now()), Step::Ask { take: true });
    for (eta, expected) in
        [(EARLY, Step::Ask { take: true }), (LATE, Step::Wait("2026-11-22T12:00:01Z".parse().unwrap()))]
    {
        let scheduled = task(|task| task.headers.eta = Some(eta.into()));
        assert_eq!(next(&seen(&scheduled), now()), expected, "{eta}");
        assert_eq!(next(&Seen { is_announced: false, ..seen(&scheduled) }, now()), Step::Announce, "{eta}");
    }
}

#[test]
fn a_revoked_or_expired_message_is_dropped_without_being_announced_and_before_its_eta() {
    let scheduled = task(|task| task.headers.eta = Some(LATE.into()));
    let unknown = |message| Seen { is_announced: false, has_slot: false, ..seen(message) };
    let revoked = Seen { is_revoked: true, ..unknown(&scheduled) };
    assert_eq!(next(&revoked, now()), Step::Drop { expired: false });
    let expired = task(|task| (task.headers.expires, task.headers.eta) = (Some(EARLY.into()), Some(LATE.into())));
    assert_eq!(next(&unknown(&expired), now()), Step::Drop { expired: true });
    assert_eq!(next(&Seen { is_revoked: true, ..unknown(&expired) }, now()), Step::Drop { expired: false });
    let in_time = task(|task| task.headers.expires = Some(LATE.into()));
    assert_eq!(next(&seen(&in_time), now()), Step::Ask { take: true });
}

#[test]
fn the_answers_of_rate_limit_and_lease_decide_the_next_step_of_a_message() {
    let plain = task(|_| ());
    let ended = || Answer::Free(br#"{"status": "SUCCESS", "result": "cut off he"#.to_vec());
    let free = || Answer::Free(Vec::new());
    let forget = || Step::Forget("SUCCESS".into());
    let (once, again) = (None, Some(Aside::LeasedElsewhere));
    for (redelivered, aside, answer, expected) in [
        (false, once, Answer::Limited(MINUTE), Step::Rest(MINUTE)),
        (false, once, Answer::LeasedElsewhere(MINUTE), Step::PutAside(Aside::LeasedElsewhere, FIRST_WAIT)),
        (false, once, Answer::LeasedElsewhere(FIRST_WAIT / 2), Step::PutAside(Aside::LeasedElsewhere, FIRST_WAIT / 2)),
        (false, again, Answer::LeasedElsewhere(MINUTE), Step::PutAside(Aside::LeasedElsewhere, MINUTE)),
        (false, once, Answer::Failed, Step::PutAside(Aside::NoAnswer, RENEW)),
        (false, once, free(), Step::Run),
        (false, again, free(), Step::Run),
        (false, once, ended(), forget()),
        (true, once, free(), Step::PutAside(Aside::PutBack, LEASE)),
        (true, once, ended(), forget()),
        (true, again, free(), Step::PutAside(Aside::PutBack, LEASE)),
        (true, Some(Aside::NoAnswer), free(), Step::PutAside(Aside::PutBack, LEASE)),
        (true, Some(Aside::PutBack), free(), Step::Run),
        (true, Some(Aside::PutBack), ended(), forget()),
    ] {
        let about = format!("redelivered {redelivered}, {aside:?}, {answer:?}");
        let seen = Seen { redelivered, aside, answer: Some(answer), ..seen(&plain) };
        assert_eq!(next(&seen, now()), expected, "{about}");
    }
}

#[test]
fn a_message_that_was_put_back_takes_its_lease_only_after_a_wait_in_which_no_lease_was_seen() {
    let plain = task(|_| ());
    for (redelivered, aside, take) in [
        (false, None, true),
        (false, Some(Aside::LeasedElsewhere), true),
        (true, None, false),
        (true, Some(Aside::LeasedElsewhere), false),
        (true, Some(Aside::NoAnswer), false),
        (true, Some(Aside::PutBack), true),
    ] {
        let seen = Seen { redelivered, aside, ..seen(&plain) };
        assert_eq!(next(&seen, now()), Step::Ask { take }, "redelivered {redelivered}, {aside:?}");
    }
}

#[test]
fn a_task_that_is_revoked_while_it_asks_for_its_lease_is_run_and_stopped_there() {
    let plain = task(|_| ());
    let seen = Seen { is_revoked: true, answer: Some(Answer::Free(Vec::new())), ..seen(&plain) };
    assert_eq!(next(&seen, now()), Step::Run);
}
