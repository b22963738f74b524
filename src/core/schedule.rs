//! Schedules: when jobs are to be made, and which.

mod calendar;
mod decide;

pub use calendar::{Calendar, CalendarError};
pub use decide::{
    Birth, CatchUp, Child, ChildState, End, History, Look, MOST_QUEUED, Overlap, Record, Rest, Schedule, Skip, Skipped,
    decide, name_of, name_of_run, put_off,
};
