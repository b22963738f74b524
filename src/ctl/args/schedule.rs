//! What can be typed behind `kubectl crewjob schedule`.

use clap::{Args, Subcommand};
use jiff::Timestamp;

/// `schedule`
#[derive(Debug, Subcommand)]
pub enum Schedule {
    /// List schedules, with their last and next times.
    #[command(visible_alias = "ls")]
    List(List),

    /// Have a job made now, whatever the time and also while the schedule is suspended or paused.
    Run(Named),

    /// Make no job until the schedule is resumed. Jobs that there are go on.
    Suspend(Named),

    /// Go on with a suspended schedule. Times that have passed are not made up for.
    Resume(Named),

    /// Print the next times of a schedule, in its time zone and in UTC.
    Next(Next),

    /// Create the jobs for times that lie in the past, with your own rights. Those that exist are left alone.
    Backfill(Backfill),
}

/// `schedule list`
#[derive(Debug, Args)]
pub struct List {
    /// The schedules of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// One schedule.
#[derive(Debug, Args)]
pub struct Named {
    /// The schedule.
    #[arg(value_name = "SCHEDULE")]
    pub name: String,
}

/// `schedule next`
#[derive(Debug, Args)]
pub struct Next {
    /// The schedule.
    #[arg(value_name = "SCHEDULE")]
    pub name: String,

    /// How many times.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub count: u16,
}

/// `schedule backfill`
#[derive(Debug, Args)]
pub struct Backfill {
    /// The schedule.
    #[arg(value_name = "SCHEDULE")]
    pub name: String,

    /// The first time, such as 2026-11-01T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub from: Timestamp,

    /// The last time, included. Default: now.
    #[arg(long, value_name = "TIME")]
    pub to: Option<Timestamp>,

    /// Print what would be created, and create nothing.
    #[arg(long = "dry-run")]
    pub only_print: bool,

    /// Create many jobs without asking.
    #[arg(short, long)]
    pub yes: bool,
}
