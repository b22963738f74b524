//! What keeps Celery's own structures in order: bindings, and the clock of messages with workers.

use std::sync::LazyLock;

use redis::Script;

use super::link::{Link, script};
use super::{Error, Queue, Store};
use crate::wire::BrokerKeys;

static BIND: LazyLock<Script> = script!("lua/bind.lua");
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
    let members = queues.iter().flat_map(|queue| {
        let member = keys.binding_member(&queue.routing_key, "", &queue.name);
        [keys.binding(&queue.exchange), keys.binding_permanent(&queue.exchange)].map(|set| (set, member.clone()))
    });
    bind(link, "declaring the queues", members).await
}

/// Adds members to bindings, also on a Redis that is full.
pub(super) async fn bind(
    link: &Link,
    act: &'static str,
    members: impl Iterator<Item = (String, String)>,
) -> Result<(), Error> {
    let mut call = BIND.prepare_invoke();
    let mut is_any = false;
    for (set, member) in members {
        call.key(set).arg(member);
        is_any = true;
    }
    if is_any { link.script(act, &call).await } else { Ok(()) }
}
