//! Where a worker does not lead to a container, so that its end is not noticed: said in the status of the pool.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio::time::Instant;

use super::replicas::busy_pods;
use super::settings;
use crate::api::{ConditionType, Reason, Verdict, find_condition};
use crate::core::index::pods::Unclear;
use crate::core::status::host_of;
use crate::operator::context::Context;
use crate::operator::state::pool::Handle;
use crate::runtime::clock;

/// How long a worker is given to be heard of. Each one that sends events does every two seconds.
const HEARD_WITHIN: Duration = Duration::from_secs(30);

/// What is to be said of the workers' settings, and of where they run. What is not known leaves a condition as it is.
pub fn verdicts(ctx: &Context, pool: &Handle, conditions: &[Condition]) -> Vec<Verdict> {
    let settings = settings::verdict(&pool.nodes.setup(), conditions);
    settings.into_iter().chain(attributed(ctx, pool, conditions)).collect()
}

fn attributed(ctx: &Context, pool: &Handle, conditions: &[Condition]) -> Option<Verdict> {
    let said =
        |reason, message| Verdict { type_: ConditionType::WorkersUnattributed, holds: Some(true), reason, message };
    let fine = Verdict {
        type_: ConditionType::WorkersUnattributed,
        holds: Some(false),
        reason: Reason::AsExpected,
        message: String::new(),
    };
    let Some(fleet) = &pool.fleet else {
        return find_condition(conditions, ConditionType::WorkersUnattributed).map(|_| fine);
    };
    if !ctx.workers.read(|pods| pods.knows(fleet)) {
        return None;
    }
    if let Some((pod, unclear)) = ctx.workers.read(|pods| pods.unclear(fleet)) {
        return Some(said(
            Reason::ContainerUnclear,
            container_unclear(&fleet.deployment.name, pod.as_deref(), &unclear),
        ));
    }
    let now = clock::now();
    let pods: Vec<Arc<str>> = ctx
        .workers
        .read(|pods| pods.workers_of(fleet))
        .into_iter()
        .filter(|pod| pod.is_ready && pod.leaving_since.is_none() && clock::since(pod.started_at, now) > HEARD_WITHIN)
        .map(|pod| pod.name)
        .collect();
    let names = pool.nodes.names();
    let Some((pod, node)) =
        mismatch(&pods, &names, |pod| ctx.workers.read(|pods| pods.is_pod_of(fleet, pod)), Instant::now())
    else {
        return Some(fine);
    };
    // One that is busy may be silent; that it has a task tells its name.
    if busy_pods(ctx, pool).contains(&pod) {
        return Some(fine);
    }
    Some(said(Reason::NodeNameUnclear, node_name_unclear(&fleet.deployment.name, &pod, &node)))
}

/// A Pod whose worker is not heard of, and a worker whose name leads to no Pod: then they may well be the same. Workers
/// outside the cluster beside Pods that are heard of are as they should be.
fn mismatch(
    pods: &[Arc<str>],
    names: &[(Arc<str>, Instant)],
    is_pod: impl Fn(&str) -> bool,
    now: Instant,
) -> Option<(Arc<str>, Arc<str>)> {
    let hosts: HashSet<&str> = names.iter().map(|(name, _)| host_of(name)).collect();
    let unheard = pods.iter().filter(|pod| !hosts.contains(&***pod)).min()?;
    let is_settled = |since: &Instant| *since + HEARD_WITHIN <= now;
    let lost = names.iter().filter(|(name, since)| is_settled(since) && !is_pod(host_of(name)));
    Some((unheard.clone(), lost.map(|(name, _)| name).min()?.clone()))
}

fn container_unclear(deployment: &str, pod: Option<&str>, unclear: &Unclear) -> String {
    let of = pod.map_or_else(|| format!("Deployment {deployment:?}"), |pod| format!("Pod {pod:?}"));
    format!(
        "{of}: {unclear}; the end of a worker is not noticed until its Pod is gone. Set spec.deploymentRef.container, or \
         the annotation kubectl.kubernetes.io/default-container in the Pod template, to the container of the worker"
    )
}

fn node_name_unclear(deployment: &str, pod: &str, node: &str) -> String {
    format!(
        "the worker {:?} is no Pod of Deployment {deployment:?}, and none is heard of in Pod {pod:?}; the end of such a \
         worker is not noticed. Start workers with -n crew@$(POD_NAME), and set POD_NAME from the field metadata.name",
        crate::core::status::head(node, 64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pods: &[&str], names: &[(&str, u64)], known: &[&str]) -> Option<(String, String)> {
        let began = Instant::now();
        let pods: Vec<Arc<str>> = pods.iter().map(|pod| Arc::from(*pod)).collect();
        let names: Vec<_> =
            names.iter().map(|(name, at)| (Arc::from(*name), began + Duration::from_secs(*at))).collect();
        let now = began + Duration::from_secs(100);
        mismatch(&pods, &names, |pod| known.contains(&pod), now).map(|(pod, node)| (pod.to_string(), node.to_string()))
    }

    #[test]
    fn a_name_that_leads_to_no_pod_is_complained_about_where_a_pod_is_not_heard_of() {
        let both = Some(("worker-1".to_owned(), "celery@node-7".to_owned()));
        assert_eq!(found(&["worker-1"], &[("celery@node-7", 0)], &["worker-1"]), both);
        assert_eq!(
            found(&["worker-1"], &[("celery@node-7", 90)], &["worker-1"]),
            None,
            "the others may be about to speak"
        );
        assert_eq!(
            found(&["worker-1"], &[("celery@worker-9", 0)], &["worker-1", "worker-9"]),
            None,
            "a Pod that is leaving"
        );
    }

    #[test]
    fn a_worker_outside_the_cluster_beside_pods_that_are_heard_of_is_as_it_should_be() {
        let names = [("crew@worker-1", 0), ("celery@celery-prod-01", 0)];
        assert_eq!(found(&["worker-1"], &names, &["worker-1"]), None);
        assert_eq!(found(&[], &names, &[]), None);
    }

    #[test]
    fn the_conditions_fit_with_long_names_and_say_what_to_set() {
        let long = "w".repeat(253);
        let unclear = Unclear::Several(vec!["cloud-sql-proxy".into(), "crew".into()]);
        let said = container_unclear("worker", Some("worker-7d4b9c5f6d-x2x7q"), &unclear);
        assert!(
            said.len() <= 384 && said.contains("cloud-sql-proxy, crew") && said.contains("deploymentRef.container"),
            "{said}"
        );
        let said = node_name_unclear("worker", "worker-7d4b9c5f6d-x2x7q", &long);
        assert!(said.len() <= 384 && said.contains("-n crew@$(POD_NAME)"), "{}: {said}", said.len());
    }
}
