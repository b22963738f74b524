//! What the gateway decides of a request, without HTTP, clock or Kubernetes: where it leads, what is wrong with it, whether it
//! may be made now, and what a follower of a job hears.

pub mod events;
pub mod headers;
pub mod id;
pub mod key;
pub mod network;
pub mod page;
pub mod problem;
pub mod rate;
pub mod route;
pub mod seats;
