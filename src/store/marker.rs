//! The marker: what Redis remembers of an attempt from its first message until its end is recorded.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use uuid::Uuid;

use super::{Error, MarkerId, Store};
use crate::core::claims;
use crate::core::evidence::Mark;
use crate::core::id::{Priority, SpecHash};

const ACT: &str = "reading markers";

/// Fields of the hash that make a [`Marker`], in the order in which scripts return them.
pub(super) const FIELDS: [&str; 10] =
    ["uid", "name", "attempt", "gen", "tag", "queue", "priority", "state", "at", "spec"];

/// Largest value that an operator writes into one of these fields.
const LARGEST_FIELD: usize = 512;

static MARKERS: LazyLock<redis::Script> = LazyLock::new(|| redis::Script::new(include_str!("lua/markers.lua")));
static FORGET: LazyLock<redis::Script> = LazyLock::new(|| redis::Script::new(include_str!("lua/forget.lua")));

/// What Redis remembers of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// UID of the job.
    pub uid: Uuid,
    /// Name of the job.
    pub name: Arc<str>,
    /// Number of the attempt's first run.
    pub attempt: u32,
    /// How often the message has been published again.
    pub generation: u32,
    /// Delivery tag of the message.
    pub tag: Arc<str>,
    /// Queue it was published on.
    pub queue: Arc<str>,
    /// The job's priority at that time.
    pub priority: Priority,
    /// Whether the message was taken back.
    pub state: MarkerState,
    /// When the attempt was first published, by the clock of Redis.
    pub at: Timestamp,
    /// Digest of what was published.
    pub spec: Option<SpecHash>,
}

/// What became of a published message, as far as we did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerState {
    /// Published; a worker may have taken it since.
    Queued,
    /// Taken back before any worker had it.
    Withdrawn,
}

impl Marker {
    /// What it says of its attempt.
    pub fn mark(&self) -> Mark {
        Mark {
            generation: self.generation,
            withdrawn: self.state == MarkerState::Withdrawn,
            at: self.at,
            spec: self.spec,
            priority: self.priority,
        }
    }

    /// Reads the values of `FIELDS`, as far as an operator can have written them.
    pub fn of(values: &[Option<Vec<u8>>]) -> Option<Self> {
        let fields: HashMap<_, _> = FIELDS.iter().zip(values).collect();
        let text = |name: &&str| fields.get(name).and_then(|value| std::str::from_utf8(value.as_deref()?).ok());
        Some(Self {
            uid: text(&"uid")?.parse().ok()?,
            name: text(&"name")?.into(),
            attempt: claims::run(text(&"attempt")?)?,
            generation: claims::generation(text(&"gen")?)?,
            tag: text(&"tag")?.into(),
            queue: text(&"queue")?.into(),
            priority: claims::priority(text(&"priority")?)?,
            state: if text(&"state")? == "withdrawn" { MarkerState::Withdrawn } else { MarkerState::Queued },
            at: Timestamp::from_millisecond(text(&"at")?.parse().ok()?).ok()?,
            spec: text(&"spec").and_then(SpecHash::parse),
        })
    }
}

impl Store {
    /// The markers with these ids, `None` where there is none or what is there was not written by an operator: the scripts
    /// that change it tell the two apart.
    pub async fn markers(&self, ids: &[MarkerId]) -> Result<Vec<Option<Marker>>, Error> {
        let mut markers = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(500) {
            let mut call = MARKERS.arg(LARGEST_FIELD);
            call.arg(&FIELDS);
            for id in chunk {
                call.key(self.0.names.marker(id));
            }
            let rows: Vec<Option<Vec<Option<Vec<u8>>>>> = self.0.broker.script(ACT, &call).await?;
            markers.extend(rows.iter().map(|row| Marker::of(row.as_deref()?)));
        }
        Ok(markers)
    }

    /// Deletes markers of attempts that are over and recorded, and what is left of their messages in flight.
    pub async fn forget(&self, ids: &[MarkerId]) -> Result<(), Error> {
        let names = &self.0.names;
        for chunk in ids.chunks(500) {
            let mut call = FORGET.key(names.broker.unacked());
            call.key(names.broker.unacked_index());
            for id in chunk {
                call.key(names.marker(id)).key(names.kept(id));
            }
            self.0.broker.script::<i64>("deleting markers", &call).await?;
        }
        Ok(())
    }

    /// Meets the markers of this cluster, to find those whose jobs are gone; one may be met more than once. Goes through
    /// every key of the database, and keeps none.
    pub async fn scan_markers(&self, mut meet: impl FnMut(MarkerId)) -> Result<(), Error> {
        let names = &self.0.names;
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(names.markers()).arg("COUNT").arg(1000).arg("TYPE").arg("hash");
            let (next, keys): (u64, Vec<String>) = self.0.scans.query("looking for markers", &command).await?;
            keys.iter().filter_map(|key| names.marker_of(key)).for_each(&mut meet);
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}
