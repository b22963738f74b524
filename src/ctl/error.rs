//! Why a verb did not do what it was asked for.

use std::io;

/// What was typed cannot be done.
const USAGE: u8 = 2;
/// What was asked for was not done, or a job has failed.
const FAILED: u8 = 1;

/// Why a verb did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was typed does not make sense.
    #[error("{0}")]
    Usage(String),
    /// Something is not as it would have to be; the text says what to do.
    #[error("{0}")]
    NotPossible(String),
    /// The kubeconfig cannot be read.
    #[error("reading the kubeconfig")]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),
    /// A call of the API server failed.
    #[error("{act}")]
    Call {
        /// What was to be done.
        act: String,
        /// Why it was not.
        source: Box<kube::Error>,
    },
    /// Following an object failed.
    #[error("following {what}")]
    Watch {
        /// Which object.
        what: String,
        /// Why.
        source: Box<kube::runtime::watcher::Error>,
    },
    /// The archive cannot be read.
    #[error("reading the archive")]
    Archive(#[source] crate::archive::Error),
    /// A file cannot be read.
    #[error("reading {path}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("writing {path}")]
    Write {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Standard output takes no more.
    #[error("printing")]
    Print(#[from] io::Error),
}

impl Error {
    /// A call failed that was to do this.
    pub fn call(act: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let act = act.into();
        move |source| Self::Call { act, source: Box::new(source) }
    }

    /// The status with which the API server has refused the call.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Call { source, .. } => {
                let refused = if let kube::Error::Api(refused) = &**source { Some(refused.code) } else { None };
                refused.or(Some(500))
            }
            Self::Usage(_)
            | Self::NotPossible(_)
            | Self::Kubeconfig(_)
            | Self::Watch { .. }
            | Self::Archive(_)
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Print(_) => None,
        }
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::NotPossible(_)
            | Self::Kubeconfig(_)
            | Self::Call { .. }
            | Self::Watch { .. }
            | Self::Archive(_)
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Print(_) => FAILED,
        }
    }
}
