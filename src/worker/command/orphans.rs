//! Processes that lost their parent and got us instead.
//!
//! The first process of a container inherits every process whose parent has ended, and must reap it. Else each command
//! that leaves a process behind takes a number from the container for good, until there are none left.

use std::fs;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// Reaps the orphans that have ended, if we are the first process. One that takes a moment longer waits for the next
/// time.
pub(super) fn reap() {
    if std::process::id() != 1 {
        return;
    }
    let Some(own) = fs::read_to_string("/proc/1/stat").ok().and_then(|text| Stat::parse(&text)) else { return };
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).ok().and_then(|text| Stat::parse(&text));
        if let Some(process) = stat.filter(|process| process.is_ended_orphan_of(&own)).and_then(|stat| stat.process()) {
            // Nobody else reaps an orphan, so it is still the same process.
            let _ = waitid(WaitId::Pid(process), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// The beginning of `/proc/<process>/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    process: i32,
    zombie: bool,
    parent: i32,
    group: i32,
    session: i32,
}

impl Stat {
    /// The name in the middle may contain anything.
    fn parse(text: &str) -> Option<Self> {
        let (process, rest) = text.split_once(" (")?;
        let mut fields = rest.rsplit_once(") ")?.1.split(' ');
        let zombie = fields.next()? == "Z";
        let mut number = || fields.next()?.parse().ok();
        Some(Self { process: process.parse().ok()?, zombie, parent: number()?, group: number()?, session: number()? })
    }

    /// Commands lead a group in our session and are reaped by whoever started them. No orphan of theirs does, unless it
    /// made a group of its own without leaving the session, which shells do for people only.
    fn is_ended_orphan_of(&self, own: &Self) -> bool {
        let command = self.process == self.group && self.session == own.session;
        self.zombie && self.parent == own.process && !command
    }

    fn process(&self) -> Option<Pid> {
        Pid::from_raw(self.process)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::super::tests::{report, shell, until};
    use super::*;

    const INSIDE: &str = "CREWJOB_TEST_FIRST_PROCESS";

    #[test]
    fn only_orphans_that_have_ended_are_reaped() {
        let own = Stat::parse("1 (crewjob) S 0 1 1 0 -1").unwrap();
        let reaped = |text: &str| Stat::parse(text).unwrap().is_ended_orphan_of(&own);
        assert!(reaped("30 (sleep) Z 1 29 1 0 -1"), "left in the group of a command");
        assert!(reaped("31 (a) S (b) Z 1 31 31 0 -1"), "a daemon in its own session");
        assert!(!reaped("29 (sh) Z 1 29 1 0 -1"), "a command");
        assert!(!reaped("30 (sleep) S 1 29 1 0 -1"), "it runs");
        assert!(!reaped("30 (sleep) Z 29 29 1 0 -1"), "somebody else's child");
        assert_eq!(Stat::parse("30 (sleep"), None);
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
        let zombies = || {
            let stats = fs::read_dir("/proc")
                .unwrap()
                .flatten()
                .filter_map(|entry| Stat::parse(&fs::read_to_string(entry.path().join("stat")).ok()?));
            stats.filter(|stat| stat.zombie).count()
        };
        for _ in 0..10 {
            report(&shell("sleep 3600 & sleep 3600 & echo 1")).await;
        }
        // The last ones may still be ending.
        assert!(zombies() < 10, "{} zombies", zombies());
        until(|| {
            reap();
            zombies() == 0
        })
        .await;
    }
}
