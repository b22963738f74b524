//! From a CrewJob to the message that Celery's `apply_async` would have sent.

use serde_json::Value;

use crate::api::CrewJob;
use crate::core::id::TaskId;
use crate::core::job::Job;
use crate::core::plan::Publication;
use crate::store::Message;
use crate::wire::{self, Call, Object, TimeLimit};

/// `properties.reply_to` of every message; only an rpc result backend looks at it, and there is none.
const REPLY_TO: &str = "9a0c1a1e-0c5e-3d5f-8f3c-6a2f6f6e6a6b";
/// `headers.origin` of every message.
const ORIGIN: &str = "crewjob-operator";

/// The message of this publication.
///
/// `headers.retries` says how many runs came before, so that Celery's own retries share the job's budget, and
/// `crewjob_uid` tells the task that retries are the operator's.
pub fn message(job: &Job, object: &CrewJob, publication: &Publication) -> Message {
    let Publication { id, queue, priority, limits: (hard, soft), spec_hash, again: _ } = publication;
    let (args, kwargs) = object.call();
    let mut call = Call::new(&*job.spec.task, id.task.to_string(), &**queue);
    call.delivery_tag = id.tag();
    REPLY_TO.clone_into(&mut call.reply_to);
    ORIGIN.clone_into(&mut call.origin);
    call.args = args.into_iter().map(to_wire).collect();
    call.kwargs = kwargs.into_iter().map(|(key, value)| (key, to_wire(value))).collect();
    call.priority = i64::from(priority.celery());
    call.time_limit = TimeLimit::seconds(seconds(*hard), seconds(*soft));
    call.retries = i64::from(id.number - 1);
    call.root_id = Some(TaskId::derive(job.uid, 1).to_string());
    call.parent_id = job.status.history.last().map(|past| past.task.to_string()).filter(|_| id.number > 1);
    call.headers = Object::new()
        .with("crewjob_uid", object.metadata.uid.clone().unwrap_or_default())
        .with("crewjob_namespace", &*job.key.namespace)
        .with("crewjob_name", &*job.key.name);
    Message {
        uid: job.uid,
        namespace: job.key.namespace.clone(),
        name: job.key.name.clone(),
        id: *id,
        queue: queue.clone(),
        priority: *priority,
        spec: *spec_hash,
        envelope: call.envelope().encode(),
    }
}

/// Whole seconds, at least one: Celery takes 0 for "no limit".
fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs().max(1)).unwrap_or(i64::MAX)
}

fn to_wire(value: Value) -> wire::Value {
    match value {
        Value::Null => wire::Value::Null,
        Value::Bool(value) => value.into(),
        Value::Number(number) => {
            wire::Number::parse(&number.to_string()).map_or(wire::Value::Null, wire::Value::Number)
        }
        Value::String(text) => text.into(),
        Value::Array(items) => wire::Value::Array(items.into_iter().map(to_wire).collect()),
        Value::Object(object) => {
            wire::Value::Object(object.into_iter().map(|(key, value)| (key, to_wire(value))).collect())
        }
    }
}
