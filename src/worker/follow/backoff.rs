use crate::wire::{Headers, Value};

/// The header by which the operator's messages are known.
const UID_HEADER: &str = "crewjob_uid";

/// Seconds until the next attempt, after `retries` that came before this one: Celery's exponential backoff.
///
/// Doubles with each retry from `factor`, up to `max`. With a draw, which is any number at random, it is chosen among
/// all whole seconds from 0 to that.
pub fn countdown(retries: u32, factor: u32, max: u32, jitter_seed: Option<u32>) -> u32 {
    let doubled = 1_u64.checked_shl(retries).filter(|_| retries < 32).unwrap_or(u64::from(u32::MAX));
    let longest = doubled.saturating_mul(factor.max(1).into()).min(max.into());
    let chosen = jitter_seed.map_or(longest, |seed| (u64::from(seed) * (longest + 1)) >> 32);
    u32::try_from(chosen).unwrap_or(max)
}

/// Whether the worker sends the task again itself.
///
/// The operator has its own policy for what it has sent, and counts in `retries` what came before: a second schedule
/// beside it would run the job more often than the policy says.
pub fn may_retry(headers: &Headers, max_retries: u32) -> bool {
    headers.retries.unwrap_or(0) < i64::from(max_retries) && !sent_by_operator(headers)
}

/// Whether the message came from the operator.
pub fn sent_by_operator(headers: &Headers) -> bool {
    headers.other.get(UID_HEADER).is_some_and(|uid| !uid.is_null() && *uid != Value::from(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Object;

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<u32> = (0..8).map(|retries| countdown(retries, 1, 60, None)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!((countdown(2, 5, 600, None), countdown(0, 0, 600, None)), (20, 1));
        assert_eq!((countdown(u32::MAX, u32::MAX, 600, None), countdown(40, 1, u32::MAX, None)), (600, u32::MAX));
        assert_eq!(countdown(3, 1, 0, Some(7)), 0);
    }

    #[test]
    fn a_draw_chooses_among_all_whole_seconds_from_none_to_the_longest() {
        assert_eq!((countdown(2, 1, 600, Some(0)), countdown(2, 1, 600, Some(u32::MAX))), (0, 4));
        let chosen: Vec<u32> = (0..5_u32).map(|fifth| countdown(2, 1, 600, Some(fifth * (u32::MAX / 5) + 9))).collect();
        assert_eq!(chosen, [0, 1, 2, 3, 4]);
        assert_eq!(countdown(40, 1, u32::MAX, Some(u32::MAX)), u32::MAX);
    }

    #[test]
    fn retries_are_counted_and_those_of_the_operators_messages_are_its_own() {
        let after = |retries| Headers { retries, ..Headers::default() };
        assert!(may_retry(&after(None), 3) && may_retry(&after(Some(2)), 3));
        assert!(!may_retry(&after(Some(3)), 3) && !may_retry(&after(None), 0));
        let headers = |uid: Value| Headers { other: Object::new().with("crewjob_uid", uid), ..Headers::default() };
        assert!(!may_retry(&headers("5d0b3c1e".into()), 3));
        assert!(may_retry(&headers("".into()), 3) && may_retry(&headers(Value::Null), 3));
    }
}
