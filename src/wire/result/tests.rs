use proptest::prelude::*;

use super::*;
use crate::wire::json::tests::any_value;

const SUCCESS: &str = r#"{"status": "SUCCESS", "result": {"job_id": "job-1",  "score": NaN}, "traceback": null, "children": [], "date_done": "2026-11-22T13:39:35.535295+00:00", "name": "backend.tasks.run_crew_task", "args": ["job-1"], "kwargs": {"inputs": {"topic": "AI"}}, "worker": "worker1@vm", "retries": 0, "queue": "crew_jobs", "task_id": "0ff181c5"}"#;
const REVOKED_SHORT: &str = r#"{"status": "REVOKED", "result": {"exc_type": "TaskRevokedError", "exc_message": ["revoked"], "exc_module": "celery.exceptions"}, "traceback": null, "children": null, "date_done": "2026-11-22T13:41:33+00:00", "task_id": "08ab0e5d"}"#;

fn decode(text: &str) -> ResultDocument {
    ResultDocument::decode(text.as_bytes()).unwrap()
}

fn value(bytes: &[u8]) -> Value {
    Value::parse(bytes).unwrap()
}

#[test]
fn a_success_is_read_and_its_result_kept_verbatim() {
    let document = decode(SUCCESS);
    assert_eq!(document.status, State::Success);
    assert_eq!(document.result.as_str(), r#"{"job_id": "job-1",  "score": NaN}"#);
    assert_eq!((document.worker.as_deref(), document.retries), (Some("worker1@vm"), Some(0)));
    assert_eq!(document.done_at().unwrap().as_microsecond(), 1_795_354_775_535_295);
    assert_eq!(document.exception(), None);
    assert_eq!(value(&document.encode()), value(SUCCESS.as_bytes()));
}

#[test]
fn the_short_form_of_revoked_is_told_from_the_full_one() {
    let document = decode(REVOKED_SHORT);
    assert!(!document.is_full_form());
    assert_eq!(value(&document.encode()), value(REVOKED_SHORT.as_bytes()));
    assert!(decode(&REVOKED_SHORT.replace("\"children\": null", "\"children\": []")).is_full_form());
}

#[test]
fn the_state_is_read_from_the_beginning_of_a_large_document() {
    let bytes = SUCCESS.replace("job-1", "jöb").into_bytes();
    for end in 0..bytes.len() {
        assert_eq!(state_of_prefix(&bytes[..end]).is_some(), end > 19, "{end}");
    }
    assert_eq!(state_of_prefix(b"{\"result\": [1], \"status\": \"RETRY\", "), Some(State::Retry));
    assert_eq!(state_of_prefix(b"[]"), None);
}

#[track_caller]
fn message(exc_type: &str, exc_message: &str, expected: &str) {
    let document = format!(
        r#"{{"status":"FAILURE","result":{{"exc_type":"{exc_type}","exc_message":{exc_message},"exc_module":"m"}},"task_id":"i"}}"#
    );
    assert_eq!(decode(&document).exception().unwrap().message(), expected);
}

#[test]
fn exceptions_read_as_python_prints_them() {
    message("ValueError", r#"["bad input: job-2"]"#, "bad input: job-2");
    message("Reject", r#"["no thanks", false]"#, "('no thanks', False)");
    message("KeyError", r#"["topic"]"#, "'topic'");
    message("TimeLimitExceeded", "[2]", "TimeLimitExceeded(2,)");
    message("SoftTimeLimitExceeded", "[]", "SoftTimeLimitExceeded()");
    message("RuntimeError", "[]", "");
    message("RuntimeError", "null", "");
    message("RuntimeError", "\"plain\"", "plain");
    message("OSError", r#"[2, "No such file"]"#, "(2, 'No such file')");
}

#[test]
fn a_failure_without_an_exception_in_it_has_none() {
    for result in ["null", "[]", "{}", r#"{"exc_type": 1}"#] {
        assert_eq!(decode(&format!(r#"{{"status":"FAILURE","result":{result},"task_id":"i"}}"#)).exception(), None);
    }
}

#[test]
fn states_of_the_tasks_own_making_are_kept() {
    let document = decode(r#"{"status": "PROGRESS", "result": {"percent": 40}, "task_id": "i"}"#);
    assert_eq!(document.status, State::Custom("PROGRESS".to_owned()));
    assert_eq!(document.status.to_string(), "PROGRESS");
}

#[test]
fn a_result_of_any_depth_is_carried() {
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let document = decode(&format!(r#"{{"status":"SUCCESS","result":{deep},"args":{deep},"task_id":"i"}}"#));
    assert_eq!(document.result.as_str(), deep);
    assert!(document.result.parse(&Limits::default()).is_err());
}

#[test]
fn text_that_is_no_result_document_is_refused() {
    for (text, error) in [
        ("", "the result document is not valid JSON"),
        ("[]", "the result document is not valid JSON"),
        ("{}", "status is missing"),
        (r#"{"status": 1}"#, "status is not a string"),
        (r#"{"status": "SUCCESS"}"#, "task_id is missing"),
    ] {
        assert_eq!(ResultDocument::decode(text.as_bytes()).unwrap_err().to_string(), error);
    }
    assert!(ResultDocument::decode_within(SUCCESS.as_bytes(), &Limits::default().bytes(10)).is_err());
}

proptest! {
    #[test]
    fn documents_survive_a_round_trip(status: String, task_id: String, result in any_value(), worker: Option<String>, traceback: Option<String>) {
        let document = ResultDocument {
            status: status.into(),
            task_id,
            result: RawJson::from(&result),
            args: Some(RawJson::from(&result)),
            worker,
            traceback,
            other: Object::new().with("x-other", result),
            ..decode(REVOKED_SHORT)
        };
        prop_assert_eq!(ResultDocument::decode(&document.encode()).unwrap(), document);
    }
}
