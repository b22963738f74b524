//! The end of a run.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{FromRedisValue, Script, ScriptInvocation};

use super::{Ask, Channel, Error, Taken};
use crate::store::link::{Link, script};
use crate::wire::{State, result};

/// A script of this folder that uses what they share.
macro_rules! shared {
    ($file:literal) => {
        LazyLock::new(|| Script::new(concat!(include_str!("lua/prelude.lua"), include_str!($file))))
    };
}

static SETTLE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(concat!(include_str!("lua/prelude.lua"), include_str!("lua/take.lua"), include_str!("lua/settle.lua")))
});
static CONCLUDE: LazyLock<Script> = shared!("lua/conclude.lua");
static STORE: LazyLock<Script> = shared!("lua/store.lua");
static ACKNOWLEDGE: LazyLock<Script> = shared!("lua/acknowledge.lua");
static DROP: LazyLock<Script> = script!("lua/drop.lua");

/// How long it is noted what has to be stored elsewhere, for the worker that takes the message next.
const NOTED: Duration = Duration::from_hours(24);

const SETTLING: &str = "settling a task";

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
    /// Holder of its lease; empty where none was taken.
    pub holder: &'a str,
    /// Where it is marked that this was done, for as long as it may be repeated. One place serves one end after the other.
    pub place: &'a str,
    /// Tells this end from all others at that place.
    pub id: &'a str,
    /// The result document; `None` stores nothing.
    pub document: Option<&'a [u8]>,
    /// Result documents of other tasks that end with this one.
    pub others: &'a [(String, Vec<u8>)],
    /// How long Redis keeps it; `None` for good.
    pub expires: Option<Duration>,
    /// Whether it is a success, which counts even if another run holds the lease by now.
    pub is_success: bool,
    /// What is published with it.
    pub publish: &'a [Publication],
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Whether the outcome was taken: no success was there before, and no other run holds the lease.
    pub taken: bool,
    /// Whether the message was acknowledged: another run that holds the lease will do that.
    pub acknowledged: bool,
}

impl Channel {
    /// Publishes what follows, stores the results, acknowledges the message and gives the lease up, in one step. May be
    /// repeated until it is answered.
    ///
    /// Where the result backend is another database, `stored` is the answer of [`Channel::publish_and_store`]: that goes
    /// before, and only what is left is done here.
    pub async fn settle(&self, end: &Settlement<'_>, stored: Option<bool>) -> Result<Settled, Error> {
        self.settle_and_take(end, stored, None).await.map(|(settled, _)| settled)
    }

    /// Settles, and takes the next message in the same step; `None` where it was not looked for one: where none is asked
    /// for, where the result backend is another database, or where Redis is full and the task has left more than it had.
    pub async fn settle_and_take(
        &self,
        end: &Settlement<'_>,
        stored: Option<bool>,
        ask: Option<&Ask<'_>>,
    ) -> Result<(Settled, Option<Taken>), Error> {
        let keys = &self.0.keys;
        if let Some(taken) = stored {
            let mut call = ACKNOWLEDGE.key(keys.unacked());
            call.key(keys.unacked_index()).key(self.lease(end.task)).key(self.note(end.tag));
            let acknowledged = self.0.broker.script(SETTLING, call.arg(end.tag).arg(end.holder)).await?;
            return Ok((Settled { taken, acknowledged }, None));
        }
        let results: Vec<String> =
            [end.task].into_iter().chain(tasks_of(end.others)).map(|task| self.0.result_keys.result(task)).collect();
        let call = |known: &Known| {
            let mut call = SETTLE.key(keys.unacked());
            call.key(keys.unacked_index()).key(self.lease(end.task)).key(self.mark(end.place)).key(&results);
            call.arg(end.tag).arg(end.holder).arg(end.id).arg(kept(end.expires)).arg(u8::from(end.is_success));
            call.arg(end.document.unwrap_or_default()).arg(end.others.len()).arg(end.publish.len());
            tell(&mut call, known);
            for (_, document) in end.others {
                call.arg(document);
            }
            self.publishing(&mut call, end);
            if let Some(ask) = ask {
                self.asking(&mut call, ask);
            }
            call
        };
        let answer = self.knowing(&self.0.broker, SETTLING, &results, call).await?;
        let (taken, acknowledged, fills, next): (bool, bool, bool, redis::Value) = answer;
        if fills {
            self.0.fills.store(true, Ordering::Relaxed);
        }
        let next = ask.filter(|_| next != redis::Value::Nil).map(|ask| self.taken(ask, next)).transpose()?;
        Ok((Settled { taken, acknowledged }, next))
    }

    /// Where the result backend is another database: publishes what follows, notes the results in the same step, and
    /// stores them. A worker that dies in between leaves the note, and [`Channel::begin`] answers it to the next one: nothing
    /// runs or follows twice. Says whether the outcome was taken. May be repeated until it is answered.
    ///
    /// Does nothing where the broker keeps the results: `None`.
    pub async fn publish_and_store(&self, end: &Settlement<'_>) -> Result<Option<bool>, Error> {
        if self.0.same_database {
            return Ok(None);
        }
        let result = self.0.result_keys.result(end.task);
        if let Some(document) = end.document {
            let mut read = redis::cmd("GET");
            let before: Vec<u8> = self.0.results.query(SETTLING, read.arg(&result)).await?;
            if before == document {
                return Ok(Some(true));
            }
            if result::state_of_prefix(&before) == Some(State::Success) {
                return Ok(Some(false));
            }
        }
        let keys = &self.0.keys;
        let mut call = CONCLUDE.key(keys.unacked());
        call.key(self.lease(end.task)).key(self.note(end.tag)).key(self.mark(end.place));
        let own = end.document.map(|document| (result, document));
        let others = end.others.iter().map(|(task, document)| (self.0.result_keys.result(task), document.as_slice()));
        let results: Vec<(String, &[u8])> = own.into_iter().chain(others).collect();
        call.arg(end.tag).arg(end.holder).arg(end.id).arg(u8::from(end.is_success && end.document.is_some()));
        call.arg(NOTED.as_secs()).arg(results.len());
        for (key, document) in &results {
            call.arg(key).arg(document);
        }
        self.publishing(&mut call, end);
        let (taken, noted): (bool, Vec<(String, Vec<u8>)>) = self.0.broker.script(SETTLING, &call).await?;
        if noted.is_empty() {
            return Ok(Some(taken));
        }
        self.store(&noted, end.expires).await?;
        Ok(Some(taken))
    }

    async fn store(&self, results: &[(String, Vec<u8>)], expires: Option<Duration>) -> Result<u64, Error> {
        let keys: Vec<String> = results.iter().map(|(key, _)| key.clone()).collect();
        let call = |known: &Known| {
            let mut call = STORE.prepare_invoke();
            call.key(&keys).arg(kept(expires));
            for (_, document) in results {
                call.arg(document);
            }
            tell(&mut call, known);
            call
        };
        self.knowing(&self.0.results, SETTLING, &keys, call).await
    }

    /// Runs a script that looks at the status of these results. Scripts cannot read what is compressed: where one is, it is
    /// read here, and the script is told.
    async fn knowing<'a, T: FromRedisValue>(
        &self,
        link: &Link,
        act: &'static str,
        results: &[String],
        call: impl Fn(&Known) -> ScriptInvocation<'a>,
    ) -> Result<T, Error> {
        let mut known = Known::new();
        // Another one may be stored each time.
        for _ in 0..3 {
            match link.script(act, &call(&known)).await {
                Err(error) if error.is_about_compressed() => {}
                answer => return answer,
            }
            for key in results {
                let document: Vec<u8> = self.0.results.query(act, redis::cmd("GET").arg(key)).await?;
                if result::compressed(&document).is_some() {
                    let state = result::state_of_prefix(&document).unwrap_or(State::Pending);
                    known.push((document, state));
                }
            }
        }
        Err(Error::unexpected(act, "a compressed result that changes all the time"))
    }

    /// Stores what the run before of this message has noted, where the result backend is another database. May be
    /// repeated until it is answered.
    pub async fn store_noted(&self, tag: &str, expires: Option<Duration>) -> Result<(), Error> {
        if self.0.same_database {
            return Ok(());
        }
        let mut read = redis::cmd("HGETALL");
        let noted: Vec<(String, Vec<u8>)> = self.0.broker.query(SETTLING, read.arg(self.note(tag))).await?;
        if !noted.is_empty() {
            self.store(&noted, expires).await?;
        }
        Ok(())
    }

    /// Acknowledges the message of a task that has ended before, and gives the lease up where `holder` has it. To be called
    /// after [`Channel::store_noted`]. May be repeated until it is answered.
    pub async fn acknowledge_ended(&self, task: &str, tag: &str, holder: &str) -> Result<bool, Error> {
        let keys = &self.0.keys;
        let mut call = DROP.key(keys.unacked());
        call.key(keys.unacked_index()).key(self.lease(task)).key(self.note(tag));
        self.0.broker.script("acknowledging a message", call.arg(tag).arg(holder)).await
    }

    /// Adds what is published: lists after all other keys, messages after all other arguments.
    fn publishing(&self, call: &mut ScriptInvocation<'_>, end: &Settlement<'_>) {
        for message in end.publish {
            call.key(self.0.keys.queue(&message.queue, message.priority)).arg(&message.envelope);
        }
    }

    /// Where it is marked that an end was brought about.
    fn mark(&self, place: &str) -> String {
        format!("{}crewjob-settled:{place}", self.0.keys.prefix)
    }

    /// What is noted of a message whose results are stored elsewhere: a hash, their documents by key.
    pub(super) fn note(&self, tag: &str) -> String {
        format!("{}crewjob-outcome:{tag}", self.0.keys.prefix)
    }

    /// Stores a state that is not an end, such as `STARTED` or `PROGRESS`, unless the task has ended.
    pub async fn store_state(&self, task: &str, document: &[u8], expires: Option<Duration>) -> Result<bool, Error> {
        static STATE: LazyLock<Script> = shared!("lua/state.lua");
        let results = [self.0.result_keys.result(task)];
        let call = |known: &Known| {
            let mut call = STATE.key(&results[0]);
            call.arg(kept(expires)).arg(document);
            tell(&mut call, known);
            call
        };
        self.knowing(&self.0.results, "storing a state", &results, call).await
    }

    /// Stores that a task is revoked, unless it runs or has ended, as far as can be seen. So a producer that waits
    /// for a task that is still in its queue hears of it.
    pub async fn revoke_unseen(&self, task: &str, document: &[u8], expires: Option<Duration>) -> Result<bool, Error> {
        static REVOKE: LazyLock<Script> = shared!("lua/revoke.lua");
        let results = [self.0.result_keys.result(task)];
        let call = |known: &Known| {
            let mut call = REVOKE.key(&results[0]);
            if self.0.same_database {
                call.key(self.lease(task));
            }
            call.arg(kept(expires)).arg(document);
            tell(&mut call, known);
            call
        };
        self.knowing(&self.0.results, "storing that a task is revoked", &results, call).await
    }
}

/// Results that were read because they are compressed, and their states.
type Known = Vec<(Vec<u8>, State)>;

/// Adds what scripts are told of compressed results.
fn tell(call: &mut ScriptInvocation<'_>, known: &Known) {
    call.arg(known.len());
    for (document, state) in known {
        call.arg(document).arg(state.as_str());
    }
}

/// The tasks of these results.
fn tasks_of(results: &[(String, Vec<u8>)]) -> impl Iterator<Item = &str> {
    results.iter().map(|(task, _)| task.as_str())
}

/// Seconds that a result is kept, 0 for good.
fn kept(expires: Option<Duration>) -> u64 {
    expires.map_or(0, |expires| expires.as_secs().max(1))
}
