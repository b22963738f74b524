//! Commands that stay, between their calls.
//!
//! All of them together, idle and busy, are at most as many as tasks may run at once: another one is started in place of
//! the one that has been idle for longest, whatever its task. One that is idle for too long ends, too. Meanwhile what it
//! writes is logged, so that no pipe fills up, and its end is noticed.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::command::server::Server;

/// The servers of a worker.
#[derive(Default)]
pub struct Servers {
    all: Mutex<All>,
    /// Those that are ending.
    ending: TaskTracker,
}

#[derive(Default)]
struct All {
    busy: usize,
    /// The one that has been idle for longest comes first.
    idle: VecDeque<Idle>,
}

struct Idle {
    task: String,
    server: Server,
    since: Instant,
    /// When it ends if no call comes.
    until: Option<Instant>,
}

/// A server that is asked, or is to be started. It counts until this is dropped.
pub struct Busy<'a>(&'a Servers);

impl Servers {
    /// How often idle ones are to be looked after.
    pub const ROUND: Duration = Duration::from_secs(1);

    /// An idle server of this task, if there is one. Others end where there would be more than `most`.
    pub fn take(&self, task: &str, most: usize) -> (Option<Server>, Busy<'_>) {
        let mut all = self.all.lock();
        all.busy += 1;
        let at = all.idle.iter().rposition(|idle| idle.task == task);
        let server = at.and_then(|at| all.idle.remove(at)).map(|idle| idle.server);
        self.shrink(&mut all, most);
        (server, Busy(self))
    }

    /// Takes a server back that has answered, for at most `idle`.
    pub fn give(&self, task: &str, server: Server, busy: Busy<'_>, idle: Option<Duration>, most: usize) {
        drop(busy);
        if !server.is_started() {
            self.end(server);
            return;
        }
        let now = Instant::now();
        let until = idle.and_then(|idle| now.checked_add(idle));
        let mut all = self.all.lock();
        all.idle.push_back(Idle { task: task.to_owned(), server, since: now, until });
        self.shrink(&mut all, most);
    }

    /// Looks after the idle ones.
    pub fn tend(&self) {
        let now = Instant::now();
        let mut all = self.all.lock();
        for mut idle in std::mem::take(&mut all.idle) {
            if idle.until.is_some_and(|until| until <= now) {
                let seconds = now.duration_since(idle.since).as_secs();
                tracing::info!(task.name = idle.task, seconds, "ending a command that stays and was idle");
                self.end(idle.server);
            } else if idle.server.tend() {
                all.idle.push_back(idle);
            } else {
                self.end(idle.server);
            }
        }
    }

    /// Ends all, and waits until they have.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut self.all.lock().idle);
        for idle in idle {
            self.end(idle.server);
        }
        self.ending.close();
        self.ending.wait().await;
    }

    fn shrink(&self, all: &mut All, most: usize) {
        while all.busy + all.idle.len() > most {
            let Some(idle) = all.idle.pop_front() else { return };
            tracing::debug!(task.name = idle.task, "ending an idle command that stays in favour of another one");
            self.end(idle.server);
        }
    }

    fn end(&self, server: Server) {
        self.ending.spawn(server.close());
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.all.lock().busy -= 1;
    }
}
