//! With which state of its job a run begins.

use super::context::Worker;
use super::entry::Entry;
use super::registry::Runner;
use super::state::{Id, State, Wish};
use crate::wire::Value;

/// The header of a message that says how its run begins: `false` without what an earlier one has left; the key of another
/// job, with whose state it begins where it has none of its own; or `{"problem": …}`, why there is no such state.
const RESUME: &str = "crewjob_resume";

/// The state of a run, with what the last one has left. None where there is no place for it, or the task keeps no state.
pub async fn open(worker: &Worker, entry: &Entry, runner: &Runner, job: &str) -> Option<State> {
    let keeping = runner.state.as_ref()?;
    let id = Id {
        job: job.to_owned(),
        run: entry.holder.clone(),
        version: keeping.version.clone(),
        keep: worker.config.state_retention(),
        limit: worker.config.state_max_bytes(),
    };
    let state = State::new(id, worker.vault.clone(), keeping.interval)?;
    let resume = entry.message.headers.other.get(RESUME);
    let anew = resume.and_then(Value::as_bool) == Some(false);
    let wish = Wish { anew, other: resume.and_then(Value::as_str) };
    if let Some(problem) = resume.and_then(|resume| resume.get("problem")).and_then(Value::as_str) {
        state.begins_without(problem);
    }
    if is_later(entry) || wish.other.is_some() {
        let restore = || state.restore(wish);
        tokio::select! {
            restored = worker.retry_unless_refused(restore) => if let Some(Err(error)) = restored {
                state.cannot_be_read(&error);
            },
            _ = entry.stopped() => {}
        }
    }
    Some(state)
}

/// Whether an earlier run may have left something.
fn is_later(entry: &Entry) -> bool {
    let headers = &entry.message.headers;
    let is_of_a_crewjob = headers.other.contains_key("crewjob_uid");
    let is_another_attempt = is_of_a_crewjob && headers.root_id.as_ref().is_some_and(|root| *root != headers.id);
    headers.retries.unwrap_or(0) > 0
        || is_another_attempt
        || entry.envelope.properties.delivery_info.redelivered.unwrap_or(false)
        // The operator has published the message of an attempt again.
        || entry.tag.contains('#')
}
