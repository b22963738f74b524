//! Reads of single jobs that a decision depends on: each is repeated until the API server answers, a few at a time.

use std::sync::Arc;

use kube::Api;
use tokio::task::JoinSet;

use crate::api::CrewJob;
use crate::core::id::ObjectKey;
use crate::operator::context::Context;
use crate::operator::job::arrive::arrive;
use crate::operator::job::end::gone;
use crate::runtime::clock;

/// Reads jobs, for ever.
pub async fn run(ctx: Arc<Context>) {
    let mut reads = JoinSet::new();
    loop {
        let key = tokio::select! {
            key = ctx.lookups.queue.next() => key,
            () = ctx.lookups.queue.run_timers() => continue,
            Some(_) = reads.join_next() => continue,
        };
        let ctx = ctx.clone();
        reads.spawn(async move {
            read(&ctx, &key).await;
            ctx.lookups.queue.done(key);
        });
    }
}

async fn read(ctx: &Context, key: &ObjectKey) {
    let Some((uid, turn)) = ctx.jobs.lock().get(key).map(|entry| (entry.job.uid, entry.turn_of())) else {
        return ctx.lookups.answered(key);
    };
    let api: Api<CrewJob> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let call = ctx.call().await;
    let live = api.get_opt(&key.name).await;
    drop(call);
    match live {
        Ok(live) => {
            ctx.lookups.answered(key);
            match live {
                Some(live) => arrive(ctx, live, false),
                None => gone(ctx, key, uid),
            }
        }
        Err(error) => {
            let retry_in = ctx.lookups.failed(turn, clock::now());
            tracing::warn!(job = %key, %error, ?retry_in, "reading a job that left the watch failed; reading it again");
        }
    }
}
