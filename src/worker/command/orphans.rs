//! Processes that lost their parent and got us instead.
//!
//! The first process of a container inherits every process whose parent has ended, and must reap it. Else each command
//! that leaves a process behind takes a number from the container for good, until there are none left.

//!
//! Elsewhere init has them and reaps them. We could ask the kernel to give them to us there too, but that would not tell
//! which command they were of, and would make every child of this process one that might not be its own.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};
use tokio::time::sleep;

use super::processes::Stat;

/// The processes that we have started, with the time of their start. The code that started one reaps it.
static OWN: Mutex<BTreeSet<(i32, u64)>> = Mutex::new(BTreeSet::new());

/// Between two looks at all processes.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts a process that is no orphan when it has ended.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    // Locked before it exists: it may end at once.
    let mut own = OWN.lock();
    let child = command.spawn()?;
    let number = child.id().and_then(|number| i32::try_from(number).ok());
    own.extend(number.and_then(Stat::of).map(|stat| (stat.process, stat.start)));
    Ok(child)
}

/// Reaps the orphans that have ended, if we are the first process. One that takes a moment longer waits for the next
/// time.
pub(super) fn reap() {
    let mut own = OWN.lock();
    own.retain(|&(number, start)| Stat::of(number).is_some_and(|stat| stat.start == start));
    if std::process::id() != 1 {
        return;
    }
    for orphan in Stat::all().filter(|process| is_ended_orphan(process, &own)) {
        // Only we could reap it, and only here, one at a time: it is still the same process.
        if let Some(number) = Pid::from_raw(orphan.process) {
            let _ = waitid(WaitId::Pid(number), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// Reaps orphans soon after they have ended, until it is aborted: a command may run for days.
pub async fn keep() {
    // Without the signal they wait for the end of a command.
    let Ok(mut ends) = unix::signal(SignalKind::child()) else { return };
    while ends.recv().await.is_some() {
        reap();
        sleep(PAUSE).await;
    }
}

fn is_ended_orphan(process: &Stat, own: &BTreeSet<(i32, u64)>) -> bool {
    process.zombie && process.parent == 1 && !own.contains(&(process.process, process.start))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::super::tests::{report, shell, until};
    use super::*;

    const INSIDE: &str = "CREWJOB_TEST_FIRST_PROCESS";

    #[test]
    fn only_orphans_that_have_ended_are_reaped() {
        let own = BTreeSet::from([(29, 7), (31, 7)]);
        let process =
            |process, parent| Stat { process, zombie: true, still: true, parent, group: process, session: 1, start: 7 };
        assert!(is_ended_orphan(&process(30, 1), &own), "also one that leads a group");
        assert!(!is_ended_orphan(&process(29, 1), &own), "a command");
        assert!(is_ended_orphan(&Stat { start: 8, ..process(31, 1) }, &own), "it has the number of one that has gone");
        assert!(!is_ended_orphan(&Stat { zombie: false, ..process(30, 1) }, &own), "it runs");
        assert!(!is_ended_orphan(&process(30, 29), &own), "the child of another process");
    }

    /// Runs itself again as the first process of a namespace, where the system lets it.
    #[tokio::test]
    async fn the_first_process_collects_no_zombies() {
        if std::env::var_os(INSIDE).is_some() {
            return inside().await;
        }
        let namespace = || {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]);
            command
        };
        if !namespace().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: no namespaces here");
            return;
        }
        let name = "worker::command::orphans::tests::the_first_process_collects_no_zombies";
        let mut again = namespace();
        again.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
        let output = again.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    async fn inside() {
        assert_eq!(std::process::id(), 1);
        let zombies = || Stat::all().filter(|stat| stat.zombie).count();
        // While a command goes on: its orphans are ours as soon as their parent has ended.
        let long =
            shell("for n in 1 2 3 4 5 6 7 8 9 10; do (setsid sleep 0.01 & setsid sleep 0.5 &); done; sleep 3600");
        let meanwhile = async {
            until(|| zombies() >= 10).await;
            tokio::select! { () = keep() => panic!("there is no signal"), () = until(|| zombies() == 0) => {} }
        };
        tokio::select! { _ = report(&long) => panic!("it sleeps"), () = meanwhile => {} }
        for _ in 0..10 {
            report(&shell("sleep 3600 & sleep 3600 & echo 1")).await;
            // They lead groups of their own, and the last one has left the session too.
            report(&shell("(timeout 60 true &); (timeout 0.01 sleep 60 &); (setsid true &); echo 1")).await;
            report(&shell("timeout 3600 sleep 3600 & sleep 0.1; echo 1")).await;
        }
        // The last ones may still be ending.
        assert!(zombies() < 10, "{} zombies", zombies());
        until(|| {
            reap();
            zombies() == 0 && Stat::all().count() == 1
        })
        .await;
    }
}
