//! From a CrewJob to the message that Celery's `apply_async` would have sent.

use serde_json::Value;
use uuid::Uuid;

use crate::api::CrewJob;
use crate::core::id::TaskId;
use crate::core::job::Job;
use crate::core::plan::Publication;
use crate::core::trace::SpanContext;
use crate::store::Message;
use crate::wire::{self, Call, Object, TimeLimit, TraceParent, trace};

/// `properties.reply_to` of every message; only an rpc result backend looks at it, and there is none.
const REPLY_TO: &str = "9a0c1a1e-0c5e-3d5f-8f3c-6a2f6f6e6a6b";
/// `headers.origin` of every message.
const ORIGIN: &str = "crewjob-operator";

/// The header that says how a run begins: `false` without what an earlier one has left; the key of another job, with whose
/// state it begins where it has none of its own; or why there is no such state.
const RESUME: &str = "crewjob_resume";

/// The job that `spec.resumeFrom` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Its UID.
    Of(Uuid),
    /// Why its state cannot be had.
    Missing(String),
}

/// The message of this publication; its priority as Celery counts.
///
/// `headers.retries` says how many runs came before, so that Celery's own retries share the job's budget, and
/// `crewjob_uid` tells the task that retries are the operator's. `span` is that of the attempt, where jobs are traced.
pub fn message(
    job: &Job,
    object: &CrewJob,
    publication: &Publication,
    celery_priority: u8,
    span: Option<SpanContext>,
    begins_with: Option<&Origin>,
) -> Message {
    let Publication { id, queue, priority, limits: (hard, soft), resumes, spec_hash, again: _ } = publication;
    let (args, kwargs) = object.call();
    let mut call = Call::new(&*job.spec.task, id.task.to_string(), &**queue);
    call.delivery_tag = id.tag();
    REPLY_TO.clone_into(&mut call.reply_to);
    ORIGIN.clone_into(&mut call.origin);
    call.args = args.into_iter().map(to_wire).collect();
    call.kwargs = kwargs.into_iter().map(|(key, value)| (key, to_wire(value))).collect();
    call.priority = i64::from(celery_priority);
    call.time_limit = TimeLimit::seconds(seconds(*hard), seconds(*soft));
    call.retries = i64::from(id.number - 1);
    call.root_id = Some(state_key(job.uid));
    call.parent_id = job.status.history.last().map(|past| past.task.to_string()).filter(|_| id.number > 1);
    call.headers = Object::new()
        .with("crewjob_uid", object.metadata.uid.clone().unwrap_or_default())
        .with("crewjob_namespace", &*job.key.namespace)
        .with("crewjob_name", &*job.key.name);
    match begins_with {
        _ if !resumes && publication.again => call.headers.insert(RESUME, false),
        Some(Origin::Of(uid)) => call.headers.insert(RESUME, state_key(*uid)),
        Some(Origin::Missing(problem)) => call.headers.insert(RESUME, Object::new().with("problem", &**problem)),
        // Not for its first run: another one follows where a worker puts the message back.
        None if !resumes => call.headers.insert(RESUME, false),
        None => None,
    };
    if let Some(SpanContext { trace, span, is_sampled }) = span {
        call.headers.insert(trace::TRACEPARENT, TraceParent { trace, span, is_sampled }.to_string());
    }
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

/// The id of a job's first task, under which workers keep its state.
fn state_key(uid: Uuid) -> String {
    TaskId::derive(uid, 1).to_string()
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::core::id::{AttemptId, Priority, SpecHash};
    use crate::core::status::{AttemptOutcome, PastAttempt};
    use crate::wire::Envelope;

    fn object(spec: &Value) -> CrewJob {
        let metadata = json!({
            "name": "report", "namespace": "team", "uid": "00000000-0000-0000-0000-000000000001",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    /// The message of run `number`, published for the third time.
    fn published(object: &CrewJob, number: u32, limits: (Duration, Duration)) -> (Message, Envelope, wire::Message) {
        let mut job = object.to_job().unwrap();
        job.status.history = vec![PastAttempt {
            number: 1,
            task: TaskId::derive(job.uid, 1),
            outcome: AttemptOutcome::Failed,
            worker: None,
            enqueued_at: None,
            started_at: None,
            finished_at: job.created_at,
            error: None,
            account: None,
        }];
        let publication = Publication {
            id: AttemptId { task: TaskId::derive(job.uid, number), number, generation: 2 },
            queue: "crew_jobs".into(),
            priority: Priority::clamped(10),
            limits,
            resumes: true,
            spec_hash: SpecHash([7; 16]),
            again: true,
        };
        let message = message(&job, object, &publication, 0, None, None);
        let envelope = Envelope::decode(&message.envelope).unwrap();
        let task = wire::Message::decode(&envelope).unwrap();
        (message, envelope, task)
    }

    const LIMITS: (Duration, Duration) = (Duration::from_hours(1), Duration::from_mins(59));

    #[test]
    fn a_message_names_its_job_its_attempt_and_its_queue_and_has_the_delivery_tag_of_its_generation() {
        let (message, envelope, task) = published(&object(&json!({ "topic": "bees" })), 3, LIMITS);
        let id = TaskId::derive(message.uid, 3);
        assert_eq!((&*message.namespace, &*message.name, &*message.queue), ("team", "report", "crew_jobs"));
        assert_eq!((message.id.task, message.spec), (id, SpecHash([7; 16])));
        assert_eq!(task.headers.id, id.to_string());
        assert_eq!(envelope.properties.correlation_id, Some(id.to_string()));
        assert_eq!(envelope.properties.delivery_tag, id.delivery_tag(2));
        assert_eq!(envelope.properties.delivery_info.routing_key, "crew_jobs");
        assert_eq!(envelope.properties.priority, Some(0), "Celery serves 0 first");
        let header = |key| task.headers.other.get(key).and_then(wire::Value::as_str);
        let uid = "00000000-0000-0000-0000-000000000001";
        let names = ["crewjob_uid", "crewjob_namespace", "crewjob_name"].map(header);
        assert_eq!(names, [Some(uid), Some("team"), Some("report")]);
    }

    #[test]
    fn a_message_says_with_which_state_its_run_begins() {
        let object = object(&json!({ "topic": "bees" }));
        let job = object.to_job().unwrap();
        let header = |number, resumes, origin: Option<&Origin>| {
            let publication = Publication {
                id: AttemptId { task: TaskId::derive(job.uid, number), number, generation: 0 },
                queue: "crew_jobs".into(),
                priority: Priority::default(),
                limits: LIMITS,
                resumes,
                spec_hash: SpecHash([7; 16]),
                again: number > 1,
            };
            let message = message(&job, &object, &publication, 0, None, origin);
            Envelope::decode(&message.envelope).unwrap().headers.get(RESUME).map(wire::Value::to_json)
        };
        let uid = Uuid::from_u128(2);
        let other = Origin::Of(uid);
        assert_eq!(header(1, true, None), None);
        assert_eq!(header(2, true, None), None, "with that of the last attempt");
        assert_eq!(header(1, false, None).as_deref(), Some("false"), "also where a worker puts the message back");
        assert_eq!(header(2, false, Some(&other)).as_deref(), Some("false"));
        let key = format!("\"{}\"", TaskId::derive(uid, 1));
        assert_eq!(header(1, false, Some(&other)), Some(key.clone()), "no attempt of its own came before");
        assert_eq!(header(2, true, Some(&other)), Some(key), "in case that the first attempt has saved nothing");
        let missing = Origin::Missing("gone".to_owned());
        assert_eq!(header(1, true, Some(&missing)).as_deref(), Some(r#"{"problem":"gone"}"#));
    }

    #[test]
    fn a_message_names_the_span_of_its_attempt_at_the_top_level_of_its_headers_where_jobs_are_traced() {
        let object = object(&json!({ "topic": "bees" }));
        let job = object.to_job().unwrap();
        let publication = Publication {
            id: AttemptId { task: TaskId::derive(job.uid, 1), number: 1, generation: 0 },
            queue: "crew_jobs".into(),
            priority: Priority::default(),
            limits: LIMITS,
            resumes: true,
            spec_hash: SpecHash([7; 16]),
            again: false,
        };
        let header = |span| {
            let envelope = Envelope::decode(&message(&job, &object, &publication, 0, span, None).envelope).unwrap();
            envelope.headers.get("traceparent").cloned()
        };
        assert_eq!(header(None), None);
        let span = SpanContext { trace: 1, span: 2, is_sampled: true };
        let expected = "00-00000000000000000000000000000001-0000000000000002-01";
        assert_eq!(header(Some(span)), Some(expected.into()));
    }

    #[test]
    fn a_later_attempt_counts_the_runs_before_it_as_retries_and_names_the_first_and_the_last_task() {
        let object = object(&json!({ "topic": "bees" }));
        let first = TaskId::derive(uuid::Uuid::from_u128(1), 1).to_string();
        let (.., task) = published(&object, 3, LIMITS);
        assert_eq!(
            (task.headers.retries, task.headers.root_id, task.headers.parent_id),
            (Some(2), Some(first.clone()), Some(first.clone()))
        );
        let (.., task) = published(&object, 1, LIMITS);
        assert_eq!((task.headers.retries, task.headers.root_id, task.headers.parent_id), (Some(0), Some(first), None));
    }

    #[test]
    fn time_limits_are_whole_seconds_and_never_0_which_celery_takes_for_none() {
        let object = object(&json!({ "topic": "bees" }));
        for (limits, expected) in
            [(LIMITS, (3600, 3540)), ((Duration::from_millis(2900), Duration::from_millis(900)), (2, 1))]
        {
            let (.., task) = published(&object, 1, limits);
            assert_eq!(task.headers.timelimit, TimeLimit::seconds(expected.0, expected.1));
        }
    }

    #[test]
    fn the_task_is_called_with_the_topic_over_the_inputs_or_with_the_declared_arguments() {
        let call = |spec: Value| {
            let (.., task) = published(&object(&spec), 1, LIMITS);
            let args = wire::Value::Array(task.args).to_json();
            (task.headers.task, args, wire::Value::Object(task.kwargs).to_json())
        };
        let (name, args, kwargs) =
            call(json!({ "topic": "bees", "inputs": { "topic": "wasps", "n": 1.5, "none": null } }));
        assert_eq!(name, crate::api::CrewJobSpec::with_topic("bees").task);
        assert_eq!(args, r#"["report"]"#);
        assert_eq!(kwargs, r#"{"bypass_cache":false,"inputs":{"n":1.5,"none":null,"topic":"bees"}}"#);
        let spec = json!({ "topic": "bees", "task": "sum", "args": [[1, true], "a"], "kwargs": { "k": 12_345_678_901_234_567_890_u64 } });
        let expected = ("sum".to_owned(), r#"[[1,true],"a"]"#.to_owned(), r#"{"k":12345678901234567890}"#.to_owned());
        assert_eq!(call(spec), expected);
    }
}
