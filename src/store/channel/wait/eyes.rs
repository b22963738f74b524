//! Looking at lists over a connection that the server tells of their changes.

use std::sync::Arc;
use std::time::Duration;

use redis::{PushInfo, PushKind};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::store::Error;
use crate::store::dial::Connection;
use crate::store::link::Link;

/// How often lists are looked at where the server tells of no changes.
const POLL: Duration = Duration::from_millis(10);

/// The connection, made with the first look.
#[derive(Default)]
pub(super) struct Eyes {
    connection: Option<Connection>,
    /// Whether the server tells of changes.
    is_told: bool,
    changed: Arc<Notify>,
}

impl Eyes {
    /// Says for each queue whether one of its lists has a message. Changes after that are told by [`Eyes::changed`].
    pub async fn look(&mut self, act: &'static str, link: &Link, queues: &[Vec<String>]) -> Result<Vec<bool>, Error> {
        let connection = if let Some(connection) = &mut self.connection {
            connection
        } else {
            let changed = self.changed.clone();
            let push = move |push: PushInfo| {
                if matches!(push.kind, PushKind::Invalidate | PushKind::Disconnection) {
                    changed.notify_one();
                }
                Ok::<(), std::convert::Infallible>(())
            };
            let (connection, is_told) = link.tracker(act, push).await?;
            self.is_told = is_told;
            self.connection.insert(connection)
        };
        let mut pipe = redis::pipe();
        for lists in queues {
            pipe.exists(lists);
        }
        let found: Result<Vec<u64>, _> = pipe.query_async(&mut connection.commands).await;
        if found.is_err() {
            self.close();
        }
        Ok(found.map_err(|error| Error::of(act, &error))?.into_iter().map(|lists| lists > 0).collect())
    }

    /// Waits until a list that was looked at may have changed.
    pub async fn changed(&self) {
        if self.is_told { self.changed.notified().await } else { sleep(POLL).await }
    }

    /// Gives the connection up.
    pub fn close(&mut self) {
        self.connection = None;
    }
}
