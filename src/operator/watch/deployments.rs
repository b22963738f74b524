//! The watch on the Deployments of a namespace.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::runtime::watcher::{self, Event};

use super::follow::follow;
use crate::core::id::ObjectKey;
use crate::core::index::pods::DeploymentView;
use crate::operator::context::Context;
use crate::operator::state::watches::Scope;
use crate::operator::state::workers::key_of;

/// Follows the Deployments of a namespace, for ever.
pub async fn watch_deployments(ctx: Arc<Context>, namespace: Arc<str>) {
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), &namespace);
    let what = format!("deployments in {namespace}");
    let mut events = follow(&ctx.watches, &what, Scope::Part, api, watcher::Config::default());
    let mut listing: HashMap<ObjectKey, DeploymentView> = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            // This says only that a list was asked for: nothing is forgotten before it has come.
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(deployment)) => {
                listing.extend(key_of(&deployment).map(|key| (key, DeploymentView::from(&deployment))));
            }
            Ok(Event::Apply(deployment)) => {
                let Some(key) = key_of(&deployment) else { continue };
                let view = DeploymentView::from(&deployment);
                ctx.workers.write(|pods| pods.apply_deployment(key, view));
                ctx.pools.refresh_namespace(&namespace);
            }
            Ok(Event::Delete(deployment)) => {
                let Some(key) = key_of(&deployment) else { continue };
                ctx.workers.write(|pods| pods.delete_deployment(&key));
                ctx.pools.refresh_namespace(&namespace);
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut listing);
                ctx.workers.write(|pods| pods.list_deployments(&namespace, listed));
                ctx.pools.refresh_namespace(&namespace);
            }
            Err(error) => tracing::warn!(%error, %namespace, "watching deployments failed; trying again"),
        }
    }
}
