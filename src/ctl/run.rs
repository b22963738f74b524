//! `run`

use std::io::Read as _;
use std::path::Path;

use kube::ResourceExt as _;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Map, Value, json};

use super::args::{Output, Run};
use super::cluster::Cluster;
use super::error::Error;
use super::manifest::manifest;
use super::{show, view, wait};

/// Creates a job, and sees it to its end where that was asked for.
pub async fn run(cluster: &Cluster, run: Run) -> Result<u8, Error> {
    let origin = match &run.from {
        Some(from) => Some(json!(cluster.job(from).await?)),
        None => None,
    };
    let inputs = run.inputs_file.as_deref().map(inputs).transpose()?.unwrap_or_default();
    let job = manifest(&run, origin.as_ref(), &inputs)?;
    let made: DynamicObject = create(cluster, job, run.only_check).await?;
    let name = made.name_any();
    match run.output {
        None | Some(Output::Wide) if run.only_check => show::objects(std::slice::from_ref(&made), Output::Yaml)?,
        None | Some(Output::Wide) => show::print(&format!("{} created\n", view::name(&made)))?,
        Some(output) => show::objects(std::slice::from_ref(&made), output)?,
    }
    if !run.wait && !run.follow {
        return Ok(0);
    }
    let end = wait::until_end(cluster, &name, wait::deadline(run.timeout), run.follow).await?;
    Ok(end.status())
}

/// Creates a job, or lets the API server only check it.
pub async fn create(cluster: &Cluster, job: Value, dry_run: bool) -> Result<DynamicObject, Error> {
    let unusable = |error: serde_json::Error| Error::NotPossible(format!("the CrewJob cannot be written: {error}"));
    let job: DynamicObject = serde_json::from_value(job).map_err(unusable)?;
    let params = PostParams { dry_run, field_manager: Some("kubectl-crewjob".to_owned()) };
    cluster.jobs().create(&params, &job).await.map_err(Error::call("creating the CrewJob"))
}

/// The inputs of a file, JSON or YAML.
fn inputs(file: &Path) -> Result<Map<String, Value>, Error> {
    let path = file.display().to_string();
    let read = if path == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = read.map_err(|source| Error::Read { path: path.clone(), source })?;
    let parsed = serde_saphyr::from_str::<Value>(&text);
    match parsed {
        Ok(Value::Object(inputs)) => Ok(inputs),
        Ok(_) => Err(Error::Usage(format!("{path} has no object of inputs, such as: depth: 3"))),
        Err(error) => Err(Error::Usage(format!("{path} is neither JSON nor YAML: {error}"))),
    }
}
