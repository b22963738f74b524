//! Which tools there are, and what each takes.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

use crate::gateway::form::Fields;
use crate::gateway::openapi;

/// Makes a job.
pub const RUN: &str = "run_job";
/// How a job is.
pub const GET: &str = "get_job";
/// Waits for the end of a job.
pub const FOLLOW: &str = "follow_job";
/// What came of a job.
pub const RESULT: &str = "get_job_result";
/// Ends a job.
pub const CANCEL: &str = "cancel_job";
/// The argument with the key of a call that may be made again.
pub const KEY: &str = "idempotencyKey";

/// Whether there is a tool of that name.
pub fn is_known(name: &str, may_change: bool) -> bool {
    matches!(name, GET | FOLLOW | RESULT) || may_change && matches!(name, RUN | CANCEL)
}

/// All of them.
pub fn of(fields: &Fields, may_change: bool) -> Vec<Tool> {
    let reads = || ToolAnnotations::new().read_only(true).open_world(false);
    let changes = || ToolAnnotations::new().read_only(false).open_world(false);
    let mut follow = of_job();
    follow["properties"]["seconds"] = json!({
        "type": "integer", "minimum": 0, "maximum": super::FOLLOWED.1, "default": super::FOLLOWED.0,
        "description": "How long to wait at most.",
    });
    let mut tools = vec![
        tool(GET, "How a job is: phase, reason, attempts, progress, error.", of_job()).with_annotations(reads()),
        tool(FOLLOW, "Waits for the end of a job for some seconds, and returns how it is then. Call it again while the job goes on.", follow)
            .with_annotations(reads()),
        tool(RESULT, "What a job has returned, once it has succeeded.", of_job()).with_annotations(reads()),
    ];
    if may_change {
        let run = "Makes a job and returns it with its id; it runs when its turn comes. A call with the same idempotencyKey and \
                   arguments makes it once.";
        tools.insert(0, tool(RUN, run, submission(fields)).with_annotations(changes().destructive(false)));
        let cancel = "Ends a job: it is taken off its queue, or its run is stopped.";
        tools.push(tool(CANCEL, cancel, of_job()).with_annotations(changes().destructive(true).idempotent(true)));
    }
    tools
}

fn tool(name: &'static str, description: &'static str, schema: Value) -> Tool {
    let schema = if let Value::Object(schema) = schema { schema } else { JsonObject::new() };
    Tool::new(name, description, Arc::new(schema))
}

/// What a tool takes that is about a job.
fn of_job() -> Value {
    let id = "NAMESPACE.NAME of the job, as run_job has returned it; a name without a dot is of the gateway's own namespace.";
    json!({
        "type": "object", "required": ["id"], "additionalProperties": false,
        "properties": { "id": { "type": "string", "description": id } },
    })
}

fn submission(fields: &Fields) -> Value {
    let mut submission = openapi::submission(fields);
    submission["properties"][KEY] = json!({
        "type": "string", "minLength": 1, "maxLength": crate::core::gateway::key::LONGEST,
        "description": "Visible ASCII characters, a new key for each job that is wanted. Not with a name.",
    });
    submission
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_has_an_object_for_its_arguments_and_says_whether_it_changes_anything() {
        let fields = Fields::of_definition();
        for may_change in [false, true] {
            let tools = of(&fields, may_change);
            assert_eq!(tools.len(), if may_change { 5 } else { 3 });
            for tool in tools {
                assert!(is_known(&tool.name, may_change));
                assert_eq!(tool.input_schema["type"], "object", "{}", tool.name);
                let reads = tool.annotations.unwrap().read_only_hint;
                assert_eq!(reads, Some(!matches!(&*tool.name, RUN | CANCEL)), "{}", tool.name);
            }
        }
        let run = of(&fields, true).remove(0);
        assert_eq!((&*run.name, &run.input_schema["required"]), (RUN, &json!(["topic"])));
        assert!(run.input_schema["properties"]["priority"].is_object());
    }
}
