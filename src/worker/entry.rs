//! The tasks a worker has: reserved, waiting for their time, running.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::document::Told;
use super::outcome::Memory;
use super::state::State;
use crate::core::account::Count;
use crate::core::usage::Usage;
use crate::runtime::clock;
use crate::store::channel::Unbegun;
use crate::wire::{DeliveryInfo, Envelope, Message};

/// What a task does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Taken, and about to run.
    Reserved,
    /// Waits for its time.
    Scheduled(Timestamp),
    /// Another run has the lease on it, or Redis did not answer: it is tried again.
    PutAside,
    /// Runs.
    Running {
        /// Since when.
        since: Timestamp,
        /// In which process; ours for a task without a command.
        pid: u32,
    },
}

/// A task that was taken.
#[derive(Debug)]
pub struct Entry {
    /// Delivery tag of its message.
    pub tag: String,
    /// The list from which it was taken; empty where that is not known.
    pub list: String,
    /// The holder's name on its lease.
    pub holder: String,
    /// The envelope.
    pub envelope: Envelope,
    /// The task.
    pub message: Message,
    stage: Mutex<(Stage, bool)>,
    memory: OnceLock<Memory>,
    kept: OnceLock<Arc<State>>,
    usage: Mutex<Count>,
    stop: watch::Sender<Option<i32>>,
}

impl Entry {
    /// What it does.
    pub fn stage(&self) -> Stage {
        self.stage.lock().0
    }

    /// Says what it does now.
    pub fn enter(&self, stage: Stage) {
        self.stage.lock().0 = stage;
    }

    /// Whether the lease is ours.
    pub fn is_leased(&self) -> bool {
        self.stage.lock().1
    }

    /// The holder's name on its lease; empty where this worker does not hold it.
    pub fn lease_holder(&self) -> &str {
        if self.is_leased() { &self.holder } else { "" }
    }

    /// Says whether the lease is ours.
    pub fn lease(&self, ours: bool) {
        self.stage.lock().1 = ours;
    }

    /// Its message, as it is put back when it has not run.
    pub fn unbegun(&self) -> Unbegun<'_> {
        let DeliveryInfo { exchange, routing_key, .. } = &self.envelope.properties.delivery_info;
        Unbegun { tag: &self.tag, list: &self.list, exchange, routing_key }
    }

    /// What its run says of itself, as far as is known now.
    pub fn told(&self) -> Told {
        Told {
            memory: self.memory.get().copied(),
            usage: self.usage.lock().clone(),
            state: self.kept.get().and_then(|state| state.report()),
        }
    }

    /// The state of its job, while a run works on it.
    pub fn state(&self) -> Option<&Arc<State>> {
        self.kept.get()
    }

    /// Says which state its run works on. An entry runs once.
    pub fn works_on(&self, state: State) -> &Arc<State> {
        self.kept.get_or_init(|| Arc::new(state))
    }

    /// Goes on with a count that an earlier run under its task id has left.
    pub fn goes_on_counting(&self, count: Count) {
        *self.usage.lock() = count;
    }

    /// Says what was consumed under its task id, all runs together.
    pub fn consumed(&self, usage: Usage) {
        let mut count = self.usage.lock();
        if count.id.is_empty() {
            count.id = clock::random_id().simple().to_string().into();
        }
        count.usage = usage;
    }

    /// Says what memory its command took. An entry runs once.
    pub fn took(&self, memory: Memory) {
        let _ = self.memory.set(memory);
    }

    /// Asks for it to be stopped with this signal.
    pub fn stop(&self, signal: i32) {
        self.stop.send_replace(Some(signal));
    }

    /// Whether it is to be stopped.
    pub fn is_stopped(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// The signal with which it is to be stopped, as soon as there is one.
    pub async fn stopped(&self) -> i32 {
        let mut stop = self.stop.subscribe();
        loop {
            if let Some(signal) = *stop.borrow_and_update() {
                return signal;
            }
            if stop.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Entries {
    all: Mutex<BTreeMap<u64, Arc<Entry>>>,
    gone: Mutex<Vec<String>>,
    serial: AtomicU64,
}

impl Entries {
    /// Notes a task that was taken, until what is returned is dropped. `lease` is the holder's name on its lease, and whether
    /// it has the lease.
    pub fn add(
        self: &Arc<Self>,
        tag: String,
        list: String,
        lease: (String, bool),
        envelope: Envelope,
        message: Message,
    ) -> Listed {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let (holder, is_leased) = lease;
        let stage = Mutex::new((Stage::Reserved, is_leased));
        let (memory, usage, stop) = (OnceLock::new(), Mutex::default(), watch::Sender::new(None));
        let kept = OnceLock::new();
        let entry = Arc::new(Entry { tag, list, holder, envelope, message, stage, memory, kept, usage, stop });
        self.all.lock().insert(serial, entry.clone());
        Listed { serial, entry, of: self.clone() }
    }

    /// All of them, in the order in which they were taken.
    pub fn list(&self) -> Vec<Arc<Entry>> {
        self.all.lock().values().cloned().collect()
    }

    /// Notes the delivery tag of a message that the worker has no more.
    pub fn went(&self, tag: String) {
        self.gone.lock().push(tag);
    }

    /// The delivery tags that were noted since this was last asked.
    pub fn gone(&self) -> Vec<String> {
        std::mem::take(&mut *self.gone.lock())
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.all.lock().values().filter(|entry| matches!(entry.stage(), Stage::Running { .. })).count()
    }
}

/// A task in the list of all.
#[derive(Debug)]
pub struct Listed {
    serial: u64,
    /// The task.
    pub entry: Arc<Entry>,
    of: Arc<Entries>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.of.all.lock().remove(&self.serial);
        self.of.went(self.entry.tag.clone());
    }
}
