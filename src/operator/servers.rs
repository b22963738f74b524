//! What pools on one Redis database share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

/// Audits that go on at once on one Redis: each holds the places of all messages of a pool.
const AUDITS: usize = 2;

/// The Redis databases in use.
#[derive(Default)]
pub struct Servers(Mutex<HashMap<String, Weak<Server>>>);

/// One Redis database.
pub struct Server {
    /// Taken by each audit. A server of its own holds up only its own pools.
    pub audits: Semaphore,
}

impl Servers {
    /// The one at this address.
    pub fn of(&self, address: &str) -> Arc<Server> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = known.get(address).and_then(Weak::upgrade) {
            return server;
        }
        known.retain(|_, server| server.strong_count() > 0);
        let server = Arc::new(Server { audits: Semaphore::new(AUDITS) });
        known.insert(address.to_owned(), Arc::downgrade(&server));
        server
    }
}
