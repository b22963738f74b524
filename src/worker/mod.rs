//! A Celery worker for any executable, `crewjob worker`: takes tasks as Python workers do, runs a command for each, and
//! stores what came of it where Celery looks for it.
//!
//! | file | what it does |
//! |---|---|
//! | [`command`] | runs a command for one task |
//! | [`outcome`] | what can come of a run |

pub mod command;
pub mod outcome;
