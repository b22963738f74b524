//! How much memory a command takes, and whether it was more than there is.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::processes::children;
use crate::runtime::backoff::{Backoff, Bounds};

/// Longest time until the second look, and until any other. Most commands are short, and they matter too.
const PAUSE: Bounds = (Duration::from_millis(5), Duration::from_millis(500));
/// A command that prints a lot is not looked at more often than this.
const OUTPUT_PAUSE: Duration = Duration::from_millis(10);
/// Most processes of a command that are looked at.
const PROCESSES: usize = 256;

/// The most memory that one process of a command ever had, as far as was seen.
///
/// The kernel keeps the high-water mark of each process until it ends, so nothing before a look is missed. (The rusage
/// of an ended child is no better source: it starts with the size of the process that forked it, the worker.)
pub(super) struct Peak {
    leader: u32,
    highest: Option<u64>,
    next: Instant,
    pauses: Backoff,
    printed: Option<Instant>,
}

impl Peak {
    /// Looks for the first time.
    pub(super) fn new(leader: u32) -> Self {
        let mut pauses = Backoff::new(PAUSE);
        let next = Instant::now() + pauses.pause();
        let mut peak = Self { leader, highest: None, next, pauses, printed: None };
        peak.look();
        peak
    }

    /// In bytes.
    pub(super) fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Waits for the next look, and looks.
    pub(super) async fn watch(&mut self) {
        sleep_until(self.next).await;
        self.next = Instant::now() + self.pauses.pause();
        self.look();
    }

    /// Looks because something was printed: what prints its result has just computed it.
    pub(super) fn printed(&mut self) {
        if self.printed.is_none_or(|last| last.elapsed() >= OUTPUT_PAUSE) {
            self.printed = Some(Instant::now());
            self.look();
        }
    }

    /// Only while the leader has not been reaped.
    fn look(&mut self) {
        self.highest = self.highest.max(high_water(self.leader));
    }

    /// The same for a process that has done something before. The kernel forgets that, where it can.
    pub(super) fn anew(leader: u32) -> Self {
        let _ = fs::write(format!("/proc/{leader}/clear_refs"), "5");
        Self::new(leader)
    }
}

/// The highest mark of a process and its descendants.
fn high_water(leader: u32) -> Option<u64> {
    let mut processes = vec![i32::try_from(leader).ok()?];
    let mut highest = None;
    let mut index = 0;
    while let Some(&process) = processes.get(index) {
        index += 1;
        highest = highest.max(fs::read_to_string(format!("/proc/{process}/status")).ok().and_then(|text| mark(&text)));
        let room = PROCESSES.saturating_sub(processes.len());
        processes.extend(children(process).into_iter().take(room));
    }
    highest
}

fn mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Counts the processes that the kernel has killed in our cgroup because it was out of memory.
#[derive(Debug, Clone)]
pub(super) struct OomKills(Option<PathBuf>);

impl OomKills {
    /// Those of the cgroup that this process is in.
    pub(super) fn here() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self(files(&groups).into_iter().find(|file| fs::read_to_string(file).is_ok_and(|text| kills(&text).is_some())))
    }

    /// Those counted in this file.
    #[cfg(test)]
    pub(super) fn counted_in(file: PathBuf) -> Self {
        Self(Some(file))
    }

    /// How many so far.
    pub(super) fn count(&self) -> Option<u64> {
        kills(&fs::read_to_string(self.0.as_ref()?).ok()?)
    }
}

/// Where a cgroup counts. Inside a container its own is mounted at the root, whatever it is called outside.
fn files(groups: &str) -> Vec<PathBuf> {
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let memory = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|controller| controller == "memory").then_some(path)
    });
    let under = |root: &str, path: Option<&str>, file: &str| {
        let own = path.map(|path| PathBuf::from(format!("{root}{}/{file}", path.trim_end_matches('/'))));
        own.into_iter().chain([PathBuf::from(format!("{root}/{file}"))])
    };
    under("/sys/fs/cgroup", unified, "memory.events")
        .chain(under("/sys/fs/cgroup/memory", memory, "memory.oom_control"))
        .collect()
}

fn kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_in_bytes() {
        assert_eq!(mark("VmPeak:\t 9 kB\nVmHWM:\t    1520 kB\nVmRSS:\t 3 kB\n"), Some(1520 * 1024));
        assert_eq!(mark("Name:\tzombie\nState:\tZ (zombie)\n"), None);
        assert!(high_water(std::process::id()).unwrap() > 1 << 20);
    }

    #[test]
    fn kills_are_counted_in_both_kinds_of_cgroups() {
        assert_eq!(kills("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn the_own_cgroup_is_looked_up_before_the_root() {
        let names = |groups| files(groups).into_iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
        assert_eq!(
            names("0::/pod/a\n"),
            [
                "/sys/fs/cgroup/pod/a/memory.events",
                "/sys/fs/cgroup/memory.events",
                "/sys/fs/cgroup/memory/memory.oom_control",
            ]
        );
        assert_eq!(names("4:cpu,memory:/pod\n0::/\n")[0], "/sys/fs/cgroup/memory.events");
        assert_eq!(names("4:cpu,memory:/pod\n0::/\n")[2], "/sys/fs/cgroup/memory/pod/memory.oom_control");
    }
}
