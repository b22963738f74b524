//! Decisions as pure functions: no async, no clock, no randomness, no Redis, no Kubernetes.
//!
//! [`decide`](decide::decide) turns a [`Job`](job::Job) and what was [`Observed`](observed::Observed) of it into a
//! [`Plan`](plan::Plan); [`scale`](scale::scale) turns a pool's load into replicas. Everything else here is a value
//! that one of them takes or returns.

pub mod account;
pub mod backoff;
#[cfg(test)]
mod check;
pub mod claims;
pub mod decide;
pub mod dedup;
pub mod eviction;
pub mod evidence;
pub mod expiry;
pub mod gateway;
pub mod id;
pub mod index;
pub mod job;
pub mod limits;
pub mod listing;
pub mod milestones;
pub mod observed;
pub mod once;
pub mod outage;
pub mod plan;
pub mod policy;
pub mod reason;
pub mod scale;
pub mod schedule;
pub mod setup;
pub mod stall;
pub mod start;
pub mod status;
pub mod stem;
pub mod trace;
pub mod twins;
pub mod usage;
pub mod waits;

#[cfg(test)]
mod sim;
