//! Limits and stops: which signal is sent when.

use std::future::pending;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::group::{Group, signal_of};
use super::spec::{Call, Recipient, Spec};

/// How long a command may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    pub soft: Option<Instant>,
    pub hard: Option<Instant>,
    /// Between the signal of a stop and SIGKILL.
    pub grace: Duration,
    /// Which processes are asked to stop.
    pub signal: Recipient,
}

/// What was done to a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// It was sent this signal on request.
    pub stopped: Option<i32>,
    /// It was sent SIGTERM because of the soft limit.
    pub soft: bool,
    /// It was killed because of the hard limit.
    pub hard: bool,
}

impl Deadlines {
    pub(super) fn new(start: Instant, call: &Call, spec: &Spec) -> Self {
        // A limit beyond the end of time is none.
        let at = |limit: Option<Duration>| limit.and_then(|limit| start.checked_add(limit));
        Self { soft: at(call.soft), hard: at(call.hard), grace: spec.grace, signal: spec.signal }
    }
}

/// Waits until the leader of the group has ended, and sees to it that it does in time. Tells in `done` what it did,
/// also when it is cancelled.
pub(super) async fn supervise(
    group: &mut Group,
    deadlines: Deadlines,
    stop: &mut oneshot::Receiver<i32>,
    done: &mut Done,
) {
    let (mut soft, mut kill) = (deadlines.soft, deadlines.hard);
    let mut listening = true;
    loop {
        tokio::select! {
            biased;
            () = group.ended() => return,
            () = at(kill) => {
                (soft, kill, listening) = (None, None, false);
                done.hard = done.stopped.is_none();
                group.signal(Signal::KILL);
            }
            asked = &mut *stop, if listening => {
                listening = false;
                // The sender may be dropped; then no stop is requested any more.
                if let Ok(number) = asked {
                    done.stopped = Some(number);
                    group.ask(signal_of(number), deadlines.signal);
                    let patience = Instant::now().checked_add(deadlines.grace);
                    (soft, kill) = (None, kill.into_iter().chain(patience).min());
                }
            }
            () = at(soft) => {
                soft = None;
                done.soft = true;
                group.ask(Signal::TERM, deadlines.signal);
            }
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
