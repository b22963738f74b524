//! The processes that descend from a command, also those that have left its group: GNU `timeout` makes a group of its
//! own for itself and what it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::{PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use super::processes::{Stat, Table, children};

/// How often processes that were started meanwhile are stopped. Twice or three times is usual.
const ROUNDS: usize = 100;
/// How long processes are given to stop between two looks.
const SETTLE: Duration = Duration::from_millis(1);

/// The descendants of the leader of a group, as far as they were seen.
///
/// INVARIANT: every known process is a descendant. A parent is still there after its children have been looked at, so
/// its number meant the same process all the time; a descendant is known by its number and the time it was started, so
/// that a later process with its number is not taken for it.
pub(super) struct Kin {
    leader: i32,
    known: BTreeMap<i32, u64>,
}

impl Kin {
    /// Of this process, which must not be reaped while anything here is called.
    pub(super) fn of(leader: i32) -> Self {
        Self { leader, known: BTreeMap::new() }
    }

    /// Whether no descendant is known.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Records the descendants, at little cost, so that they are known when their parents end.
    pub(super) fn look(&mut self) {
        self.note(children);
    }

    /// The same among all processes: the kernel may leave some out where they are listed by parent, or have no lists.
    pub(super) fn survey(&mut self) {
        let table = Table::read();
        self.note(|parent| table.children(parent).to_vec());
    }

    /// Forgets those that have left the session too, as daemons do.
    pub(super) fn forget_daemons(&mut self) {
        let session = |number| Stat::of(number).map(|stat| stat.session);
        let own = i32::try_from(std::process::id()).ok().and_then(session);
        self.known.retain(|&number, _| session(number) == own);
    }

    /// Stops all processes, those of the group with `stop`, until none is left that could start another one. A stopped
    /// process neither starts a process nor ends and leaves one that cannot be attributed. A process that was starting
    /// another one when it was told to stop goes on until that exists, so all of them are waited for.
    pub(super) fn freeze(&mut self, stop: impl Fn()) {
        for _ in 0..ROUNDS {
            stop();
            let before = self.known.clone();
            // Before the look for others: a process that was still then has started none since.
            let mut is_quiet = [self.leader].iter().chain(before.keys()).all(|&number| is_still(number));
            self.survey();
            for (&number, &start) in &self.known {
                if before.get(&number) != Some(&start) || !is_still(number) {
                    is_quiet = false;
                    self.send(number, start, Signal::STOP);
                }
            }
            if is_quiet {
                return;
            }
            std::thread::sleep(SETTLE);
        }
    }

    /// Sends a signal to the processes that have left the group, to children before their parents. A parent that ends
    /// may be the last tie of their group to its session; the kernel then lets all stopped processes in it continue.
    pub(super) fn signal(&self, signal: Signal) {
        let parents: BTreeMap<i32, i32> =
            self.known.keys().filter_map(|&number| Some((number, Stat::of(number)?.parent))).collect();
        let depth = |number: i32| {
            std::iter::successors(Some(number), |number| parents.get(number).copied()).take(parents.len() + 1).count()
        };
        let mut ordered: Vec<_> = self.known.iter().map(|(&number, &start)| (depth(number), number, start)).collect();
        ordered.sort_unstable_by(|one, other| other.cmp(one));
        for (_, number, start) in ordered {
            self.send(number, start, signal);
        }
    }

    fn send(&self, number: i32, start: u64, signal: Signal) {
        // Held before the number is looked at, so that it stays this process. A kernel that has no such handles leaves
        // a moment in between.
        let Some(process) = rustix::process::Pid::from_raw(number) else { return };
        let handle = pidfd_open(process, PidfdFlags::empty());
        if Stat::of(number).is_none_or(|stat| stat.start != start || stat.group == self.leader) {
            return;
        }
        let sent = handle.map_or_else(|_| kill_process(process, signal), |handle| pidfd_send_signal(handle, signal));
        if let Err(error) = sent {
            tracing::debug!(process = number, ?signal, %error, "signal not delivered");
        }
    }

    fn note(&mut self, children: impl Fn(i32) -> Vec<i32>) {
        self.known.retain(|&number, start| is_there(number, *start));
        let mut parents: Vec<i32> = self.known.keys().copied().chain([self.leader]).collect();
        while let Some(parent) = parents.pop() {
            let unknown = children(parent).into_iter().filter(|child| !self.known.contains_key(child));
            let born: Vec<Stat> = unknown.filter_map(Stat::of).filter(|stat| stat.parent == parent).collect();
            if born.is_empty() || !self.is_one(parent) {
                continue;
            }
            for Stat { process, start, .. } in born {
                self.known.insert(process, start);
                parents.push(process);
            }
        }
    }

    fn is_one(&self, number: i32) -> bool {
        number == self.leader || self.known.get(&number).is_some_and(|&start| is_there(number, start))
    }
}

/// Whether it can start no process: it is stopped, or has ended.
fn is_still(number: i32) -> bool {
    Stat::of(number).is_none_or(|stat| stat.still)
}

fn is_there(number: i32, start: u64) -> bool {
    Stat::of(number).is_some_and(|stat| stat.start == start)
}
