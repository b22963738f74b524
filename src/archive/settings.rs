//! What the operator, and a command that reads, are told of the archive.

use std::path::PathBuf;

use clap::Args;

/// Where finished jobs are kept before they are deleted. Default: nowhere.
#[derive(Debug, Clone, Default, Args)]
pub struct Settings {
    /// Folder in which a job is kept as a line of JSON before its `ttlAfterFinished` deletes it: one file a day for each
    /// replica. Default: none.
    #[arg(long = "archive-dir", env = "CREWJOB_ARCHIVE_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Mebibytes that the files in that folder may have together; the oldest are deleted beyond that. 0: any number.
    #[arg(long = "archive-dir-mib", env = "CREWJOB_ARCHIVE_DIR_MIB", value_name = "MIB", default_value_t = 1024)]
    pub dir_mib: u64,

    /// The object store, in place of a folder.
    #[command(flatten)]
    pub store: Store,

    /// Keep `inputs`, `args` and `kwargs` as well. They may hold secrets and personal data.
    #[arg(long = "archive-inputs", env = "CREWJOB_ARCHIVE_INPUTS")]
    pub inputs: bool,
}

/// An S3-compatible object store. The credentials are read from `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
/// `AWS_SESSION_TOKEN` in the environment.
#[derive(Debug, Clone, Default, Args)]
pub struct Store {
    /// Bucket of an S3-compatible object store in which jobs are archived. The credentials are in the environment:
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if there is one, `AWS_SESSION_TOKEN`.
    #[arg(long = "archive-s3-bucket", env = "CREWJOB_ARCHIVE_S3_BUCKET", value_name = "NAME")]
    pub bucket: Option<String>,

    /// URL of that store, which is called with the bucket's name in the path. Default: that of AWS in the region.
    #[arg(long = "archive-s3-endpoint", env = "CREWJOB_ARCHIVE_S3_ENDPOINT", value_name = "URL")]
    pub endpoint: Option<String>,

    /// Region of the bucket.
    #[arg(
        long = "archive-s3-region",
        env = "CREWJOB_ARCHIVE_S3_REGION",
        value_name = "NAME",
        default_value = "us-east-1"
    )]
    pub region: String,

    /// What the names of all objects begin with.
    #[arg(
        long = "archive-s3-prefix",
        env = "CREWJOB_ARCHIVE_S3_PREFIX",
        value_name = "TEXT",
        default_value = "crewjobs/"
    )]
    pub prefix: String,
}
