//! A Celery worker for any executable, `crewjob worker`: takes tasks as Python workers do, runs a command for each, and
//! stores what came of it where Celery looks for it.
//!
//! | file | what it does |
//! |---|---|
//! | [`outcome`] | what can come of a run |
//! | [`follow`] | what is sent after a run: callbacks, the rest of a chain, errbacks, another attempt |
//! | [`control`] | what is answered to remote control, and done about it |
//! | [`routes`] | which queue a task is sent to |
//! | [`pattern`] | the patterns in both |

pub mod control;
pub mod follow;
pub mod outcome;
pub mod pattern;
pub mod routes;
