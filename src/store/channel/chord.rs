//! The parts of chords, counted as Celery's Redis backend counts them.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{Channel, Error};
use crate::store::link::script;

static PART: LazyLock<Script> = script!("lua/part.lua");
static CLOSE: LazyLock<Script> = script!("lua/close.lua");

/// How long one worker has to send the body before another copy of a part may do so.
const CLAIM: Duration = Duration::from_secs(30);
/// How long it is noted that the body was sent, for parts that end once more. As in Celery.
const CLOSED: Duration = Duration::from_mins(5);

/// A part of a chord that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// The group that its chord has for its parts.
    pub group: &'a str,
    /// Its task ID.
    pub task: &'a str,
    /// Its position among the parts, as a score.
    pub index: &'a str,
    /// How it has ended.
    pub record: &'a str,
}

/// What is known of a chord after a part was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// Other parts go on, or the body was sent before.
    Going,
    /// All parts have ended, and the caller is to send the body.
    Complete {
        /// How each part has ended, by position.
        records: Vec<Vec<u8>>,
        /// What the sender has stored of the group, where a part is a group itself.
        structure: Option<Vec<u8>>,
    },
    /// All parts have ended, and another worker is about to send the body.
    Claimed,
}

impl Channel {
    /// Counts a part of a chord. May be repeated with the same `token`, which names the caller.
    pub async fn count_part(&self, part: Part<'_>, token: &str, expires: Option<Duration>) -> Result<Counted, Error> {
        const ACT: &str = "counting a part of a chord";
        let keys = &self.0.result_keys;
        let mut call = PART.prepare_invoke();
        for suffix in [".j", ".t", ".s", ".d", "", ".c"] {
            call.key(keys.group(part.group, suffix));
        }
        call.arg(part.task).arg(part.record).arg(part.index).arg(expires.map_or(0, |expires| expires.as_secs().max(1)));
        call.arg(token).arg(CLAIM.as_secs());
        let said: String = self.0.results.script(ACT, &call).await?;
        match said.as_str() {
            "complete" => {
                let (mut read, mut group) = (redis::cmd("ZRANGE"), redis::cmd("GET"));
                read.arg(keys.group(part.group, ".j")).arg(0).arg(-1);
                let records = self.0.results.query(ACT, &read).await?;
                let structure = self.0.results.query(ACT, group.arg(keys.group(part.group, ""))).await?;
                Ok(Counted::Complete { records, structure })
            }
            "claimed" => Ok(Counted::Claimed),
            _ => Ok(Counted::Going),
        }
    }

    /// Says that the body of a chord was sent, or that it was not and that another run may do so.
    pub async fn close_chord(&self, group: &str, token: &str, was_sent: bool) -> Result<(), Error> {
        let mut call = CLOSE.prepare_invoke();
        for suffix in [".c", ".j", ".t", ".s", ".d"] {
            call.key(self.0.result_keys.group(group, suffix));
        }
        call.arg(token).arg(u8::from(was_sent)).arg(CLOSED.as_secs());
        self.0.results.script::<u64>("closing a chord", &call).await.map(drop)
    }

    /// The result document of a task; empty where there is none.
    pub async fn result(&self, task: &str) -> Result<Vec<u8>, Error> {
        let mut read = redis::cmd("GET");
        self.0.results.query("reading a result", read.arg(self.0.result_keys.result(task))).await
    }
}
