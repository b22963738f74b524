//! Runs AI crew jobs, declared as `CrewJob` resources, on Celery workers.
//!
//! Layers, lowest first; imports point down only (`tests/it/architecture.rs` holds that):
//!
//! | layer | module | what lives there |
//! |---|---|---|
//! | 0 | [`core`] | decisions as pure functions: `decide`, `scale`, and the plan they return |
//! | 0 | [`wire`] | the Celery wire: bytes to values and back, no sockets |
//! | 1 | `api` | the `CrewJob` and `CrewWorkerPool` resources |
//! | 1 | `runtime` | clock, back-off, telemetry, metrics, admin server, shutdown |
//! | 1 | `cluster` | the clients of the API server |
//! | 2 | `archive` | where finished jobs are kept before they are deleted |
//! | 2 | `store` | Redis by intent: enqueue, requeue, withdraw, snapshot, outcome |
//! | 3 | `operator` | Kubernetes in, Kubernetes out: observe, decide, act |
//! | 3 | `worker` | Celery tasks in, commands run, results out |
//! | 3 | `ctl` | `kubectl crewjob`: what people do with jobs |
//! | 3 | `gateway` | jobs over HTTP: submit, follow, cancel, and Kubernetes' own paths |
//! | 4 | `cli` | the command line |
//!
//! Public is what tests, benchmarks and the fuzzer use; the rest is private, so that rustc finds what has no caller.

pub mod core;
pub mod wire;

#[cfg(feature = "full")]
pub mod api;
#[cfg(feature = "full")]
mod archive;
#[cfg(feature = "full")]
pub mod cli;
#[cfg(feature = "full")]
mod cluster;
#[cfg(feature = "full")]
mod ctl;
#[cfg(feature = "full")]
mod gateway;
#[cfg(feature = "full")]
mod operator;
#[cfg(feature = "full")]
pub mod runtime;
#[cfg(feature = "full")]
pub mod store;
#[cfg(feature = "full")]
pub mod worker;
