//! A pool whose limit is reached: what ten thousand jobs that wait for it cost the operator.

use std::time::{Duration, Instant};

use crewjob::api::CrewJob;
use serde_json::json;
use tokio::time::sleep;

use super::bed::Bed;
use super::operator::JOB_WRITES;
use super::report::{Report, number};
use super::{Extent, Result, jobs};

const POOL: &str = "limited";

/// Idle, with all that waits.
pub async fn measure(bed: &Bed, extent: Extent, report: &Report) -> Result<()> {
    let waiting = extent.pick(500, 10_000);
    let (settle, idle) = extent.pick((5, 10), (30, 120));
    bed.create_pool(POOL, &json!({ "limits": [{ "name": "all", "maxInFlight": 1 }] })).await?;
    let operator = bed.operator().await?;
    let api = bed.api::<CrewJob>();
    report.say(format!("limits: {waiting} jobs that wait for one"));
    let before = operator.metric(JOB_WRITES)?;
    jobs::create_in(&api, POOL, "limited", 0..waiting + 1, |made| report.say(format!("  {made} made"))).await?;
    let say = |waits: f64| report.say(format!("  {waits} wait"));
    operator.reaches(("crewjob_jobs_waiting", r#"reason="LimitReached""#), number(waiting), say).await?;
    sleep(Duration::from_secs(settle)).await;
    let writes = operator.metric(JOB_WRITES)? - before;
    report.measure("limits_writes_per_waiting_job", writes / number(waiting), "writes", Some(1.1));
    let (cpu, began) = (operator.cpu_seconds()?, Instant::now());
    sleep(Duration::from_secs(idle)).await;
    let share = (operator.cpu_seconds()? - cpu) / began.elapsed().as_secs_f64() * 100.0;
    let is_full = matches!(extent, Extent::Full);
    report.measure("limits_10k_waiting_cpu", share, "% of a core", is_full.then_some(2.0));
    report.measure("limits_10k_waiting_rss", operator.memory("VmRSS")?, "MB", None);
    drop(operator);
    jobs::delete_all(&api).await
}
