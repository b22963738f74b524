//! Jobs for the tests of these tables.

use jiff::Timestamp;
use uuid::Uuid;

use super::super::id::{ObjectKey, Priority, SpecHash};
use super::super::job::{Job, Spec};
use super::super::status::Status;

/// A job that was only just created.
pub fn job(namespace: &str, name: &str, uid: u128) -> Job {
    Job {
        key: ObjectKey::new(namespace, name),
        uid: Uuid::from_u128(uid),
        created_at: Timestamp::UNIX_EPOCH,
        spec: Spec {
            generation: 1,
            pool: "default".into(),
            queue: None,
            task: "run".into(),
            priority: Priority::default(),
            overrides: None,
            suspend: false,
            cancel: false,
            run_once: None,
            dedup: None,
            hash: SpecHash([0; 16]),
            invalid: None,
        },
        labels: Box::default(),
        cause: None,
        status: Status::default(),
    }
}
