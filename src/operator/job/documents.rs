//! Result documents, in the words of the decision core.

use std::sync::Arc;

use jiff::Timestamp;

use crate::core::claims;
use crate::core::evidence::{self, Report};
use crate::core::id::AttemptId;
use crate::core::observed::{Ending, Failure};
use crate::core::status::{Holder, Progress, TaskError, head};
use crate::store::{Document, told};
use crate::wire::result::{RETRYABLE, ResultDocument, State};
use crate::wire::{Limits, Value};

/// What a document says about the attempt that it names, read at `now`; `None` when it says nothing. `holder` tells
/// which worker a node name means, and how far its clock is behind.
pub fn read(
    id: AttemptId,
    document: Document,
    holder: impl Fn(&Arc<str>) -> (Holder, i64),
    now: Timestamp,
) -> Option<evidence::Document> {
    let (document, output) = match document {
        Document::Read { fields, output } => (fields, output),
        Document::Unreadable(why) => return Some(unreadable(why)),
    };
    let (worker, behind) = document.worker.as_deref().and_then(claims::node_name).map(|node| holder(&node)).unzip();
    let behind = behind.unwrap_or(0);
    let celery_retries = claims::celery_retries(id.number, document.retries);
    let finished_at = document.done_at();
    let account = claims::account(&told::usage(&document.other), told::state(&document.other), now).map(Box::new);
    let report = |holder, started_at, celery_retries, progress| {
        let account = account.clone();
        let report = Report { holder, said_at: now, behind, started_at, celery_retries, progress, account };
        Some(evidence::Document::Running(report))
    };
    let over = |how, worker| {
        Some(evidence::Document::Over { how, worker, celery_retries, finished_at, account: account.clone() })
    };
    match &document.status {
        State::Success => over(Ending::Succeeded(Arc::new(output?)), worker),
        State::Failure => over(failure(&document), worker),
        State::Revoked if document.is_full_form() => over(Ending::Revoked, worker),
        State::Rejected | State::Ignored => {
            let why = format!("the task ended in state {} without a result", document.status.as_str());
            over(Ending::Unreadable(why.into()), worker)
        }
        State::Started => report(worker, Some(now), celery_retries, None),
        State::Custom(_) => report(worker, None, celery_retries, progress(&document, now)),
        // Another run will follow, anywhere.
        State::Retry => report(None, None, celery_retries.saturating_add(1).min(claims::RETRIES), None),
        // A REVOKED in short form is written by workers that do not have the task.
        State::Revoked | State::Pending | State::Received => None,
    }
}

fn unreadable(why: String) -> evidence::Document {
    let how = Ending::Unreadable(why.into());
    evidence::Document::Over { how, worker: None, celery_retries: 0, finished_at: None, account: None }
}

fn failure(document: &ResultDocument) -> Ending {
    let Some(exception) = document.exception() else {
        let text = head(document.result.as_str(), TaskError::MESSAGE);
        let failure = Failure::from(TaskError::new("Unknown", text, None));
        return Ending::Failed(Failure { names_exception: false, ..failure });
    };
    let error = TaskError::new(
        &claims::exception_name(&exception.exc_type),
        &exception.message(),
        document.traceback.as_deref(),
    );
    if exception.exc_type == "WorkerLostError" {
        return Ending::ChildLost(error);
    }
    Ending::Failed(Failure {
        error,
        module: exception.exc_module.as_deref().map(|module| claims::exception_name(module).into()),
        is_permanent: document.other.get(RETRYABLE).and_then(Value::as_bool) == Some(false),
        names_exception: true,
    })
}

/// Celery's custom state `PROGRESS`: `{"percent": 40, "message": "…"}`. Other shapes give what they have.
fn progress(document: &ResultDocument, now: Timestamp) -> Option<Progress> {
    let meta = document.result.parse(&Limits::default().bytes(64 << 10)).ok()?;
    let percent = meta.get("percent").and_then(Value::as_f64).map(claims::percent);
    let message = ["message", "status", "step"].iter().find_map(|key| meta.get(key).and_then(Value::as_str));
    (percent.is_some() || message.is_some()).then(|| Progress {
        percent,
        message: message.map(|text| head(text, TaskError::MESSAGE).into()),
        at: now,
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::core::id::TaskId;
    use crate::core::status::Output;

    const NOW: Timestamp = Timestamp::constant(1000, 0);

    /// The second attempt, which began with run 3.
    fn id() -> AttemptId {
        AttemptId { task: TaskId::derive(Uuid::from_u128(1), 3), number: 3, generation: 0 }
    }

    fn holder(node: &str) -> Holder {
        Holder { node: node.into(), container: None }
    }

    /// What a document in this state says that has this result and these further fields, read from a worker whose clock
    /// is 7 ms behind.
    fn read(state: &str, result: &str, more: &str) -> Option<evidence::Document> {
        let text = format!(
            r#"{{"status": "{state}", "result": {result}, "task_id": "{}", "retries": 2, "worker": "crew@w", "children": [],
            "date_done": "1970-01-01T00:15:00Z"{more}}}"#,
            id().task
        );
        read_text(&text)
    }

    fn read_text(text: &str) -> Option<evidence::Document> {
        let fields = Box::new(ResultDocument::decode(text.as_bytes()).unwrap());
        let is_success = fields.status == State::Success;
        let output = is_success.then(|| (*Output::of("7")).clone());
        super::read(id(), Document::Read { fields, output }, |node| (holder(node), 7), NOW)
    }

    fn report(holder: Option<Holder>, started_at: Option<Timestamp>, celery_retries: u32) -> evidence::Document {
        let behind = 7;
        let report = Report { holder, said_at: NOW, behind, started_at, celery_retries, progress: None, account: None };
        evidence::Document::Running(report)
    }

    fn over(how: Ending) -> evidence::Document {
        let finished_at = Some(Timestamp::constant(900, 0));
        evidence::Document::Over { how, worker: Some(holder("crew@w")), celery_retries: 0, finished_at, account: None }
    }

    #[test]
    fn each_state_of_a_result_document_says_that_a_run_goes_on_or_is_over_or_nothing() {
        let error = |kind, message| TaskError::new(kind, message, None);
        let exception = |kind: &str| format!(r#"{{"exc_type": "{kind}", "exc_message": ["no"]}}"#);
        let without =
            |state: &str| Ending::Unreadable(format!("the task ended in state {state} without a result").into());
        let worker = || Some(holder("crew@w"));
        let nameless = || Failure { names_exception: false, ..error("Unknown", "\"?\"").into() };
        let table = [
            ("PENDING", "null".to_owned(), None),
            ("RECEIVED", "null".to_owned(), None),
            ("STARTED", r#"{"pid": 1}"#.to_owned(), Some(report(worker(), Some(NOW), 0))),
            ("COMPILING", "null".to_owned(), Some(report(worker(), None, 0))),
            ("RETRY", exception("ValueError"), Some(report(None, None, 1))),
            ("SUCCESS", "7".to_owned(), Some(over(Ending::Succeeded(Output::of("7"))))),
            ("FAILURE", exception("ValueError"), Some(over(Ending::Failed(error("ValueError", "no").into())))),
            ("FAILURE", exception("WorkerLostError"), Some(over(Ending::ChildLost(error("WorkerLostError", "no"))))),
            ("FAILURE", "\"?\"".to_owned(), Some(over(Ending::Failed(nameless())))),
            ("REVOKED", exception("TaskRevokedError"), Some(over(Ending::Revoked))),
            ("REJECTED", exception("Reject"), Some(over(without("REJECTED")))),
            ("IGNORED", "null".to_owned(), Some(over(without("IGNORED")))),
        ];
        for (state, result, expected) in table {
            assert_eq!(read(state, &result, ""), expected, "{state} with {result}");
        }
    }

    #[test]
    fn a_failure_has_the_module_of_its_exception_and_what_a_native_worker_says_of_another_run() {
        let failure = |others: &str| {
            let exception = r#"{"exc_type": "NoStock", "exc_message": ["0"], "exc_module": "shop"}"#;
            match read("FAILURE", exception, others) {
                Some(evidence::Document::Over { how: Ending::Failed(failure), .. }) => failure,
                said => panic!("{said:?}"),
            }
        };
        assert_eq!(failure("").module.as_deref(), Some("shop"));
        let told = |others: &str| failure(others).is_permanent;
        assert!(told(r#", "retryable": false"#));
        assert!(!told(r#", "retryable": true"#) && !told("") && !told(r#", "retryable": null"#));
    }

    #[test]
    fn a_revoked_document_in_short_form_is_written_by_workers_that_do_not_have_the_task_and_says_nothing() {
        let short = r#"{"status": "REVOKED", "result": null, "traceback": null, "children": null, "task_id": "t"}"#;
        assert_eq!(read_text(short), None);
    }

    #[test]
    fn retries_count_from_the_run_that_the_attempt_began_with() {
        for (retries, expected) in [(0, 0), (2, 0), (4, 2), (1_000_000, claims::RETRIES)] {
            let said = read("STARTED", "null", &format!(r#", "retries": {retries}"#));
            assert_eq!(said, Some(report(Some(holder("crew@w")), Some(NOW), expected)), "{retries}");
        }
        let said = read("RETRY", "null", r#", "retries": 1000000"#);
        assert_eq!(said, Some(report(None, None, claims::RETRIES)), "one more is not believed either");
    }

    #[test]
    fn progress_is_bounded_and_other_shapes_of_it_give_what_they_have() {
        let progress = |result: &str| match read("PROGRESS", result, "") {
            Some(evidence::Document::Running(report)) => report.progress.map(|it| (it.percent, it.message)),
            said => panic!("{said:?}"),
        };
        let table = [
            (r#"{"percent": 40, "message": "half"}"#, Some((Some(40), Some("half".into())))),
            (r#"{"percent": 4e9}"#, Some((Some(100), None))),
            (r#"{"percent": "40", "step": "two"}"#, Some((None, Some("two".into())))),
            (r#"{"percent": 1, "status": "one", "step": "two"}"#, Some((Some(1), Some("one".into())))),
            (r#"{"done": 4}"#, None),
            ("4", None),
        ];
        for (result, expected) in table {
            assert_eq!(progress(result), expected, "{result}");
        }
    }

    #[test]
    fn a_worker_that_no_node_is_called_as_is_none_and_a_document_that_cannot_be_read_is_the_end() {
        let said = read("SUCCESS", "7", r#", "worker": "\u0007""#);
        let Some(evidence::Document::Over { worker, .. }) = said else { panic!("{said:?}") };
        assert_eq!(worker, None);
        let said = super::read(id(), Document::Unreadable("too deep".to_owned()), |node| (holder(node), 0), NOW);
        let how = Ending::Unreadable("too deep".into());
        assert_eq!(
            said,
            Some(evidence::Document::Over { how, worker: None, celery_retries: 0, finished_at: None, account: None })
        );
    }
}
