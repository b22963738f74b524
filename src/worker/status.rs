//! What a worker says about itself.

use std::time::Duration;

use super::context::Worker;
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
        processed: Some(i64::try_from(worker.processed()).unwrap_or(i64::MAX)),
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

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
