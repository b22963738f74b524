//! Whether messages were acknowledged, and what is stored of the tasks of those that were.

use std::sync::LazyLock;

use redis::{Script, Value};

use super::link::script;
use super::{Document, Error, MarkerId, Store};
use crate::core::id::TaskId;

static LOOK_UP: LazyLock<Script> = script!("lua/look_up.lua");

/// Messages that are looked up in one script.
const AT_ONCE: usize = 500;

/// A message that was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookedUp {
    /// Generation in the marker of its attempt, where there is one.
    pub generation: Option<u32>,
    /// Whether it was not acknowledged.
    pub is_in_flight: bool,
}

impl Store {
    /// Looks up messages by their delivery tags. The result documents of those that are not in flight are read after
    /// that, one at a time, and each is handed on with its position.
    pub async fn look_up(
        &self,
        messages: &[(MarkerId, String)],
        mut found: impl FnMut(usize, Document),
    ) -> Result<Vec<LookedUp>, Error> {
        const ACT: &str = "looking up messages";
        let (names, is_one) = (&self.0.names, self.0.same_database);
        let (mut looked_up, mut to_read) = (Vec::with_capacity(messages.len()), Vec::new());
        for messages in messages.chunks(AT_ONCE) {
            let mut call = LOOK_UP.key(names.broker.unacked());
            call.arg(Document::WHOLE).arg(Document::ANSWER);
            for (id, tag) in messages {
                call.key(names.marker(id)).arg(tag);
            }
            if is_one {
                for (id, _) in messages {
                    call.key(names.result(id.task));
                }
            }
            let answer: Vec<(String, bool, Value)> = self.0.scans.script(ACT, &call).await?;
            for (generation, is_in_flight, document) in answer {
                if let Value::BulkString(document) = &document {
                    found(looked_up.len(), Document::decode(document));
                } else if !(is_in_flight || is_one && document == Value::Nil) {
                    to_read.push(looked_up.len());
                }
                looked_up.push(LookedUp { generation: generation.parse().ok(), is_in_flight });
            }
        }
        let tasks: Vec<TaskId> = to_read.iter().map(|at| messages[*at].0.task).collect();
        self.outcomes(&tasks, |at, document| found(to_read[at], document)).await?;
        Ok(looked_up)
    }
}
