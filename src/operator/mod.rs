//! Kubernetes in, Kubernetes out: observe, decide, act.
//!
//! | file | what |
//! |---|---|
//! | `run` | start, lead, start over |
//! | `lease` | who leads, and the fencing epoch |
//! | `client`, `watches` | calls that end in time, watches that are known to work |
//! | `namespaces` | which namespaces are looked into: by name, and by label |
//! | `listing` | lists and watches of any size, one object at a time |
//! | `watch`, `lookups`, `jobs`, `queue` | unfinished jobs as stubs, and which to look at |
//! | `pools`, `pool` | the pools, and serving one: connect, listen, read levels, scale |
//! | `secret`, `former` | where its Redis is, as its Secret says, and where it was before |
//! | `listen`, `levels`, `documents` | hints, the levels behind them, and what documents say |
//! | `servers` | what pools on one Redis share: the look for markers, and how many audits go on at once |
//! | `strays` | attempts on Redis that no unfinished job stands behind |
//! | `load`, `replicas` | load to replicas |
//! | `report`, `verdicts` | the pool's status, and its conditions |
//! | `workers` | Pods and Deployments: who holds, who is dead |
//! | `deleted` | deleted jobs whose attempts are still to be brought to an end |
//! | `events` | Kubernetes Events, as many as are bearable |
//! | `late` | results of jobs that have ended otherwise |
//! | `nodes`, `settings` | the workers by their own names, and what endangers jobs in how they are set up |
//! | `attribution` | where a worker does not lead to a container |
//! | `pod_deletion` | whether a Pod may be deleted to stop a task |
//! | `finished` | finished jobs whose spec was changed |
//! | `ttl`, `table` | finished jobs whose time is over, and how they are found |
//! | `reconcile`, `observe`, `act`, `publish` | one job, one look |

mod act;
mod attribution;
mod backoff;
pub mod client;
mod config;
mod context;
mod deleted;
mod documents;
mod error;
mod events;
mod finished;
mod former;
mod jobs;
mod late;
mod lease;
mod levels;
mod listen;
mod listing;
mod load;
mod lookups;
mod namespaces;
mod nodes;
mod observe;
mod pod_deletion;
mod pool;
mod pools;
mod publish;
mod queue;
mod reconcile;
mod refused;
mod replicas;
mod report;
mod run;
mod secret;
mod servers;
mod settings;
mod strays;
mod table;
mod ttl;
mod verdicts;
mod watch;
mod watches;
mod workers;

pub use config::Config;
pub use run::{StartError, run};
