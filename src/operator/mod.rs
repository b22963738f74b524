//! Kubernetes in, Kubernetes out: observe, decide, act.
//!
//! | | what |
//! |---|---|
//! | `run` | start, lead, start over |
//! | [`watch`] | Kubernetes in: the API server's jobs, pools, Pods, Deployments and namespaces |
//! | `ttl` | finished jobs whose time is over |
//! | `once` | records of run-once keys whose time is over |
//! | [`schedule`] | serving one schedule: look when it is time, make the job, record it |
//! | [`pool`] | serving one pool: connect, listen, read Redis, scale, report |
//! | [`job`] | one job, one look: observe, decide, act |
//! | `context` | what a leading operator has at hand |
//! | `events` | Kubernetes Events, as many as are bearable |
//! | `lease` | which replica leads, and the fencing epoch |
//! | [`state`] | what the operator knows: tables behind locks, with wake-ups |
//!
//! Imports go down this list, never up, and no two files import each other.

mod config;
mod context;
mod events;
mod job;
mod lease;
mod once;
mod pool;
mod run;
mod schedule;
mod state;
mod ttl;
mod watch;

pub use config::Config;
pub use run::run;
