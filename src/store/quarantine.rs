//! Elements of a queue that are no messages: a stock worker that takes one ends with an error, and so does its successor.

use std::sync::LazyLock;

use redis::Script;

use super::audit::{Poison, is_message};
use super::link::script;
use super::{Error, Store};

static QUARANTINE: LazyLock<Script> = script!("lua/quarantine.lua");

const ACT: &str = "quarantining what is no message";
/// Elements that are kept, about; the oldest go first.
const KEPT: usize = 1000;

impl Store {
    /// Moves these elements from their queues to the stream [`Store::quarantine_stream`]; says how many were still there.
    pub async fn quarantine(&self, poison: &[Poison]) -> Result<u64, Error> {
        let mut moved = 0;
        // From the tail on, so that taking one does not shift those that come next.
        for found in poison.iter().rev() {
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

    /// Where they are kept: a stream of `list` and `element`, to be read with `XRANGE`.
    pub fn quarantine_stream(&self) -> &str {
        &self.0.names.quarantine
    }
}
