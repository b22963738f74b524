//! Memory of an operator: with jobs that wait and no worker, and beside jobs that are over.

use std::time::Duration;

use crewjob::api::CrewJob;
use tokio::time::sleep;

use super::bed::Bed;
use super::operator::{JOB_WRITES, Operator};
use super::report::{Report, number};
use super::{Extent, Result, jobs};

const TARGET: f64 = 40.0;
/// What finished jobs may add, however many they are.
const FINISHED_TARGET: f64 = 5.0;

/// A thousand jobs, ten thousand, and an operator that finds ten thousand when it starts.
pub async fn measure(bed: &Bed, extent: Extent, report: &Report) -> Result<()> {
    let api = bed.api::<CrewJob>();
    let operator = bed.operator().await?;
    report.say(format!("memory: {:.1} MB without a job", operator.memory("VmRSS")?));
    let mut made = 0;
    for (count, name) in [(1000, "operator_rss_1k"), (10_000, "operator_rss_10k")] {
        if count > extent.pick(1000, 10_000) {
            break;
        }
        report.say(format!("memory: {count} jobs"));
        jobs::create(&api, "memory", made..count, |more| report.say(format!("  {} of {count} made", made + more)))
            .await?;
        made = count;
        let say = |done: f64| report.say(format!("  {done} of {count} recorded as Queued"));
        operator.reaches(JOB_WRITES, number(count), say).await?;
        sleep(Duration::from_secs(3)).await;
        let limit = (count == 10_000).then_some(TARGET);
        report.measure(name, operator.memory("VmRSS")?, "MB", limit);
        report.say(format!("  at most so far {:.1} MB", operator.memory("VmHWM")?));
    }
    drop(operator);
    if made == 10_000 {
        let operator = bed.operator().await?;
        operator.reaches(("crewjob_jobs_live", ""), number(made), |_| {}).await?;
        sleep(Duration::from_secs(3)).await;
        report.measure("operator_rss_10k_restarted", operator.memory("VmRSS")?, "MB", Some(TARGET));
        report.say(format!("  at most so far {:.1} MB", operator.memory("VmHWM")?));
    }
    Ok(())
}

/// A hundred thousand jobs that were over before the operator started.
pub async fn measure_finished(bed: &Bed, extent: Extent, report: &Report) -> Result<()> {
    let api = bed.api::<CrewJob>();
    jobs::delete_all(&api).await?;
    let without = settled(&bed.operator().await?).await?;
    let count = extent.pick(1000, 100_000);
    report.say(format!("memory: {without:.1} MB without a job; making {count} finished ones"));
    let say = |more| {
        if more % 10_000 == 0 {
            report.say(format!("  {more} of {count} made"));
        }
    };
    jobs::create_finished(&api, "finished", 0..count, say).await?;
    let with = settled(&bed.operator().await?).await?;
    report.say(format!("  {with:.1} MB beside {count} finished jobs"));
    let limit = (count == 100_000).then_some(FINISHED_TARGET);
    report.measure("operator_rss_finished", with - without, "MB", limit);
    Ok(())
}

/// Its memory once it has nothing to do any more.
async fn settled(operator: &Operator) -> Result<f64> {
    sleep(Duration::from_secs(5)).await;
    operator.memory("VmRSS")
}
