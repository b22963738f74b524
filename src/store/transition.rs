//! What happens to a job's message: published, published again, taken back, moved. One script each.

use std::sync::{Arc, LazyLock};

use redis::{Script, ScriptInvocation, Value};
use uuid::Uuid;

use super::link::fenced;
use super::marker::Marker;
use super::names::MarkerId;
use super::{Error, Store};
pub use crate::core::claims::fence::Term as Epoch;
use crate::core::id::{AttemptId, Priority, SpecHash};
use crate::core::plan::InPlaceOf;
use crate::wire::{Limits, Unacked};

static CLAIM: LazyLock<Script> = fenced!("lua/claim.lua");
static ENQUEUE: LazyLock<Script> = fenced!("lua/enqueue.lua");
static REQUEUE: LazyLock<Script> = fenced!("lua/requeue.lua");
static RETIRE: LazyLock<Script> = fenced!("lua/retire.lua");
static DROP: LazyLock<Script> = fenced!("lua/drop.lua");
static WITHDRAW: LazyLock<Script> = fenced!("lua/withdraw.lua");
static MOVE: LazyLock<Script> = fenced!("lua/move.lua");

/// Messages up to this size are kept beside their marker too, so that they can be taken back without reading the queue:
/// among 100,000 messages that takes 20 ms instead of a second, for 1.3 kB of memory more per job.
pub(super) const KEPT_MESSAGE: usize = 4096;

/// A message to publish, and what the marker remembers of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// UID of the job.
    pub uid: Uuid,
    /// Namespace of the job.
    pub namespace: Arc<str>,
    /// Name of the job.
    pub name: Arc<str>,
    /// Attempt and generation; the envelope's id and delivery tag must be theirs.
    pub id: AttemptId,
    /// Queue.
    pub queue: Arc<str>,
    /// The job's priority; the envelope's must be its Celery value.
    pub priority: Priority,
    /// Digest of what it runs.
    pub spec: SpecHash,
    /// The encoded envelope.
    pub envelope: Vec<u8>,
}

impl Message {
    /// Which marker belongs to it.
    pub fn marker(&self) -> MarkerId {
        MarkerId { namespace: self.namespace.clone(), task: self.id.task }
    }
}

/// What became of [`Store::enqueue`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// The message is on the queue.
    Published,
    /// It was published before; by us when the marker's generation is the message's.
    Already(Marker),
    /// There is no marker, but a result document: a worker ran this attempt before the marker was lost.
    HasResult,
}

/// What became of [`Store::requeue`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requeued {
    /// The message of the new generation is on the queue.
    Published,
    /// The marker has another generation; the new one, when an earlier call got through.
    Superseded(Marker),
    /// A result document says that the attempt ended.
    Ended,
    /// What it was to replace is not as it was.
    Changed,
}

/// What became of [`Store::withdraw`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// No worker had taken it and none will.
    Removed,
    /// It was not found on the queue by its bytes: taken by a worker, restored by kombu with other bytes, lost, or so large
    /// that its bytes are not kept. [`Store::sweep`] finds what is there.
    NotQueued,
}

/// What became of [`Store::move_band`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It waits in the band of the new priority.
    Moved,
    /// It was not found on the queue.
    NotQueued,
    /// Its bytes are not kept, because it is large: [`Store::sweep`] moves it.
    Large,
}

impl Store {
    /// Makes this term the current one, so that an earlier leader can change nothing any more.
    pub async fn claim(&self, epoch: Epoch) -> Result<(), Error> {
        const ACT: &str = "claiming leadership";
        self.transition(ACT, CLAIM.key(&*self.0.names.fence).arg(epoch.to_string())).await.map(|_| ())
    }

    /// Publishes the first message of an attempt, unless its marker or a result says that this was done.
    pub async fn enqueue(&self, epoch: Epoch, message: &Message) -> Result<Enqueued, Error> {
        const ACT: &str = "enqueueing a task";
        let inner = &self.0;
        let mut call = ENQUEUE.key(&*inner.names.fence);
        self.describe(&mut call, epoch, message);
        if inner.same_database {
            call.key(inner.names.result(message.id.task));
        } else if self.has_result(ACT, message.id.task).await? && self.markers(&[message.marker()]).await? == [None] {
            return Ok(Enqueued::HasResult);
        }
        let answer = self.transition(ACT, &call).await?;
        match answer.verdict() {
            "published" => Ok(Enqueued::Published),
            "result" => Ok(Enqueued::HasResult),
            "already" => Ok(Enqueued::Already(answer.marker(ACT)?)),
            other => Err(Error::unexpected(ACT, other)),
        }
    }

    /// Publishes an attempt again, under the message's generation, if what it replaces is still just so.
    ///
    /// The in-flight entry that is given up goes, so that no worker restores the lost delivery, and so does an unfinished
    /// result document. With `clear_result` a `FAILURE` of the lost run goes too; no other end is ever removed.
    pub async fn requeue(
        &self,
        epoch: Epoch,
        in_place_of: InPlaceOf,
        message: &Message,
        clear_result: bool,
    ) -> Result<Requeued, Error> {
        const ACT: &str = "requeueing a task";
        let names = &self.0.names;
        let from = in_place_of.generation();
        if !self.0.same_database {
            // The two databases cannot change together: the result goes first, and only for the generation in hand.
            match &self.markers(&[message.marker()]).await?[..] {
                [Some(marker)] if Some(marker.generation) != from => return Ok(Requeued::Superseded(marker.clone())),
                [None] if from.is_some() => return Ok(Requeued::Changed),
                _ => {}
            }
            if self.clear(ACT, message.id.task, clear_result).await? {
                return Ok(Requeued::Ended);
            }
        }
        let (tag, adopted) = match in_place_of {
            InPlaceOf::Copy(_, copy) => (copy.to_string(), self.adopted(ACT, copy, message).await?),
            InPlaceOf::Nothing | InPlaceOf::InFlight(_) | InPlaceOf::Nowhere(_) | InPlaceOf::Ended(_) => {
                (from.map(|generation| message.id.task.delivery_tag(generation)).unwrap_or_default(), None)
            }
        };
        let in_flight = whether_in_flight(in_place_of);
        let mut call = REQUEUE.key(&*names.fence);
        self.describe(&mut call, epoch, adopted.as_ref().unwrap_or(message));
        call.arg(from.map(|generation| generation.to_string()).unwrap_or_default());
        call.arg(u8::from(clear_result)).arg(tag).arg(in_flight);
        call.key(names.broker.unacked()).key(names.broker.unacked_index());
        if self.0.same_database {
            call.key(names.result(message.id.task));
            if let Some((document, state)) = self.compressed_result(ACT, message.id.task).await? {
                call.arg(document).arg(state.as_str());
            }
        }
        let answer = self.transition(ACT, &call).await?;
        match answer.verdict() {
            "published" => Ok(Requeued::Published),
            "ended" => Ok(Requeued::Ended),
            "changed" => Ok(Requeued::Changed),
            "superseded" => Ok(Requeued::Superseded(answer.marker(ACT)?)),
            other => Err(Error::unexpected(ACT, other)),
        }
    }

    /// The bytes of a copy in flight as the message to publish in its place: under its delivery tag and in its band.
    /// `None` where they are gone, too many, or nothing that can be read: then the attempt's own message is published.
    async fn adopted(&self, act: &'static str, copy: Uuid, message: &Message) -> Result<Option<Message>, Error> {
        let mut command = redis::cmd("HGET");
        command.arg(self.0.names.broker.unacked()).arg(copy.to_string());
        let Value::BulkString(entry) = self.0.scans.ask(act, &command).await? else { return Ok(None) };
        let limits = Limits::default().bytes(entry.len());
        let Ok(Unacked { mut envelope, .. }) = Unacked::decode_within(&entry, &limits) else { return Ok(None) };
        envelope.properties.delivery_tag = message.id.tag();
        envelope.properties.priority = Some(self.0.names.celery(message.priority).into());
        Ok(Some(Message { envelope: envelope.encode(), ..message.clone() }))
    }

    /// Takes a copy of a message out of what is in flight: one that no operator has published, or the delivery of this
    /// generation itself. False when the attempt is at another generation.
    pub async fn drop_copy(
        &self,
        epoch: Epoch,
        marker: &MarkerId,
        generation: u32,
        copy: Option<Uuid>,
    ) -> Result<bool, Error> {
        const ACT: &str = "taking a copy of a task out of flight";
        let names = &self.0.names;
        let tag = copy.map_or_else(|| marker.task.delivery_tag(generation), |copy| copy.to_string());
        let mut call = DROP.key(&*names.fence);
        call.key(names.marker(marker)).key(names.broker.unacked()).key(names.broker.unacked_index());
        call.arg(epoch.to_string()).arg(generation).arg(tag);
        match self.transition(ACT, &call).await?.verdict() {
            "dropped" => Ok(true),
            "changed" => Ok(false),
            other => Err(Error::unexpected(ACT, other)),
        }
    }

    /// Gives up a delivery without publishing another one: the marker says that `id` is withdrawn. False when what was to
    /// be given up is not as it was.
    pub async fn retire(
        &self,
        epoch: Epoch,
        in_place_of: InPlaceOf,
        marker: &MarkerId,
        id: AttemptId,
    ) -> Result<bool, Error> {
        const ACT: &str = "retiring a task";
        let names = &self.0.names;
        let Some(from) = in_place_of.generation() else { return Ok(false) };
        let mut call = RETIRE.key(&*names.fence);
        call.key(names.marker(marker)).key(names.broker.unacked()).key(names.broker.unacked_index());
        call.key(names.kept(marker));
        call.arg(epoch.to_string()).arg(from).arg(id.task.delivery_tag(from)).arg(whether_in_flight(in_place_of));
        call.arg(id.generation).arg(id.tag());
        match self.transition(ACT, &call).await?.verdict() {
            "retired" => Ok(true),
            "changed" => Ok(false),
            other => Err(Error::unexpected(ACT, other)),
        }
    }

    /// Takes the message of this generation off its queue.
    pub async fn withdraw(&self, epoch: Epoch, id: &MarkerId, generation: u32) -> Result<Withdrawn, Error> {
        const ACT: &str = "withdrawing a task";
        let names = &self.0.names;
        let mut call = WITHDRAW.key(&*names.fence);
        call.key(names.marker(id)).key(names.kept(id)).arg(epoch.to_string()).arg(generation);
        match self.transition(ACT, &call).await?.verdict() {
            "removed" => Ok(Withdrawn::Removed),
            "absent" => Ok(Withdrawn::NotQueued),
            other => Err(Error::unexpected(ACT, other)),
        }
    }

    /// Moves the queued message of this generation to the back of the band of another priority. `queue` is where it is
    /// believed to wait; the marker knows where it was published.
    pub async fn move_band(
        &self,
        epoch: Epoch,
        id: &MarkerId,
        generation: u32,
        queue: &str,
        priority: Priority,
    ) -> Result<Moved, Error> {
        const ACT: &str = "moving a task to another priority";
        let names = &self.0.names;
        let mut queue = queue.to_owned();
        for _ in 0..2 {
            let mut call = MOVE.key(&*names.fence);
            call.key(names.marker(id)).key(names.list(&queue, priority)).key(names.kept(id));
            call.arg(epoch.to_string())
                .arg(generation)
                .arg(priority.get())
                .arg(names.celery(priority))
                .arg(KEPT_MESSAGE)
                .arg(&queue);
            let answer = self.transition(ACT, &call).await?;
            match (answer.verdict(), answer.texts().next().flatten()) {
                ("moved", _) => return Ok(Moved::Moved),
                ("absent", _) => return Ok(Moved::NotQueued),
                ("large", _) => return Ok(Moved::Large),
                ("elsewhere", Some(published_on)) => published_on.clone_into(&mut queue),
                (other, _) => return Err(Error::unexpected(ACT, other)),
            }
        }
        Err(Error::unexpected(ACT, "a marker whose queue changes"))
    }

    /// Adds what every publishing script takes: marker, list and the marker's message as keys, then epoch, envelope and the marker's fields.
    fn describe(&self, call: &mut ScriptInvocation<'_>, epoch: Epoch, message: &Message) {
        let Message { uid, namespace: _, name, id, queue, priority, spec, envelope } = message;
        let names = &self.0.names;
        let marker = message.marker();
        call.key(names.marker(&marker)).key(names.list(queue, *priority)).key(names.kept(&marker));
        call.arg(epoch.to_string()).arg(&envelope[..]).arg(KEPT_MESSAGE);
        call.arg(uid.to_string()).arg(&**name).arg(id.number).arg(id.generation).arg(id.tag()).arg(&**queue);
        call.arg(priority.get()).arg(spec.to_string());
    }

    pub(super) async fn transition(&self, act: &'static str, call: &ScriptInvocation<'_>) -> Result<Answer, Error> {
        Answer::from_fenced(act, self.0.broker.script(act, call).await?)
    }
}

/// Where the script must find the delivery that is given up.
fn whether_in_flight(in_place_of: InPlaceOf) -> &'static str {
    match in_place_of {
        InPlaceOf::InFlight(_) | InPlaceOf::Copy(..) => "in",
        InPlaceOf::Nowhere(_) => "out",
        InPlaceOf::Nothing | InPlaceOf::Ended(_) => "any",
    }
}

/// A verdict, and what goes with it.
pub(super) struct Answer(String, Vec<Option<Vec<u8>>>);

impl Answer {
    /// What a script under the fence has answered, unless the fence kept it out.
    pub fn from_fenced(act: &'static str, answer: (String, Vec<Option<Vec<u8>>>)) -> Result<Self, Error> {
        let answer = Self(answer.0, answer.1);
        if answer.verdict() != "fenced" {
            return Ok(answer);
        }
        Err(Error::Fenced { act })
    }

    pub(super) fn verdict(&self) -> &str {
        &self.0
    }

    /// What goes with the verdict, as texts.
    pub fn texts(&self) -> impl Iterator<Item = Option<&str>> {
        self.1.iter().map(|value| std::str::from_utf8(value.as_deref()?).ok())
    }

    fn marker(&self, act: &'static str) -> Result<Marker, Error> {
        Marker::of(&self.1).ok_or_else(|| Error::unexpected(act, "the job's marker was not written by an operator"))
    }
}
