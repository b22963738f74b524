//! Temporary files and folders of this process.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::runtime::clock;

/// The folder of this process, which no other user can look into.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();
/// Whether the log says that there is none.
static TOLD: AtomicBool = AtomicBool::new(false);

/// A path that nothing else has; none if there is no place for temporary files.
pub fn path() -> Option<PathBuf> {
    let folder = FOLDER.get_or_init(|| std::env::temp_dir().join(format!("crewjob-{}", clock::random_id())));
    // Each time: in some systems what is old is removed from there.
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            if !TOLD.swap(true, Ordering::Relaxed) {
                tracing::warn!(folder = %folder.display(), %error, "creating the folder of temporary files failed; commands run without CREWJOB_RESULT and CREWJOB_STATE_DIR");
            }
            None
        }
        Ok(()) | Err(_) => Some(folder.join(clock::random_id().to_string())),
    }
}

/// Removes the folder, when no command runs any more.
pub fn remove() {
    if let Some(folder) = FOLDER.get() {
        // It is not there if no command has run, and stays if a command has left something in it.
        let _ = std::fs::remove_dir(folder);
    }
}
