//! From a message that waits in a queue to the job that would send it.

use serde_json::{Map, Value, json};

use crate::wire::{Envelope, Message};

/// The annotation with the ID of the task that a job was read from.
pub const TASK: &str = "crewjob.dev/imported-task";

/// The job; `None` of what is no call of a task that can be read.
pub fn job(element: &[u8], queue: &str, pool: &str) -> Option<Value> {
    let envelope = Envelope::decode(element).ok()?;
    let message = Message::decode(&envelope).ok()?;
    let json = |text: String| serde_json::from_str::<Value>(&text).ok();
    let args = json(crate::wire::Value::Array(message.args).to_json())?;
    let kwargs = json(crate::wire::Value::Object(message.kwargs).to_json())?;
    let task = &message.headers.task;
    let mut spec = json!({
        "topic": topic(&kwargs).unwrap_or(task), "task": task, "queue": queue, "poolRef": { "name": pool },
        "args": args, "kwargs": kwargs, "suspend": true,
    });
    // Celery serves 0 first.
    if let Some(priority) = envelope.properties.priority {
        spec["priority"] = (10 - priority.clamp(0, 10)).into();
    }
    let timeouts = timeouts(&message.headers.timelimit);
    if !timeouts.is_empty() {
        spec["timeouts"] = timeouts.into();
    }
    let annotations = json!({ TASK: message.headers.id });
    let name = name(&message.headers.id);
    Some(json!({
        "apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob",
        "metadata": { "name": name, "annotations": annotations }, "spec": spec,
    }))
}

/// What the crew works on, where the call says so.
fn topic(kwargs: &Value) -> Option<&str> {
    let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty() && text.chars().count() <= 4096);
    [&kwargs["inputs"]["topic"], &kwargs["topic"]].into_iter().find(|value| text(value)).and_then(Value::as_str)
}

fn timeouts(limits: &crate::wire::TimeLimit) -> Map<String, Value> {
    let seconds = |value: Option<&crate::wire::Number>| {
        value.and_then(crate::wire::Number::truncated).filter(|it| *it >= 1).map(|it| json!(format!("{it}s")))
    };
    let both = [("hard", seconds(limits.hard.as_ref())), ("soft", seconds(limits.soft.as_ref()))];
    both.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?))).collect()
}

/// A name that Kubernetes takes: the same for the same task.
fn name(id: &str) -> String {
    let is_name = id.len() <= 200
        && !id.is_empty()
        && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let unique =
        if is_name { id.to_owned() } else { uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, id.as_bytes()).to_string() };
    format!("task-{}", unique.trim_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Call, Object, TimeLimit};

    fn call(task: &str, kwargs: Object) -> Vec<u8> {
        let mut call = Call::new(task, "0f4c9a52-9a71-4b3e-8a52-0242ac120002", "crew_jobs");
        call.args = vec!["job-1".into()];
        call.kwargs = kwargs;
        call.priority = 3;
        call.time_limit = TimeLimit::seconds(3600, 3000);
        call.envelope().encode()
    }

    #[test]
    fn a_message_becomes_the_suspended_job_that_would_send_it() {
        let inputs = Object::new().with("topic", "Tides");
        let made = job(&call("backend.tasks.run_crew_task", Object::new().with("inputs", inputs)), "crew_jobs", "gpu")
            .unwrap();
        assert_eq!(made["metadata"]["name"], "task-0f4c9a52-9a71-4b3e-8a52-0242ac120002");
        assert_eq!(made["metadata"]["annotations"][TASK], "0f4c9a52-9a71-4b3e-8a52-0242ac120002");
        assert_eq!(
            made["spec"],
            json!({
                "topic": "Tides", "task": "backend.tasks.run_crew_task", "queue": "crew_jobs", "poolRef": { "name": "gpu" },
                "args": ["job-1"], "kwargs": { "inputs": { "topic": "Tides" } }, "suspend": true, "priority": 7,
                "timeouts": { "hard": "3600s", "soft": "3000s" },
            })
        );
        let other = job(&call("app.sum", Object::new()), "q", "p").unwrap();
        assert_eq!(other["spec"]["topic"], "app.sum", "a job has a topic, and this call names none");
    }

    #[test]
    fn what_is_no_call_is_none_and_any_id_gives_a_name() {
        for element in ["", "{}", "[1]", "not json"] {
            assert_eq!(job(element.as_bytes(), "q", "p"), None, "{element}");
        }
        assert_eq!(name("A b").len(), "task-".len() + 36);
        assert_eq!(name("A b"), name("A b"));
    }
}
