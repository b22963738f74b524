//! Where finished jobs are kept before they are deleted: one JSON line each, in a folder or in an S3-compatible store.
//!
//! | file | what |
//! |---|---|
//! | `settings` | what the operator is told of it |
//! | `line` | what is kept of a job |
//! | `batch` | the lines that are written at once |
//! | `folder` | one file a day for each replica |
//! | `bucket` | one object for each batch |
//! | `error` | why lines are not kept, or cannot be read |

mod batch;
mod bucket;
mod error;
mod folder;
mod line;
mod settings;

use std::io;

pub use batch::{Batch, Listed};
pub use bucket::Bucket;
pub use error::Error;
pub use folder::files;
pub use line::{Kept, keep};
pub use settings::{Settings, Store};

use folder::Folder;

/// Where the lines go.
#[derive(Debug)]
pub enum Archive {
    /// Into files of a folder.
    Folder(Folder),
    /// Into objects of a bucket.
    Bucket(Box<Bucket>),
}

impl Archive {
    /// The archive that the settings name, of this replica; `None` where they name none.
    pub fn open(settings: &Settings, replica: &str) -> Result<Option<Self>, Error> {
        let bucket = Bucket::open(&settings.store)?;
        match (&settings.dir, bucket) {
            (Some(_), Some(_)) => Err(Error::Settings(
                "--archive-dir and --archive-s3-bucket exclude each other; give one of them".into(),
            )),
            (Some(dir), None) => Ok(Some(Self::Folder(Folder::new(dir, settings.dir_mib, replica)))),
            (None, bucket) => Ok(bucket.map(|bucket| Self::Bucket(Box::new(bucket)))),
        }
    }

    /// Keeps these lines, each with its line feed: when this returns, they are on the disk or in the store.
    pub async fn append(&self, lines: &str) -> Result<(), Error> {
        let now = crate::runtime::clock::now();
        match self {
            Self::Bucket(bucket) => bucket.put(lines, now).await,
            // A disk that hangs holds up one thread and no task.
            Self::Folder(folder) => {
                let (folder, lines) = (folder.clone(), lines.to_owned());
                let path = folder.path().to_owned();
                let written = tokio::task::spawn_blocking(move || folder.append(&lines, now)).await;
                written.unwrap_or_else(|error| {
                    Err(Error::File { act: "writing into", path, source: io::Error::other(error) })
                })
            }
        }
    }
}
