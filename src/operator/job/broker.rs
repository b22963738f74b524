//! The Redis of a job's pool, and what its answers teach about the job.

use crate::core::evidence::Evidence;
use crate::core::job::Job;
use crate::operator::context::Context;
use crate::store::{self, Store};

use super::error::Error;

/// The connection of the job's pool.
pub fn connection(ctx: &Context, job: &Job) -> Result<Store, Error> {
    ctx.pools
        .store(&job.key.namespace, &job.spec.pool)
        .ok_or_else(|| Error::NotConnected { job: job.key.clone(), pool: job.spec.pool.clone() })
}

/// What a failed act on Redis is called.
pub fn store_error(job: &Job, source: store::Error) -> Error {
    Error::Store { job: job.key.clone(), source }
}

/// Passes a store's answer on. Where the fence keeps us out, the next look at the pool's load finds out why.
pub fn fenced<T>(ctx: &Context, job: &Job, answer: Result<T, store::Error>) -> Result<T, Error> {
    if matches!(answer, Err(store::Error::Fenced { .. })) {
        ctx.pools.look_at_load(&job.key.namespace, &job.spec.pool);
    }
    answer.map_err(|source| store_error(job, source))
}

/// Notes something about the attempt in hand, if it is still in hand.
pub fn learn(ctx: &Context, job: &Job, what: impl FnOnce(&mut Evidence)) {
    ctx.jobs.lock().learn(job, what);
}

/// Redis knows better: read its levels for this job before anything else is decided.
pub fn read_again(ctx: &Context, job: &Job) {
    learn(ctx, job, Evidence::unread);
    ctx.pools.read_levels(&job.key.namespace, &job.spec.pool);
}
