//! What all slots of a worker share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What all slots share.
#[derive(Debug, Default)]
pub struct Slots {
    /// How often a queue was served: the one served last comes last, as in kombu.
    pub rotation: AtomicUsize,
    /// How many wait for slots. They come before the messages on the queues.
    pub wanted: Wanted,
    /// Whether a slot has found no message when its task ended.
    pub found_none: AtomicBool,
}

/// A count of those that wait.
#[derive(Debug, Default)]
pub struct Wanted(AtomicUsize);

/// One of them, until it is dropped.
pub struct Waits<'a>(&'a Wanted);

impl Wanted {
    /// One more waits.
    pub fn one(&self) -> Waits<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Waits(self)
    }

    /// Whether none waits.
    pub fn is_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Slots {
    /// Whether the last look has found nothing; said once for each look.
    pub fn found_none(&self) -> bool {
        self.found_none.swap(false, Ordering::Relaxed)
    }
}
