//! Which worker has which messages, so that those of a worker that has died are put back within seconds.
//!
//! A message is added to the set of its worker in the step that takes it. Every two seconds, and every [`IDLE_BEAT`] while
//! it has none, the worker says that it lives, and which messages it has no more. So a set may name messages that the
//! worker does not have; they are not in flight, or were taken since.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{Channel, Error, Queue, Swept};
use crate::store::link::script;

static BEAT: LazyLock<Script> = script!("lua/beat.lua");
static BURY: LazyLock<Script> = script!("lua/bury.lua");

/// How long the set of a worker is kept that says nothing more. No worker has looked after it for that long.
const KEPT: Duration = Duration::from_hours(24);
/// How often a worker says that it lives, at least.
pub const IDLE_BEAT: Duration = Duration::from_secs(4);
/// How much later than its last sign of life a worker may have taken or renewed a message, in seconds: [`IDLE_BEAT`], and what
/// a step on Redis may take. By then no other worker can have been given it: this one is not silent for long enough yet.
const SINCE: f64 = 5.0;

/// A worker of which nothing was heard for a while.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Silent {
    /// Its name.
    pub worker: String,
    /// When it last said that it lives: seconds, as Redis has them.
    pub beat: String,
}

impl Channel {
    /// Says that this worker lives, which messages it has no more, and which it has. Answers whether any message is noted.
    pub async fn beat(&self, worker: &str, gone: &[String], held: &[&str]) -> Result<bool, Error> {
        let mut call = BEAT.key(self.workers());
        call.key(self.held(worker)).arg(worker).arg(KEPT.as_secs()).arg(gone.len()).arg(gone).arg(held);
        self.0.broker.script("saying that this worker lives", &call).await
    }

    /// The workers of which nothing was heard for so long.
    pub async fn silent_workers(&self, silence: Duration) -> Result<Vec<Silent>, Error> {
        const ACT: &str = "looking for workers that have died";
        let (seconds, micros): (u64, u32) = self.0.broker.query(ACT, &redis::cmd("TIME")).await?;
        let until = format!("{}.{micros:06}", seconds.saturating_sub(silence.as_secs()));
        let mut find = redis::cmd("ZRANGE");
        find.arg(self.workers()).arg("-inf").arg(until).arg("BYSCORE").arg("WITHSCORES");
        let found: Vec<(String, String)> = self.0.broker.query(ACT, &find).await?;
        Ok(found.into_iter().map(|(worker, beat)| Silent { worker, beat }).collect())
    }

    /// Puts back the messages that a dead worker had and that were neither taken nor renewed since. The worker is forgotten,
    /// unless it has said that it lives, or Redis has refused to put a message back.
    pub async fn inherit(&self, dead: &Silent, queues: &[Queue]) -> Result<Swept, Error> {
        const ACT: &str = "putting back the messages of a worker that has died";
        let mut read = redis::cmd("SMEMBERS");
        let tags: Vec<String> = self.0.broker.query(ACT, read.arg(self.held(&dead.worker))).await?;
        let until = format!("{:.6}", dead.beat.parse::<f64>().unwrap_or_default() + SINCE);
        let mut swept = Swept::default();
        for tag in &tags {
            swept.note(self.put_back(tag, "", "", &until, queues).await)?;
        }
        if swept.failed == 0 {
            let mut call = BURY.key(self.workers());
            call.key(self.held(&dead.worker)).arg(&dead.worker).arg(&dead.beat);
            self.0.broker.script::<u64>(ACT, &call).await?;
        }
        Ok(swept)
    }

    /// Takes back what this worker has said: it has no messages any more.
    pub async fn retire(&self, worker: &str) -> Result<(), Error> {
        let mut pipe = redis::pipe();
        pipe.zrem(self.workers(), worker).ignore().del(self.held(worker)).ignore();
        self.0.broker.pipe("leaving the list of workers", &pipe).await
    }

    /// The sorted set of workers, by the time at which they last said that they live.
    pub(super) fn workers(&self) -> String {
        format!("{}crewjob-workers", self.0.keys.prefix)
    }

    /// The set of delivery tags of the messages that a worker has taken.
    pub(super) fn held(&self, worker: &str) -> String {
        format!("{}crewjob-held:{worker}", self.0.keys.prefix)
    }
}
