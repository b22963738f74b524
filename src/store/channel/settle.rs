//! The end of a run.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{Channel, Error};
use crate::store::link::script;

static SETTLE: LazyLock<Script> = script!("lua/settle.lua");

/// A message to put on a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The queue.
    pub queue: String,
    /// Celery's priority; decides on the band.
    pub priority: Option<i64>,
    /// The message.
    pub envelope: Vec<u8>,
}

/// What is done at the end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement<'a> {
    /// The task.
    pub task: &'a str,
    /// The delivery tag of its message.
    pub tag: &'a str,
    /// Who has the lease on it; empty where none was taken.
    pub holder: &'a str,
    /// The result document; `None` stores nothing.
    pub document: Option<&'a [u8]>,
    /// How long Redis keeps it; `None` for good.
    pub expires: Option<Duration>,
    /// Whether it is a success, which counts even if somebody else has the lease by now.
    pub is_success: bool,
    /// What is published with it.
    pub publish: &'a [Publication],
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Whether the outcome was taken: no success was there before, and nobody else has the lease.
    pub taken: bool,
    /// Whether the message was acknowledged: somebody else who has the lease will do that.
    pub acknowledged: bool,
}

impl Channel {
    /// Publishes what follows, stores the result, acknowledges the message and gives the lease up, in one step where the
    /// result backend is the broker. May be repeated until it is answered.
    pub async fn settle(&self, end: &Settlement<'_>) -> Result<Settled, Error> {
        const ACT: &str = "settling a task";
        let keys = &self.0.keys;
        let expires = end.expires.map_or(0, |expires| expires.as_secs().max(1));
        let wins = u8::from(end.is_success);
        let stored = match end.document {
            Some(document) if !self.0.same_database => {
                // The result first, as in Celery: a crash in between runs the task again, and the result is seen then.
                let mut call = SETTLE.key("");
                call.key("").key("").key(self.0.result_keys.result(end.task));
                call.arg("").arg("").arg(expires).arg(wins).arg(document);
                let (taken, _): (bool, bool) = self.0.results.script(ACT, &call).await?;
                Some(taken)
            }
            Some(_) | None => None,
        };
        let mut call = SETTLE.key(keys.unacked());
        call.key(keys.unacked_index()).key(self.lease(end.task)).key(self.0.result_keys.result(end.task));
        for message in end.publish {
            call.key(keys.queue(&message.queue, message.priority));
        }
        call.arg(end.tag).arg(end.holder).arg(expires).arg(wins);
        call.arg(end.document.filter(|_| stored.is_none()).unwrap_or_default());
        for message in end.publish {
            call.arg(&message.envelope);
        }
        let (taken, acknowledged): (bool, bool) = self.0.broker.script(ACT, &call).await?;
        Ok(Settled { taken: stored.unwrap_or(taken), acknowledged })
    }

    /// Stores a state that is not an end, such as `STARTED` or `PROGRESS`, unless the task has ended.
    pub async fn store_state(&self, task: &str, document: &[u8], expires: Option<Duration>) -> Result<bool, Error> {
        static STATE: LazyLock<Script> = script!("lua/state.lua");
        let mut call = STATE.key(self.0.result_keys.result(task));
        call.arg(expires.map_or(0, |expires| expires.as_secs().max(1))).arg(document);
        self.0.results.script("storing a state", &call).await
    }

    /// Stores that a task is revoked, unless it runs or has ended, as far as can be seen. So whoever waits for a task that
    /// is still in its queue hears of it.
    pub async fn revoke_unseen(&self, task: &str, document: &[u8], expires: Option<Duration>) -> Result<bool, Error> {
        static REVOKE: LazyLock<Script> = script!("lua/revoke.lua");
        let mut call = REVOKE.key(self.0.result_keys.result(task));
        if self.0.same_database {
            call.key(self.lease(task));
        }
        call.arg(expires.map_or(0, |expires| expires.as_secs().max(1))).arg(document);
        self.0.results.script("storing that a task is revoked", &call).await
    }
}
