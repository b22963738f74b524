//! The task `backend.tasks.run_crew_task` around a command that is a crew: what it is called with, what it returns, and
//! under which key the output for the same inputs is kept. Pure.

use super::outcome::{Failure, limits};
use crate::wire::json::{Object, Value};
use crate::wire::python;

/// What the crew is called with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// The caller's name of the job.
    pub job_id: String,
    /// What the crew is to work on; has a `topic`.
    pub inputs: Object,
    /// Whether the crew is to run although its output for the same inputs is known.
    pub bypass_cache: bool,
}

/// The run that a result tells of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct About<'a> {
    /// The task id.
    pub task_id: &'a str,
    /// Runs before this one.
    pub retries: i64,
    /// Node name of the worker.
    pub worker: &'a str,
    /// Whether the output was known.
    pub cached: bool,
    /// Seconds it took.
    pub seconds: f64,
}

/// How deep JSON may be that is taken out of a crew's text. Inside the result it is one level deeper.
const DEPTH: usize = 128;

const NAMES: [&str; 3] = ["job_id", "inputs", "bypass_cache"];

impl Arguments {
    /// Binds and checks the arguments of a call, as Python does for `run_crew_task(job_id, inputs, bypass_cache=False)`.
    pub fn bind(args: &[Value], kwargs: &Object) -> Result<Self, Failure> {
        let [job_id, inputs, bypass_cache] = bind(args, kwargs)?;
        let job_id = match job_id.as_str() {
            Some(text) if !text.is_empty() => text.to_owned(),
            _ => return Err(value_error(format!("job_id must be a non-empty string, not {}", python::repr(&job_id)))),
        };
        let inputs = if let Value::Verbatim(text) = inputs {
            text.parse(&limits(text.as_str())).map_err(|error| value_error(error.to_string()))?
        } else {
            inputs
        };
        let Value::Object(inputs) = inputs else {
            return Err(value_error(format!("inputs must be a JSON object, not {}", type_name(&inputs))));
        };
        if inputs.get("topic").and_then(Value::as_str).is_none_or(|topic| topic.trim().is_empty()) {
            return Err(value_error("inputs.topic must be a non-empty string"));
        }
        let Some(bypass_cache) = bypass_cache.as_bool() else {
            let given = python::repr(&bypass_cache);
            return Err(value_error(format!("bypass_cache must be true or false, not {given}")));
        };
        Ok(Self { job_id, inputs, bypass_cache })
    }

    /// Arguments to try a crew with.
    pub fn example() -> Self {
        let inputs = Object::new().with("topic", "An example");
        Self { job_id: "check".to_owned(), inputs, bypass_cache: true }
    }

    /// What the command of the crew is given.
    pub fn kwargs(&self) -> Object {
        let inputs = self.inputs.clone();
        Object::new()
            .with("job_id", self.job_id.as_str())
            .with("inputs", inputs)
            .with("bypass_cache", self.bypass_cache)
    }

    /// What the output is known by, for a crew of this name: the digest of this text.
    pub fn canonical(&self) -> String {
        python::canonical_json(&Value::from(self.inputs.clone()))
    }

    /// The task's return value for what the crew has put out, an object with its `text`.
    pub fn result(&self, output: Object, about: About<'_>) -> Value {
        let text = output.get("text").and_then(Value::as_str).unwrap_or_default();
        let (content, format) = parse(text);
        let own: [(&str, Value); 4] = [
            ("job_id", self.job_id.as_str().into()),
            ("status", "completed".into()),
            ("result", content),
            ("format", format.into()),
        ];
        let own = own.map(|(key, value)| (key.to_owned(), value));
        // Not one by one: a crew may print any number of members.
        let result = own.into_iter().chain(output.into_iter().filter(|(key, _)| key != "text")).collect::<Object>();
        let celery =
            Object::new().with("task_id", about.task_id).with("retries", about.retries).with("worker", about.worker);
        result
            .with("cached", about.cached)
            .with("elapsed_seconds", (about.seconds * 1000.0).round() / 1000.0)
            .with("celery", celery)
            .into()
    }
}

/// Matches positional and keyword arguments to the task's parameters, with Python's complaints.
fn bind(args: &[Value], kwargs: &Object) -> Result<[Value; 3], Failure> {
    let wrong = |what: String| Err(Failure::new("builtins", "TypeError", format!("run_crew_task() {what}")));
    if args.len() > NAMES.len() {
        return wrong(format!("takes from 3 to 4 positional arguments but {} were given", args.len() + 1));
    }
    if let Some(unknown) = kwargs.keys().find(|key| !NAMES.contains(key)) {
        return wrong(format!("got an unexpected keyword argument '{unknown}'"));
    }
    if let Some(twice) = NAMES[..args.len()].iter().find(|name| kwargs.contains_key(name)) {
        return wrong(format!("got multiple values for argument '{twice}'"));
    }
    let given = |at: usize| args.get(at).or_else(|| kwargs.get(NAMES[at])).cloned();
    let (job_id, inputs) = (given(0), given(1));
    match (job_id, inputs) {
        (Some(job_id), Some(inputs)) => Ok([job_id, inputs, given(2).unwrap_or(Value::Bool(false))]),
        (None, None) => wrong("missing 2 required positional arguments: 'job_id' and 'inputs'".into()),
        (None, Some(_)) => wrong("missing 1 required positional argument: 'job_id'".into()),
        (Some(_), None) => wrong("missing 1 required positional argument: 'inputs'".into()),
    }
}

/// The JSON object or array that the text is, also inside one Markdown fence, or else the text itself; and which.
fn parse(text: &str) -> (Value, &'static str) {
    let text = text.trim();
    let candidate = fenced(text).unwrap_or(text);
    if candidate.trim_start().starts_with(['{', '['])
        && let Ok(content) = Value::parse_within(candidate.as_bytes(), &limits(candidate).depth(DEPTH))
        && is_plain(&content)
    {
        return (content, "json");
    }
    (Value::from(text), "text")
}

/// What is inside the only fence.
fn fenced(text: &str) -> Option<&str> {
    let (first, rest) = text.strip_prefix("```")?.split_once('\n')?;
    let language = first.trim_end();
    language.chars().all(|c| c.is_ascii_alphabetic()).then(|| rest.strip_suffix("```")?.strip_suffix('\n')).flatten()
}

/// Whether it is JSON that readers take for what it is: finite numbers, nothing like Celery's own encoded values.
fn is_plain(content: &Value) -> bool {
    let finite = |number: &crate::wire::Number| number.is_integer() || number.as_f64().is_finite();
    let mut pending = vec![content];
    while let Some(value) = pending.pop() {
        match value {
            Value::Number(number) if !finite(number) => return false,
            Value::Array(elements) => pending.extend(elements),
            Value::Object(members) => {
                let is_typed =
                    members.len() == 2 && members.contains_key("__type__") && members.contains_key("__value__");
                if is_typed {
                    return false;
                }
                pending.extend(members.iter().map(|(_, member)| member));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            // It is not known: this is the crew's own text, all of which is taken apart.
            Value::Verbatim(_) => return false,
        }
    }
    true
}

fn value_error(message: impl Into<String>) -> Failure {
    Failure::new("builtins", "ValueError", message)
}

/// Python's name of the type.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_integer() => "int",
        Value::Number(_) => "float",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Verbatim(text) if text.as_str().starts_with('[') => "list",
        Value::Object(_) | Value::Verbatim(_) => "dict",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        Value::parse(text.as_bytes()).unwrap()
    }

    fn bind(args: &str, kwargs: &str) -> Result<Arguments, String> {
        let (args, kwargs) = (value(args), value(kwargs));
        Arguments::bind(args.as_array().unwrap(), kwargs.as_object().unwrap())
            .map_err(|failure| format!("{}: {}", failure.exception.exc_type, failure.exception.message()))
    }

    #[test]
    fn arguments_are_bound_by_position_and_by_name() {
        let bound = bind(r#"["job-1", {"topic": "AI"}]"#, r#"{"bypass_cache": true}"#).unwrap();
        assert_eq!((bound.job_id.as_str(), bound.bypass_cache), ("job-1", true));
        assert!(!bind("[]", r#"{"job_id": "job-1", "inputs": {"topic": "AI"}}"#).unwrap().bypass_cache);
    }

    #[test]
    fn wrong_arguments_are_refused_in_pythons_words() {
        let cases = [
            ("[]", "{}", "TypeError: run_crew_task() missing 2 required positional arguments: 'job_id' and 'inputs'"),
            (r#"["a"]"#, "{}", "TypeError: run_crew_task() missing 1 required positional argument: 'inputs'"),
            (r#"["a"]"#, r#"{"job_id": 1}"#, "TypeError: run_crew_task() got multiple values for argument 'job_id'"),
            ("[]", r#"{"x": 1}"#, "TypeError: run_crew_task() got an unexpected keyword argument 'x'"),
            ("[1,2,3,4]", "{}", "TypeError: run_crew_task() takes from 3 to 4 positional arguments but 5 were given"),
            (r#"["", {"topic": "AI"}]"#, "{}", "ValueError: job_id must be a non-empty string, not ''"),
            (r#"["a", [1]]"#, "{}", "ValueError: inputs must be a JSON object, not list"),
            (r#"["a", {"topic": " "}]"#, "{}", "ValueError: inputs.topic must be a non-empty string"),
            (r#"["a", {"topic": "AI"}, null]"#, "{}", "ValueError: bypass_cache must be true or false, not None"),
        ];
        for (args, kwargs, refusal) in cases {
            assert_eq!(bind(args, kwargs).unwrap_err(), refusal);
        }
    }

    #[test]
    fn a_crews_text_is_json_also_inside_a_fence_or_text() {
        let cases = [
            ("  plain\n", r#""plain""#, "text"),
            (r#"{"a": 1}"#, r#"{"a":1}"#, "json"),
            ("```json\n[1, 2]\n```", "[1,2]", "json"),
            ("```\n{}\n```", "{}", "json"),
            ("```json\n[1, 2]\n``` and more", "\"```json\\n[1, 2]\\n``` and more\"", "text"),
            ("[1, NaN]", r#""[1, NaN]""#, "text"),
            ("42", r#""42""#, "text"),
        ];
        for (text, content, format) in cases {
            let (parsed, kind) = parse(text);
            assert_eq!((parsed.to_json().as_str(), kind), (content, format), "{text}");
        }
        assert_eq!(parse(r#"[{"__type__": "bytes", "__value__": "x"}]"#).1, "text", "a reader would decode it");
    }

    #[test]
    fn the_result_tells_of_the_crews_output_and_of_the_run() {
        let arguments = bind(r#"["job-1", {"topic": "AI"}]"#, "{}").unwrap();
        let output = value(r#"{"text": "{\"a\": 1}", "model": "x"}"#);
        let about = About { task_id: "id-1", retries: 2, worker: "a@b", cached: true, seconds: 1.23456 };
        let result = arguments.result(output.as_object().unwrap().clone(), about).to_json();
        assert_eq!(
            result,
            r#"{"job_id":"job-1","status":"completed","result":{"a":1},"format":"json","model":"x","cached":true,"elapsed_seconds":1.235,"celery":{"task_id":"id-1","retries":2,"worker":"a@b"}}"#
        );
    }
}
