//! The schedules there are, and which to look at.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::core::id::ObjectKey;

/// What makes another look at a schedule necessary. Its status changes with each look, and is none of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The UID of the object.
    pub uid: String,
    /// The generation of its spec.
    pub generation: i64,
    /// The value of the annotation that asks for a job now.
    pub run_now: Option<String>,
}

/// A schedule that is served.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Its name.
    pub key: ObjectKey,
    /// Asks for a look.
    pub wake: Arc<Notify>,
    /// Cancelled when it is gone.
    pub stop: CancellationToken,
}

/// All schedules by name.
#[derive(Debug, Default)]
pub struct Schedules(Mutex<HashMap<ObjectKey, (Asked, Handle)>>);

impl Schedules {
    /// Notes a schedule as it is now. One that is new is returned, to be served; one that has changed is looked at again.
    pub fn note(&self, key: &ObjectKey, asked: Asked) -> Option<Handle> {
        let mut all = self.0.lock();
        if let Some((known, handle)) = all.get_mut(key) {
            if *known != asked {
                *known = asked;
                handle.wake.notify_one();
            }
            return None;
        }
        let handle = Handle { key: key.clone(), wake: Arc::default(), stop: CancellationToken::new() };
        all.insert(key.clone(), (asked, handle.clone()));
        Some(handle)
    }

    /// Has a schedule looked at, if it is there.
    pub fn wake(&self, key: &ObjectKey) {
        if let Some((_, handle)) = self.0.lock().get(key) {
            handle.wake.notify_one();
        }
    }

    /// A schedule is gone.
    pub fn remove(&self, key: &ObjectKey) {
        if let Some((_, handle)) = self.0.lock().remove(key) {
            handle.stop.cancel();
        }
    }

    /// Only these are left.
    pub fn retain(&self, listed: &[ObjectKey]) {
        self.0.lock().retain(|key, (_, handle)| {
            let stays = listed.contains(key);
            if !stays {
                handle.stop.cancel();
            }
            stays
        });
    }
}
