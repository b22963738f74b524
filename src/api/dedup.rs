//! Submitting a job more than once without running it more than once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, schema};
use crate::core::dedup;

/// A key under which of several jobs one runs.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Dedup {
    /// The key. 1 to 253 letters, digits and `. _ : / -`. Jobs of another namespace or pool have keys of their own.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._:/-]+$"), length(min = 1, max = 253))]
    pub key: String,

    /// Jobs with the same key that were created further apart are no duplicates. A duration, 1s to 8784h. Default `24h`.
    #[serde(default = "default_window")]
    #[schemars(extend("x-kubernetes-validations" = schema::between("1s", "8784h")))]
    pub window: Duration,

    /// What becomes of the job where another one with the key stands for it: `Reject`, it is `Failed` with reason
    /// `Duplicate`; `Attach`, it waits for the end of the other one and ends as that one does, with its result; `Replace`, the
    /// other one is cancelled if it has not ended, and this one runs. Default `Reject`.
    #[serde(default)]
    pub on_conflict: OnConflict,
}

/// What becomes of a duplicate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// It fails.
    #[default]
    Reject,
    /// It ends as the other job does.
    Attach,
    /// The other job is cancelled, and it runs.
    Replace,
}

impl Dedup {
    /// The same, in the words of the decision core.
    pub fn to_core(&self) -> dedup::Dedup {
        dedup::Dedup {
            key: self.key.as_str().into(),
            window: self.window.to_std(),
            on_conflict: match self.on_conflict {
                OnConflict::Reject => dedup::OnConflict::Reject,
                OnConflict::Attach => dedup::OnConflict::Attach,
                OnConflict::Replace => dedup::OnConflict::Replace,
            },
        }
    }
}

const fn default_window() -> Duration {
    Duration::from_hours(24)
}
