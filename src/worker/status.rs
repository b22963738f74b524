//! What a worker says about itself.

use std::time::Duration;

use super::context::Worker;
use super::control::Usage;
use crate::wire::event::WorkerStatus;
use crate::wire::{Number, Value};

/// Between two heartbeats. Flower takes a worker for gone after twice that.
pub const BEAT: Duration = Duration::from_secs(2);

/// Now.
pub fn of(worker: &Worker) -> WorkerStatus {
    let [one, five, fifteen] = load();
    WorkerStatus {
        freq: Some(Number::from(BEAT.as_secs_f64())),
        active: Some(count(worker.entries.running())),
        processed: Some(worker.processed()),
        loadavg: Some(vec![Value::from(one), five.into(), fifteen.into()]),
        sw_ident: Some("crewjob".to_owned()),
        sw_ver: Some(env!("CARGO_PKG_VERSION").to_owned()),
        sw_sys: Some("Linux".to_owned()),
    }
}

/// The load averages of the machine, zeros where they cannot be read.
fn load() -> [f64; 3] {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut numbers = text.split(' ').map(|number| number.parse().unwrap_or(0.0));
    [(); 3].map(|()| numbers.next().unwrap_or(0.0))
}

/// What this process has used, as far as `/proc` tells.
pub fn usage() -> Option<Usage> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program comes second, in parentheses, and may hold anything.
    let fields: Vec<i64> =
        text.rsplit_once(')')?.1.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect();
    let ticks = |at: usize| Some(Duration::from_millis(u64::try_from(*fields.get(at)?).ok()? * 10));
    Some(Usage {
        user: ticks(10)?,
        system: ticks(11)?,
        max_memory: of_status("VmHWM:").unwrap_or(0),
        minor_faults: *fields.get(6)?,
        major_faults: *fields.get(8)?,
        ..Usage::default()
    })
}

/// Memory that this process occupies now, in bytes.
pub fn memory() -> Option<i64> {
    of_status("VmRSS:").map(|kilobytes| kilobytes * 1024)
}

/// A line of `/proc/self/status`, in kilobytes.
fn of_status(name: &str) -> Option<i64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
