//! The `crewjob` binary.

use std::process::ExitCode;
use std::time::Duration;

/// Longer than any machine runs.
const ALWAYS: Duration = Duration::from_hours(24 * 365 * 100);

/// INVARIANT: a thread for blocking calls, such as a look-up of a name, is there from the beginning and stays. Tokio panics
/// where it has none and the machine gives none, as when a command has used up its process numbers.
fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_keep_alive(ALWAYS).build();
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            let _ = tokio::task::spawn_blocking(|| ()).await;
            crewjob::cli::run().await
        }),
        Err(error) => crewjob::cli::not_started(&error),
    }
}
