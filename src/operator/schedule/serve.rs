//! When to look at a schedule.

use std::sync::Arc;
use std::time::Duration;

use super::look::look;
use crate::operator::context::Context;
use crate::operator::state::schedules::Handle;
use crate::runtime::backoff::{Backoff, Bounds};
use crate::runtime::clock;

/// The clock is looked at so often: it may be set while nothing is to be done.
const LONGEST: Duration = Duration::from_secs(30);
/// Longest pause after the first failure, and after any.
const AGAIN: Bounds = (Duration::from_secs(1), Duration::from_secs(30));

/// Looks at a schedule until it is gone, or the lead is.
pub async fn serve(ctx: Arc<Context>, schedule: Handle) {
    tokio::select! {
        () = looks(&ctx, &schedule) => {}
        () = schedule.stop.cancelled() => {}
        () = ctx.leadership.lost.cancelled() => {}
    }
}

async fn looks(ctx: &Context, schedule: &Handle) {
    let mut backoff = Backoff::new(AGAIN);
    loop {
        let again_at = match look(ctx, &schedule.key).await {
            Ok(again_at) => {
                backoff.reset();
                again_at
            }
            Err(error) => {
                let pause = backoff.pause();
                tracing::warn!(schedule = %schedule.key, %error, again_in = ?pause, "looking at a schedule failed; trying again");
                clock::now().checked_add(pause).ok()
            }
        };
        loop {
            let wait = again_at.map(|at| clock::until(at, clock::now()));
            if wait.is_some_and(|wait| wait.is_zero()) {
                break;
            }
            tokio::select! {
                () = schedule.wake.notified() => break,
                () = tokio::time::sleep(wait.unwrap_or(LONGEST).min(LONGEST)) => {}
            }
        }
    }
}
