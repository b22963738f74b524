//! Looking through whole queues, in stretches that hold Redis up for a few milliseconds at most, once for as many tasks as
//! there are.

use std::collections::HashMap;
use std::sync::LazyLock;

use redis::Script;

use super::link::{fenced, script};
use super::transition::{Answer, KEPT_MESSAGE};
use super::{Epoch, Error, MarkerId, Queue, Store};
use crate::core::id::{Priority, TaskId};

static IDS: LazyLock<Script> = script!("lua/ids.lua");
static SWEEP: LazyLock<Script> = fenced!("lua/sweep.lua");

const ACT: &str = "looking through the queues for messages";

/// Elements per stretch, at most.
const STRETCH: usize = 200;
/// Bytes that a stretch should have: large messages are looked at a few at a time.
const BYTES: usize = 2 << 20;

/// What is to become of the message of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Every copy goes.
    Gone,
    /// The delivery that the marker names goes to the band of this priority, if it waits in another one.
    Band(Priority),
}

/// A copy that was taken off a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Whose.
    pub task: TaskId,
    /// Of which delivery, where the tag is one of ours.
    pub generation: Option<u32>,
    /// A worker holds another copy: the task is not withdrawn.
    pub still_held: bool,
}

impl Store {
    /// Takes every copy of these tasks off the queues, or moves their messages to another band, whatever their bytes:
    /// kombu restores messages with other bytes than were published, and those of large messages are not kept. One pass
    /// for all tasks, which sends no message over the network.
    pub async fn sweep(
        &self,
        epoch: Epoch,
        wanted: &HashMap<MarkerId, Wanted>,
        queues: &[Queue],
    ) -> Result<Vec<Swept>, Error> {
        let names = &self.0.names;
        let by_task: HashMap<TaskId, (&MarkerId, Wanted)> =
            wanted.iter().map(|(id, wanted)| (id.task, (id, *wanted))).collect();
        let mut swept = Vec::new();
        for queue in queues {
            for list in names.broker.queue_bands(&queue.name) {
                self.sweep_list(&mut swept, epoch, &by_task, queue, &list).await?;
            }
        }
        Ok(swept)
    }

    /// From the head on, so that neither pushes there nor pops at the tail can hide an element.
    async fn sweep_list(
        &self,
        swept: &mut Vec<Swept>,
        epoch: Epoch,
        wanted: &HashMap<TaskId, (&MarkerId, Wanted)>,
        queue: &Queue,
        list: &str,
    ) -> Result<(), Error> {
        let (mut position, mut stretch) = (0, 20);
        loop {
            let mut call = IDS.key(list);
            call.arg(position).arg(stretch);
            let (bytes, ids): (usize, Vec<String>) = self.0.scans.script(ACT, &call).await?;
            let found: Vec<_> = ids
                .iter()
                .filter_map(|id| wanted.get(&TaskId::parse(id)?))
                .map(|(id, wanted)| (*id, *wanted))
                .collect();
            let gone = match &found[..] {
                [] => 0,
                found => self.sweep_stretch(swept, epoch, found, queue, list, (position, stretch)).await?,
            };
            if ids.len() < stretch {
                return Ok(());
            }
            position += ids.len().saturating_sub(gone);
            stretch = (stretch * BYTES / bytes.max(1)).clamp(1, STRETCH);
        }
    }

    /// Says how many elements have left the list.
    async fn sweep_stretch(
        &self,
        swept: &mut Vec<Swept>,
        epoch: Epoch,
        found: &[(&MarkerId, Wanted)],
        queue: &Queue,
        list: &str,
        (position, stretch): (usize, usize),
    ) -> Result<usize, Error> {
        let names = &self.0.names;
        let mut call = SWEEP.key(&*names.fence);
        call.key(names.broker.unacked()).key(list).arg(epoch.to_string()).arg(position).arg(stretch).arg(KEPT_MESSAGE);
        for (id, wanted) in found {
            let marker = names.marker(id);
            let (target, priority, celery) = match wanted {
                // No other list: a user of Redis has rights to keys of these names only.
                Wanted::Gone => (marker.clone(), String::new(), String::new()),
                Wanted::Band(priority) => (
                    names.list(&queue.name, *priority),
                    priority.get().to_string(),
                    names.celery(*priority).to_string(),
                ),
            };
            call.key(marker).key(target).key(names.kept(id)).arg(id.task.to_string()).arg(priority).arg(celery);
        }
        let answer = Answer::from_fenced(ACT, self.0.scans.script(ACT, &call).await?)?;
        let texts: Vec<Option<&str>> = answer.texts().collect();
        let (gone, copies) = texts.split_first().ok_or_else(|| Error::unexpected(ACT, "no answer"))?;
        swept.extend(copies.chunks(3).filter_map(|copy| match copy {
            [Some(task), Some(tag), Some(held)] => {
                let task = TaskId::parse(task)?;
                Some(Swept { task, generation: task.generation_of(tag), still_held: *held == "1" })
            }
            _ => None,
        }));
        Ok(gone.and_then(|gone| gone.parse().ok()).unwrap_or(0))
    }
}
