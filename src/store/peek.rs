//! Looking at what a Celery set-up has on Redis, without changing anything.

use super::snapshot::field;
use super::{Error, Queue, Store};
use crate::core::id::Priority;
use crate::wire::keys::PIDBOX;

const ACT: &str = "looking at messages that wait";
/// Bytes of a separator.
const LONGEST: usize = 16;
/// Keys that are looked through, about.
const KEYS: u64 = 200_000;
/// Keys of one answer of a scan, about.
const SCANNED: u64 = 1000;

/// How a server is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vitals {
    /// Bytes that it uses.
    pub used: u64,
    /// Bytes that it may use; 0 for no limit.
    pub maxmemory: u64,
    /// Elements of queues that were no messages.
    pub quarantined: u64,
    /// Lists of replies to remote control that do not expire: of clients that have gone.
    pub reply_lists: u64,
}

impl Store {
    /// What stands between the parts of names (`sep`), as the workers' own queues for remote control are bound; `None` where
    /// no worker is. To be known before workers are asked: with another one they could not read where to reply to.
    pub async fn separator(&self) -> Result<Option<String>, Error> {
        let read = redis::cmd("SMEMBERS").arg(self.0.names.broker.binding(PIDBOX)).to_owned();
        let members: Vec<Vec<u8>> = self.0.scans.query("looking for workers", &read).await?;
        Ok(members.iter().filter_map(|member| std::str::from_utf8(member).ok()).find_map(separator))
    }

    /// Hands each message that waits in a queue to `see`, the most urgent band first and the oldest message of a band first,
    /// `page` of them in one answer. Where they are too large for one, each is read by itself, and what no answer holds is
    /// handed on empty. Messages that are published or taken meanwhile may be missed or seen twice.
    pub async fn peek(&self, queue: &Queue, page: i64, mut see: impl FnMut(&[u8])) -> Result<(), Error> {
        let mut lists: Vec<String> =
            (0..=10).rev().map(|it| self.0.names.list(&queue.name, Priority::clamped(it))).collect();
        lists.dedup();
        for list in lists {
            let length: i64 = self.0.scans.query(ACT, redis::cmd("LLEN").arg(&list)).await?;
            let (mut seen, mut step) = (0, page);
            while seen < length {
                let mut read = redis::cmd("LRANGE");
                read.arg(&list).arg(-seen - step).arg(-seen - 1);
                match self.0.scans.query::<Vec<Vec<u8>>>(ACT, &read).await {
                    // Messages are put on the left and taken from the right.
                    Ok(found) => found.iter().rev().for_each(|element| see(element)),
                    Err(Error::Unexpected { .. }) if step > 1 => {
                        step = 1;
                        continue;
                    }
                    Err(Error::Unexpected { .. }) => see(&[]),
                    Err(error) => return Err(error),
                }
                seen += step;
            }
        }
        Ok(())
    }

    /// How the server of the broker is.
    pub async fn vitals(&self) -> Result<Vitals, Error> {
        let act = "looking at the server";
        let info: String = self.0.scans.query(act, redis::cmd("INFO").arg("memory")).await?;
        let number = |name| field(&info, name).parse().unwrap_or(0);
        let quarantined = self.0.scans.query(act, redis::cmd("XLEN").arg(self.quarantine_stream())).await?;
        let pattern = self.0.names.broker.reply_list("*");
        let (mut reply_lists, mut cursor, mut seen) = (0, 0, 0);
        while seen < KEYS {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCANNED);
            let (next, found): (u64, Vec<Vec<u8>>) = self.0.scans.query(act, &scan).await?;
            if !found.is_empty() {
                let mut left = redis::pipe();
                for key in &found {
                    left.ttl(key);
                }
                let left: Vec<i64> = self.0.scans.pipe(act, &left).await?;
                reply_lists += left.iter().filter(|seconds| **seconds == -1).count() as u64;
            }
            (cursor, seen) = (next, seen + SCANNED);
            if cursor == 0 {
                break;
            }
        }
        Ok(Vitals { used: number("used_memory"), maxmemory: number("maxmemory"), quarantined, reply_lists })
    }
}

/// What a queue without routing key and pattern is bound with: `<sep><sep>crew@host.celery.pidbox`.
fn separator(member: &str) -> Option<String> {
    let bytes = member.as_bytes();
    let is_twice =
        |length: &usize| bytes.get(..*length).is_some_and(|first| bytes.get(*length..2 * length) == Some(first));
    let length = (1..=LONGEST).rev().find(is_twice)?;
    member.ends_with(PIDBOX).then(|| member.get(..length)).flatten().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_separator_is_what_a_workers_own_queue_is_bound_with() {
        let found = |member: &str| separator(member);
        assert_eq!(found("\u{6}\u{16}\u{6}\u{16}crew@a.celery.pidbox").as_deref(), Some("\u{6}\u{16}"));
        assert_eq!(found("::crew@a.celery.pidbox").as_deref(), Some(":"));
        assert_eq!(found("----crew@a.celery.pidbox").as_deref(), Some("--"));
        for other in ["", "crew@a.celery.pidbox", "::crew@a.other", ":"] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
