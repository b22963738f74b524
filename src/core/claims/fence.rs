//! The fence: a hash on each pool's Redis that names the term of the operator that leads. Every script compares it with the
//! term of its caller, so that a paused former leader changes nothing.

use std::fmt;

/// One leadership. Terms are compared by the creation of the Lease first: a Lease that was deleted and created anew
/// outranks the old one, whatever was counted there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term {
    /// When the Lease was created, in seconds since 1970.
    pub created: u64,
    /// Its `leaseTransitions`.
    pub transitions: u32,
}

impl Term {
    /// Reads what [`Display`](fmt::Display) has written.
    pub fn parse(text: &str) -> Option<Self> {
        let (created, transitions) = text.split_once('/')?;
        Some(Self { created: created.parse().ok()?, transitions: transitions.parse().ok()? })
    }
}

impl fmt::Display for Term {
    /// As the scripts read it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.created, self.transitions)
    }
}

/// What a fence says to the leader of a term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fence {
    /// There is none: Redis was emptied.
    Missing,
    /// It is of this term or of one before: this leader may write.
    Open,
    /// It is of a later term, or of none that an operator has ever written. Holds what it says, for people.
    Closed(String),
}

/// Judges what was read of a fence: its fields `created` and `epoch`, as texts.
///
/// Operators of versions that compared `epoch` only wrote no `created`: such a fence is older than every term of today.
pub fn judge(created: Option<&str>, epoch: Option<&str>, ours: Term) -> Fence {
    let Some(epoch) = epoch else { return Fence::Missing };
    let held = number(created.unwrap_or("0")).zip(number(epoch));
    if held.is_some_and(|held| held <= (ours.created, ours.transitions.into())) {
        return Fence::Open;
    }
    Fence::Closed(format!("epoch {}, created {}", shown(epoch), shown(created.unwrap_or("0"))))
}

/// A whole number as operators write it. With 15 digits it is exact in Lua too, whose numbers are doubles.
fn number(text: &str) -> Option<u64> {
    let is_plain = (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// The beginning of what is no number, so that it can be printed.
fn shown(text: &str) -> String {
    text.chars().filter(|c| super::is_visible(*c)).take(24).collect()
}

/// The `leaseTransitions` of a leader that takes the Lease over; `None` when it cannot be counted on, and the Lease must
/// be created anew.
pub fn next_transitions(recorded: Option<i32>) -> Option<u32> {
    let next = recorded.unwrap_or(0).checked_add(1)?;
    u32::try_from(next).ok().filter(|next| *next > 0)
}
