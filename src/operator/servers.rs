//! What pools on one Redis database share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::store::{Error, MarkerId};

/// Audits that go on at once on one Redis: each holds the places of all messages of a pool.
const AUDITS: usize = 2;

/// The Redis databases in use.
#[derive(Default)]
pub struct Servers(Mutex<HashMap<String, Weak<Server>>>);

/// One Redis database.
pub struct Server {
    /// Taken by each audit. A server of its own holds up only its own pools.
    pub audits: Semaphore,
    /// The markers without a job that were found last.
    strays: tokio::sync::Mutex<Option<(Instant, Arc<Vec<MarkerId>>)>>,
}

impl Server {
    /// The markers without a job that a look found which began after `asked_at`; takes that look where there was none.
    pub async fn strays(
        &self,
        asked_at: Instant,
        look: impl Future<Output = Result<Vec<MarkerId>, Error>>,
    ) -> Result<Arc<Vec<MarkerId>>, Error> {
        let mut known = self.strays.lock().await;
        if let Some((_, found)) = known.as_ref().filter(|(began_at, _)| *began_at >= asked_at) {
            return Ok(found.clone());
        }
        let began_at = Instant::now();
        let found = Arc::new(look.await?);
        *known = Some((began_at, found.clone()));
        Ok(found)
    }
}

impl Servers {
    /// The one at this address.
    pub fn of(&self, address: &str) -> Arc<Server> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = known.get(address).and_then(Weak::upgrade) {
            return server;
        }
        known.retain(|_, server| server.strong_count() > 0);
        let server = Arc::new(Server { audits: Semaphore::new(AUDITS), strays: tokio::sync::Mutex::default() });
        known.insert(address.to_owned(), Arc::downgrade(&server));
        server
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn pools_on_one_redis_that_ask_together_share_one_look_for_markers() {
        let servers = Servers::default();
        let looks = AtomicU32::new(0);
        let look = || async {
            looks.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(Vec::new())
        };
        let (one, other) = (servers.of("redis://a:6379/0"), servers.of("redis://a:6379/0"));
        let asked_at = Instant::now();
        let (first, second) = tokio::join!(one.strays(asked_at, look()), other.strays(asked_at, look()));
        assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        one.strays(Instant::now(), look()).await.unwrap();
        assert_eq!(looks.load(Ordering::Relaxed), 2, "what was found before is not enough for who asks later");
        servers.of("redis://b:6379/0").strays(asked_at, look()).await.unwrap();
        assert_eq!(looks.load(Ordering::Relaxed), 3, "another Redis has other keys");
    }
}
