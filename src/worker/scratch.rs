//! Temporary files and folders of this process.
//!
//! They are in one folder of the system's folder for such, which no other user can look into. A file beside it is locked as
//! long as the process lives: what a process has left that was killed is removed by the next worker that starts, as `/tmp` of
//! a Pod outlives its containers.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FlockOperation;

use crate::runtime::clock;

const PREFIX: &str = "crewjob-";
const LOCK: &str = ".lock";

/// The folder of this process, and the lock on it.
static FOLDER: OnceLock<(PathBuf, Option<File>)> = OnceLock::new();
/// Whether the log says that there is none.
static TOLD: AtomicBool = AtomicBool::new(false);

/// A path that nothing else has; none if there is no place for temporary files.
pub fn path() -> Option<PathBuf> {
    let (folder, _) = FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("{PREFIX}{}", clock::random_id()));
        let lock = locked(&folder, true).ok();
        (folder, lock)
    });
    // Each time: in some systems what is old is removed from there.
    match make(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            if !TOLD.swap(true, Ordering::Relaxed) {
                tracing::warn!(folder = %folder.display(), %error, "creating the folder of temporary files failed; commands run without CREWJOB_RESULT and CREWJOB_STATE_DIR");
            }
            None
        }
        Ok(()) | Err(_) => Some(folder.join(clock::random_id().to_string())),
    }
}

/// Removes what processes have left that do not live any more. Call it on a thread that may block.
pub fn clear() {
    for (folder, _lock) in left_behind(&std::env::temp_dir()) {
        match fs::remove_dir_all(&folder) {
            Ok(()) => tracing::info!(folder = %folder.display(), "removed what a worker left that was killed"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "removing what a worker left that was killed failed");
            }
        }
        // Another worker may have removed it.
        let _ = fs::remove_file(lock_of(&folder));
    }
}

/// Removes the folder, when no command runs any more.
pub fn remove() {
    if let Some((folder, _)) = FOLDER.get() {
        // It is not there if no command has run, and stays if a command has left something in it.
        let _ = fs::remove_dir(folder);
        let _ = fs::remove_file(lock_of(folder));
    }
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)
}

fn lock_of(folder: &Path) -> PathBuf {
    let mut path = folder.as_os_str().to_owned();
    path.push(LOCK);
    path.into()
}

/// Locks a folder as its process does. An error where it is locked.
fn locked(folder: &Path, is_new: bool) -> io::Result<File> {
    let file = File::options().write(true).create_new(is_new).open(lock_of(folder))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// The folders of processes that do not live any more, each with the lock on it.
fn left_behind(temporary: &Path) -> Vec<(PathBuf, File)> {
    let names = fs::read_dir(temporary).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let folder = |name: std::ffi::OsString| {
        let name = name.to_str()?.strip_suffix(LOCK).filter(|name| name.starts_with(PREFIX))?;
        Some(temporary.join(name))
    };
    let folders = names.filter_map(folder);
    folders.filter_map(|folder| locked(&folder, false).ok().map(|lock| (folder, lock))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_process_that_lives_is_left_alone_and_that_of_one_that_was_killed_is_found() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = temporary.path().join(name);
            make(&folder).unwrap();
            folder
        };
        let (lives, dead) = (folder("crewjob-1"), folder("crewjob-2"));
        let _lock = locked(&lives, true).unwrap();
        drop(locked(&dead, true).unwrap());
        folder("crewjob-3-of-something-else");
        drop(locked(&folder("other"), true).unwrap());
        let found: Vec<PathBuf> = left_behind(temporary.path()).into_iter().map(|(folder, _)| folder).collect();
        assert_eq!(found, [dead]);
    }
}
