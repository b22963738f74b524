//! The jobs of a schedule: listed, made, cancelled and deleted. The API server is asked, as no watch is ever up to date.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::Object;
use kube::{Client, ResourceExt};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::api::{CrewJob, CrewSchedule, SCHEDULE_LABEL};
use crate::core::schedule::{Birth, Child, ChildState, End};

/// Jobs per page of a list.
const PAGE: u32 = 100;

/// What is read of a job.
type Job = Object<Spec, Status>;

#[derive(Deserialize, Clone, Debug, Default)]
struct Spec {
    #[serde(default)]
    cancel: bool,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    /// As text: one that a newer operator knows makes no list unreadable.
    phase: Option<String>,
    finished_at: Option<Time>,
}

/// What became of a job that was to be made.
#[derive(Debug)]
pub enum Made {
    /// It is there.
    Done,
    /// Its name belongs to a job that is none of the schedule's.
    NameTaken,
    /// The API server refuses it, and says why.
    Refused(String),
}

/// The jobs of the schedules of one namespace.
pub struct Jobs {
    light: Api<Job>,
    whole: Api<DynamicObject>,
}

impl Jobs {
    pub fn new(client: &Client, namespace: &str) -> Self {
        let kind = ApiResource::erase::<CrewJob>(&());
        Self {
            light: Api::namespaced_with(client.clone(), namespace, &kind),
            whole: Api::namespaced_with(client.clone(), namespace, &kind),
        }
    }

    /// Those that a schedule has made.
    pub async fn of(&self, schedule: &CrewSchedule) -> kube::Result<Vec<Child>> {
        let selector = format!("{SCHEDULE_LABEL}={}", schedule.name_any());
        let mut params = ListParams::default().labels(&selector).limit(PAGE);
        let mut children = Vec::new();
        loop {
            let page = self.light.list(&params).await?;
            children.extend(page.items.iter().filter(|job| is_of(job, schedule)).map(child));
            match page.metadata.continue_.filter(|more| !more.is_empty()) {
                Some(more) => params = params.continue_token(&more),
                None => return Ok(children),
            }
        }
    }

    /// Makes one. That it is there already is as good: its name says what it is for.
    pub async fn make(&self, schedule: &CrewSchedule, birth: &Birth) -> kube::Result<Made> {
        let job: DynamicObject = serde_json::from_value(schedule.job(birth)).map_err(kube::Error::SerdeError)?;
        match self.whole.create(&PostParams::default(), &job).await {
            Ok(_) => Ok(Made::Done),
            Err(kube::Error::Api(error)) if error.code == 409 && error.reason == "AlreadyExists" => {
                let live = self.light.get_opt(&birth.name).await?;
                Ok(if live.is_some_and(|job| is_of(&job, schedule)) { Made::Done } else { Made::NameTaken })
            }
            Err(kube::Error::Api(error)) if matches!(error.code, 400 | 403 | 413 | 422) => {
                Ok(Made::Refused(error.message.clone()))
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for the end of one.
    pub async fn cancel(&self, name: &str) -> kube::Result<()> {
        let patch = Patch::Merge(json!({ "spec": { "cancel": true } }));
        settled(self.whole.patch(name, &PatchParams::default(), &patch).await.map(drop))
    }

    /// Deletes one.
    pub async fn delete(&self, name: &str, uid: Uuid) -> kube::Result<()> {
        let preconditions = Preconditions { uid: Some(uid.to_string()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        settled(self.whole.delete(name, &params).await.map(drop))
    }
}

/// That a job is gone, or is another one by now, is as good.
fn settled(done: kube::Result<()>) -> kube::Result<()> {
    match done {
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => Ok(()),
        done => done,
    }
}

fn is_of(job: &Job, schedule: &CrewSchedule) -> bool {
    let owners = job.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|owner| Some(&owner.uid) == schedule.metadata.uid.as_ref())
}

fn child(job: &Job) -> Child {
    let created = job.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |at| at.0);
    let how = match job.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => Some(End::Succeeded),
        Some("Failed") => Some(End::Failed),
        Some("Cancelled") => Some(End::Cancelled),
        Some(_) | None => None,
    };
    let finished_at = job.status.as_ref().and_then(|status| status.finished_at.as_ref()).map_or(created, |at| at.0);
    Child {
        name: job.name_any().into(),
        uid: job.metadata.uid.as_deref().and_then(|uid| Uuid::try_parse(uid).ok()).unwrap_or_default(),
        created,
        state: how.map_or(ChildState::Active { cancelling: job.spec.cancel }, |how| ChildState::Ended {
            how,
            at: finished_at,
        }),
    }
}
