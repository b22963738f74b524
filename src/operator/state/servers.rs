//! What pools on one Redis database share.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::core::index::{Chosen, Round, Rounds};
use crate::store::{Error, MarkerId};

/// Audits that go on at once on one Redis: each holds the places of all messages of a pool.
const AUDITS: usize = 2;

/// Markers without a job in hand of which one look takes up as many of each namespace: each costs a read of the API
/// server, and every user that may write to this Redis can plant them.
const SUSPECTS: usize = 2000;

/// Whose markers they are: those of a namespace with pools, or of all the others.
pub type Owner = Option<Arc<str>>;
/// The markers without a job in hand that a look chose.
pub type Suspects = HashMap<Owner, Chosen<MarkerId>>;

/// The Redis databases in use.
#[derive(Default)]
pub struct Servers(Mutex<HashMap<String, Weak<Server>>>);

/// One Redis database.
pub struct Server {
    /// Taken by each audit. A server of its own holds up only its own pools.
    pub audits: Semaphore,
    looks: tokio::sync::Mutex<Looks>,
}

/// The looks through the keys of a Redis.
struct Looks {
    rounds: Rounds<Owner, MarkerId>,
    /// What the last one found, and when it began.
    last: Option<(Instant, Arc<Suspects>)>,
}

impl Server {
    /// The markers without a job in hand that a look chose which began after `asked_at`; takes that look where there
    /// was none.
    pub async fn suspects(
        &self,
        asked_at: Instant,
        look: impl AsyncFnOnce(&mut Round<'_, Owner, MarkerId>) -> Result<(), Error>,
    ) -> Result<Arc<Suspects>, Error> {
        let Looks { rounds, last } = &mut *self.looks.lock().await;
        if let Some((_, found)) = last.as_ref().filter(|(began_at, _)| *began_at >= asked_at) {
            return Ok(found.clone());
        }
        let began_at = Instant::now();
        let mut round = rounds.begin();
        look(&mut round).await?;
        let found = Arc::new(round.end());
        *last = Some((began_at, found.clone()));
        Ok(found)
    }
}

impl Servers {
    /// The one at this address.
    pub fn of(&self, address: &str) -> Arc<Server> {
        let mut known = self.0.lock();
        if let Some(server) = known.get(address).and_then(Weak::upgrade) {
            return server;
        }
        known.retain(|_, server| server.strong_count() > 0);
        let server = Arc::new(Server {
            audits: Semaphore::new(AUDITS),
            looks: tokio::sync::Mutex::new(Looks { rounds: Rounds::new(SUSPECTS), last: None }),
        });
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
        let look = async |_: &mut Round<'_, Owner, MarkerId>| {
            looks.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(())
        };
        let (one, other) = (servers.of("redis://a:6379/0"), servers.of("redis://a:6379/0"));
        let asked_at = Instant::now();
        let (first, second) = tokio::join!(one.suspects(asked_at, look), other.suspects(asked_at, look));
        assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        one.suspects(Instant::now(), look).await.unwrap();
        assert_eq!(looks.load(Ordering::Relaxed), 2, "what was found before is not enough for a pool that asks later");
        servers.of("redis://b:6379/0").suspects(asked_at, look).await.unwrap();
        assert_eq!(looks.load(Ordering::Relaxed), 3, "another Redis has other keys");
    }
}
