//! When jobs were released that are over, as far as the limits of the pool count them.
//!
//! Nothing is kept of a finished job, and rates count it still. So a leader that begins, or finds a new limit, lists the
//! jobs of the minutes that count; before that no job of the pool is released.

use std::future::pending;
use std::time::Duration;

use jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;

use crate::api::{CrewJob, release_minute};
use crate::core::limits::Limits;
use crate::operator::context::Context;
use crate::operator::state::pool::Handle;
use crate::runtime::backoff::{Backoff, Bounds};
use crate::runtime::clock;
use crate::runtime::telemetry::chain;

/// Objects of a page: each may have megabytes.
const PAGE: u32 = 10;
/// Longest pause after the first failure, and after any.
const AGAIN: Bounds = (Duration::from_millis(500), Duration::from_secs(8));
/// By how much the clocks of two operators may differ.
const SKEW: Duration = Duration::from_mins(1);

/// Finds out when jobs of the pool were released, if that is not known, and waits for ever.
pub async fn run(ctx: &Context, pool: &Handle) {
    // What is unfinished by then is in the table, and what is over is found.
    ctx.jobs.listed.cancelled().await;
    let mut backoff = Backoff::new(AGAIN);
    while let Some(limits) = pool.facts.limits.as_deref().filter(|_| ctx.jobs.lock().lacks_releases(&pool.key)) {
        match find(ctx, pool, limits).await {
            Ok(found) => {
                tracing::debug!(pool = %pool.key, found, "releases of finished jobs are known");
                ctx.jobs.lock().releases_known(&pool.key);
                ctx.look_at_jobs(&pool.key);
            }
            Err(error) => {
                let wait = backoff.pause();
                tracing::warn!(
                    pool = %pool.key, error = %chain(&error), retry_in = ?wait,
                    "listing jobs by the time of their release failed, and no job of the pool is released before; trying again"
                );
                tokio::time::sleep(wait).await;
            }
        }
    }
    pending::<()>().await;
}

/// Notes the finished jobs that were released in the last minutes; how many they are.
async fn find(ctx: &Context, pool: &Handle, limits: &Limits) -> kube::Result<usize> {
    let api: Api<CrewJob> = Api::namespaced(ctx.client.clone(), &pool.key.namespace);
    let mut found = 0;
    for minute in minutes(limits, clock::now()) {
        let selector = format!("status.releaseMinute={minute},spec.poolRef.name={}", pool.key.name);
        let mut page = ListParams::default().fields(&selector).limit(PAGE);
        loop {
            let jobs = {
                let _call = ctx.call().await;
                api.list(&page).await?
            };
            let over = jobs.items.iter().filter_map(|job| job.to_job().ok());
            for job in over.filter(|job| job.status.phase.is_terminal()) {
                ctx.jobs.lock().note_over(&job);
                found += 1;
            }
            match jobs.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
    }
    Ok(found)
}

/// The minutes in which jobs may have been released that count still.
fn minutes(limits: &Limits, now: Timestamp) -> impl Iterator<Item = String> {
    let longest = limits.all.iter().filter_map(|limit| limit.rate).map(|rate| rate.per).max().unwrap_or_default();
    let minute = 60;
    let first = now.checked_sub(longest + SKEW).unwrap_or(Timestamp::MIN).as_second().div_euclid(minute);
    let last = now.checked_add(SKEW).unwrap_or(Timestamp::MAX).as_second().div_euclid(minute);
    (first..=last).filter_map(move |index| Timestamp::from_second(index * minute).ok()).map(release_minute)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::core::limits::{By, Limit, Rate};

    #[test]
    fn the_minutes_that_count_are_those_of_the_longest_rate_and_one_more_on_each_side() {
        let limit = |per: Option<u64>| Limit {
            name: "a".into(),
            by: By::All,
            max_in_flight: Some(1),
            rate: per.map(|per| Rate { count: 1, per: Duration::from_secs(per) }),
            slow_down: None,
            weight: 1,
            weights: BTreeMap::new(),
        };
        let of = |rates: &[Option<u64>]| {
            let all = rates.iter().map(|per| limit(*per)).collect();
            let limits = Limits { pool: "p".into(), all, aging: Duration::from_hours(1) };
            minutes(&limits, "2026-11-29T12:00:30Z".parse().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[Some(1), None]), ["2026-11-29T11:59", "2026-11-29T12:00", "2026-11-29T12:01"]);
        let minutes = of(&[Some(3600), Some(1)]);
        assert_eq!((minutes.len(), minutes[0].as_str()), (63, "2026-11-29T10:59"));
    }
}
