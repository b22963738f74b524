//! Asking all workers something, and collecting their replies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::Script;
use tokio::time::{Instant, sleep};

use super::Error;
use super::link::{Link, script};
use crate::core::claims;
use crate::runtime::backoff::{Backoff, Bounds};
use crate::wire::keys::PIDBOX_REPLY;
use crate::wire::pidbox::{Reply, Request, ReturnAddress, error_of};
use crate::wire::{BrokerKeys, Object, Value};

static REPLIES: LazyLock<Script> = script!("lua/replies.lua");

/// Largest reply that is read, in bytes: one about a thousand tasks has some hundred kB.
const LARGEST_REPLY: usize = 4 << 20;
/// So many bytes of replies are taken at once.
const REPLIES_AT_ONCE: usize = 1 << 20;
/// Workers of a pool that are listened to.
const MOST_ANSWERS: usize = 10_000;

/// How long workers are given to answer, as in Celery.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest time until the first look for answers, and until any other.
const LOOKS: Bounds = (Duration::from_millis(5), Duration::from_millis(50));

/// The way to all workers and back. Cloning is cheap.
#[derive(Clone)]
pub(super) struct Pidbox(Arc<Inner>);

struct Inner {
    link: Link,
    keys: BrokerKeys,
    /// Calls made so far; makes their addresses differ.
    calls: AtomicU64,
}

impl Pidbox {
    pub fn new(link: Link, keys: BrokerKeys) -> Self {
        Self(Arc::new(Inner { link, keys, calls: AtomicU64::new(0) }))
    }

    /// Asks, and waits until all workers that listen have answered, at most for a second.
    pub async fn ask(&self, act: &'static str, request: Request) -> Result<Vec<(Arc<str>, Value)>, Error> {
        let pidbox = self.clone();
        // In a task of its own: a caller that gives up must not leave the address and late replies behind.
        let call = tokio::spawn(async move {
            let ticket = pidbox.ticket(act).await?;
            let address = ReturnAddress { oid: ticket.clone(), ticket };
            let answers = pidbox.converse(act, request, &address).await;
            pidbox.hang_up(act, &address).await?;
            answers
        });
        call.await.map_err(|error| Error::unexpected(act, error.to_string()))?
    }

    /// A name that no other call has.
    async fn ticket(&self, act: &'static str) -> Result<String, Error> {
        let (seconds, micros): (u64, u64) = self.0.link.query(act, &redis::cmd("TIME")).await?;
        let call = self.0.calls.fetch_add(1, Ordering::Relaxed);
        Ok(format!("crewjob-{seconds}-{micros:06}-{call}"))
    }

    async fn converse(
        &self,
        act: &'static str,
        request: Request,
        address: &ReturnAddress,
    ) -> Result<Vec<(Arc<str>, Value)>, Error> {
        let keys = &self.0.keys;
        let request = request.replying_to(address.clone()).envelope(0, None, address.ticket.clone());
        let mut ask = redis::pipe();
        ask.sadd(keys.binding(PIDBOX_REPLY), address.binding_member(keys)).ignore();
        ask.sadd(keys.binding_permanent(PIDBOX_REPLY), address.binding_member(keys)).ignore();
        ask.publish(keys.pidbox_channel(), request.encode());
        let (listening,): (usize,) = self.0.link.pipe(act, &ask).await?;

        let mut take = REPLIES.key(keys.reply_list(&address.oid));
        take.arg(LARGEST_REPLY).arg(REPLIES_AT_ONCE);
        let mut answers = Vec::new();
        let patience = Instant::now() + PATIENCE;
        let mut looks = Backoff::new(LOOKS);
        while answers.len() < listening.min(MOST_ANSWERS) && Instant::now() < patience {
            sleep(looks.pause()).await;
            let replies: Vec<Vec<u8>> = self.0.link.script(act, &take).await?;
            let replies = replies.into_iter().filter_map(|reply| Reply::decode(&reply).ok());
            for reply in replies.filter(|reply| reply.ticket.as_ref() == Some(&address.ticket)) {
                answers.extend(said(reply.nodes));
            }
        }
        Ok(answers)
    }

    /// Tells workers that no reply is waited for any more.
    async fn hang_up(&self, act: &'static str, address: &ReturnAddress) -> Result<(), Error> {
        let keys = &self.0.keys;
        let mut pipe = redis::pipe();
        pipe.srem(keys.binding(PIDBOX_REPLY), address.binding_member(keys)).ignore();
        pipe.srem(keys.binding_permanent(PIDBOX_REPLY), address.binding_member(keys)).ignore();
        pipe.del(keys.reply_lists(&address.oid)).ignore();
        self.0.link.pipe(act, &pipe).await
    }
}

/// The answers of workers that could answer.
fn said(nodes: Object) -> impl Iterator<Item = (Arc<str>, Value)> {
    let answers = nodes.into_iter().filter(|(_, answer)| error_of(answer).is_none());
    answers.filter_map(|(node, answer)| Some((claims::node_name(&node)?, answer)))
}
