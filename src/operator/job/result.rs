//! The result of a job on its way from Redis to the status or to a `ConfigMap`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::Semaphore;

use super::broker::{connection, read_again, store_error};
use super::error::Error;
use super::write::{METADATA, Step};
use crate::api::{CrewJob, JobResult, result_config_map_name};
use crate::core::job::Job;
use crate::core::status::{Kept, Output, Status};
use crate::operator::context::Context;
use crate::runtime::metrics::{WriteOutcome, Written};

/// Kibibytes of results that are written to objects of their own at a time.
const RESULTS: u32 = 2048;

static STORING: Semaphore = Semaphore::const_new(RESULTS as usize);

/// Reads the result that the status is to hold, where it was not held until now.
pub async fn complete(ctx: &Context, job: &Job, status: &mut Status) -> Result<Step, Error> {
    let Some(result) = status.result.as_mut().filter(|result| result.kept == Kept::Inline) else {
        return Ok(Step::Done);
    };
    if result.output.text.is_some() || !result.output.is_inline() {
        return Ok(Step::Done);
    }
    let Some(text) = result_text(ctx, job, &result.output).await? else { return Ok(Step::Refused) };
    result.output = Arc::new(Output { text: Some(text.into()), ..(*result.output).clone() });
    Ok(Step::Done)
}

/// The text of a result, from Redis. When there is another one by now, the job is observed again.
async fn result_text(ctx: &Context, job: &Job, output: &Output) -> Result<Option<String>, Error> {
    let text = connection(ctx, job)?.result_text(job.attempt_in_hand().task, output).await;
    let text = text.map_err(|source| store_error(job, source))?;
    if text.is_none() {
        read_again(ctx, job);
    }
    Ok(text)
}

/// Keeps a result in a `ConfigMap` that goes with the job.
pub async fn store_result(ctx: &Context, job: &Job, output: &Output) -> Result<Step, Error> {
    // On its way a result is held several times over: as text, as a request, and as what the API server answers.
    let room = u32::try_from(output.bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(RESULTS);
    let Ok(_room) = STORING.acquire_many(room).await else { return Ok(Step::Refused) };
    let Some(text) = result_text(ctx, job, output).await? else { return Ok(Step::Refused) };
    let name = result_config_map_name(&job.key.name, job.attempt_in_hand().task);
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &job.key.namespace);
    let config_map = name.clone();
    let keep = |source| Error::KeepResult { job: job.key.clone(), config_map, source: Box::new(source) };
    let owner = OwnerReference { controller: Some(true), ..owner(job) };
    let config_map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(job.key.namespace.to_string()),
            owner_references: Some(vec![owner]),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), "crewjob-operator".to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some([(JobResult::CONFIG_MAP_KEY.to_owned(), text)].into()),
        immutable: Some(true),
        ..ConfigMap::default()
    };
    let _call = ctx.call().await;
    match create(&ctx.client, &job.key.namespace, config_map).await {
        Ok(_) => {
            ctx.metrics.wrote(Written::ConfigMap, WriteOutcome::Done);
            Ok(Step::Done)
        }
        Err(kube::Error::Api(error)) if error.code == 409 => {
            let existing = api.get(&name).await.map_err(keep)?;
            let ours = existing.owner_references().iter().any(|owner| owner.uid == job.uid.to_string());
            if ours { Ok(Step::Done) } else { Err(Error::ConfigMapTaken { job: job.key.clone(), config_map: name }) }
        }
        Err(source) => {
            ctx.metrics.wrote(Written::ConfigMap, WriteOutcome::Failed);
            Err(keep(source))
        }
    }
}

/// Creates a `ConfigMap`. The API server is asked to answer with the metadata alone.
async fn create(client: &Client, namespace: &str, config_map: ConfigMap) -> kube::Result<PartialObjectMeta<ConfigMap>> {
    let body = serde_json::to_vec(&config_map).map_err(kube::Error::SerdeError)?;
    drop(config_map);
    let config_maps = kube::core::Request::new(ConfigMap::url_path(&(), Some(namespace)));
    let mut request = config_maps.create(&PostParams::default(), body).map_err(kube::Error::BuildRequest)?;
    if let Ok(metadata) = METADATA.parse() {
        request.headers_mut().insert("accept", metadata);
    }
    client.request(request).await
}

fn owner(job: &Job) -> OwnerReference {
    OwnerReference {
        api_version: CrewJob::api_version(&()).into_owned(),
        kind: CrewJob::kind(&()).into_owned(),
        name: job.key.name.to_string(),
        uid: job.uid.to_string(),
        ..OwnerReference::default()
    }
}
