//! Whether the messages of tasks were acknowledged whose result documents name an end state: a task that is not at its end
//! may have stored that itself.

use std::sync::Arc;
use std::time::Duration;

use crate::core::backoff::AGAIN;
use crate::core::index::audit::Results;
use crate::core::index::{LookUp, LookedUp};
use crate::operator::context::Context;
use crate::operator::job::documents;
use crate::operator::state::pool::Handle;
use crate::runtime::backoff::Backoff;
use crate::runtime::clock;
use crate::store::{self, Error, MarkerId, Store};

/// Messages are looked up together that are due within this time.
const BURST: Duration = Duration::from_millis(20);

/// Looks up what it is asked for, for ever.
pub async fn run(ctx: &Context, pool: &Handle, store: &Store) {
    let mut backoff = Backoff::new(AGAIN);
    loop {
        pool.look_ups.notified().await;
        tokio::time::sleep(BURST).await;
        let asked = pool.take_look_ups();
        match Box::pin(look_up(ctx, pool, store, &asked)).await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                let wait = backoff.pause();
                tracing::warn!(pool = %pool.key, %error, retry_in = ?wait, "messages could not be looked up");
                tokio::time::sleep(wait).await;
            }
        }
        for look_up in &asked {
            ctx.jobs.look_at(&look_up.key);
        }
    }
}

async fn look_up(ctx: &Context, pool: &Handle, store: &Store, asked: &[LookUp]) -> Result<(), Error> {
    let marker = |it: &LookUp| MarkerId::new(it.key.namespace.clone(), it.id.task);
    let messages: Vec<(MarkerId, String)> = asked.iter().map(|it| (marker(it), it.tag.clone())).collect();
    let (mut results, now) = (Results::default(), clock::now());
    let holder = |node: &Arc<str>| ctx.speaker(pool, node);
    let found = store.look_up(&messages, |at, document| {
        if let Some(said) = documents::read(asked[at].id, document, holder, now) {
            results.document(asked[at].id.task, said);
        }
    });
    let found = found.await?;
    let (mut is_unread, mut is_unclear) = (false, false);
    {
        let mut table = ctx.jobs.lock();
        for (it, store::LookedUp { generation, is_in_flight }) in asked.iter().zip(found) {
            let found = LookedUp { generation, is_in_flight, document: results.take(it.id.task) };
            is_unclear |= table.looked_up(it, found, now);
            is_unread |= table.get(&it.key).is_some_and(|entry| entry.evidence.is_unread());
        }
    }
    if is_unread {
        pool.levels.notify_one();
    }
    if is_unclear {
        pool.audit.notify_one();
    }
    Ok(())
}
