//! The watch on the Deployments of a namespace.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::runtime::watcher;

use super::follow::{Index, follow, follow_into};
use crate::core::id::ObjectKey;
use crate::core::index::pods::DeploymentView;
use crate::operator::context::Context;
use crate::operator::state::watches::Scope;
use crate::operator::state::workers::key_of;

/// Follows the Deployments of a namespace, for ever.
pub async fn watch_deployments(ctx: Arc<Context>, namespace: Arc<str>) {
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), &namespace);
    let what = format!("deployments in {namespace}");
    let events = follow(&ctx.watches, &what, Scope::Part, api, watcher::Config::default());
    follow_into(events, &mut Deployments { ctx, namespace }).await;
}

struct Deployments {
    ctx: Arc<Context>,
    namespace: Arc<str>,
}

impl Index<Deployment> for Deployments {
    type List = HashMap<ObjectKey, DeploymentView>;

    fn list(&mut self, deployment: Deployment, list: &mut Self::List) {
        list.extend(key_of(&deployment).map(|key| (key, DeploymentView::from(&deployment))));
    }

    fn reset(&mut self, list: Self::List) {
        self.ctx.workers.write(|pods| pods.list_deployments(&self.namespace, list));
        self.ctx.pools.refresh_namespace(&self.namespace);
    }

    fn apply(&mut self, deployment: Deployment) {
        let Some(key) = key_of(&deployment) else { return };
        let view = DeploymentView::from(&deployment);
        self.ctx.workers.write(|pods| pods.apply_deployment(key, view));
        self.ctx.pools.refresh_namespace(&self.namespace);
    }

    fn delete(&mut self, deployment: Deployment) {
        let Some(key) = key_of(&deployment) else { return };
        self.ctx.workers.write(|pods| pods.delete_deployment(&key));
        self.ctx.pools.refresh_namespace(&self.namespace);
    }

    fn failed(&mut self, error: &watcher::Error) {
        tracing::warn!(%error, namespace = %self.namespace, "watching deployments failed; trying again");
    }
}
