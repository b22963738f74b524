//! What keeps Celery's own structures in order: bindings, and the clock of messages with workers.

use std::sync::LazyLock;

use redis::Script;

use super::link::{Link, script};
use super::{Error, Queue, Store};
use crate::wire::BrokerKeys;

static RENEW: LazyLock<Script> = script!("lua/renew.lua");

impl Store {
    /// Binds the queues to their exchanges as kombu does, so that producers that name an exchange find them.
    pub async fn declare(&self, queues: &[Queue]) -> Result<(), Error> {
        declare(&self.0.broker, &self.0.names.broker, queues).await
    }

    /// Restarts the visibility timeout of messages whose workers live, so that no other worker runs them again. Says how many of
    /// these delivery tags are in flight.
    pub async fn renew(&self, tags: &[String]) -> Result<u64, Error> {
        let mut renewed = 0;
        for tags in tags.chunks(1000) {
            let mut call = RENEW.key(self.0.names.broker.unacked_index());
            renewed += self.0.broker.script::<u64>("renewing messages in flight", call.arg(tags)).await?;
        }
        Ok(renewed)
    }
}

/// Adds the queues to the bindings of their exchanges.
pub(super) async fn declare(link: &Link, keys: &BrokerKeys, queues: &[Queue]) -> Result<(), Error> {
    let mut pipe = redis::pipe();
    pipe.atomic();
    for queue in queues {
        let member = keys.binding_member(&queue.routing_key, "", &queue.name);
        pipe.sadd(keys.binding(&queue.exchange), &member).ignore();
        pipe.sadd(keys.binding_permanent(&queue.exchange), &member).ignore();
    }
    if queues.is_empty() { Ok(()) } else { link.pipe("declaring the queues", &pipe).await }
}
