//! A subscription that outlives its connections.

use std::sync::Arc;
use std::time::Duration;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Error;
use super::link::Link;
use crate::runtime::backoff::{Backoff, Bounds};

/// How often a silent connection is tried.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Longest pause after the first connection that failed or was lost, and after any.
const PAUSE: Bounds = (Duration::from_millis(100), Duration::from_secs(5));

/// What a subscription says.
pub(super) enum Heard {
    /// It stands, from now on.
    Connected,
    /// It does not, for this reason. Only said once until the next `Connected`.
    Disconnected(String),
    /// A message was published.
    Message {
        /// Where.
        channel: String,
        /// What; `None` where it is longer than what is heard.
        payload: Option<Vec<u8>>,
    },
}

/// Listens to these patterns for good. `hear` is called by the connection and must not block.
pub(super) async fn listen(
    act: &'static str,
    link: Link,
    patterns: Vec<String>,
    hear: impl Fn(Heard) + Clone + Send + Sync + 'static,
) {
    let (mut backoff, mut told) = (Backoff::new(PAUSE), false);
    loop {
        let lost = Arc::new(Notify::new());
        let (pushed, gone) = (hear.clone(), lost.clone());
        let push = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                gone.notify_one();
            }
            if let Some(message) = message(push) {
                pushed(message);
            }
            Ok::<(), std::convert::Infallible>(())
        };
        let reason = match link.listener(act, push, &patterns).await {
            Ok(mut connection) => {
                backoff.reset();
                told = false;
                hear(Heard::Connected);
                loop {
                    if timeout(KEEPALIVE, lost.notified()).await.is_ok() {
                        break "the connection was closed".to_owned();
                    }
                    if let Err(error) = redis::cmd("PING").exec_async(&mut connection.commands).await {
                        break Error::of(act, &error).to_string();
                    }
                }
            }
            Err(error) => error.to_string(),
        };
        if !told {
            hear(Heard::Disconnected(reason));
            told = true;
        }
        sleep(backoff.pause()).await;
    }
}

fn message(push: PushInfo) -> Option<Heard> {
    let (PushKind::PMessage, Ok([_, Value::BulkString(channel), payload])) =
        (push.kind, <[Value; 3]>::try_from(push.data))
    else {
        return None;
    };
    let payload = if let Value::BulkString(payload) = payload { Some(payload) } else { None };
    Some(Heard::Message { channel: String::from_utf8(channel).ok()?, payload })
}
