//! What may be believed of Redis.
//!
//! Redis is written by workers, and workers run code that the operator does not know. Whatever is read there is a claim:
//! about jobs of that pool only, and within the bounds of this module before it reaches a decision, a status or a loop.
//! [`fence`] judges the fence, [`clocks`] the times that workers tell.

pub mod clocks;
pub mod fence;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;

use super::account::{Account, Count, SavedState};
use super::id::{GENERATIONS, ObjectKey, Priority};
use super::usage::Usage;

/// Most retries of Celery's own that are believed of one attempt. A worker that claims more has made so many.
pub const RETRIES: u32 = 1_000;
/// Most runs that a status counts: each attempt that `retryPolicy` allows with all of its believable retries is far below.
pub const RUNS: u32 = 10_000;
/// Longest believable name of a Celery node, in bytes; a host name has at most 64.
pub const NODE_NAME: usize = 255;
/// Bytes of the id of a task that another producer has sent; Celery's own have 36.
pub const TASK_ID: usize = 255;
/// What is kept of the name of an exception, in bytes.
const EXCEPTION_NAME: usize = 128;

/// Whose job a result, an event or a reply is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concern {
    /// A job of the pool on whose Redis it was heard.
    Own,
    /// A job of another pool: that pool's own Redis will tell.
    Foreign,
}

/// Whose job it is, heard on the Redis of `pool`.
pub fn concern(namespace: &str, of_pool: &str, pool: &ObjectKey) -> Concern {
    if *pool.namespace == *namespace && *pool.name == *of_pool { Concern::Own } else { Concern::Foreign }
}

/// The name of a Celery node; `None` when no worker of ours is called so: it is empty, too long, or holds characters that
/// cannot be seen.
pub fn node_name(claimed: &str) -> Option<Arc<str>> {
    let is_fine = !claimed.is_empty() && claimed.len() <= NODE_NAME && claimed.chars().all(is_visible);
    is_fine.then(|| claimed.into())
}

/// The id of a task that another producer has sent; `None` when it is too long to be kept.
pub fn task_id(claimed: &str) -> Option<Arc<str>> {
    (claimed.len() <= TASK_ID).then(|| claimed.into())
}

/// The name of an exception, of which only what can be seen is kept.
pub fn exception_name(claimed: &str) -> String {
    let mut name: String = claimed.chars().filter(|c| is_visible(*c)).take(EXCEPTION_NAME).collect();
    name.truncate(name.floor_char_boundary(EXCEPTION_NAME));
    if name.trim().is_empty() { "Unknown".to_owned() } else { name }
}

/// What a run says of itself, of which only what can be seen is kept. `None` where it says nothing. No state was saved after
/// `now`: a later time would hold up all that is recorded now and then.
pub fn account(count: &Count, state: Option<SavedState>, now: Timestamp) -> Option<Account> {
    let plain = |text: &str| text.chars().filter(|c| is_visible(*c)).collect::<String>();
    let mut usage = Usage::default();
    for (model, consumed) in count.usage.models() {
        usage.count(&plain(model), consumed);
    }
    let state = state.map(|state| SavedState {
        saved_at: state.saved_at.map(|at| at.min(now)),
        problem: state.problem.map(|text| plain(&text).into()),
        ..state
    });
    let account = Account { count: Count { id: plain(&count.id).into(), usage }, state };
    (!account.is_empty()).then_some(account)
}

/// Whether a character shows up where it is printed, and does nothing else there.
fn is_visible(c: char) -> bool {
    let is_format = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !c.is_control() && !is_format
}

/// Retries that Celery made by itself in the attempt that began with run `number`: `claimed` counts the runs before it too.
pub fn celery_retries(number: u32, claimed: Option<i64>) -> u32 {
    let before = i64::from(number) - 1;
    let own = claimed.unwrap_or(before).saturating_sub(before);
    u32::try_from(own.max(0)).unwrap_or(u32::MAX).min(RETRIES)
}

/// How often a message was published again; `None` where no operator has written that.
pub fn generation(claimed: &str) -> Option<u32> {
    claimed.parse().ok().filter(|generation| *generation <= GENERATIONS)
}

/// Number of a run, in a marker; `None` where no operator has written that.
pub fn run(claimed: &str) -> Option<u32> {
    claimed.parse().ok().filter(|number| (1..=RUNS + 1).contains(number))
}

/// The priority in a marker; `None` where no operator has written that.
pub fn priority(claimed: &str) -> Option<Priority> {
    claimed.parse::<i32>().ok().filter(|priority| (0..=10).contains(priority)).map(Priority::clamped)
}

/// How far a task says that it is, in percent.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
pub fn percent(claimed: f64) -> u8 {
    claimed.clamp(0.0, 100.0) as u8 // what is no number is 0
}

/// A time that lies between two others: what happened to a job happened after it was created and before now.
pub fn between(earliest: Timestamp, claimed: Timestamp, latest: Timestamp) -> Timestamp {
    claimed.max(earliest).min(latest)
}
