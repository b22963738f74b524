//! A Celery worker for any executable, `crewjob worker`: takes tasks as Python workers do, runs a command for each, and
//! stores what came of it where Celery looks for it.
//!
//! | file | what it does |
//! |---|---|
//! | [`run`] | connects, takes messages while a slot is free, shuts down |
//! | [`handle`], [`execute`], [`settle`] | one message's way from its queue to its end, one run of its task, and that end on Redis |
//! | [`admit`], [`step`] | pure: what a message is, and what is done next with it until it runs |
//! | [`conclude`], [`document`] | pure: what follows from what came of a run ([`outcome`]) |
//! | [`follow`] | pure: what is sent after a run: callbacks, the rest of a chain, errbacks, another attempt |
//! | [`chord`] | the parts of chords, counted with all workers |
//! | [`deliver`] | which queues these messages go to |
//! | [`registry`], [`tasks`], [`builtin`] | which task is run in which way |
//! | [`command`] | runs a command for a task, and all that can go wrong with it |
//! | [`crew`] | the crew's task around a command |
//! | [`trial`] | `--check-command` |
//! | [`mailbox`], [`control`] | remote control: requests heard and obeyed; pure: what is answered |
//! | [`routes`] | pure: which queue a task is sent to |
//! | [`schedule`], [`countdown`], [`aside`] | messages that wait for their time, or for a lease, and how many may |
//! | [`slot`], [`slots`] | takes one message after another |
//! | [`servers`] | commands that stay, between their calls |
//! | [`state`], [`resume`] | the folder that each attempt of a job finds as the last one left it |
//! | [`scratch`] | temporary files and folders |
//! | [`leases`] | keeps leases and messages in flight |
//! | [`sweep`], [`inherit`] | put back what was not acknowledged in time, and what workers had that have died |
//! | [`announce`], [`status`], [`metrics`] | events, heartbeats, counters |
//! | [`context`], [`entry`], [`places`] | what all share: the setup, the tasks in hand, where ends are marked |
//! | [`config`], [`node`] | the command line |
//! | [`login`] | how to get in to Redis, asked again for each connection |

mod admit;
mod announce;
mod aside;
mod builtin;
mod chord;
mod command;
mod conclude;
mod config;
mod context;
mod control;
mod countdown;
mod crew;
mod deliver;
mod document;
mod entry;
mod execute;
mod follow;
mod handle;
mod inherit;
mod leases;
mod login;
mod mailbox;
mod metrics;
mod node;
mod outcome;
mod places;
mod rate;
mod registry;
mod resume;
mod routes;
mod run;
mod schedule;
mod scratch;
mod servers;
mod settle;
mod slot;
mod slots;
mod state;
mod status;
mod step;
mod sweep;
mod tasks;
mod trial;

pub use config::Config;
pub use run::{RunError, run};

/// The pure steps from a message to what is stored and sent, which the fuzzer feeds (`fuzz/task.rs`).
pub mod steps {
    pub use super::admit::{Read, Unreadable, ended, read};
    pub use super::conclude::{Conclusion, RunEnd, conclude};
    pub use super::crew::Arguments;
    pub use super::document::{About, Told};
    pub use super::follow::{Defaults, Sender, may_retry, refusal};
    pub use super::outcome::{Failure, Outcome};
    pub use super::routes::Routes;
    pub use super::step::{Seen, next};
}
