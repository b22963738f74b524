//! `crewjob crds apply`: the resource definitions, installed or brought up to date.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};

use crate::api;
use crate::cluster;

/// How long the API server may take to establish a definition.
const PATIENCE: Duration = Duration::from_mins(1);

/// Why the definitions could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A file cannot be read.
    #[error("reading {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} is not a YAML file of CustomResourceDefinitions: {detail}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// There is nothing in it.
    #[error("{path} has no CustomResourceDefinition")]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// The cluster cannot be reached.
    #[error("connecting to the cluster")]
    Connect(#[source] Box<kube::Error>),
    /// The API server refused.
    #[error("applying {name}")]
    Apply {
        /// Which definition.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// It is there and not served.
    #[error("{name} was applied and is not Established after {} s; look at its conditions with: kubectl describe crd {name}", PATIENCE.as_secs())]
    NotEstablished {
        /// Which definition.
        name: String,
    },
}

/// Applies the definitions of a file, a directory or standard input, or the built-in ones, and waits for each.
pub async fn apply(file: Option<&Path>, field_manager: &str) -> Result<(), ApplyError> {
    let definitions = match file {
        Some(path) => read(path)?,
        None => api::crds().to_vec(),
    };
    let client = cluster::connect().await.map_err(|source| ApplyError::Connect(Box::new(source)))?;
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let params = PatchParams::apply(field_manager).force();
    for definition in definitions {
        let name = definition.name_any();
        api.patch(&name, &params, &Patch::Apply(&definition))
            .await
            .map_err(|source| ApplyError::Apply { name: name.clone(), source: Box::new(source) })?;
        match tokio::time::timeout(PATIENCE, established(&api, &name)).await {
            Ok(()) => println!("customresourcedefinition.apiextensions.k8s.io/{name} applied"),
            Err(_) => return Err(ApplyError::NotEstablished { name }),
        }
    }
    Ok(())
}

/// Waits until a definition is served. It polls: the chart's hook may get definitions and not watch them.
async fn established(api: &Api<CustomResourceDefinition>, name: &str) {
    while !api.get(name).await.is_ok_and(|crd| api::is_established(&crd)) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn read(path: &Path) -> Result<Vec<CustomResourceDefinition>, ApplyError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| ApplyError::Read { path, source }
    };
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(unreadable(path))?;
        return parse(path, &text);
    }
    if !path.is_dir() {
        return parse(path, &std::fs::read_to_string(path).map_err(unreadable(path))?);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)
        .map_err(unreadable(path))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml"))
        .collect();
    files.sort();
    let mut all = Vec::new();
    for file in &files {
        all.extend(parse(file, &std::fs::read_to_string(file).map_err(unreadable(file))?)?);
    }
    if all.is_empty() { Err(ApplyError::Empty { path: path.to_owned() }) } else { Ok(all) }
}

fn parse(path: &Path, text: &str) -> Result<Vec<CustomResourceDefinition>, ApplyError> {
    let definitions: Vec<CustomResourceDefinition> = serde_saphyr::from_multiple(text)
        .map_err(|error| ApplyError::Parse { path: path.to_owned(), detail: error.to_string() })?;
    if definitions.is_empty() { Err(ApplyError::Empty { path: path.to_owned() }) } else { Ok(definitions) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_definitions_are_read_from_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        for definition in api::crds() {
            let text = crate::cli::crds::yaml(&definition).unwrap();
            std::fs::write(folder.path().join(format!("{}.yaml", definition.name_any())), text).unwrap();
        }
        std::fs::write(folder.path().join("README.md"), "not YAML: [").unwrap();
        let names: Vec<String> = read(folder.path()).unwrap().iter().map(ResourceExt::name_any).collect();
        assert_eq!(names, ["crewjobs.crewjob.dev", "crewschedules.crewjob.dev", "crewworkerpools.crewjob.dev"]);
    }

    #[test]
    fn an_error_names_the_path_that_cannot_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let said = |path: &Path| read(path).unwrap_err().to_string();
        assert!(said(folder.path()).ends_with("has no CustomResourceDefinition"));
        assert!(said(&folder.path().join("none.yaml")).contains("none.yaml"));
    }
}
