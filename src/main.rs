//! The `crewjob` binary.
fn main() {}
