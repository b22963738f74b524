//! What can come of a run, whatever ran it.

use crate::wire::{Exception, Limits, RawJson, python};

/// Most bytes of a result.
pub const LARGEST_RESULT: usize = 16 << 20;

/// What a result may be that was printed as this text. Whatever is within these limits can be parsed later.
///
/// Text of this length is what a command may print, so the number of values is limited by that alone: each takes a byte
/// at least.
pub fn limits(text: &str) -> Limits {
    Limits { bytes: text.len(), depth: Limits::MAX_DEPTH, values: text.len() }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It returned this value.
    Succeeded(RawJson),
    /// It failed.
    Failed {
        /// How.
        failure: Failure,
        /// Whether another run may succeed.
        retryable: bool,
    },
    /// It was stopped on request, with this signal.
    Stopped {
        /// The signal's number.
        signal: i32,
    },
}

/// The memory that a command took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The most that one of its processes took, in bytes, as far as was seen.
    pub peak: Option<u64>,
    /// Whether the kernel killed it because it was out of memory.
    pub oom_killed: bool,
}

/// Why a run failed, as Celery stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The Python exception that stands for it.
    pub exception: Exception,
    /// What is shown where Python shows a traceback: the last lines that the command wrote to its standard error.
    pub traceback: Option<String>,
}

impl Failure {
    /// A failure with one message.
    pub fn new(module: &str, kind: &str, message: impl Into<String>) -> Self {
        let exception = Exception {
            exc_type: kind.to_owned(),
            exc_message: vec![message.into().into()],
            exc_module: Some(module.to_owned()),
        };
        Self { exception, traceback: None }
    }

    /// Python's `repr` of the exception.
    pub fn repr(&self) -> String {
        let kind = &self.exception.exc_type;
        match self.exception.exc_message.as_slice() {
            [argument] => format!("{kind}({})", python::repr(argument)),
            arguments => format!("{kind}{}", python::repr_tuple(arguments)),
        }
    }

    /// The same failure with the last words of the command.
    #[must_use]
    pub fn with_traceback(self, traceback: Option<String>) -> Self {
        Self { traceback, ..self }
    }
}
