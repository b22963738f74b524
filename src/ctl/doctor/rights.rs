//! What the operator's service account must be allowed to do: the roles of the chart, or others that allow the same.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::Value;

use super::super::view;
use super::checks::{Finding, named};

/// API group, resource, names of objects if not all are meant, verbs.
type Rule = (&'static str, &'static str, &'static str, &'static str);

/// In the whole cluster.
const EVERYWHERE: &[Rule] = &[
    ("crewjob.dev", "crewjobs", "", "create delete get list patch watch"),
    ("crewjob.dev", "crewschedules", "", "get list watch"),
    ("crewjob.dev", "crewworkerpools", "", "list watch"),
    ("crewjob.dev", "crewjobs/status", "", "patch"),
    ("crewjob.dev", "crewschedules/status", "", "patch"),
    ("crewjob.dev", "crewworkerpools/status", "", "patch"),
    ("events.k8s.io", "events", "", "create patch"),
    ("", "namespaces", "kube-system", "get"),
    (
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "crewjobs.crewjob.dev,crewschedules.crewjob.dev,crewworkerpools.crewjob.dev",
        "get",
    ),
];
/// In its own namespace.
const LEASES: &[Rule] =
    &[("coordination.k8s.io", "leases", "", "create"), ("coordination.k8s.io", "leases", "LEASE", "delete get update")];
/// In each namespace of pools.
const POOLS: &[Rule] = &[
    ("", "pods", "", "delete list patch watch"),
    ("apps", "deployments", "", "list watch"),
    ("apps", "deployments/scale", "", "patch"),
    ("", "configmaps", "", "create delete get list update"),
    ("", "secrets", "SECRET", "get"),
];
/// Reason of a pool of a namespace that is not to be served. It has a finding of its own.
const NOT_GRANTED: &str = "NamespaceNotGranted";

/// One thing to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    group: &'static str,
    resource: &'static str,
    verb: &'static str,
    name: Option<String>,
    /// `None` means the whole cluster.
    namespace: Option<String>,
}

/// The account of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    namespace: String,
    name: String,
}

impl Account {
    /// Of the Pods of this Deployment.
    pub fn of(deployment: &Deployment) -> Self {
        let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let name = pod.and_then(|pod| pod.service_account_name.clone()).filter(|name| !name.is_empty());
        Self {
            namespace: deployment.namespace().unwrap_or_default(),
            name: name.unwrap_or_else(|| "default".to_owned()),
        }
    }

    /// The question whether it has a right.
    pub fn review(&self, right: &Right) -> SubjectAccessReview {
        let Self { namespace, name } = self;
        let (resource, subresource) = match right.resource.split_once('/') {
            Some((resource, sub)) => (resource, Some(sub.to_owned())),
            None => (right.resource, None),
        };
        let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"];
        SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{namespace}:{name}")),
                groups: Some(groups.map(str::to_owned).into()),
                resource_attributes: Some(ResourceAttributes {
                    group: Some(right.group.to_owned()),
                    resource: Some(resource.to_owned()),
                    subresource,
                    verb: Some(right.verb.to_owned()),
                    name: right.name.clone(),
                    namespace: right.namespace.clone(),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        }
    }
}

/// What an operator with this Lease needs for these pools.
pub fn needed(deployment: &Deployment, lease: &str, pools: &[DynamicObject]) -> Vec<Right> {
    let mut all = Vec::new();
    let mut add = |rules: &[Rule], namespace: Option<&str>, own: &[&str]| {
        for &(group, resource, names, verbs) in rules {
            let names: Vec<Option<&str>> = match names {
                "" => vec![None],
                "LEASE" | "SECRET" => own.iter().copied().map(Some).collect(),
                names => names.split(',').map(Some).collect(),
            };
            for (name, verb) in names.iter().flat_map(|name| verbs.split(' ').map(move |verb| (name, verb))) {
                let (name, namespace) = (name.map(str::to_owned), namespace.map(str::to_owned));
                all.push(Right { group, resource, verb, name, namespace });
            }
        }
    };
    add(EVERYWHERE, None, &[]);
    add(LEASES, deployment.namespace().as_deref(), &[lease]);
    let mut secrets: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pool in pools.iter().filter(|pool| !is_not_granted(pool)) {
        let secret = view::text(pool, "/spec/redis/secretName");
        let of_namespace = secrets.entry(pool.namespace().unwrap_or_default()).or_default();
        if !secret.is_empty() && !of_namespace.contains(&secret) {
            of_namespace.push(secret);
        }
    }
    for (namespace, secrets) in &secrets {
        add(POOLS, Some(namespace), secrets);
    }
    all
}

fn is_not_granted(pool: &DynamicObject) -> bool {
    let conditions = pool.data.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| condition["reason"] == NOT_GRANTED)
}

/// What is said of the rights that an operator does not have: one finding for each place.
pub fn findings(deployment: &Deployment, account: &Account, denied: &[Right]) -> Vec<Finding> {
    let mut by_place: BTreeMap<Option<&str>, Vec<String>> = BTreeMap::new();
    for right in denied {
        let of = right.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        let what = format!("{} {}{of}", right.verb, right.resource);
        by_place.entry(right.namespace.as_deref()).or_default().push(what);
    }
    let Account { namespace, name } = account;
    let found = by_place.into_iter().map(|(place, rights)| {
        let place =
            place.map_or_else(|| "in the whole cluster".to_owned(), |place| format!("in the namespace {place}"));
        let what = format!(
            "its ServiceAccount {namespace}/{name} may not do this {place}: {}. Let the chart grant it (rbac.create, \
             poolNamespaces), or bind a role that does",
            rights.join(", ")
        );
        Finding::new(named("deployment", deployment), "RightsMissing", what)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn operator() -> Deployment {
        let template = json!({ "spec": { "serviceAccountName": "op", "containers": [] } });
        let spec = json!({ "selector": {}, "template": template });
        let metadata = json!({ "namespace": "crewjob", "name": "operator" });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    fn pool(namespace: &str, secret: &str, reason: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": { "namespace": namespace, "name": "default" },
            "spec": { "redis": { "secretName": secret } },
            "status": { "conditions": [{ "type": "Ready", "reason": reason }] },
        }))
        .unwrap()
    }

    #[test]
    fn each_namespace_of_pools_needs_its_rights_and_one_that_is_not_granted_none() {
        let pools =
            [pool("a", "redis", "AsExpected"), pool("a", "other", "AsExpected"), pool("b", "redis", NOT_GRANTED)];
        let rights = needed(&operator(), "lease", &pools);
        let places: Vec<Option<&str>> = rights.iter().map(|right| right.namespace.as_deref()).collect();
        let count = |place| places.iter().filter(|it| **it == place).count();
        assert_eq!((count(None), count(Some("crewjob")), count(Some("a")), count(Some("b"))), (20, 4, 14, 0));
        let secrets: Vec<_> =
            rights.iter().filter(|it| it.resource == "secrets").filter_map(|it| it.name.clone()).collect();
        assert_eq!(secrets, ["redis", "other"]);
    }

    #[test]
    fn a_right_is_asked_for_as_the_operators_account_asks() {
        let account = Account::of(&operator());
        let rights = needed(&operator(), "lease", &[pool("a", "redis", "AsExpected")]);
        let scale = rights.iter().find(|right| right.resource == "deployments/scale").unwrap();
        let spec = account.review(scale).spec;
        assert_eq!(spec.user.as_deref(), Some("system:serviceaccount:crewjob:op"));
        let asked = spec.resource_attributes.unwrap();
        let asked = [asked.group, asked.resource, asked.subresource, asked.verb, asked.namespace].map(Option::unwrap);
        assert_eq!(asked, ["apps", "deployments", "scale", "patch", "a"]);
    }

    #[test]
    fn missing_rights_are_one_finding_for_each_place() {
        let rights = needed(&operator(), "lease", &[pool("a", "redis", "AsExpected")]);
        let denied: Vec<Right> =
            rights.into_iter().filter(|it| it.verb == "patch" || it.resource == "secrets").collect();
        let found = findings(&operator(), &Account::of(&operator()), &denied);
        assert_eq!(found.len(), 2);
        assert!(found[0].what.contains(
            "crewjob/op may not do this in the whole cluster: patch crewjobs, patch crewjobs/status, patch crew"
        ));
        assert!(found[1].what.contains("in the namespace a: patch pods, patch deployments/scale, get secrets redis."));
        assert_eq!(findings(&operator(), &Account::of(&operator()), &[]), []);
    }
}
