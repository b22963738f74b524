//! A command's process group and its descendants, and signals that never reach any other process.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{self, SignalKind};
use tokio::time::{Instant, sleep_until};

use super::kin::Kin;
use super::orphans;
use super::spec::Recipient;
use crate::runtime::backoff::{Backoff, Bounds};

/// Longest time until the second look for new descendants, and until any other. A process that leaves the group and
/// loses its parent in between cannot be attributed to the command.
const PAUSE: Bounds = (Duration::from_millis(20), Duration::from_secs(1));

/// A process that leads its own group. Dropping it kills the group.
///
/// A signal reaches every process in the group, and every descendant of the leader outside of it.
///
/// INVARIANT: signals are sent only while the leader has not been reaped. Until then the kernel gives its number to no
/// other process and no other group. Held by the types ([`Group::reap`] consumes it) and by
/// `a_group_is_signalled_until_it_is_reaped`.
pub(super) struct Group {
    child: Child,
    leader: Pid,
    number: u32,
    children: unix::Signal,
    kin: Kin,
    look: Instant,
    pauses: Backoff,
    told: bool,
}

/// The ends of its three pipes.
pub(super) type Ends = (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>);

impl Group {
    /// Starts `command` as the leader of a new group.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        // Before the process exists, so that its end is not missed, and so that the kernel does not reap it, as it does
        // for a parent that ignores SIGCHLD.
        let children = unix::signal(SignalKind::child())?;
        let child = orphans::spawn(command.process_group(0))?;
        let number = child.id().ok_or(io::ErrorKind::NotFound)?;
        let leader = i32::try_from(number).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let kin = Kin::of(leader.as_raw_nonzero().get());
        let mut pauses = Backoff::new(PAUSE);
        let look = Instant::now() + pauses.pause();
        Ok(Self { child, leader, number, children, kin, look, pauses, told: false })
    }

    /// The number of the leader and of the group.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// The pipes, once.
    pub(super) fn ends(&mut self) -> Ends {
        (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take())
    }

    /// Sends a signal to the group and to every known descendant.
    pub(super) fn signal(&mut self, signal: Signal) {
        self.told = true;
        self.send(signal);
    }

    /// Asks these processes to stop.
    pub(super) fn ask(&mut self, signal: Signal, recipient: Recipient) {
        if recipient == Recipient::Group || signal == Signal::KILL {
            return self.signal(signal);
        }
        self.told = true;
        if self.is_ours()
            && let Err(error) = kill_process(self.leader, signal)
        {
            tracing::debug!(process = self.number, ?signal, %error, "signal not delivered");
        }
    }

    fn send(&mut self, signal: Signal) {
        if !self.is_ours() {
            return;
        }
        // Survey the descendants before killing: once a process exits, its children are re-parented and cannot be
        // attributed to this command. A zombie has no children.
        let may_have_kin = !self.kin.is_empty() || !self.has_ended();
        if may_have_kin && signal == Signal::KILL {
            let Self { kin, leader, .. } = self;
            kin.freeze(|| {
                let _ = kill_process_group(*leader, Signal::STOP);
            });
            // Before the group, where their parents are.
            kin.signal(Signal::KILL);
        } else if may_have_kin {
            self.kin.survey();
        }
        if let Err(error) = kill_process_group(self.leader, signal) {
            tracing::debug!(group = self.number, ?signal, %error, "signal not delivered");
        }
        if signal != Signal::KILL {
            self.kin.signal(signal);
        }
    }

    /// Whether its number is still taken by the leader, dead or alive: it has not been reaped.
    fn is_ours(&self) -> bool {
        self.child.id().is_some() && self.peek().is_ok()
    }

    /// Whether the leader has ended. It stays a zombie, so its number remains taken.
    pub(super) fn has_ended(&self) -> bool {
        self.peek().unwrap_or(true)
    }

    /// Waits until the leader has ended. It stays a zombie.
    pub(super) async fn ended(&mut self) {
        while !self.has_ended() {
            tokio::select! {
                child = self.children.recv() => if child.is_none() {
                    return;
                },
                () = sleep_until(self.look) => {
                    self.kin.look();
                    self.look = Instant::now() + self.pauses.pause();
                }
            }
        }
    }

    /// Waits until the leader has ended, kills the processes that are left, and reaps the leader. A daemon that has
    /// left the session is let alone when the leader has ended by itself.
    pub(super) async fn reap(mut self) -> io::Result<ExitStatus> {
        self.ended().await;
        if !self.told {
            self.kin.forget_daemons();
        }
        self.send(Signal::KILL);
        let status = self.child.wait().await;
        orphans::reap();
        status
    }

    fn peek(&self) -> rustix::io::Result<bool> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        waitid(WaitId::Pid(self.leader), look).map(|status| status.is_some())
    }
}

impl Drop for Group {
    /// Tokio reaps the leader in the background.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// The signal of this number; SIGTERM for a number that is none, or a real-time signal.
pub(super) fn signal_of(number: i32) -> Signal {
    Signal::from_named_raw(number).unwrap_or(Signal::TERM)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::time::Duration;

    use super::*;

    async fn bounded<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_mins(1), future).await.unwrap()
    }

    fn shell(script: &str) -> Group {
        Group::spawn(Command::new("/bin/sh").args(["-c", script])).unwrap()
    }

    #[tokio::test]
    async fn a_group_is_signalled_until_it_is_reaped() {
        let mut group = shell("exit 3");
        bounded(group.ended()).await;
        let number = group.leader;
        assert!(rustix::process::test_kill_process_group(number).is_ok(), "its number is still taken");
        assert_eq!(bounded(group.reap()).await.unwrap().code(), Some(3));
        assert!(rustix::process::test_kill_process_group(number).is_err());
    }

    #[tokio::test]
    async fn no_signal_is_sent_to_a_process_number_that_was_reaped_elsewhere() {
        let mut group = shell("exit 3");
        bounded(group.ended()).await;
        assert!(group.is_ours());
        waitid(WaitId::Pid(group.leader), WaitIdOptions::EXITED).unwrap();
        assert!(!group.is_ours() && group.has_ended());
        assert!(bounded(group.reap()).await.is_err());
    }

    #[tokio::test]
    async fn a_dropped_group_is_killed() {
        let group = shell("sleep 600 & sleep 600");
        let number = group.leader;
        drop(group);
        bounded(async {
            while rustix::process::test_kill_process_group(number).is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_signal_without_a_name_is_sigterm() {
        assert_eq!(signal_of(9), Signal::KILL);
        assert_eq!(
            (signal_of(0), signal_of(-9), signal_of(64), signal_of(999)),
            (Signal::TERM, Signal::TERM, Signal::TERM, Signal::TERM)
        );
        let mut group = shell("exec sleep 600");
        group.signal(signal_of(10));
        assert_eq!(bounded(group.reap()).await.unwrap().signal(), Some(10));
    }
}
