//! Putting back what other workers have lost. In a task of its own: leases are renewed meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::context::Worker;
use crate::runtime::clock;
use crate::store::channel::Swept;

/// How often kombu looks for messages that were not acknowledged.
const SWEEP: Duration = Duration::from_secs(100);
/// Pause after a round that has left messages to the next one.
const GO_ON: Duration = Duration::from_secs(5);

/// Sweeps until it is aborted, for the first time at once, as kombu does when it connects.
pub async fn keep(worker: Arc<Worker>) {
    loop {
        sleep(sweep(&worker).await).await;
    }
}

/// One round; gives the time until the next one.
async fn sweep(worker: &Worker) -> Duration {
    let visibility = Duration::from_secs(worker.config.visibility_timeout.into());
    let queues = worker.queues.borrow().clone();
    let owner = clock::random_id().to_string();
    let Swept { restored, failed, more, refusal } =
        match worker.channel.restore_visible(visibility, &owner, &queues).await {
            Ok(swept) => swept,
            Err(error) => {
                tracing::warn!(%error, "looking for unacknowledged messages failed; retrying at the next round");
                return SWEEP;
            }
        };
    if restored > 0 {
        tracing::info!(restored, "put back messages that were not acknowledged within the visibility timeout");
    }
    if let Some(error) = refusal {
        tracing::error!(failed, %error, "Redis refuses to put messages back; they are tried again at the next round");
    }
    if more { GO_ON } else { SWEEP }
}
