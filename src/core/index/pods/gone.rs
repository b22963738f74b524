//! Pods that are gone. What a worker has stored last may be read only then, and names no more than its node: without its
//! Pod it would count as a worker of another host, which is never dead.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::super::super::id::ObjectKey;
use super::pod::PodView;

/// For how long a Pod is remembered.
const KEPT: Duration = Duration::from_mins(10);
/// Pods that are remembered at most, of all namespaces.
const MOST: usize = 256;

/// The Pods that were forgotten last, in that order.
#[derive(Debug, Clone, Default)]
pub(super) struct Gone(VecDeque<(Timestamp, ObjectKey, PodView)>);

impl Gone {
    /// A Pod is gone, and was like this at last.
    pub(super) fn note(&mut self, key: ObjectKey, last: PodView, now: Timestamp) {
        let since = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
        // A clock that was set back keeps none for ever: newer ones take the place.
        self.0.retain(|(gone_at, _, _)| *gone_at >= since);
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((now, key, last));
    }

    /// The last one of that name.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<(&ObjectKey, &PodView)> {
        self.0.iter().rev().find(|(_, of, _)| of == key).map(|(_, of, last)| (of, last))
    }

    pub(super) fn forget_namespace(&mut self, namespace: &str) {
        self.0.retain(|(_, key, _)| &*key.namespace != namespace);
    }
}
