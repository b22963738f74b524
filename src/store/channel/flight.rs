//! Messages in flight: taken, leased, put back.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{Channel, Error, QUARANTINED, Queue};
use crate::store::link::script;
use crate::wire::{Limits, Unacked, result};

static BEGIN: LazyLock<Script> = script!("lua/begin.lua");
static KEEP: LazyLock<Script> = script!("lua/keep.lua");
static RENEW: LazyLock<Script> = script!("../lua/renew.lua");
static RESTORE: LazyLock<Script> = script!("lua/restore.lua");
static DISCARD: LazyLock<Script> = script!("lua/discard.lua");
static UNLOCK: LazyLock<Script> = script!("lua/unlock.lua");

/// How much of a result tells how the run before ended.
pub(super) const HEAD: usize = 64 << 10;
/// How long the lock on looking for lost messages is kept if its worker dies. Kombu's is 5 minutes; nothing happens twice
/// if two look at once.
const SWEEP: Duration = Duration::from_secs(30);
/// Lost messages that are looked at in one go.
const AT_ONCE: usize = 100;

/// Whether a task may be run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Another run holds the lease, for so long at most.
    LeasedElsewhere(Duration),
    /// The lease is ours. What the run before has left as its result, cut after 64 KiB; empty when there is none.
    Taken(Vec<u8>),
}

impl Channel {
    /// Like [`Channel::begin`], without taking the lease if it is free.
    pub async fn peek_lease(&self, task: &str, tag: &str) -> Result<Begun, Error> {
        self.begin(task, tag, "", Duration::ZERO).await
    }

    /// Takes the lease on a task for `holder`, and looks at what the run before of the message `tag` has left.
    pub async fn begin(&self, task: &str, tag: &str, holder: &str, lease: Duration) -> Result<Begun, Error> {
        const ACT: &str = "beginning a task";
        let result = self.0.result_keys.result(task);
        let mut call = BEGIN.key(self.lease(task));
        if self.0.same_database {
            call.key(&result);
        }
        call.arg(holder).arg(millis(lease)).arg(HEAD);
        let (remaining, mut head): (i64, Vec<u8>) = self.0.broker.script(ACT, &call).await?;
        if remaining != 0 {
            // A lease without an expiry was not written by a worker: ask now and then.
            return Ok(Begun::LeasedElsewhere(u64::try_from(remaining).map_or(lease, Duration::from_millis)));
        }
        if !self.0.same_database {
            let mut noted = redis::cmd("HGET");
            let noted: Option<Vec<u8>> = self.0.broker.query(ACT, noted.arg(self.note(tag)).arg(&result)).await?;
            let mut stored = redis::cmd("GETRANGE");
            head = match noted {
                Some(noted) => noted,
                None => self.0.results.query(ACT, stored.arg(&result).arg(0).arg(HEAD)).await?,
            };
        }
        Ok(Begun::Taken(self.plain(ACT, &result, head).await?))
    }

    /// The beginning of a result, decompressed where it is compressed.
    async fn plain(&self, act: &'static str, key: &str, head: Vec<u8>) -> Result<Vec<u8>, Error> {
        if result::compressed(&head).is_none() {
            return Ok(head);
        }
        if head.len() <= HEAD || result::state_of_prefix(&head).is_some() {
            return Ok(result::beginning(&head).into_owned());
        }
        // The first block of some methods is longer.
        let whole: Vec<u8> = self.0.results.query(act, redis::cmd("GET").arg(key)).await?;
        Ok(result::beginning(&whole).into_owned())
    }

    /// Renews leases, given as task and holder. Answers the other holder of each one that was lost, by position.
    pub async fn keep(&self, leases: &[(&str, &str)], lease: Duration) -> Result<Vec<(usize, String)>, Error> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = KEEP.prepare_invoke();
        for (task, _) in leases {
            call.key(self.lease(task));
        }
        call.arg(millis(lease));
        for (_, holder) in leases {
            call.arg(*holder);
        }
        let others: Vec<String> = self.0.broker.script("renewing leases", &call).await?;
        Ok(others.into_iter().enumerate().filter(|(_, other)| !other.is_empty()).collect())
    }

    /// Restarts the visibility timeout of messages in flight. Says how many of these delivery tags still are.
    pub async fn renew(&self, tags: &[&str]) -> Result<u64, Error> {
        if tags.is_empty() {
            return Ok(0);
        }
        let mut call = RENEW.key(self.0.keys.unacked_index());
        self.0.broker.script("renewing messages in flight", call.arg(tags)).await
    }

    /// Gives up the lease that `holder` has on a task that does not run yet.
    pub async fn give_up_lease(&self, task: &str, holder: &str) -> Result<(), Error> {
        self.0.broker.script("giving up a lease", UNLOCK.key(self.lease(task)).arg(holder)).await
    }

    /// Puts a message in flight back so that it is taken next, and gives the lease up that `holder` has on its task.
    pub async fn restore(&self, tag: &str, task: &str, holder: &str, queues: &[Queue]) -> Result<bool, Error> {
        self.put_back(tag, task, holder, "", queues).await
    }

    /// Puts back what was taken longer than `visibility` ago and not acknowledged, unless another worker is at it.
    /// Says how many messages that were.
    pub async fn restore_visible(&self, visibility: Duration, owner: &str, queues: &[Queue]) -> Result<u64, Error> {
        const ACT: &str = "looking for messages that were not acknowledged";
        let keys = &self.0.keys;
        let mut lock = redis::cmd("SET");
        lock.arg(keys.unacked_mutex()).arg(owner).arg("NX").arg("PX").arg(millis(SWEEP));
        let locked: Option<String> = self.0.broker.query(ACT, &lock).await?;
        if locked.is_none() {
            return Ok(0);
        }
        let restored = self.sweep(ACT, visibility, queues).await;
        self.0.broker.script::<u64>(ACT, UNLOCK.key(keys.unacked_mutex()).arg(owner)).await?;
        restored
    }

    async fn sweep(&self, act: &'static str, visibility: Duration, queues: &[Queue]) -> Result<u64, Error> {
        let (seconds, micros): (u64, u32) = self.0.broker.query(act, &redis::cmd("TIME")).await?;
        let cutoff = format!("{}.{micros:06}", seconds.saturating_sub(visibility.as_secs()));
        let mut restored = 0;
        loop {
            let mut find = redis::cmd("ZRANGE");
            find.arg(self.0.keys.unacked_index()).arg("-inf").arg(&cutoff).arg("BYSCORE");
            find.arg("LIMIT").arg(0).arg(AT_ONCE);
            let tags: Vec<String> = self.0.broker.query(act, &find).await?;
            for tag in &tags {
                restored += u64::from(self.put_back(tag, "", "", &cutoff, queues).await?);
            }
            if tags.len() < AT_ONCE {
                return Ok(restored);
            }
        }
    }

    async fn put_back(
        &self,
        tag: &str,
        task: &str,
        holder: &str,
        until: &str,
        queues: &[Queue],
    ) -> Result<bool, Error> {
        const ACT: &str = "putting a message back";
        let keys = &self.0.keys;
        let mut read = redis::pipe();
        read.cmd("HGET").arg(keys.unacked()).arg(tag).cmd("ZSCORE").arg(keys.unacked_index()).arg(tag);
        let (value, score): (Option<Vec<u8>>, Option<String>) = self.0.broker.pipe(ACT, &read).await?;
        // Asked for once more, it must not be taken from a worker that has taken it since.
        let until = if until.is_empty() { score.unwrap_or_default() } else { until.to_owned() };
        // However large: the worker that took it could read it. Without a value only the time of receipt is left, which the
        // script takes away.
        let read = |value: &[u8]| Unacked::decode_within(value, &Limits::default().bytes(value.len()));
        let (list, message) = match value.as_deref().map(read) {
            Some(Ok(unacked)) => {
                let list = self.list_of(&unacked, queues).await?;
                (list, unacked.envelope.redelivered().encode())
            }
            Some(Err(_)) => return self.discard(tag).await,
            None => (String::new(), Vec::new()),
        };
        let mut call = RESTORE.key(keys.unacked());
        call.key(keys.unacked_index()).key(list).key(self.lease(task));
        call.arg(tag).arg(message).arg(until).arg(holder);
        self.0.broker.script(ACT, &call).await
    }

    /// Moves a message in flight that cannot be read to the quarantine.
    pub async fn discard(&self, tag: &str) -> Result<bool, Error> {
        let keys = &self.0.keys;
        let mut call = DISCARD.key(keys.unacked());
        call.key(keys.unacked_index()).key(self.quarantine_stream()).arg(tag).arg(QUARANTINED);
        self.0.broker.script("quarantining an unreadable message", &call).await
    }

    /// The list through which a message came. An exchange that is not ours is looked up as kombu does.
    async fn list_of(&self, unacked: &Unacked, queues: &[Queue]) -> Result<String, Error> {
        let (exchange, key) = (unacked.exchange.as_str(), unacked.routing_key.as_str());
        let priority = unacked.envelope.properties.priority;
        let ours = queues.iter().find(|queue| &*queue.exchange == exchange && &*queue.routing_key == key);
        if exchange.is_empty() || ours.is_some() {
            return Ok(self.0.keys.queue(ours.map_or(key, |queue| &queue.name), priority));
        }
        let mut read = redis::cmd("SMEMBERS");
        read.arg(self.0.keys.binding(exchange));
        let members: Vec<String> = self.0.broker.query("looking up an exchange", &read).await?;
        let separator = self.0.keys.bands.separator();
        let bound = members.iter().find_map(|member| {
            let mut parts = member.split(separator);
            (parts.next() == Some(key)).then(|| parts.last()).flatten()
        });
        Ok(self.0.keys.queue(bound.unwrap_or(key), priority))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
