//! Where single messages are, and whether anything was put on a queue or taken from it: what spares an audit.

use std::sync::LazyLock;

use redis::Script;

use super::link::script;
use super::notice::moment;
use super::{Error, MarkerId, Place, Queue, Store};

static LOCATE: LazyLock<Script> = script!("lua/locate.lua");
static GLANCE: LazyLock<Script> = script!("lua/glance.lua");

/// Messages that are looked for in one script: each may go through a whole list.
const AT_ONCE: usize = 8;
/// Bytes at the end of a message that tell it from all others.
const END: usize = 4096;

/// The lengths and the ends of a pool's queues. While two are equal, nothing was put on the queues and nothing taken from
/// them in between: a push and a pop each change one of the ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance(Vec<(u64, String, String)>);

impl Store {
    /// Where the messages of these attempts are that their markers name; `None` for one that is in no place that can be
    /// looked up, which proves nothing: kombu may have put it back with other bytes.
    pub async fn locate(&self, attempts: &[MarkerId]) -> Result<Vec<Option<Place>>, Error> {
        let names = &self.0.names;
        let mut places = Vec::with_capacity(attempts.len());
        for attempts in attempts.chunks(AT_ONCE) {
            let mut call = LOCATE.key(names.broker.unacked());
            call.key(names.broker.unacked_index());
            for id in attempts {
                call.key(names.marker(id)).key(names.kept(id));
            }
            let found: Vec<(String, String, String)> = self.0.scans.script("looking for messages", &call).await?;
            places.extend(found.into_iter().map(|(place, tag, score)| match &*place {
                "flight" => Some(Place::InFlight {
                    tag: tag.into(),
                    received_at: score.parse().ok().and_then(moment),
                    eta: None,
                }),
                "queued" => Some(Place::Queued { tag: tag.into(), queue: "".into(), band: 0, redelivered: false }),
                _ => None,
            }));
        }
        Ok(places)
    }

    /// Looks at the lengths and the ends of these queues.
    pub async fn glance(&self, queues: &[Queue]) -> Result<Glance, Error> {
        let mut call = GLANCE.arg(END);
        for queue in queues {
            for list in self.0.names.broker.queue_bands(&queue.name) {
                call.key(list);
            }
        }
        Ok(Glance(self.0.scans.script("glancing at the queues", &call).await?))
    }
}
