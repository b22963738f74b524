//! Kubernetes Events, for people. What they say is in the status as well, so they may be dropped, and are when there are
//! too many: the queue of those to be written is bounded, and so is what a namespace may have of Warnings and, apart from
//! that, of Normal Events.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use super::state::pool::Handle;
use crate::api::{CrewJob, CrewSchedule, CrewWorkerPool};
use crate::core::id::ObjectKey;
use crate::core::index::{Notices, Verdict};
use crate::core::job::Job;
use crate::core::milestones::Milestone;
use crate::core::plan::Notice;
use crate::runtime::clock;
use crate::runtime::metrics::{Dropped, Metrics, WriteOutcome, Written};

/// Events that wait to be written.
const WAITING: usize = 256;
/// Events that are written at once.
const AT_ONCE: usize = 4;
/// Bytes of a message, as the API server allows.
const NOTE: usize = 1024;
/// Bytes of an object's name in that of its Event, which may have 253.
const NAME: usize = 200;

/// Takes Events; [`Writer`] writes them.
pub struct Events {
    reporter: Option<String>,
    notices: Mutex<Notices>,
    milestones: Mutex<Notices>,
    queue: mpsc::Sender<Event>,
    metrics: Metrics,
}

/// Writes what [`Events`] takes.
pub struct Writer {
    client: Client,
    queue: mpsc::Receiver<Event>,
    metrics: Metrics,
}

/// Events of this replica, and what writes them.
pub fn events(client: &Client, metrics: &Metrics, pod: Option<&str>) -> (Events, Writer) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let events = Events {
        reporter: pod.map(ToOwned::to_owned),
        notices: Mutex::default(),
        milestones: Mutex::default(),
        queue: sender,
        metrics: metrics.clone(),
    };
    (events, Writer { client: client.clone(), queue: receiver, metrics: metrics.clone() })
}

/// What an Event is about.
struct Subject<'a> {
    api_version: Cow<'static, str>,
    kind: Cow<'static, str>,
    key: &'a ObjectKey,
    uid: Uuid,
}

impl Events {
    /// Has these written, unless they are repeated or too many.
    pub fn announce(&self, job: &Job, notices: Vec<Notice>) {
        self.announce_of(&job.key, job.uid, notices);
    }

    /// The same of a job of which only this is known.
    pub fn announce_of(&self, key: &ObjectKey, uid: Uuid, notices: Vec<Notice>) {
        self.tell(&Subject::of::<CrewJob>(key, uid), notices);
    }

    /// The same of a pool.
    pub fn announce_of_pool(&self, pool: &Handle, notices: Vec<Notice>) {
        let Ok(uid) = pool.uid.parse() else { return };
        self.tell(&Subject::of::<CrewWorkerPool>(&pool.key, uid), notices);
    }

    /// The same of a schedule.
    pub fn announce_of_schedule(&self, schedule: &CrewSchedule, notices: Vec<Notice>) {
        let Some(uid) = schedule.uid().and_then(|uid| uid.parse().ok()) else { return };
        let key = ObjectKey::new(schedule.namespace().unwrap_or_default(), schedule.name_any());
        self.tell(&Subject::of::<CrewSchedule>(&key, uid), notices);
    }

    /// Has Normal Events written of what a job has come to. Their names follow from the job, the attempt and what has
    /// happened, so that it does no harm when another leader writes them as well.
    pub fn tell_of(&self, job: &Job, milestones: Vec<Milestone>) {
        let about = Subject::of::<CrewJob>(&job.key, job.uid);
        for milestone in milestones {
            let reason = milestone.what.reason();
            let id = Uuid::new_v5(&job.uid, format!("{reason} {}", milestone.attempt).as_bytes());
            let notice = Notice { warning: false, reason: reason.into(), message: milestone.message.into() };
            self.write(&self.milestones, &about, &notice, id, milestone.at);
        }
    }

    fn tell(&self, about: &Subject<'_>, notices: Vec<Notice>) {
        for notice in notices {
            let now = clock::now();
            let id = Uuid::new_v5(&about.uid, format!("{now}{}{}", notice.reason, notice.message).as_bytes());
            self.write(&self.notices, about, &notice, id, now);
        }
    }

    fn write(&self, judge: &Mutex<Notices>, about: &Subject<'_>, notice: &Notice, id: Uuid, at: Timestamp) {
        let Notice { reason, message, .. } = notice;
        let verdict = judge.lock().judge(&about.key.namespace, about.uid, reason, message, clock::now());
        let dropped = match verdict {
            Verdict::Write if self.queue.try_send(self.event(about, notice, id, at)).is_ok() => return,
            Verdict::Write => Dropped::QueueFull,
            Verdict::Repeated => Dropped::Repeated,
            Verdict::TooMany => Dropped::TooMany,
        };
        self.metrics.dropped_event(dropped);
    }

    fn event(&self, about: &Subject<'_>, notice: &Notice, id: Uuid, at: Timestamp) -> Event {
        let namespace = Some(about.key.namespace.to_string());
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{}", cut(&about.key.name, NAME).trim_end_matches(['.', '-']), id.simple())),
                namespace: namespace.clone(),
                ..ObjectMeta::default()
            },
            type_: Some(if notice.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(notice.reason.to_string()),
            note: Some(cut(&notice.message, NOTE).to_owned()),
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(at)),
            reporting_controller: Some("crewjob.dev/operator".to_owned()),
            reporting_instance: Some(self.reporter.clone().unwrap_or_else(|| "crewjob-operator".to_owned())),
            regarding: Some(ObjectReference {
                api_version: Some(about.api_version.to_string()),
                kind: Some(about.kind.to_string()),
                name: Some(about.key.name.to_string()),
                namespace,
                uid: Some(about.uid.to_string()),
                ..ObjectReference::default()
            }),
            ..Event::default()
        }
    }
}

impl<'a> Subject<'a> {
    fn of<K: Resource<DynamicType = ()>>(key: &'a ObjectKey, uid: Uuid) -> Self {
        Self { api_version: K::api_version(&()), kind: K::kind(&()), key, uid }
    }
}

/// As much of a text as fits.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

impl Writer {
    /// Writes Events, for ever: a few at once.
    pub async fn run(mut self) {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        while let Some(event) = self.queue.recv().await {
            let Ok(turn) = turns.clone().acquire_owned().await else { return };
            let (client, metrics) = (self.client.clone(), self.metrics.clone());
            tokio::spawn(async move {
                let namespace = event.metadata.namespace.clone().unwrap_or_default();
                let api: Api<Event> = Api::namespaced(client, &namespace);
                match api.create(&PostParams::default(), &event).await {
                    Ok(_) => metrics.wrote(Written::Event, WriteOutcome::Done),
                    // Another leader has written it.
                    Err(kube::Error::Api(error)) if error.code == 409 => {
                        metrics.wrote(Written::Event, WriteOutcome::Conflict);
                    }
                    Err(error) => {
                        metrics.wrote(Written::Event, WriteOutcome::Failed);
                        tracing::warn!(event = event.metadata.name, %error, "an Event could not be written; it is dropped");
                    }
                }
                drop(turn);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_between_characters() {
        assert_eq!(cut("ääää", 5), "ää");
        assert_eq!(cut("short", 1024), "short");
    }
}
