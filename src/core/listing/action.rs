//! What is done with many jobs at once.

use super::Row;

/// Jobs that one request may change.
pub const MOST: usize = 5_000;

/// What is done with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is ended.
    Cancel,
    /// It is held back.
    Suspend,
    /// It goes on.
    Resume,
    /// It becomes so urgent.
    Priority(i32),
    /// It is run again, as a new job.
    Retry,
}

impl Action {
    /// Reads the word of an action; `priority` is for the one that needs it. The error says what is wrong.
    pub fn read(word: &str, priority: Option<i64>) -> Result<Self, (&'static str, String)> {
        match word {
            "cancel" => Ok(Self::Cancel),
            "suspend" => Ok(Self::Suspend),
            "resume" => Ok(Self::Resume),
            "retry" => Ok(Self::Retry),
            "priority" => {
                let priority = priority.and_then(|it| i32::try_from(it).ok()).filter(|it| (0..=10).contains(it));
                priority.map(Self::Priority).ok_or_else(|| ("/priority", "it is a number from 0 to 10".to_owned()))
            }
            _ => Err(("/action", "it is one of cancel, suspend, resume, priority and retry".to_owned())),
        }
    }

    /// Whether anything would change in that job.
    pub fn fits(self, row: &Row) -> bool {
        match self {
            Self::Suspend => !row.is_over() && !row.suspended,
            Self::Resume => !row.is_over() && row.suspended,
            Self::Cancel if row.cancelling => false,
            Self::Cancel | Self::Priority(_) => !row.is_over(),
            Self::Retry => matches!(&*row.phase, "Failed" | "Cancelled"),
        }
    }
}
