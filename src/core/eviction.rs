//! Whether a Redis server drops keys when it is full, and what jobs lose by that.

use std::sync::Arc;

/// Bytes that are kept of a policy's name; the longest that Redis has is 15.
const NAME: usize = 32;

/// A server that drops keys when it is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// `maxmemory-policy`, as the server tells it.
    pub policy: Arc<str>,
    /// `maxmemory`, in bytes: at this size it begins.
    pub maxmemory: u64,
    /// Which keys may go.
    pub keys: Keys,
}

/// Which keys a server may drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// Any: queues with all their messages, messages in flight, markers, results.
    All,
    /// Those that expire: results, and the leases of workers.
    Expiring,
}

/// What a server does that has so much memory and this policy; `None` when it keeps everything. Without a bound nothing is
/// ever dropped, whatever the policy.
pub fn judge(maxmemory: u64, policy: &str) -> Option<Eviction> {
    if maxmemory == 0 || policy.is_empty() || policy == "noeviction" {
        return None;
    }
    let keys = if policy.starts_with("volatile-") { Keys::Expiring } else { Keys::All };
    let name: String = policy.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(NAME).collect();
    Some(Eviction { policy: name.into(), maxmemory, keys })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_may_evict_queues_or_results_is_told_and_one_that_evicts_nothing_is_not() {
        for (maxmemory, policy, keys) in [
            (0, "noeviction", None),
            (1, "noeviction", None),
            (0, "allkeys-lru", None),
            (1, "", None),
            (1, "allkeys-lru", Some(Keys::All)),
            (1, "allkeys-random", Some(Keys::All)),
            (1, "volatile-lru", Some(Keys::Expiring)),
            (1, "volatile-ttl", Some(Keys::Expiring)),
            (1, "a policy of tomorrow", Some(Keys::All)),
        ] {
            assert_eq!(judge(maxmemory, policy).map(|it| it.keys), keys, "{maxmemory} {policy}");
        }
    }

    #[test]
    fn the_name_of_a_policy_is_bounded() {
        let told = judge(1, &"x\u{1b}[31m".repeat(100)).unwrap();
        assert!(told.policy.len() <= 32 && told.policy.chars().all(|c| c.is_ascii_graphic()), "{}", told.policy);
    }
}
