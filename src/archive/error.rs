//! Why lines are not kept, or cannot be read.

use std::io;
use std::path::PathBuf;

/// Why lines were not kept, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings do not make sense.
    #[error("{0}")]
    Settings(String),
    /// The folder cannot be written.
    #[error("{act} {path}")]
    File {
        /// What was to be done.
        act: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why it was not.
        source: io::Error,
    },
    /// The object store did not do it.
    #[error("{act} the bucket {bucket}: {why}")]
    Store {
        /// What was to be done.
        act: &'static str,
        /// With which bucket.
        bucket: String,
        /// What it answered, or why it did not.
        why: String,
    },
}
