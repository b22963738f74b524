//! Waking up when a message arrives, without taking it and without asking again and again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Channel, Error};
use crate::store::link::Link;

/// How long Redis is asked to wait; a connection that died in silence is noticed after that.
const WAIT: Duration = Duration::from_secs(30);
/// How long a look may be put off when Redis cannot be asked to wait.
const POLL: Duration = Duration::from_secs(1);

/// Says when it is worth looking for messages. Dropping it ends its connections.
pub struct Arrivals {
    armed: watch::Sender<u64>,
    arrived: Arc<Notify>,
    _listeners: JoinSet<()>,
}

impl Channel {
    /// Watches the lists of these queues, each over a connection of its own.
    ///
    /// Redis waits with `BLMOVE` from a list to the same end of the same list, which changes nothing: the message stays
    /// there for the worker that takes it, and no crash can lose it.
    pub fn arrivals(&self, queues: &[&str]) -> Result<Arrivals, Error> {
        let (armed, _) = watch::channel(0);
        let arrived = Arc::new(Notify::new());
        let mut listeners = JoinSet::new();
        for list in self.0.keys.pop_order(queues) {
            let link = self.patient()?;
            listeners.spawn(watch_list(link, list, armed.subscribe(), arrived.clone()));
        }
        Ok(Arrivals { armed, arrived, _listeners: listeners })
    }

    fn patient(&self) -> Result<Link, Error> {
        let mut access = self.0.access.clone();
        access.response_timeout += WAIT;
        let address = access.broker().map_err(|error| Error::unexpected("waiting for messages", error.to_string()))?;
        Ok(Link::new(&address, &access, &Arc::default()))
    }
}

impl Arrivals {
    /// Waits until there may be a message. To be called when a look has found none; an arrival in between is not missed.
    pub async fn wait(&self) {
        self.armed.send_modify(|round| *round += 1);
        self.arrived.notified().await;
    }
}

async fn watch_list(link: Link, list: String, mut armed: watch::Receiver<u64>, arrived: Arc<Notify>) {
    let mut wait = redis::cmd("BLMOVE");
    wait.arg(&list).arg(&list).arg("RIGHT").arg("RIGHT").arg(WAIT.as_secs());
    let mut served = 0;
    loop {
        let Ok(round) = armed.wait_for(|round| *round > served).await.map(|round| *round) else { return };
        match link.query::<Option<Vec<u8>>>("waiting for messages", &wait).await {
            Ok(None) => continue,
            Ok(Some(_)) => {}
            Err(error) => {
                tracing::debug!(%list, %error, "waiting for messages failed; polling instead");
                sleep(POLL).await;
            }
        }
        served = round.max(*armed.borrow());
        arrived.notify_one();
    }
}
