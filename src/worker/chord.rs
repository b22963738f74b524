//! The parts of chords that end with a task: they are counted before it is settled, and the body is sent as it is settled.
//!
//! A worker that dies in between leaves the message in flight. The run of its copy counts the part once more, which
//! changes nothing, and sends the body in its place.

use std::time::Duration;

use tokio::time::sleep;

use super::builtin;
use super::conclude::Conclusion;
use super::context::Worker;
use super::follow::{self, BodySender, Ended};
use crate::runtime::clock;
use crate::store::Error;
use crate::store::channel::{Counted, Part};
use crate::wire::Message;

/// How long to wait for another worker that is about to send a body, before asking again.
const CLAIMED: Duration = Duration::from_secs(1);

/// A chord whose body this worker sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    group: String,
    token: String,
}

/// Counts the parts that end with this task, and adds to its end what follows the chords that are complete.
pub async fn count(worker: &Worker, message: &Message, end: &mut Conclusion) -> Vec<Claim> {
    let mut claims = Vec::new();
    for part in std::mem::take(&mut end.parts) {
        let follow::Part { group, task, index, record, body } = part;
        let token = clock::random_id().simple().to_string();
        let counted = Part { group: &group, task: &task, index: &index, record: &record };
        let sender = worker.sender();
        let send = BodySender {
            parent: &message.headers,
            sender: &sender,
            is_builtin_errback: builtin::is_errback,
            now: clock::now(),
        };
        let fresh = || clock::random_id().to_string();
        match when_not_claimed(worker, counted, &token).await {
            None | Some(Ok(Counted::Going | Counted::Claimed)) => {}
            Some(Ok(Counted::Complete { records, structure })) => {
                tracing::info!(task.id = message.headers.id, chord = group, "the last part of a chord has ended");
                end.add(follow::body(&body, &records, structure.as_deref(), &send, fresh));
                claims.push(Claim { group, token });
            }
            Some(Err(why)) => {
                tracing::error!(task.id = message.headers.id, chord = group, %why, "Redis refuses to count a part of a chord; its body fails");
                end.add(follow::fail(&body, &Ended::uncounted(&why.to_string()), &send, fresh));
            }
        }
    }
    claims
}

async fn when_not_claimed(worker: &Worker, part: Part<'_>, token: &str) -> Option<Result<Counted, Error>> {
    let expires = worker.config.result_expires();
    loop {
        let counted = worker.retry_unless_refused(|| worker.channel.count_part(part, token, expires)).await?;
        if counted != Ok(Counted::Claimed) {
            return Some(counted);
        }
        tokio::select! { () = sleep(CLAIMED) => {} () = worker.cold_shutdown.cancelled() => return None }
    }
}

/// Says of the chords whether their bodies were sent, which they were if the end of the task was taken.
pub async fn close(worker: &Worker, claims: &[Claim], taken: bool) {
    for Claim { group, token } in claims {
        let closed = worker.retry_unless_refused(|| worker.channel.close_chord(group, token, taken)).await;
        if let Some(Err(error)) = closed {
            tracing::warn!(chord = group, %error, "Redis refuses to close a chord; what was counted of it expires");
        }
    }
}
