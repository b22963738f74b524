//! Pods that run more than one task.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long it counts that a worker has said that it runs other tasks.
const SHARED_FOR: Duration = Duration::from_mins(1);

/// Pods, by UID, whose workers have said that they run other tasks too, or that they do not run the one to stop.
#[derive(Default)]
pub struct SharedPods(Mutex<HashMap<Arc<str>, Instant>>);

impl SharedPods {
    /// Its worker has said so just now.
    pub fn note(&self, pod: &Arc<str>, now: Instant) {
        let mut pods = self.0.lock();
        pods.retain(|_, until| *until > now);
        pods.insert(pod.clone(), now + SHARED_FOR);
    }

    /// Whether its worker has said so within the last minute.
    pub fn contains(&self, pod: &Arc<str>, now: Instant) -> bool {
        let pods = self.0.lock();
        pods.get(pod).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_has_said_of_its_pod_counts_for_a_minute() {
        let (shared, now, pod) = (SharedPods::default(), Instant::now(), Arc::from("uid"));
        shared.note(&pod, now);
        assert!(shared.contains(&pod, now + Duration::from_secs(59)));
        assert!(!shared.contains(&pod, now + SHARED_FOR));
    }
}
