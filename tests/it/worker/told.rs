//! The tasks that have succeeded, as it is published to producers that wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

/// How often the success of each task was published.
pub struct Told {
    counts: Arc<Mutex<HashMap<String, usize>>>,
    over: Arc<AtomicBool>,
}

impl Told {
    /// Listens from now on.
    pub fn listen(server: &RedisServer) -> Self {
        let counts: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let mut connection = server.connection();
        connection.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let (told, stop) = (counts.clone(), over.clone());
        std::thread::spawn(move || {
            let mut results = connection.as_pubsub();
            results.psubscribe("celery-task-meta-*").unwrap();
            while !stop.load(Ordering::Relaxed) {
                let Ok(message) = results.get_message() else { continue };
                let document = ResultDocument::decode(message.get_payload_bytes()).unwrap();
                if document.status.as_str() == "SUCCESS" {
                    *told.lock().unwrap().entry(document.task_id).or_default() += 1;
                }
            }
        });
        Self { counts, over }
    }

    /// How many tasks have succeeded.
    pub fn done(&self) -> usize {
        self.counts.lock().unwrap().len()
    }

    /// Whether this task has.
    pub fn is_done(&self, id: &str) -> bool {
        self.counts.lock().unwrap().contains_key(id)
    }

    /// The tasks of which that was said more than once.
    pub fn more_than_once(&self) -> Vec<String> {
        let counts = self.counts.lock().unwrap();
        counts.iter().filter(|(_, times)| **times > 1).map(|(id, _)| id.clone()).collect()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
