//! The `crewjob` binary.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    crewjob::cli::run().await
}
