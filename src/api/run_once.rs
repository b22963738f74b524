//! What is remembered of a run-once key: a ConfigMap for each key of a namespace.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use uuid::Uuid;

use crate::core::claims::fence::Term;
use crate::core::once::{Claim, Ran};

/// The label of such a ConfigMap.
pub const RUN_ONCE_LABEL: &str = "crewjob.dev/run-once";
/// The annotation that says when it may be deleted; without it, its job has not ended.
pub const RUN_ONCE_EXPIRES: &str = "crewjob.dev/expires-at";

/// The job that has a run-once key, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOnceRecord {
    /// `spec.runOnce` of the job.
    pub key: String,
    /// The job's name.
    pub job: String,
    /// The job's UID.
    pub uid: Uuid,
    /// The term of the operator that wrote this.
    pub term: Term,
    /// How it ended, once it has.
    pub end: Option<RunOnceEnd>,
}

/// How a job with a run-once key ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOnceEnd {
    /// Whether it succeeded; else it failed.
    pub succeeded: bool,
    /// When it ended.
    pub at: Timestamp,
    /// When that may be forgotten.
    pub until: Timestamp,
}

impl RunOnceRecord {
    /// The name of the ConfigMap of a key. Keys are not names: they may be longer, and have other characters.
    pub fn config_map_name(key: &str) -> String {
        format!(
            "crewjob-run-once-{}",
            Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("crewjob.dev/run-once/{key}").as_bytes())
        )
    }

    /// What a ConfigMap says; `None` when it is none of these.
    pub fn read(config_map: &ConfigMap) -> Option<Self> {
        config_map.metadata.labels.as_ref()?.get(RUN_ONCE_LABEL)?;
        let data = config_map.data.as_ref()?;
        let time = |field| data.get(field).and_then(|at| at.parse::<Timestamp>().ok());
        let end = match data.get("ended").map(String::as_str) {
            Some(ended @ ("Succeeded" | "Failed")) => {
                Some(RunOnceEnd { succeeded: ended == "Succeeded", at: time("endedAt")?, until: time("expiresAt")? })
            }
            Some(_) => return None,
            None => None,
        };
        Some(Self {
            key: data.get("key")?.clone(),
            job: data.get("job")?.clone(),
            uid: Uuid::try_parse(data.get("uid")?).ok()?,
            term: Term::parse(data.get("term")?)?,
            end,
        })
    }

    /// The ConfigMap that says so.
    pub fn config_map(&self) -> ConfigMap {
        let text = |key: &str, value: String| (key.to_owned(), value);
        let mut data = BTreeMap::from([
            text("key", self.key.clone()),
            text("job", self.job.clone()),
            text("uid", self.uid.to_string()),
            text("term", self.term.to_string()),
        ]);
        let mut annotations = BTreeMap::new();
        if let Some(end) = &self.end {
            data.extend([
                text("ended", if end.succeeded { "Succeeded" } else { "Failed" }.to_owned()),
                text("endedAt", format!("{:.0}", end.at)),
                text("expiresAt", format!("{:.0}", end.until)),
            ]);
            annotations.extend([text(RUN_ONCE_EXPIRES, format!("{:.0}", end.until))]);
        }
        let labels = [
            text("app.kubernetes.io/managed-by", "crewjob-operator".to_owned()),
            text(RUN_ONCE_LABEL, "true".to_owned()),
        ];
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(Self::config_map_name(&self.key)),
                labels: Some(labels.into()),
                annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        }
    }

    /// What it means for a job with this UID, at `now`; `None` when only the state of the job that has the key can tell.
    pub fn claim(&self, uid: Uuid, now: Timestamp) -> Option<Claim> {
        match &self.end {
            _ if self.uid == uid => Some(Claim::Ours),
            Some(end) if end.until > now => {
                let job = self.job.as_str().into();
                Some(Claim::Ran(Ran { job, uid: self.uid, succeeded: end.succeeded, at: end.at }))
            }
            Some(_) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1000, 0);
    const FIRST: Uuid = Uuid::from_u128(1);

    fn record(end: Option<RunOnceEnd>) -> RunOnceRecord {
        let term = Term { created: 7, transitions: 3 };
        RunOnceRecord { key: "a/b:2026".to_owned(), job: "report".to_owned(), uid: FIRST, term, end }
    }

    fn ended_until(seconds: i64) -> RunOnceEnd {
        RunOnceEnd { succeeded: false, at: NOW, until: Timestamp::constant(seconds, 0) }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for record in [record(None), record(Some(ended_until(2000)))] {
            assert_eq!(RunOnceRecord::read(&record.config_map()), Some(record));
        }
    }

    #[test]
    fn a_config_map_without_the_label_or_with_anything_else_in_it_is_none() {
        let whole = record(Some(ended_until(2000))).config_map();
        let without = |field: &str| {
            let mut config_map = whole.clone();
            config_map.data.as_mut().unwrap().remove(field);
            config_map
        };
        for field in ["key", "job", "uid", "term", "endedAt", "expiresAt"] {
            assert_eq!(RunOnceRecord::read(&without(field)), None, "{field}");
        }
        let mut unlabelled = whole.clone();
        unlabelled.metadata.labels = None;
        assert_eq!(RunOnceRecord::read(&unlabelled), None);
        let mut otherwise = whole.clone();
        otherwise.data.as_mut().unwrap().insert("ended".to_owned(), "Perhaps".to_owned());
        assert_eq!(RunOnceRecord::read(&otherwise), None);
    }

    #[test]
    fn a_name_follows_from_its_key_and_is_one_that_kubernetes_allows() {
        let name = RunOnceRecord::config_map_name("Ä key that is no name/2026");
        assert_eq!(name, RunOnceRecord::config_map_name("Ä key that is no name/2026"));
        assert_ne!(name, RunOnceRecord::config_map_name("another"));
        assert!(
            name.len() <= 63 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
            "{name}"
        );
    }

    #[test]
    fn an_end_speaks_for_other_jobs_until_it_expires_and_never_against_the_job_itself() {
        let other = Uuid::from_u128(2);
        let ran = Claim::Ran(Ran { job: "report".into(), uid: FIRST, succeeded: false, at: NOW });
        assert_eq!(record(Some(ended_until(2000))).claim(other, NOW), Some(ran));
        assert_eq!(record(Some(ended_until(2000))).claim(FIRST, NOW), Some(Claim::Ours));
        assert_eq!(record(Some(ended_until(1000))).claim(other, NOW), None, "it has expired");
        assert_eq!(record(None).claim(other, NOW), None, "whether the other job lives is not in the record");
        assert_eq!(record(None).claim(FIRST, NOW), Some(Claim::Ours));
    }
}
