//! Elements of a queue that are no messages: a stock worker that takes one ends with an error, and so does its successor.

use std::sync::LazyLock;

use redis::Script;

use super::audit::{Poison, is_message};
use super::link::script;
use super::{Error, Store};

static QUARANTINE: LazyLock<Script> = script!("lua/quarantine.lua");
static LARGE: LazyLock<Script> = script!("lua/large.lua");

const ACT: &str = "quarantining what is no message";
/// Elements that are kept, about; the oldest go first.
const KEPT: usize = 1000;
/// Larger elements are looked at and moved by Redis itself.
const LARGE_FROM: usize = 1 << 20;

impl Store {
    /// Moves these elements from their queues to the stream [`Store::quarantine_stream`]; says how many were still there.
    pub async fn quarantine(&self, poison: &[Poison]) -> Result<u64, Error> {
        let mut moved = 0;
        // From the tail on, so that taking one does not shift those that come next.
        for found in poison.iter().rev() {
            if found.size >= LARGE_FROM {
                let mut call = LARGE.key(&found.key);
                call.key(self.quarantine_stream()).arg(found.position).arg(found.size).arg(KEPT);
                let done: Option<String> = self.0.scans.script(ACT, &call).await?;
                moved += u64::from(done.as_deref() == Some("moved"));
                continue;
            }
            let mut read = redis::cmd("LINDEX");
            read.arg(&found.key).arg(found.position);
            let element: Option<Vec<u8>> = self.0.scans.query(ACT, &read).await?;
            // Another element may have taken its place since.
            let Some(element) = element.filter(|element| !is_message(element)) else { continue };
            let mut call = QUARANTINE.key(&found.key);
            call.key(self.quarantine_stream()).arg(element).arg(KEPT);
            moved += self.0.scans.script::<u64>(ACT, &call).await?;
        }
        Ok(moved)
    }

    /// Whether an element that is too large to be fetched is a message, as far as its ends tell; `None` when it is gone.
    pub(super) async fn is_large_message(&self, list: &str, position: usize) -> Result<Option<bool>, Error> {
        let mut call = LARGE.key(list);
        call.key(self.quarantine_stream()).arg(position);
        let seen: Option<String> = self.0.scans.script(ACT, &call).await?;
        Ok(seen.map(|seen| seen == "message"))
    }

    /// Where they are kept: a stream of `list` and `element`, to be read with `XRANGE`.
    pub fn quarantine_stream(&self) -> &str {
        &self.0.names.quarantine
    }
}
