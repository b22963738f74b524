//! What an operator knows, as plain tables: no lock, no clock, no I/O. `operator::state` puts locks around them, and the
//! simulated operators hold the very same.
//!
//! | file | what |
//! |---|---|
//! | `table` | the unfinished jobs: what was declared, recorded and seen of each |
//! | `jobs` | what the jobs of each pool add up to |
//! | `pods` | Pods and Deployments: which Pod holds a task, which worker is dead |
//! | `audit` | a reading of Redis turned into knowledge: where each message is, which workers are asked, what is noted |
//! | `turns` | which job is looked at next |
//! | `ended` | the last jobs that ended without a result |
//! | `rounds` | which of many things are done now, and which in the next round |
//! | `notices` | which Events are written |
//! | `names`, `last` | one copy of each name; the last so many of something |

pub mod audit;
mod ended;
#[cfg(test)]
pub(super) mod fixtures;
mod jobs;
mod last;
mod names;
mod notices;
pub mod pods;
mod rounds;
mod table;
mod turns;

pub use ended::{Ended, Late};
pub use jobs::{PoolJobs, Share};
pub use last::Last;
pub use names::Names;
pub use notices::{Notices, Verdict};
pub use rounds::{Chosen, Round, Rounds};
pub use table::{Applied, Entry, Heard, Lane, LookUp, LookedUp, Stray, Table};
pub use turns::{Limits, Turns};
