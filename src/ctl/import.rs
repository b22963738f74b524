//! `import`: what an existing Celery set-up would be here, read without changing anything of it.

mod jobs;
mod settings;

use std::env;

use serde_json::{Value, json};

use super::args::{Format, Import, ImportFrom};
use super::cluster::Cluster;
use super::error::Error;
use super::{broker, show};
use crate::runtime::telemetry::chain;
use crate::store::{Access, EnvironmentError, Queue, Store};
use crate::wire::pidbox::Request;
use settings::{Answers, Found, found};

/// Waiting messages that are read at a time.
const AT_ONCE: i64 = 100;

/// Prints the pool that fits the workers that answer, or the messages that wait.
pub async fn import(cluster: impl AsyncFnOnce() -> Result<Cluster, Error>, what: Import) -> Result<(), Error> {
    match what {
        Import::Pool { from, name, output } => {
            let (_, found) = ask(cluster, &from).await?;
            for note in &found.notes {
                show::say(note);
            }
            show::value(&found.pool(&name, from.secret.as_deref()), output.unwrap_or(Format::Yaml))
        }
        Import::Jobs { from, queues, pool, output } => {
            let (store, found) = ask(cluster, &from).await?;
            let known = found.queues.iter().map(|(name, _)| name.clone());
            let queues: Vec<String> = if queues.is_empty() { known.collect() } else { queues };
            if queues.is_empty() {
                return Err(Error::Usage("no worker says which queues there are; name them with --queue".to_owned()));
            }
            let mut items = Vec::new();
            for queue in &queues {
                items.extend(waiting(&store, queue, &pool).await?);
            }
            show::say(&format!(
                "{} messages wait; nothing of them was changed. The jobs are suspended: purge the queues before you resume them, or \
                 both the messages and the jobs run",
                items.len()
            ));
            show::value(&json!({ "apiVersion": "v1", "kind": "List", "items": items }), output.unwrap_or(Format::Yaml))
        }
    }
}

/// Connects to the broker and asks all workers how they are set up.
async fn ask(
    cluster: impl AsyncFnOnce() -> Result<Cluster, Error>,
    from: &ImportFrom,
) -> Result<(Store, Found), Error> {
    let mut access = access(cluster, from).await?;
    let failed = |error: crate::store::Error| Error::NotPossible(error.to_string());
    let store = broker::connect(access.clone()).await?;
    let Some(separator) = store.separator().await.map_err(failed)? else {
        return Ok((store, found(&Answers::default(), from.global_keyprefix.as_deref())));
    };
    access.keys.separator = separator;
    let answers = answers(&broker::connect(access.clone()).await?).await.map_err(failed)?;
    let mut found = found(&answers, from.global_keyprefix.as_deref());
    found.celery.separator.clone_from(&access.keys.separator);
    let keys = broker::keys(&found.celery);
    Ok((broker::connect(Access { keys, ..access }).await?, found))
}

async fn answers(store: &Store) -> Result<Answers, crate::store::Error> {
    let conf = store.inspect(Request::conf(true)).await?;
    if conf.is_empty() {
        return Ok(Answers::default());
    }
    Ok(Answers {
        conf,
        stats: store.inspect(Request::stats()).await?,
        queues: store.inspect(Request::active_queues()).await?,
        registered: store.inspect(Request::registered()).await?,
    })
}

/// Where Redis is: what a Secret says, or the environment.
async fn access(cluster: impl AsyncFnOnce() -> Result<Cluster, Error>, from: &ImportFrom) -> Result<Access, Error> {
    let mut access = if let Some(name) = &from.secret {
        broker::access(&cluster().await?, name).await?
    } else {
        Access::of_environment(|name| env::var(name).ok()).map_err(|error| match error {
            EnvironmentError::NoBroker => {
                Error::Usage("where is Redis? Name a Secret with --secret, or set the variable REDIS_URL".to_owned())
            }
            error @ EnvironmentError::File { .. } => Error::NotPossible(chain(&error)),
        })?
    };
    if let Some(prefix) = &from.global_keyprefix {
        access.keys.global_prefix.clone_from(prefix);
    }
    Ok(access)
}

/// The messages that wait in a queue, as jobs.
async fn waiting(store: &Store, queue: &str, pool: &str) -> Result<Vec<Value>, Error> {
    let mut items = Vec::new();
    let mut unread = 0;
    let named = Queue::new(queue, queue);
    let add = |element: &[u8]| match jobs::job(element, queue, pool) {
        Some(job) => items.push(job),
        None => unread += 1,
    };
    store.peek(&named, AT_ONCE, add).await.map_err(|error| Error::NotPossible(error.to_string()))?;
    if unread > 0 {
        show::say(&format!(
            "{unread} messages of the queue {queue} cannot be read as calls of tasks, and are left out"
        ));
    }
    Ok(items)
}
