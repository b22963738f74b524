//! Result documents.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{FromRedisValue, Script, Value};

use super::link::{fenced, script};
use super::{Error, Store};
use crate::core::job::TaskId;

static OUTCOMES: LazyLock<Script> = script!("lua/outcomes.lua");
static EXTEND: LazyLock<Script> = script!("lua/extend.lua");
static CLEAR: LazyLock<Script> = fenced!("lua/clear.lua");

/// A result document as it lies on Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// All of it.
    Whole(Vec<u8>),
    /// It is larger than [`Document::LARGEST`].
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// Its first 256 bytes, which name the status.
        head: Vec<u8>,
    },
}

impl Document {
    /// Largest document that is fetched, in bytes.
    pub const LARGEST: usize = 64 << 20;
    /// Bytes fetched in one answer, unless a single document has more.
    const ANSWER: usize = 8 << 20;
}

impl Store {
    /// The result documents of these tasks, `None` where there is none.
    pub async fn outcomes(&self, tasks: &[TaskId]) -> Result<Vec<Option<Document>>, Error> {
        const ACT: &str = "reading results";
        let names = &self.0.names;
        let mut documents = Vec::with_capacity(tasks.len());
        while documents.len() < tasks.len() {
            let rest = &tasks[documents.len()..];
            let mut call = OUTCOMES.prepare_invoke();
            for task in rest.iter().take(500) {
                call.key(names.result(*task));
            }
            call.arg(Document::LARGEST).arg(Document::ANSWER);
            let answer: Vec<Value> = self.0.results.script(ACT, &call).await?;
            if answer.is_empty() {
                return Err(Error::unexpected(ACT, "no answer for the first of several results"));
            }
            for value in answer {
                documents.push(read(ACT, value)?);
            }
        }
        Ok(documents)
    }

    /// Makes Redis keep a result for so long from now, or longer if it would anyway. Says whether there is a result.
    pub async fn extend_result(&self, task: TaskId, ttl: Duration) -> Result<bool, Error> {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX >> 12);
        let mut call = EXTEND.key(self.0.names.result(task));
        self.0.results.script("extending a result's life", call.arg(millis)).await
    }

    /// Whether a document says that the attempt ended; a failure is removed first where that is asked for.
    pub(super) async fn clear(&self, act: &'static str, task: TaskId, clear_result: bool) -> Result<bool, Error> {
        let mut call = CLEAR.key("");
        call.key(self.0.names.result(task)).arg("").arg(u8::from(clear_result));
        self.0.results.script(act, &call).await
    }

    pub(super) async fn has_result(&self, act: &'static str, task: TaskId) -> Result<bool, Error> {
        self.0.results.query(act, redis::cmd("EXISTS").arg(self.0.names.result(task))).await
    }
}

fn read(act: &'static str, value: Value) -> Result<Option<Document>, Error> {
    if value == Value::Nil {
        return Ok(None);
    }
    if let Value::BulkString(document) = value {
        return Ok(Some(Document::Whole(document)));
    }
    let (size, head) = FromRedisValue::from_redis_value(value).map_err(|_| Error::unexpected(act, "not a document"))?;
    Ok(Some(Document::TooLarge { size, head }))
}
