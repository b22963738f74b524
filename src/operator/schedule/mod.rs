//! Serving one schedule: look when it is time, make the job, record it.
//!
//! | file | what |
//! |---|---|
//! | `serve` | when to look |
//! | `look` | one look: read the schedule and its jobs, decide, act |
//! | `jobs` | its jobs: listed, made, cancelled and deleted |

mod jobs;
mod look;
mod serve;

pub use serve::serve;
