//! What an operator knows, as plain tables: no lock, no clock, no I/O. `operator` puts locks around them.

mod jobs;
mod names;
mod notices;
pub mod pods;
mod rounds;
mod turns;

pub use jobs::{Index, PoolJobs, Share};
pub use names::Names;
pub use notices::{Notices, Verdict};
pub use rounds::{Chosen, Round, Rounds};
pub use turns::{Limits, Turns};
