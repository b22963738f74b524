//! Messages in flight: taken, leased, put back.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{Channel, Error, Queue};
use crate::store::link::script;
use crate::wire::{Destination, Envelope, Limits, Unacked, result};

static BEGIN: LazyLock<Script> = script!("lua/begin.lua");
static KEEP: LazyLock<Script> = script!("lua/keep.lua");
static RENEW: LazyLock<Script> = script!("../lua/renew.lua");
static RESTORE: LazyLock<Script> = script!("lua/restore.lua");
static UNLOCK: LazyLock<Script> = script!("lua/unlock.lua");

/// How much of a result tells how the run before ended.
pub(super) const HEAD: usize = 64 << 10;
/// How long the lock on looking for lost messages is kept if its worker dies. Kombu's is 5 minutes; nothing happens twice
/// if two look at once.
const SWEEP: Duration = Duration::from_secs(30);
/// Lost messages that are looked at in one go.
const AT_ONCE: usize = 100;
/// Lost messages after which a round ends, so that it is over before its lock expires.
const ONE_ROUND: u64 = 2000;

/// What came of looking for lost messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Messages that were put back, or quarantined.
    pub restored: u64,
    /// Messages that Redis refused to put back.
    pub failed: u64,
    /// Why it refused the first of them.
    pub refusal: Option<Error>,
    /// Whether the round has ended before all were looked at.
    pub more: bool,
}

/// Whether a task may be run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Another run holds the lease, for so long at most.
    LeasedElsewhere(Duration),
    /// The lease is ours. What the run before has left as its result, cut after 64 KiB; empty when there is none.
    Taken(Vec<u8>),
}

impl Swept {
    /// Counts what came of one message. An error that all messages would meet is given back.
    pub(super) fn note(&mut self, put_back: Result<bool, Error>) -> Result<(), Error> {
        match put_back {
            Ok(restored) => self.restored += u64::from(restored),
            Err(error) if error.is_for_good() || matches!(error, Error::Unexpected { .. }) => {
                self.failed += 1;
                self.refusal.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
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

    /// A message in flight; `None` where it is not any more, or cannot be read.
    pub async fn in_flight(&self, tag: &str) -> Result<Option<Envelope>, Error> {
        let mut read = redis::cmd("HGET");
        read.arg(self.0.keys.unacked()).arg(tag);
        let value: Option<Vec<u8>> = self.0.broker.query("reading a message in flight", &read).await?;
        let decoded =
            value.and_then(|value| Unacked::decode_within(&value, &Limits::default().bytes(value.len())).ok());
        Ok(decoded.map(|unacked| unacked.envelope))
    }

    /// Puts a message in flight back so that it is taken next, and gives the lease up that `holder` has on its task.
    pub async fn restore(&self, tag: &str, task: &str, holder: &str, queues: &[Queue]) -> Result<bool, Error> {
        self.put_back(tag, task, holder, "", queues).await
    }

    /// Puts back what was taken longer than `visibility` ago and not acknowledged, unless another worker is at it.
    /// A message that Redis refuses to put back keeps no other one from it.
    pub async fn restore_visible(&self, visibility: Duration, owner: &str, queues: &[Queue]) -> Result<Swept, Error> {
        const ACT: &str = "looking for messages that were not acknowledged";
        let keys = &self.0.keys;
        let mut lock = redis::cmd("SET");
        lock.arg(keys.unacked_mutex()).arg(owner).arg("NX").arg("PX").arg(millis(SWEEP));
        let locked: Option<String> = self.0.broker.query(ACT, &lock).await?;
        if locked.is_none() {
            return Ok(Swept::default());
        }
        let restored = self.sweep(ACT, visibility, queues).await;
        self.0.broker.script::<u64>(ACT, UNLOCK.key(keys.unacked_mutex()).arg(owner)).await?;
        restored
    }

    async fn sweep(&self, act: &'static str, visibility: Duration, queues: &[Queue]) -> Result<Swept, Error> {
        let (seconds, micros): (u64, u32) = self.0.broker.query(act, &redis::cmd("TIME")).await?;
        let cutoff = format!("{}.{micros:06}", seconds.saturating_sub(visibility.as_secs()));
        let mut swept = Swept::default();
        loop {
            let mut find = redis::cmd("ZRANGE");
            find.arg(self.0.keys.unacked_index()).arg("-inf").arg(&cutoff).arg("BYSCORE");
            find.arg("LIMIT").arg(swept.failed).arg(AT_ONCE);
            let tags: Vec<String> = self.0.broker.query(act, &find).await?;
            for tag in &tags {
                swept.note(self.put_back(tag, "", "", &cutoff, queues).await)?;
            }
            swept.more = tags.len() == AT_ONCE;
            if !swept.more || swept.restored + swept.failed >= ONE_ROUND {
                return Ok(swept);
            }
        }
    }

    pub(super) async fn put_back(
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
        let (lists, message) = match value.as_deref().map(read) {
            Some(Ok(Unacked { envelope, exchange, routing_key })) => {
                let priority = envelope.properties.priority;
                match self.destination(&exchange, &routing_key, queues).await? {
                    Destination::Queues(names) => {
                        let lists: Vec<String> = names.iter().map(|name| keys.queue(name, priority)).collect();
                        (lists, envelope.redelivered().encode())
                    }
                    // Each listener of a fanout exchange had its own copy.
                    Destination::Subscribers | Destination::Nowhere => {
                        return self.discard_unbound(tag, &exchange, &routing_key).await;
                    }
                }
            }
            Some(Err(_)) => return self.discard(tag).await,
            None => (Vec::new(), Vec::new()),
        };
        let mut call = RESTORE.key(keys.unacked());
        call.key(keys.unacked_index()).key(self.lease(task));
        for list in lists {
            call.key(list);
        }
        call.arg(tag).arg(message).arg(until).arg(holder);
        self.0.broker.script(ACT, &call).await
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
