//! A pool's Redis at one moment, cheap enough to be taken every other second.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use redis::Script;

use super::link::script;
use super::{Epoch, Error, Queue, Store};
use crate::core::claims::fence::{self, Fence};
use crate::core::eviction::{self, Eviction};

static SNAPSHOT: LazyLock<Script> = script!("lua/snapshot.lua");

/// In-flight entries up to this number, and up to so many bytes, are counted one by one. Of more a sample is drawn and
/// scaled up, so that Redis is not held up.
const COUNTED: (usize, usize) = (1000, 2 << 20);

/// A pool's Redis at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When, by the clock of Redis.
    pub at: Timestamp,
    /// Which life of the server and its data.
    pub incarnation: Incarnation,
    /// The fence as it is written: its fields `created` and `epoch`.
    fence: [Option<String>; 2],
    /// Whether the server drops keys when it is full.
    pub eviction: Option<Eviction>,
    /// The queues, in the order in which they were asked for.
    pub queues: Vec<QueueLoad>,
    /// Messages with workers that came from other queues. Here and in the queues, those that workers hold only until
    /// their time comes are not counted.
    pub foreign_in_flight: u64,
    /// Messages from any queue that workers hold until their time comes.
    pub held: u64,
}

/// Which life of the server and its data. Whenever it differs from the last one, messages may be gone or back again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Incarnation {
    /// Changes when the server restarts.
    pub run_id: Arc<str>,
    /// Changes when a replica takes over.
    pub replication_id: Arc<str>,
    /// When the fence was made, as it says; changes when the data was emptied.
    pub born: Option<Arc<str>>,
}

/// Messages of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueLoad {
    /// Name of the queue.
    pub queue: Arc<str>,
    /// Messages that wait, by the lowest Celery priority of their band, most urgent first.
    pub bands: Vec<(u8, u64)>,
    /// Messages that workers have and have not acknowledged.
    pub in_flight: u64,
}

impl Snapshot {
    /// What the fence says to the leader of this term.
    pub fn fence(&self, ours: Epoch) -> Fence {
        let [created, epoch] = self.fence.each_ref().map(Option::as_deref);
        fence::judge(created, epoch, ours)
    }
}

impl QueueLoad {
    /// Messages that wait in all bands.
    pub fn depth(&self) -> u64 {
        self.bands.iter().map(|(_, length)| length).sum()
    }
}

/// What the script answers; at last, how many messages are held until their time comes.
type Answer = (Vec<Option<Vec<u8>>>, i64, String, Vec<u64>, Vec<(String, u64)>, u64);

impl Store {
    /// Takes a snapshot, in one round trip.
    pub async fn snapshot(&self, queues: &[Queue]) -> Result<Snapshot, Error> {
        const ACT: &str = "taking a snapshot of the queues";
        let names = &self.0.names;
        let mut call = SNAPSHOT.key(&*names.fence);
        call.key(names.broker.unacked());
        for queue in queues {
            for list in names.broker.queue_bands(&queue.name) {
                call.key(list);
            }
        }
        call.arg(COUNTED.0).arg(COUNTED.1);
        let (fence, micros, info, lengths, in_flight, held): Answer = self.0.broker.script(ACT, &call).await?;
        let text = |n: usize| Some(String::from_utf8_lossy(fence.get(n)?.as_deref()?).into_owned());
        let mut snapshot = Snapshot {
            at: Timestamp::from_microsecond(micros)
                .map_err(|_| Error::unexpected(ACT, "a time beyond all calendars"))?,
            incarnation: Incarnation {
                run_id: field(&info, "run_id").into(),
                replication_id: field(&info, "master_replid").into(),
                born: text(2).map(Into::into),
            },
            fence: [text(0), text(1)],
            eviction: eviction(&info),
            queues: Vec::with_capacity(queues.len()),
            foreign_in_flight: 0,
            held,
        };
        let steps = names.broker.bands.steps();
        for (queue, lengths) in queues.iter().zip(lengths.chunks(steps.len())) {
            let bands = steps.iter().copied().zip(lengths.iter().copied()).collect();
            snapshot.queues.push(QueueLoad { queue: queue.name.clone(), bands, in_flight: 0 });
        }
        for (routing_key, count) in in_flight {
            // The routing key is the queue's name unless the producer named an exchange.
            let known = |queue: &Queue| *queue.name == *routing_key || *queue.routing_key == *routing_key;
            match queues.iter().position(known) {
                Some(index) => snapshot.queues[index].in_flight += count,
                None => snapshot.foreign_in_flight += count,
            }
        }
        Ok(snapshot)
    }
}

impl Store {
    /// Whether the server of the results drops keys when it is full, where results are in a database of their own.
    pub async fn results_eviction(&self) -> Result<Option<Eviction>, Error> {
        if self.0.same_database {
            return Ok(None);
        }
        let info: String = self
            .0
            .results
            .query("asking for the memory of the results' Redis", redis::cmd("INFO").arg("memory"))
            .await?;
        Ok(eviction(&info))
    }
}

fn eviction(info: &str) -> Option<Eviction> {
    eviction::judge(field(info, "maxmemory").parse().unwrap_or(0), field(info, "maxmemory_policy"))
}

/// A field of what `INFO` answers.
pub(super) fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':')).unwrap_or("")
}
