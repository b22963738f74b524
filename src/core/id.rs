//! Names and digests that are compared, never interpreted: of objects, attempts, priorities and payloads.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// Most publications of one attempt. A marker or a delivery tag with more is none of ours.
pub const GENERATIONS: u32 = 1_000_000;

/// Namespace and name of a Kubernetes object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Name of the object, unique in its namespace.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of the object `name` in `namespace`.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of what is left of this object once it was deleted: one attempt that is to be taken off Redis. Another
    /// object may have its name by then.
    #[must_use]
    pub fn deleted(&self, task: TaskId) -> Self {
        Self { namespace: self.namespace.clone(), name: format!("{}@{task}", self.name).into() }
    }

    /// Whether the object was deleted: no name that the API server accepts has an `@`.
    pub fn is_deleted(&self) -> bool {
        self.name.contains('@')
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The Celery task id of one attempt of one job.
///
/// It is derived from the job's UID and the attempt's number, so that repeating an enqueue after a crash, or from a
/// second operator, cannot make a second task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(Uuid);

impl TaskId {
    /// The id of attempt `number` (counted from 1) of the job with this UID: a version 5 UUID of the number in the job's own
    /// namespace.
    pub fn derive(job: Uuid, number: u32) -> Self {
        Self(Uuid::new_v5(&job, number.to_string().as_bytes()))
    }

    /// Reads a Celery task id; `None` when it is not one that [`TaskId::derive`] could have made.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().filter(|id| id.get_version_num() == 5).map(Self)
    }

    /// Delivery tag of this task's message in the given generation.
    ///
    /// Generation 0 uses the task id itself. A republished message gets another tag, so that a late ack of a worker
    /// that was presumed dead cannot remove the entry of the new holder.
    pub fn delivery_tag(self, generation: u32) -> String {
        if generation == 0 { self.to_string() } else { format!("{self}#{generation}") }
    }

    /// Generation of the message with this delivery tag; `None` when it is not one of this task's.
    pub fn generation_of(self, tag: &str) -> Option<u32> {
        let (task, generation) = tag.split_once('#').unwrap_or((tag, "0"));
        let generation = generation.parse().ok().filter(|generation| *generation <= GENERATIONS)?;
        (Self::parse(task) == Some(self) && self.delivery_tag(generation) == tag).then_some(generation)
    }

    /// Evenly spread bits that belong to this id, the same at every call.
    pub fn spread(self) -> u64 {
        self.0.as_u64_pair().1 << 2 // the two highest bits are the UUID's variant
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Urgency of a job, 0 to 10, 10 most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Priority(u8);

impl Priority {
    /// The priority with this value, drawn into 0 to 10.
    pub fn clamped(value: i32) -> Self {
        Self(u8::try_from(value.clamp(0, 10)).unwrap_or(0))
    }

    /// The declared value, 0 to 10.
    pub fn get(self) -> u8 {
        self.0
    }

    /// The value that goes into a Celery message: on Redis 0 is served first and 9 last, the other way round.
    ///
    /// The eleven priorities are spread evenly over the bands, which begin at these values (`priority_steps`), so that the
    /// usual 5 is neither first nor last wherever there are three bands or more. Within its band it is `10 - priority`.
    pub fn celery(self, steps: &[u8]) -> u8 {
        let (reversed, band) = (10 - self.0, usize::from(10 - self.0) * steps.len() / 11);
        let first = steps.get(band).copied().unwrap_or(0);
        let last = steps.get(band + 1).map_or(9, |next| next.saturating_sub(1));
        reversed.clamp(first, last.max(first))
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

/// Digest of everything an attempt runs: task, arguments, topic and inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpecHash(pub [u8; 16]);

impl SpecHash {
    /// Reads what [`SpecHash`]'s `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32).map(|bits| Self(bits.to_be_bytes()))
    }
}

impl fmt::Display for SpecHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Which attempt, and which delivery of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptId {
    /// Number of the attempt's first run, counted from 1.
    pub number: u32,
    /// Its Celery task id.
    pub task: TaskId,
    /// How often its message has been published again.
    pub generation: u32,
}

impl AttemptId {
    /// Delivery tag of this delivery.
    pub fn tag(&self) -> String {
        self.task.delivery_tag(self.generation)
    }

    /// The same attempt, published once more.
    #[must_use]
    pub fn republished(self) -> Self {
        Self { generation: self.generation.saturating_add(1).min(GENERATIONS), ..self }
    }
}

/// A span as others name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    /// Trace id, never 0.
    pub trace: u128,
    /// Span id, never 0.
    pub span: u64,
    /// Whether it is recorded.
    pub is_sampled: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: Uuid = Uuid::from_u128(0x0f8f_ad5b_d9cb_469f_a165_7086_7728_950e);

    #[test]
    fn task_ids_are_pinned_because_a_change_would_enqueue_every_live_job_twice() {
        assert_eq!(TaskId::derive(UID, 1).to_string(), "091dfe84-58d4-5447-bd38-a4f9f6b63490");
        assert_eq!(TaskId::derive(UID, 2).to_string(), "1946e2ca-686f-54fa-8413-383aade21ed2");
    }

    #[test]
    fn a_republished_message_gets_its_own_delivery_tag() {
        let id = TaskId::derive(UID, 1);
        assert_eq!(id.delivery_tag(0), id.to_string());
        assert_eq!(id.delivery_tag(2), format!("{id}#2"));
        assert_eq!([0, 2].map(|generation| id.generation_of(&id.delivery_tag(generation))), [Some(0), Some(2)]);
        let strange = [format!("{id}#0"), format!("{id}#x"), format!("{id}#"), TaskId::derive(UID, 2).to_string()];
        assert_eq!(strange.map(|tag| id.generation_of(&tag)), [None; 4]);
    }

    #[test]
    fn ids_of_foreign_celery_messages_are_not_ours() {
        assert_eq!(TaskId::parse("45495316-63b8-4c6d-8998-bcb32881f3e8"), None);
        assert_eq!(TaskId::parse("fixed-id"), None);
        let id = TaskId::derive(UID, 1);
        assert_eq!(TaskId::parse(&id.to_string()), Some(id));
    }

    #[test]
    fn priorities_are_spread_over_the_bands_there_are_and_a_usual_job_is_neither_first_nor_last() {
        for (steps, bands) in [
            (vec![0, 3, 6, 9], [3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0]),
            (vec![0, 1, 2, 3, 4], [4, 4, 3, 3, 2, 2, 1, 1, 0, 0, 0]),
            (vec![0, 5, 9], [2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0]),
            (vec![0, 9], [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]),
            (vec![0], [0; 11]),
            ((0..10).collect(), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]),
        ] {
            let band = |priority| {
                let celery = Priority::clamped(priority).celery(&steps);
                assert!(celery <= 9);
                steps.partition_point(|step| *step <= celery) - 1
            };
            let found: Vec<usize> = (0..=10).map(band).collect();
            assert_eq!(found, bands, "{steps:?}");
        }
    }

    #[test]
    fn ten_is_most_urgent_although_celery_serves_zero_first() {
        let celery = |steps: &[u8]| -> Vec<u8> { (0..=10).map(|p| Priority::clamped(p).celery(steps)).collect() };
        assert_eq!(celery(&[0, 3, 6, 9]), [9, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(Priority::clamped(99).get(), 10);
        assert_eq!(Priority::clamped(-1).get(), 0);
    }

    #[test]
    fn a_spec_hash_is_read_back_as_written() {
        let hash = SpecHash([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(SpecHash::parse(&hash.to_string()), Some(hash));
        assert_eq!(SpecHash::parse("short"), None);
    }
}
