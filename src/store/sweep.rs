//! Looking through whole queues, in stretches that hold Redis up for less than a millisecond each.

use std::sync::LazyLock;

use redis::Script;

use super::link::{fenced, script};
use super::transition::Answer;
use super::{Epoch, Error, MarkerId, Queue, Store};
use crate::core::job::TaskId;

static FIND: LazyLock<Script> = script!("lua/find.lua");
static SWEEP: LazyLock<Script> = fenced!("lua/sweep.lua");

/// Elements per stretch.
const STRETCH: usize = 200;

/// A copy that was taken off a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Whose.
    pub task: TaskId,
    /// A worker holds another copy: the task is not withdrawn.
    pub still_held: bool,
}

impl Store {
    /// Takes every copy of these tasks off the queues, whatever its bytes: kombu restores messages with other bytes than
    /// were published, which [`Store::withdraw`] does not recognize. One pass for all tasks.
    pub async fn sweep_copies(&self, epoch: Epoch, ids: &[MarkerId], queues: &[Queue]) -> Result<Vec<Swept>, Error> {
        let names = &self.0.names;
        let mut swept = Vec::new();
        let lists: Vec<_> = queues.iter().flat_map(|queue| names.broker.queue_bands(&queue.name)).collect();
        for ids in ids.chunks(500) {
            for list in &lists {
                self.sweep_list(&mut swept, epoch, ids, list).await?;
            }
        }
        Ok(swept)
    }

    async fn sweep_list(
        &self,
        swept: &mut Vec<Swept>,
        epoch: Epoch,
        ids: &[MarkerId],
        list: &str,
    ) -> Result<(), Error> {
        const ACT: &str = "withdrawing restored copies of tasks";
        let names = &self.0.names;
        let mut position = 0;
        loop {
            let mut call = SWEEP.key(&*names.fence);
            call.key(names.broker.unacked()).key(list).arg(epoch.0).arg(position).arg(STRETCH);
            for id in ids {
                call.key(names.marker(id)).arg(id.task.to_string());
            }
            let answer = Answer::from_fenced(ACT, self.0.scans.script(ACT, &call).await?)?;
            let copies = answer.values().get(1..).unwrap_or_default().chunks(2).filter_map(|copy| match copy {
                [Some(task), Some(held)] => Some(Swept { task: TaskId::parse(task)?, still_held: held == "1" }),
                _ => None,
            });
            let before = swept.len();
            swept.extend(copies);
            let seen: usize = answer.values().first().and_then(|seen| seen.as_deref()?.parse().ok()).unwrap_or(0);
            if seen < STRETCH {
                return Ok(());
            }
            // From the head on, so that neither pushes there nor pops at the tail can hide an element.
            position += seen - (swept.len() - before);
        }
    }

    /// The bytes of this task's message on a list.
    pub(super) async fn find(&self, act: &'static str, list: &str, task: TaskId) -> Result<Option<Vec<u8>>, Error> {
        let mut position = 0;
        loop {
            let mut call = FIND.key(list);
            call.arg(position).arg(STRETCH).arg(task.to_string());
            let (seen, found): (usize, Option<Vec<u8>>) = self.0.scans.script(act, &call).await?;
            if found.is_some() || seen < STRETCH {
                return Ok(found);
            }
            position += seen;
        }
    }
}
