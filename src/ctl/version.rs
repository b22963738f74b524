//! `version`: what runs here and in the cluster, and what of it does not fit together.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use super::args::{Format, Version};
use super::cluster::Cluster;
use super::error::Error;
use super::show;
use super::view;
use crate::api;

const CLIENT: &str = env!("CARGO_PKG_VERSION");
/// What the chart labels its operators with.
const OPERATORS: &str = "app.kubernetes.io/part-of=crewjob,app.kubernetes.io/component=operator";
/// Differences of a resource that are told.
const TOLD: usize = 5;

/// What runs in the cluster. What the caller may not read is told instead of its version.
#[derive(Debug, Default)]
pub struct Found {
    operators: Vec<BTreeMap<&'static str, String>>,
    crds: Vec<BTreeMap<&'static str, String>>,
    /// The Deployments of the operators.
    pub deployments: Vec<Deployment>,
    /// What does not fit together, and what to do about it.
    pub findings: Vec<String>,
    /// What could not be read.
    pub unread: Vec<String>,
}

impl Found {
    /// All of it, and the version of this program.
    pub fn value(&self) -> Value {
        json!({
            "client": CLIENT, "operators": self.operators, "crds": self.crds,
            "findings": self.findings, "unread": self.unread,
        })
    }
}

/// Prints the versions. The exit status is 1 where something does not fit together.
pub async fn version(cluster: Option<&Cluster>, what: &Version) -> Result<u8, Error> {
    let found = match cluster {
        Some(cluster) => look(cluster).await,
        None => Found::default(),
    };
    print(&found, what.output)?;
    Ok(u8::from(!found.findings.is_empty()))
}

/// What runs in the cluster.
pub async fn look(cluster: &Cluster) -> Found {
    let mut found = Found::default();
    operators(cluster, &mut found).await;
    definitions(cluster, &mut found).await;
    found
}

async fn operators(cluster: &Cluster, found: &mut Found) {
    let deployments: Api<Deployment> = cluster.everywhere();
    let params = ListParams::default().labels(OPERATORS);
    let listed = match deployments.list(&params).await {
        // A caller that may not look everywhere may look in one namespace, where small installations have all.
        Err(refused) => cluster.others::<Deployment>().list(&params).await.map_err(|_| refused),
        listed => listed,
    };
    match listed {
        Err(error) => found.unread.push(format!("the operator's Deployment: {error}")),
        Ok(list) => {
            for deployment in list {
                let operator = operator(&deployment);
                let version = &operator["version"];
                if version != CLIENT {
                    found.findings.push(format!(
                        "the operator {}/{} is of version {version}, this program of {CLIENT}: fields that only one of them \
                         knows are shown as they are",
                        operator["namespace"], operator["name"]
                    ));
                }
                found.operators.push(operator);
                found.deployments.push(deployment);
            }
        }
    }
}

fn operator(deployment: &Deployment) -> BTreeMap<&'static str, String> {
    let label = |name: &str| deployment.labels().get(name).cloned().unwrap_or_else(|| "unknown".to_owned());
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let image = pod.and_then(|pod| pod.containers.first()).and_then(|container| container.image.clone());
    BTreeMap::from([
        ("namespace", deployment.namespace().unwrap_or_default()),
        ("name", deployment.name_any()),
        ("version", label("app.kubernetes.io/version")),
        ("chart", label("helm.sh/chart")),
        ("image", image.unwrap_or_default()),
    ])
}

async fn definitions(cluster: &Cluster, found: &mut Found) {
    let definitions: Api<CustomResourceDefinition> = cluster.everywhere();
    for own in api::crds() {
        let name = own.name_any();
        let state = match definitions.get_opt(&name).await {
            Err(error) => {
                found.unread.push(format!("the CustomResourceDefinition {name}: {error}"));
                continue;
            }
            Ok(None) => {
                found.findings.push(format!("{name} is not installed; see: crewjob crds apply"));
                "not installed"
            }
            Ok(Some(installed)) => {
                let differences = differences(&installed, &own);
                if differences.is_empty() {
                    "as this program has it"
                } else {
                    let more = differences.len().saturating_sub(TOLD);
                    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
                    let told = differences.into_iter().take(TOLD).collect::<Vec<_>>().join(", ");
                    found.findings.push(format!(
                        "{name} is of another version ({told}{more}); where this program is the newer: crewjob crds apply"
                    ));
                    "of another version"
                }
            }
        };
        found.crds.push(BTreeMap::from([("name", name), ("state", state.to_owned())]));
    }
}

/// The fields that only one of them has, `+` where the cluster lacks it and `-` where this program does not know it.
fn differences(installed: &CustomResourceDefinition, own: &CustomResourceDefinition) -> Vec<String> {
    let (installed, own) = (fields(installed), fields(own));
    let missing = own.iter().filter(|field| !installed.contains(field)).map(|field| format!("+{field}"));
    let unknown = installed.iter().filter(|field| !own.contains(field)).map(|field| format!("-{field}"));
    missing.chain(unknown).collect()
}

/// The paths of all fields of the served versions.
fn fields(definition: &CustomResourceDefinition) -> Vec<String> {
    let mut all = Vec::new();
    for version in definition.spec.versions.iter().filter(|version| version.served) {
        let schema = version.schema.as_ref().map(|schema| json!(schema.open_api_v3_schema)).unwrap_or_default();
        add_fields(&schema, &version.name, &mut all);
    }
    all
}

fn add_fields(schema: &Value, path: &str, all: &mut Vec<String>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        add_fields(inner, &path, all);
        all.push(path);
    }
    for inner in [&schema["items"], &schema["additionalProperties"]] {
        if inner.is_object() {
            add_fields(inner, &format!("{path}[]"), all);
        }
    }
}

fn print(found: &Found, output: Option<Format>) -> Result<(), Error> {
    if let Some(output) = output {
        return show::value(&found.value(), output);
    }
    let mut text = format!("client: {CLIENT}\n");
    for operator in &found.operators {
        let of = |field: &str| view::one_line(&operator[field]);
        let (namespace, name, version) = (of("namespace"), of("name"), of("version"));
        let _ = writeln!(text, "operator {namespace}/{name}: {version}, chart {}, image {}", of("chart"), of("image"));
    }
    if found.operators.is_empty() && found.unread.is_empty() {
        text += "operator: none found\n";
    }
    for definition in &found.crds {
        let _ = writeln!(text, "{}: {}", definition["name"], definition["state"]);
    }
    show::print(&text)?;
    for finding in &found.findings {
        show::say(&view::one_line(finding));
    }
    for unread in &found.unread {
        show::say(&format!("could not read {}", view::one_line(unread)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_of_the_same_version_differ_in_nothing() {
        for own in api::crds() {
            assert!(fields(&own).len() > 20);
            assert_eq!(differences(&own, &own), Vec::<String>::new());
        }
    }

    #[test]
    fn a_field_that_one_of_the_definitions_lacks_is_named() {
        let [own, ..] = api::crds();
        let mut older = json!(own);
        let properties =
            older.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties").unwrap();
        properties.as_object_mut().unwrap().remove("topic").unwrap();
        let older: CustomResourceDefinition = serde_json::from_value(older).unwrap();
        assert_eq!(differences(&older, &own), ["+v1alpha1.spec.topic"]);
        assert_eq!(differences(&own, &older), ["-v1alpha1.spec.topic"]);
    }
}
