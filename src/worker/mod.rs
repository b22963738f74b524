//! A Celery worker for any executable, `crewjob worker`: takes tasks as Python workers do, runs a command for each, and
//! stores what came of it where Celery looks for it.
//!
//! | file | what it does |
//! |---|---|
//! | [`run`] | connects, takes messages while a slot is free, shuts down |
//! | [`handle`], [`execute`] | one message's way from its queue to its end, and one run of its task |
//! | [`admit`], [`step`] | pure: what a message is, and what is done next with it until it runs |
//! | [`conclude`], [`document`] | pure: what follows from what came of a run ([`outcome`]) |
//! | [`follow`] | pure: what is sent after a run: callbacks, the rest of a chain, errbacks, another attempt |
//! | [`registry`], [`tasks`], [`builtin`] | which task is run in which way |
//! | [`command`] | runs a command for a task, and all that can go wrong with it |
//! | [`crew`] | the crew's task around a command |
//! | [`mailbox`], [`control`] | remote control: requests heard and obeyed; pure: what is answered |
//! | [`routes`], [`pattern`] | pure: which queue a task is sent to |
//! | [`leases`] | keeps leases and messages in flight, puts back what others lost |
//! | [`announce`], [`status`], [`metrics`] | events, heartbeats, counters |
//! | [`context`], [`entry`] | what all share: the setup, the tasks in hand |
//! | [`config`], [`node`] | the command line |

pub mod admit;
pub mod announce;
pub mod builtin;
pub mod command;
pub mod conclude;
pub mod config;
pub mod context;
pub mod control;
pub mod crew;
pub mod document;
pub mod entry;
pub mod execute;
pub mod follow;
pub mod handle;
pub mod leases;
pub mod mailbox;
pub mod metrics;
pub mod node;
pub mod outcome;
pub mod pattern;
pub mod rate;
pub mod registry;
pub mod routes;
pub mod run;
pub mod status;
pub mod step;
pub mod tasks;

pub use config::Config;
pub use run::{RunError, run};
