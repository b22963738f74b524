//! One job, one look: observe, decide, act.
//!
//! | file | what |
//! |---|---|
//! | `reconcile` | the loop: the next job, its plan, and what follows when acting fails |
//! | `observe` | what is known of a job, put together from memory |
//! | `act` | a plan carried out: effects, then the status |
//! | `publish`, `broker` | the message of an attempt, and the job's Redis |
//! | `write`, `result`, `error` | what goes to the API server, and why it could not |
//! | `permits` | permits under the limits of pools, given where there is room |
//! | `dedup` | jobs with the same dedup key |
//! | `once` | run-once keys: which job has one, and what is remembered of a run |
//! | `tell`, `measure` | Normal Events and metrics, once a status is recorded |
//! | `refused` | what is refused, said in the job's status |
//! | `arrive`, `end`, `abandon` | where an object arrives, where a job leaves the table, and deleted jobs whose attempts are still on Redis |
//! | `documents`, `death`, `late` | what result documents say, also those of dead workers and of jobs that have ended |
//! | `pod_deletion` | whether a Pod may be deleted to stop a task |

pub mod abandon;
mod act;
pub mod arrive;
mod broker;
mod death;
mod dedup;
pub mod documents;
pub mod end;
mod error;
pub mod late;
mod measure;
mod observe;
mod once;
pub mod permits;
mod pod_deletion;
mod publish;
pub mod reconcile;
pub mod refused;
mod result;
mod tell;
pub mod write;
