//! What a command tells while it runs.

use tokio::sync::watch;

use super::answer::Interim;
use super::stderr::Names;
use crate::core::usage::Usage;
use crate::wire::RawJson;

/// What a command has told so far. Each part can be waited for.
#[derive(Debug, Default)]
pub struct Reports {
    /// The latest progress report.
    pub progress: watch::Sender<Option<RawJson>>,
    /// How often it has asked for its state to be saved.
    pub checkpoints: watch::Sender<u64>,
    /// What it has consumed, all its reports together.
    pub usage: watch::Sender<Usage>,
}

impl Reports {
    /// Notes what a line says. What is wrong with one is logged: a report must not fail the run that it is about.
    pub(super) fn note(&self, interim: Interim, names: &Names<'_>) {
        match interim {
            Interim::Progress(Ok(value)) => {
                self.progress.send_replace(Some(value));
            }
            Interim::Progress(Err(error)) => {
                tracing::warn!(task.id = names.id, task.name = names.task, %error, "progress report ignored");
            }
            Interim::Checkpoint => self.checkpoints.send_modify(|asked| *asked += 1),
            Interim::Usage(Ok(used)) => self.usage.send_modify(|usage| usage.add(&used)),
            Interim::Usage(Err(error)) => {
                tracing::warn!(task.id = names.id, task.name = names.task, error, "usage report ignored");
            }
        }
    }
}
