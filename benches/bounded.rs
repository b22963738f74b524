//! Memory of an operator that is sent too much: the scenarios of `tests/loop/test_memory.py`, on this program.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::NamedTempFile;

use super::operator::program;
use super::report::Report;
use super::{Extent, Result};

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/loop/run");
/// What is measured, and the test that does it, as pytest selects it.
const SCENARIOS: [(&str, &str); 4] = [
    ("large_results", "results_that_came and large"),
    ("many_results", "results_that_came and many"),
    ("large_objects", "objects_that_are_too_large"),
    ("jobs_with_inputs", "jobs_with_inputs"),
];

/// Peaks of an operator within the chart's memory limit, and how long a job of another namespace took at most meanwhile.
/// The operator is restarted in each scenario; that it ends by itself, or is killed, fails the measure.
pub fn measure(extent: Extent, report: &Report) -> Result<()> {
    let share = extent.pick("0.02", "1");
    for (name, selected) in SCENARIOS {
        report.say(format!("bounded: {name}, {share} of it"));
        let measured = NamedTempFile::new()?;
        let output = Command::new(TESTS)
            .args(["-k", &format!("test_memory and {selected}")])
            .env("CREWJOB_PROGRAM", program())
            .env("CREWJOB_MEMORY_SHARE", share)
            .env("CREWJOB_MEMORY_REPORT", measured.path())
            .stdin(Stdio::null())
            .output()?;
        for line in std::fs::read_to_string(measured.path())?.lines() {
            let figures: Value = serde_json::from_str(line)?;
            let figure = |field: &str| figures[field].as_f64();
            let value = |field: &str| figure(field).ok_or_else(|| format!("no {field} in {line}"));
            report.measure(&format!("bounded_{name}_peak"), value("peak")?, "MiB", figure("peak_limit"));
            report.measure(&format!("bounded_{name}_other_job"), value("other_job")?, "s", figure("other_job_limit"));
        }
        if !output.status.success() {
            std::io::stderr().write_all(&output.stdout)?;
            std::io::stderr().write_all(&output.stderr)?;
            return Err(format!("bounded: {name} failed, see above").into());
        }
    }
    Ok(())
}
