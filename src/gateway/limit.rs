//! How many requests a caller may make: on Redis for all replicas together, and in the process while there is no Redis.

use parking_lot::Mutex;
use tokio::time::Instant;

use super::config::Limit;
use crate::core::gateway::rate::{Buckets, Rate, Taken, micros};
use crate::runtime::telemetry::{Repeated, chain};
use crate::store;

/// Counts requests.
pub struct Limiter {
    rate: Option<Rate>,
    redis: Option<store::Callers>,
    /// For as long as Redis cannot be asked: the same rate for each replica, rather than none.
    own: Mutex<Buckets>,
    began: Instant,
    failures: Mutex<Repeated>,
}

impl Limiter {
    /// Counts on this Redis, or alone.
    pub fn new(limit: Limit, redis: Option<store::Callers>) -> Self {
        let rate = match limit {
            Limit::Off => None,
            Limit::Of(rate) => Some(rate),
        };
        Self { rate, redis, own: Mutex::default(), began: Instant::now(), failures: Mutex::default() }
    }

    /// Takes one request of a caller. `None` where there is no limit. The second is whether Redis was to count and did not.
    pub async fn take(&self, caller: &str) -> Option<(u32, Taken, bool)> {
        let rate = self.rate?;
        let mut is_without_redis = false;
        if let Some(redis) = &self.redis {
            match redis.take(caller, rate).await {
                Ok(taken) => {
                    if self.failures.lock().is_over() {
                        tracing::info!("requests are counted on Redis again");
                    }
                    return Some((rate.count, taken, false));
                }
                Err(error) => {
                    is_without_redis = true;
                    if self.failures.lock().is_to_be_said(Instant::now()) {
                        let error = chain(&error);
                        tracing::warn!(
                            error,
                            "counting requests on Redis failed; this replica counts for itself meanwhile"
                        );
                    }
                }
            }
        }
        let now = micros(self.began.elapsed());
        Some((rate.count, self.own.lock().take(caller, rate, now), is_without_redis))
    }
}
