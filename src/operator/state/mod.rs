//! What a leading operator knows: tables behind locks, with wake-ups. Nothing here calls the API server or Redis.
//!
//! | file | what |
//! |---|---|
//! | `jobs`, `queue` | unfinished jobs as stubs, which to look at, and the last that ended without a result |
//! | `lookups` | jobs that must be read from the API server |
//! | `hours` | when finished jobs expire |
//! | `pools`, `pool`, `former` | the pools, how their jobs see each, and the Redis that a pool has left |
//! | `nodes`, `setup`, `shared_pods` | workers by their own names, how they are set up, and which run more than one task |
//! | `workers` | Pods and Deployments, and Kubernetes' objects turned into what matters of them |
//! | `schedules` | the schedules there are |
//! | `servers` | what pools on one Redis share: the look for markers, and how many audits go on at once |
//! | `namespaces` | which namespaces are looked into: by name, and by label |
//! | `watches` | whether the watches work |

pub mod former;
pub mod hours;
pub mod jobs;
pub mod lookups;
pub mod namespaces;
pub mod nodes;
pub mod pool;
pub mod pools;
pub mod queue;
pub mod schedules;
pub mod servers;
pub mod setup;
pub mod shared_pods;
pub mod watches;
pub mod workers;
