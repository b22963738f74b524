//! How many requests a caller may make, over all processes that share a Redis.

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use redis::Script;

use super::error::{ConnectError, Error};
use super::link::{Link, script};
use super::settings::Access;
use crate::core::gateway::rate::{Rate, Taken};

static RATE: LazyLock<Script> = script!("lua/rate.lua");

/// Bytes of an answer: four numbers.
const ANSWER: usize = 4096;

/// The callers of a gateway, on Redis. Connects when it is first asked.
pub struct Callers {
    link: Link,
}

impl Callers {
    /// The callers on this Redis. An error says which setting cannot be used; it is not connected to yet.
    pub fn new(access: &Access) -> Result<Self, ConnectError> {
        let round_trips = AtomicU64::new(0).into();
        Ok(Self { link: Link::bounded(&access.broker()?, access, &round_trips, ANSWER) })
    }

    /// Scheme, host, port and database, without credentials.
    pub fn address(&self) -> String {
        self.link.address().to_string()
    }

    /// Takes one request of the caller with this digest, at Redis' time. The key of a caller is gone as soon as all of its requests
    /// are free again.
    pub async fn take(&self, caller: &str, rate: Rate) -> Result<Taken, Error> {
        const ACT: &str = "counting a caller's requests";
        let mut call = RATE.key(format!("crewjob:rate:{caller}"));
        call.arg(rate.interval()).arg(rate.count);
        let (is_allowed, remaining, retry_after, reset): (bool, String, String, String) =
            self.link.script(ACT, &call).await?;
        let number =
            |text: String| text.parse::<u64>().map_err(|_| Error::unexpected(ACT, "an answer without numbers"));
        Ok(Taken {
            is_allowed,
            remaining: u32::try_from(number(remaining)?).unwrap_or(u32::MAX),
            retry_after: Duration::from_micros(number(retry_after)?),
            reset: Duration::from_micros(number(reset)?),
        })
    }
}
