//! Kubernetes in: what the API server says of jobs, pools, Pods, Deployments and namespaces.
//!
//! | file | what |
//! |---|---|
//! | `follow` | lists and watches of any size, one object at a time, tried again when they break |
//! | `jobs`, `lookups` | unfinished jobs, and those that left the watch |
//! | `finished` | finished jobs whose spec was changed |
//! | `pools` | the pools, each with what serves it |
//! | `schedules` | the schedules, each with what serves it, and the ends of their jobs |
//! | `namespaces`, `pods`, `deployments` | the namespaces that are looked into, with their Pods and Deployments |

mod deployments;
pub mod finished;
mod follow;
pub mod jobs;
pub mod lookups;
pub mod namespaces;
mod pods;
pub mod pools;
pub mod schedules;
