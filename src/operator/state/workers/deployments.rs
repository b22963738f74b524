//! Deployments as Kubernetes has them, turned into what matters of them: what may be scaled, and which other field
//! manager does it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;

use super::trouble;
use crate::core::index::pods::{DEFAULT_CONTAINER, DeploymentView, Selector, Template};

/// What the operator says it owns of a Deployment.
pub const FIELD_MANAGER: &str = "crewjob-operator";

/// What matters of the Pod template of a Deployment.
fn template(template: &PodTemplateSpec) -> Template {
    let annotations = template.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
    let containers = template.spec.iter().flat_map(|spec| &spec.containers);
    Template {
        containers: containers.map(|container| container.name.as_str().into()).collect(),
        default_container: annotations.and_then(|all| all.get(DEFAULT_CONTAINER)).map(|name| name.as_str().into()),
    }
}

impl From<&Deployment> for DeploymentView {
    fn from(deployment: &Deployment) -> Self {
        let number = |n: Option<i32>| n.and_then(|n| u32::try_from(n).ok());
        let spec = deployment.spec.as_ref();
        let status = deployment.status.as_ref();
        let replicas = number(spec.and_then(|spec| spec.replicas)).unwrap_or(1);
        let grace = spec
            .and_then(|spec| spec.template.spec.as_ref())
            .and_then(|pod| pod.termination_grace_period_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok());
        let updated = number(status.and_then(|status| status.updated_replicas)).unwrap_or(0);
        let existing = number(status.and_then(|status| status.replicas)).unwrap_or(0);
        Self {
            replicas,
            grace_period: Duration::from_secs(grace.unwrap_or(30)),
            rolling_out: existing > updated,
            is_default: has_default_replicas(deployment),
            owner: owner(deployment),
            failure: said(deployment, "ReplicaFailure", "True"),
            stuck: said(deployment, "Progressing", "False"),
            secrets: secrets(deployment),
            version: deployment.resource_version().unwrap_or_default().into(),
            selector: spec.map(|spec| Selector::from(&spec.selector)).unwrap_or_default(),
            template: spec.map(|spec| template(&spec.template)).unwrap_or_default(),
        }
    }
}

/// The message of a condition, when it has this status.
fn said(deployment: &Deployment, type_: &str, status: &str) -> Option<Arc<str>> {
    let conditions = deployment.status.as_ref()?.conditions.iter().flatten();
    let found = conditions.into_iter().find(|found| found.type_ == type_ && found.status == status)?;
    Some(trouble::cut(found.message.as_deref().or(found.reason.as_deref()).unwrap_or(type_)))
}

/// The Secrets that environment and volumes of its Pods name.
fn secrets(deployment: &Deployment) -> Vec<Arc<str>> {
    let Some(pod) = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else { return Vec::new() };
    let containers = || pod.containers.iter().chain(pod.init_containers.iter().flatten());
    let of_env = containers()
        .flat_map(|it| it.env.iter().flatten())
        .filter_map(|env| Some(env.value_from.as_ref()?.secret_key_ref.as_ref()?.name.as_str()));
    let of_all = containers().flat_map(|it| it.env_from.iter().flatten());
    let of_all = of_all.filter_map(|from| Some(from.secret_ref.as_ref()?.name.as_str()));
    let of_volumes = pod.volumes.iter().flatten().filter_map(|it| it.secret.as_ref()?.secret_name.as_deref());
    let mut all: Vec<Arc<str>> = of_env.chain(of_all).chain(of_volumes).map(Arc::from).collect();
    all.sort();
    all.dedup();
    all
}

/// The entries of `managedFields` that own the replicas.
fn owners(deployment: &Deployment) -> impl Iterator<Item = &ManagedFieldsEntry> {
    deployment.metadata.managed_fields.iter().flatten().filter(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        fields.is_some_and(|fields| fields.pointer("/f:spec/f:replicas").is_some())
    })
}

/// A field manager other than the operator that owns the replicas, unless they are a default that was not asked for.
fn owner(deployment: &Deployment) -> Option<Arc<str>> {
    let is_ours = |entry: &&ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
    };
    if has_default_replicas(deployment) {
        return None;
    }
    let is_zero = deployment.spec.as_ref().is_some_and(|spec| spec.replicas == Some(0));
    if is_zero && deployment.metadata.managed_fields.is_some() && owners(deployment).next().is_none() {
        // The API server notes no owner of a zero that was written through the scale subresource, unless it was
        // applied, as the operator does.
        return Some("kubectl scale --replicas=0".into());
    }
    let other = owners(deployment).find(|entry| !is_ours(entry))?;
    let manager = other.manager.as_deref().unwrap_or("an unnamed field manager");
    let through_scale = other.subresource.as_deref() == Some("scale");
    Some(match manager {
        "kube-controller-manager" if through_scale => "a HorizontalPodAutoscaler".into(),
        "kubectl" if through_scale => "kubectl scale".into(),
        manager => trouble::cut(manager),
    })
}

/// Annotation in which a client-side `kubectl apply` notes what was applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whether one replica is all there is, and no client is known to have asked for it.
///
/// A client that creates an object by POST (a client-side `kubectl apply`, `kubectl create`, Helm 3) owns the defaults
/// of the API server too, so ownership alone does not tell whether a person chose the number.
fn has_default_replicas(deployment: &Deployment) -> bool {
    let mut owners = owners(deployment);
    let is_of_creation = |entry: &ManagedFieldsEntry| {
        entry.operation.as_deref() == Some("Update") && entry.subresource.as_deref().unwrap_or("").is_empty()
    };
    let asked_for = deployment.annotations().get(LAST_APPLIED).is_some_and(|applied| {
        let applied: Option<serde_json::Value> = serde_json::from_str(applied).ok();
        applied.is_some_and(|applied| applied.pointer("/spec/replicas").is_some())
    });
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    replicas == Some(1) && !asked_for && owners.all(is_of_creation)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(replicas: i32, owners: &[(&str, &str, &str)], applied: Option<Value>) -> Deployment {
        let entry = |(manager, operation, subresource): &(&str, &str, &str)| {
            let fields = json!({ "f:spec": { "f:replicas": {} } });
            json!({ "manager": manager, "operation": operation, "subresource": subresource, "fieldsV1": fields })
        };
        let annotations = applied.map(|applied| json!({ LAST_APPLIED: applied.to_string() }));
        let fields: Vec<Value> = owners.iter().map(entry).collect();
        let spec = json!({ "replicas": replicas, "selector": {}, "template": {} });
        let metadata = json!({ "managedFields": fields, "annotations": annotations });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    #[test]
    fn the_default_replicas_of_a_client_side_apply_count_as_unset() {
        let kubectl = [("kubectl-client-side-apply", "Update", "")];
        let without = Some(json!({ "spec": {} }));
        assert!(has_default_replicas(&deployment(1, &kubectl, without.clone())));
        assert!(has_default_replicas(&deployment(1, &[("helm", "Update", "")], None)));
        assert!(!has_default_replicas(&deployment(3, &kubectl, without)), "a client has scaled it");
    }

    #[test]
    fn a_number_that_was_asked_for_is_left_alone() {
        let kubectl = [("kubectl-client-side-apply", "Update", "")];
        let with = Some(json!({ "spec": { "replicas": 1 } }));
        assert!(!has_default_replicas(&deployment(1, &kubectl, with)));
        assert!(!has_default_replicas(&deployment(1, &[("argocd", "Apply", "")], None)));
        assert!(!has_default_replicas(&deployment(1, &[("kube-controller-manager", "Update", "scale")], None)));
    }

    #[test]
    fn another_owner_of_the_replicas_is_named_and_the_operator_is_none() {
        let owner = |owners: &[(&str, &str, &str)]| owner(&deployment(3, owners, None));
        let ours = (FIELD_MANAGER, "Apply", "scale");
        assert_eq!(owner(&[ours]), None);
        assert_eq!(owner(&[]), None);
        assert_eq!(owner(&[("kubectl", "Update", "scale")]).as_deref(), Some("kubectl scale"));
        assert_eq!(owner(&[ours, ("argocd", "Apply", "")]).as_deref(), Some("argocd"));
        let autoscaler = owner(&[("kube-controller-manager", "Update", "scale")]);
        assert_eq!(autoscaler.as_deref(), Some("a HorizontalPodAutoscaler"));
        let zero = super::owner(&deployment(0, &[], None));
        assert_eq!(zero.as_deref(), Some("kubectl scale --replicas=0"), "the API server notes no owner of that");
    }
}
