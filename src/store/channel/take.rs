//! Taking messages off their queues.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{FromRedisValue, Script, ScriptInvocation};

use super::flight::HEAD;
use super::wait::WAKE_UP;
use super::{Channel, Error, QUARANTINED};
use crate::wire::result;

static RESERVE: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!(include_str!("lua/take.lua"), include_str!("lua/reserve.lua"))));

/// How long it is noted which worker was given which message; longer than a connection is tried again.
const NOTED: Duration = Duration::from_mins(10);
/// In place of a list: a message whose first answer was lost.
const AGAIN: i64 = -2;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask<'a> {
    /// The queues, in the order in which they are looked through.
    pub queues: &'a [&'a str],
    /// Names the caller, which asks for one message at a time.
    pub asker: &'a str,
    /// Names the worker that is noted to have the message.
    pub worker: &'a str,
    /// The tag of the message that it got last: when that was not the last one it was given, an answer was lost, and it
    /// is given that message once more.
    pub last: &'a str,
    /// Takes the lease for this holder where the task may begin at once; empty to leave that to [`Channel::begin`].
    pub holder: &'a str,
    /// How long that lease lasts.
    pub lease: Duration,
}

/// A message that has been taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Under which it is acknowledged.
    pub tag: String,
    /// Which of the queues asked for it came from.
    pub queue: usize,
    /// The list from which it was taken; empty where an answer was lost and it is given once more.
    pub list: String,
    /// The message.
    pub envelope: Vec<u8>,
    /// The task whose lease was taken with it, and what the run before has left as its result, cut after 64 KiB.
    pub begun: Option<(String, Vec<u8>)>,
}

/// The answer to [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// The next message, if there is one.
    pub delivery: Option<Delivery>,
    /// How many elements were no messages; they are in the quarantine.
    pub refused: u64,
}

/// What `take` of the scripts answers.
pub(super) type Answer = (i64, String, Vec<u8>, u64, String, Vec<u8>);

impl Channel {
    /// Takes the next message of these queues, in kombu's order: the most urgent band first, in each the queues as given.
    /// Says how many elements were no messages, too. The lease of its task is left alone.
    pub async fn reserve(&self, queues: &[&str], asker: &str, last: &str) -> Result<(Option<Delivery>, u64), Error> {
        let ask = Ask { queues, asker, worker: asker, last, holder: "", lease: Duration::ZERO };
        let Taken { delivery, refused } = self.take(&ask).await?;
        Ok((delivery, refused))
    }

    /// Takes the next message as [`Channel::reserve`] does, and the lease of its task where it may begin at once.
    pub async fn take(&self, ask: &Ask<'_>) -> Result<Taken, Error> {
        let mut call = RESERVE.key(self.0.keys.unacked());
        call.key(self.0.keys.unacked_index()).arg(u8::from(self.0.fills.load(Ordering::Relaxed)));
        self.asking(&mut call, ask);
        let answer: redis::Value = self.0.broker.script("taking a message", &call).await?;
        self.0.fills.store(false, Ordering::Relaxed);
        self.taken(ask, answer)
    }

    /// Adds the keys and arguments of `take` after all others.
    pub(super) fn asking(&self, call: &mut ScriptInvocation<'_>, ask: &Ask<'_>) {
        let keys = &self.0.keys;
        call.key(self.quarantine_stream()).key(format!("{}crewjob-reserved:{}", keys.prefix, ask.asker));
        call.key(self.held(ask.worker));
        for list in keys.pop_order(ask.queues) {
            call.key(list);
        }
        for queue in ask.queues {
            call.key(self.wake_list(queue));
        }
        // Where results are kept elsewhere, a lease is taken when they have been looked at.
        let holder = if self.0.same_database { ask.holder } else { "" };
        call.arg(QUARANTINED).arg(NOTED.as_secs()).arg(ask.last).arg(ask.queues.len());
        call.arg(WAKE_UP.as_secs() * 1000).arg(holder).arg(ask.lease.as_secs() * 1000).arg(HEAD);
        call.arg(self.lease("")).arg(self.0.result_keys.result(""));
    }

    pub(super) fn taken(&self, ask: &Ask<'_>, answer: redis::Value) -> Result<Taken, Error> {
        let answer = Answer::from_redis_value(answer);
        let (from, tag, envelope, refused, id, head) =
            answer.map_err(|error| Error::unexpected("taking a message", error.to_string()))?;
        // Of some compressions the beginning tells nothing: then all of it is read when the task begins.
        let is_told = result::compressed(&head).is_none() || result::state_of_prefix(&head).is_some();
        let begun = Some((id, head)).filter(|(id, _)| !id.is_empty() && is_told);
        let at = usize::try_from(from).ok();
        let queue = at.map_or(0, |at| at % ask.queues.len().max(1));
        let list = at.and_then(|at| self.0.keys.pop_order(ask.queues).into_iter().nth(at)).unwrap_or_default();
        let delivery = Delivery { tag, queue, list, envelope, begun };
        Ok(Taken { delivery: (at.is_some() || from == AGAIN).then_some(delivery), refused })
    }
}
