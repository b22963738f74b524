//! Limits of a pool: how many of its jobs may be in flight, how many may begin in a while, and whose turn is next.
//!
//! A job needs a permit before its message is published. That it has one is recorded in its status first (reason
//! `Released`), and it has it until the attempt is over: so which jobs have one follows from the jobs alone, whatever
//! becomes of operators and of Redis.
//!
//! | file | what |
//! |---|---|
//! | `declared` | what a pool declares, and under which keys a job counts |
//! | `permit` | how a job stands under the limits, and what it waits for |
//! | `count` | what counts under one key of one limit |
//! | `line` | the jobs that wait under the same keys, in their order |
//! | `slow` | keys that are slowed down, and grow again |
//! | `shares` | how much each key has had, which fades |
//! | `ledger` | all of that for the jobs of one pool |

mod count;
mod declared;
mod ledger;
mod line;
mod permit;
mod shares;
mod slow;

pub use declared::{By, Keys, Limit, Limits, Rate};
pub use ledger::Ledger;
pub use line::Order;
pub use permit::{LIMIT_REACHED, Permit, RELEASED, Reached, Wait};
pub use slow::SlowDown;
