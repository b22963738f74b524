//! From one Redis to another: the markers of messages that were withdrawn there, and results of what ran there.

use std::sync::LazyLock;

use redis::Script;

use super::link::fenced;
use super::marker::FIELDS;
use super::{Epoch, Error, MarkerId, Store};
use crate::core::id::TaskId;

static CARRY: LazyLock<Script> = fenced!("lua/carry.lua");

/// Bytes of a result that are copied at once.
const PIECE: usize = 256 << 10;

impl Store {
    /// Brings the marker of a message here that was taken off its queue on `from`, as a withdrawn one, unless there is one.
    /// Whether it did.
    pub async fn carry_marker(&self, epoch: Epoch, from: &Self, id: &MarkerId) -> Result<bool, Error> {
        const ACT: &str = "carrying a marker from another Redis";
        let mut read = redis::cmd("HMGET");
        read.arg(from.0.names.marker(id)).arg(&FIELDS);
        let values: Vec<Option<String>> = from.0.broker.query(ACT, &read).await?;
        let fields: Vec<_> = FIELDS.iter().zip(values).filter_map(|(field, value)| Some((*field, value?))).collect();
        if fields.is_empty() {
            return Ok(false);
        }
        let names = &self.0.names;
        let mut call = CARRY.key(&*names.fence);
        call.key(names.marker(id)).arg(epoch.to_string());
        for (field, value) in fields {
            call.arg(field).arg(if field == "state" { "withdrawn" } else { value.as_str() });
        }
        match self.transition(ACT, &call).await?.verdict() {
            "carried" => Ok(true),
            "kept" => Ok(false),
            other => Err(Error::unexpected(ACT, other)),
        }
    }

    /// Brings the result document of a task here that lies on `from`, unless there is one or the task goes on. Whether it
    /// has ended there.
    ///
    /// It is put together beside its place, piece by piece, so that no part of it is taken for the whole.
    pub async fn carry_result(&self, from: &Self, task: TaskId) -> Result<bool, Error> {
        const ACT: &str = "carrying a result from another Redis";
        let (there, here) = (from.0.names.result(task), self.0.names.result(task));
        let (theirs, ours) = (&from.0.results, &self.0.results);
        let beside = self.0.names.carried(task);
        let mut position = 0;
        loop {
            let mut read = redis::cmd("GETRANGE");
            read.arg(&there).arg(position).arg(position + PIECE - 1);
            let piece: Vec<u8> = theirs.query(ACT, &read).await?;
            if piece.is_empty() {
                break;
            }
            if position == 0 && !is_an_end(&piece) {
                return Ok(false);
            }
            let mut write = redis::cmd("SETRANGE");
            write.arg(&beside).arg(position).arg(&piece);
            ours.query::<i64>(ACT, &write).await?;
            position += piece.len();
            if piece.len() < PIECE {
                break;
            }
        }
        if position == 0 {
            return Ok(false);
        }
        let life: i64 = theirs.query(ACT, redis::cmd("PTTL").arg(&there)).await?;
        if life > 0 {
            ours.query::<i64>(ACT, redis::cmd("PEXPIRE").arg(&beside).arg(life)).await?;
        }
        let moved: i64 = ours.query(ACT, redis::cmd("RENAMENX").arg(&beside).arg(&here)).await?;
        if moved == 0 {
            ours.query::<i64>(ACT, redis::cmd("DEL").arg(&beside)).await?;
        }
        Ok(true)
    }

    /// Whether both lead to the same databases, under whatever names.
    pub async fn is_same_as(&self, other: &Self) -> Result<bool, Error> {
        let same_database = self.0.broker.address().database() == other.0.broker.address().database();
        let run_id = |store: &Self| {
            let store = store.clone();
            async move { store.snapshot(&[]).await.map(|snapshot| snapshot.incarnation.run_id) }
        };
        // Where results are kept elsewhere, that place is known by its name only.
        let same_results = self.0.same_database == other.0.same_database
            && (self.0.same_database || self.0.results.address().same_database(other.0.results.address()));
        Ok(same_database && same_results && run_id(self).await? == run_id(other).await?)
    }
}

/// Whether a document that begins like this says that the task has ended. Celery writes the status first.
fn is_an_end(document: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&document[..document.len().min(256)]);
    let status = head.split("\"status\"").nth(1).and_then(|rest| rest.split('"').nth(1));
    matches!(status, Some("SUCCESS" | "FAILURE" | "REVOKED"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_document_of_a_task_that_has_ended_is_carried() {
        for (status, ended) in [("SUCCESS", true), ("FAILURE", true), ("STARTED", false), ("RETRY", false)] {
            let document = format!(r#"{{"status": "{status}", "result": "SUCCESS", "task_id": "x"}}"#);
            assert_eq!(is_an_end(document.as_bytes()), ended, "{status}");
        }
        assert!(!is_an_end(b"") && !is_an_end(b"{\"status\": 7}"));
    }
}
