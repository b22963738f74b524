//! Permits under the limits of pools, given where there is room.

use std::sync::Arc;
use std::time::Duration;

use crate::operator::context::Context;
use crate::runtime::clock;

/// How soon permits are looked at again by themselves at the latest: a clock may be set.
const AT_MOST: Duration = Duration::from_mins(1);

/// Gives permits for ever, when something was given back and when a rate allows the next one. Not before all unfinished
/// jobs are known: each of them may have one.
pub async fn run(ctx: Arc<Context>) {
    ctx.jobs.listed.cancelled().await;
    loop {
        let now = clock::now();
        let next = ctx.jobs.give_permits(now);
        let stirred = ctx.jobs.permits.notified();
        match next {
            Some(at) => {
                let wait = clock::until(at, now).min(AT_MOST);
                tokio::select! { () = stirred => {}, () = tokio::time::sleep(wait) => {} }
            }
            None => stirred.await,
        }
    }
}
