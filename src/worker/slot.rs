//! A slot of the worker's concurrency, and the messages that one takes after another.

use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use super::context::{LEASE, Worker};
use crate::runtime::clock;
use crate::store::Error;
use crate::store::channel::{Ask, Delivery, Taken};

/// A slot. What runs in it takes the next message itself when it ends.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
    /// Asks for messages in this slot.
    pub asker: Asker,
}

/// Asks for one message at a time.
#[derive(Debug)]
pub struct Asker {
    name: String,
    /// The tag of the message it got last.
    last: String,
}

/// A message that was taken, and the holder of its lease where that was taken, too.
#[derive(Debug)]
pub struct Next {
    /// The message.
    pub delivery: Delivery,
    /// The holder's name for this run of its task.
    pub holder: String,
}

/// The question for the next message.
pub struct Question {
    queues: Vec<String>,
    worker: String,
    asker: String,
    last: String,
    holder: String,
}

impl Slot {
    /// A slot that is taken until it is dropped.
    pub fn new(permit: OwnedSemaphorePermit, asker: Asker) -> Self {
        Self { _permit: permit, asker }
    }
}

impl Asker {
    /// One that has never asked.
    pub fn new() -> Self {
        Self { name: clock::random_id().to_string(), last: String::new() }
    }

    /// Asks for a message. After an error it is to ask again: the answer may have been lost, with a message in it.
    pub async fn take(&mut self, worker: &Worker) -> Result<Option<Next>, Error> {
        let question = self.question(worker);
        let taken = worker.channel.take(&question.ask(&question.queues())).await?;
        Ok(self.answered(worker, &question, taken))
    }

    /// The question that a task asks when it ends, unless the worker takes no further message in this slot.
    pub fn question_at_end(&self, worker: &Worker) -> Option<Question> {
        let goes_on = worker.shared_slots.wanted.is_none() && !worker.warm_shutdown.is_cancelled();
        goes_on.then(|| self.question(worker))
    }

    fn question(&self, worker: &Worker) -> Question {
        let queues = worker.queues.borrow();
        let rotation = worker.shared_slots.rotation.load(Ordering::Relaxed);
        let names = (0..queues.len()).map(|at| queues[(at + rotation) % queues.len()].name.to_string());
        Question {
            queues: names.collect(),
            worker: worker.id.clone(),
            asker: self.name.clone(),
            last: self.last.clone(),
            holder: worker.holder(),
        }
    }

    /// Notes what was answered.
    pub fn answered(&mut self, worker: &Worker, question: &Question, taken: Taken) -> Option<Next> {
        let Taken { delivery, refused } = taken;
        if refused > 0 {
            tracing::error!(
                refused,
                stream = worker.channel.quarantine_stream(),
                "an element that is not a message was moved to the quarantine"
            );
        }
        let shared = &worker.shared_slots;
        shared.found_none.store(delivery.is_none(), Ordering::Relaxed);
        let delivery = delivery?;
        self.last.clone_from(&delivery.tag);
        shared.rotation.fetch_add(delivery.queue + 1, Ordering::Relaxed);
        Some(Next { delivery, holder: question.holder.clone() })
    }
}

impl Question {
    /// As it is put to Redis; `queues` are its own.
    pub fn ask<'a>(&'a self, queues: &'a [&'a str]) -> Ask<'a> {
        Ask { queues, asker: &self.asker, worker: &self.worker, last: &self.last, holder: &self.holder, lease: LEASE }
    }

    /// The queues it is about.
    pub fn queues(&self) -> Vec<&str> {
        self.queues.iter().map(|queue| &**queue).collect()
    }
}
