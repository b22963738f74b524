//! A job as others with its dedup key see it.

use std::sync::Arc;

use super::{CrewJob, JobResult};
use crate::core::status::{Kept, Output, StoredResult};
use crate::core::twins::{Twin, TwinEnd};

impl CrewJob {
    /// What another job with the same key must know of this one.
    pub fn to_twin(&self) -> Option<Twin> {
        let job = self.to_job().ok()?;
        let status = &job.status;
        let end = status.phase.is_terminal().then(|| {
            let result = self.status.as_ref().and_then(|status| status.result.as_ref()).and_then(to_core);
            TwinEnd { phase: status.phase, result: result.map(Box::new), error: status.error.clone() }
        });
        Some(Twin {
            job: job.key.name.clone(),
            uid: job.uid,
            created_at: job.created_at,
            stands: status.stands.as_deref().copied(),
            end,
        })
    }
}

/// The result of a job as another one shows it.
fn to_core(result: &JobResult) -> Option<StoredResult> {
    let text = result.value.as_ref().map(ToString::to_string).or_else(|| result.text.clone());
    let kept = match (&text, &result.config_map_name, &result.redis_key) {
        (Some(_), _, _) => Kept::Inline,
        (None, Some(name), _) => Kept::Elsewhere(name.as_str().into()),
        (None, None, Some(key)) => Kept::Redis { key: key.as_str().into(), until: result.redis_expires_at.as_ref()?.0 },
        (None, None, None) => return None,
    };
    let bytes = u64::try_from(result.size_bytes).ok()?;
    let output = Output { bytes, sha256: digest(&result.sha256)?, text: text.map(Arc::from) };
    Some(StoredResult { output: Arc::new(output), kept })
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(digest)
}
