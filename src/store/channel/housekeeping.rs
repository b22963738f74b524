//! Removing what Celery leaves behind for ever: results without an expiry, replies without a reader.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{Channel, Error};
use crate::store::link::{Link, script};
use crate::wire::keys::PIDBOX_REPLY;
use crate::wire::{Limits, ResultDocument};

static FORGET: LazyLock<Script> = script!("lua/forget.lua");

/// Keys that are looked at in one go.
const AT_ONCE: usize = 500;
/// How long replies may lie there with a caller that could still take them.
const IDLE: Duration = Duration::from_hours(1);

/// What was looked at and what was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cleaned {
    /// Result documents that were seen.
    pub results: u64,
    /// Those that were deleted.
    pub results_deleted: u64,
    /// Lists of replies that were seen.
    pub replies: u64,
    /// Those that were deleted.
    pub replies_deleted: u64,
}

impl Channel {
    /// Deletes results that have no expiry and ended before `oldest`, and lists of replies whose caller is gone.
    pub async fn clean(&self, oldest: jiff::Timestamp) -> Result<Cleaned, Error> {
        const ACT: &str = "cleaning up";
        let mut cleaned = Cleaned::default();
        let mut results = Scan::new(ACT, &self.0.results, self.0.result_keys.result_pattern(), "string");
        while let Some(keys) = results.next().await? {
            cleaned.results += keys.len() as u64;
            let mut ask = redis::pipe();
            for key in &keys {
                ask.ttl(key);
            }
            let ttls: Vec<i64> = self.0.results.pipe(ACT, &ask).await?;
            for (key, _) in keys.iter().zip(ttls).filter(|(_, ttl)| *ttl == -1) {
                let mut read = redis::cmd("GET");
                read.arg(key);
                let document: Option<Vec<u8>> = self.0.results.query(ACT, &read).await?;
                let Some(document) = document.filter(|document| ended_before(document, oldest)) else { continue };
                let deleted: u64 = self.0.results.script(ACT, FORGET.key(key).arg(document)).await?;
                cleaned.results_deleted += deleted;
            }
        }
        self.clean_replies(ACT, &mut cleaned).await?;
        Ok(cleaned)
    }

    async fn clean_replies(&self, act: &'static str, cleaned: &mut Cleaned) -> Result<(), Error> {
        let keys = &self.0.keys;
        let binding = keys.binding(PIDBOX_REPLY);
        let mut read = redis::cmd("SMEMBERS");
        read.arg(&binding);
        let members: Vec<String> = self.0.broker.query(act, &read).await?;
        let separator = keys.bands.separator();
        let named =
            |member: &String| Some((format!("{}{}", keys.prefix, member.rsplit(separator).next()?), member.clone()));
        let bound: HashMap<String, String> = members.iter().filter_map(named).collect();
        let mut lists = Scan::new(act, &self.0.broker, keys.reply_list("*"), "list");
        while let Some(found) = lists.next().await? {
            for list in &found {
                cleaned.replies += 1;
                let member = bound.get(list);
                if member.is_some() && self.idle(act, list).await? < IDLE {
                    continue;
                }
                let mut delete = redis::pipe();
                delete.atomic().del(list);
                if let Some(member) = member {
                    delete.srem(&binding, member).ignore();
                    delete.srem(keys.binding_permanent(PIDBOX_REPLY), member).ignore();
                }
                let (deleted,): (u64,) = self.0.broker.pipe(act, &delete).await?;
                cleaned.replies_deleted += deleted;
            }
        }
        Ok(())
    }

    /// For how long a key was not touched; not at all where the server counts uses instead.
    async fn idle(&self, act: &'static str, key: &str) -> Result<Duration, Error> {
        let mut ask = redis::cmd("OBJECT");
        ask.arg("IDLETIME").arg(key);
        match self.0.broker.query::<Option<u64>>(act, &ask).await {
            Ok(seconds) => Ok(Duration::from_secs(seconds.unwrap_or(0))),
            Err(Error::Refused { .. }) => Ok(Duration::ZERO),
            Err(error) => Err(error),
        }
    }
}

/// All keys of one type that match, a portion at a time.
struct Scan<'a> {
    act: &'static str,
    link: &'a Link,
    pattern: String,
    kind: &'static str,
    cursor: Option<u64>,
}

impl<'a> Scan<'a> {
    fn new(act: &'static str, link: &'a Link, pattern: String, kind: &'static str) -> Self {
        Self { act, link, pattern, kind, cursor: Some(0) }
    }

    /// The next portion, which may be empty; `None` after the last one.
    async fn next(&mut self) -> Result<Option<Vec<String>>, Error> {
        let Some(cursor) = self.cursor else { return Ok(None) };
        let mut ask = redis::cmd("SCAN");
        ask.arg(cursor).arg("MATCH").arg(&self.pattern).arg("COUNT").arg(AT_ONCE).arg("TYPE").arg(self.kind);
        let (next, keys): (u64, Vec<String>) = self.link.query(self.act, &ask).await?;
        self.cursor = (next != 0).then_some(next);
        Ok(Some(keys))
    }
}

/// Whether this is the result of a task that ended before then; nothing else is ours to delete.
fn ended_before(document: &[u8], oldest: jiff::Timestamp) -> bool {
    let limits = Limits::default().bytes(document.len());
    ResultDocument::decode_within(document, &limits)
        .is_ok_and(|found| found.done_at().is_some_and(|done| done < oldest))
}
