//! What keeps a pool from working, in words.

use std::sync::Arc;

use crate::core::claims::fence::Fence;
use crate::core::status::{PoolProblem, PoolProblemKind};
use crate::operator::context::Context;
use crate::store::{Error, Store};

/// What keeps a pool from working, in words.
pub fn problem(kind: PoolProblemKind, detail: impl Into<Arc<str>>) -> PoolProblem {
    PoolProblem { kind, detail: detail.into() }
}

/// Redis is not reachable.
pub fn unreachable_problem(detail: &str) -> PoolProblem {
    problem(PoolProblemKind::BrokerUnreachable, format!("Redis is not reachable: {detail}"))
}

/// What a failed act on Redis says about the pool; `None` when it says nothing.
pub fn problem_of(error: &Error) -> Option<PoolProblem> {
    match error {
        Error::Unavailable { .. } => Some(problem(PoolProblemKind::BrokerUnreachable, error.to_string())),
        Error::AuthenticationFailed { .. } => Some(problem(
            PoolProblemKind::BrokerAuthenticationFailed,
            "Redis refused the user name or the password; mend REDIS_URL in the pool's Secret",
        )),
        Error::Refused { .. } => Some(problem(PoolProblemKind::BrokerRefused, error.to_string())),
        Error::Fenced { .. } | Error::Unexpected { .. } => None,
    }
}

/// The fence keeps us out. Either another operator leads by now, or no operator wrote what it says: workers can write it,
/// too. Then this pool waits until it is cleared, and the others do not notice.
pub async fn outranked(ctx: &Context, store: &Store) -> PoolProblem {
    let says = match store.snapshot(&[]).await.map(|snapshot| snapshot.fence(ctx.epoch())) {
        Ok(Fence::Closed(says)) => says,
        Ok(Fence::Missing | Fence::Open) => return problem(PoolProblemKind::Connecting, "the fence was cleared"),
        Err(error) => return problem_of(&error).unwrap_or_else(|| unreachable_problem(&error.to_string())),
    };
    match ctx.claim.is_held(ctx.epoch()).await {
        Ok(true) => problem(
            PoolProblemKind::FenceNotOurs,
            format!(
                "the fence on Redis ({says}) is not from this operator; unless another operator works with it, clear it: {}",
                store.clearing_the_fence()
            ),
        ),
        Ok(false) => {
            ctx.leadership.lost.cancel();
            problem(PoolProblemKind::Connecting, "another operator leads")
        }
        Err(error) => problem(PoolProblemKind::Connecting, format!("reading the Lease failed: {error}; trying again")),
    }
}
