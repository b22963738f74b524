//! Pods as the API server has them: what the kubelets say of containers, and what is left of Pods that were deleted.

use std::sync::Arc;

use super::super::evidence::LastRun;
use super::super::id::ObjectKey;
use super::super::index::pods::{
    ContainerView, DeploymentView, Fleet, PodView, Pods, Requirement, Run, Selector, Wants,
};
use super::worker::Pod;
use super::world::{Event, World};
use super::{at, millis};

/// Where the workers run.
pub fn fleet() -> Fleet {
    Fleet { deployment: ObjectKey::new("team", "worker"), container: None }
}

/// The Deployment of the workers, and no Pod yet.
pub fn no_pods(fleet: &Fleet) -> Pods {
    let mut pods = Pods::default();
    let wants = Requirement { key: "app".to_owned(), wants: Wants::In(vec!["worker".to_owned()]) };
    let deployment = DeploymentView { selector: Selector(vec![wants]), ..DeploymentView::default() };
    let namespace = &fleet.deployment.namespace;
    pods.list_deployments(namespace, [(fleet.deployment.clone(), deployment)].into());
    pods.list(namespace, [].into(), at(0));
    pods
}

impl Pod {
    fn view(&self) -> PodView {
        let times =
            LastRun { started_at: self.told(self.started_at), finished_at: self.finished_at.map(|at| self.told(at)) };
        let run = Some(Run { id: Some(self.container.to_string().into()), times });
        let labels = [("app", "worker"), ("pod-template-hash", "0")];
        PodView {
            uid: self.name.clone(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            replica_set: Some("worker-0".into()),
            containers: vec![ContainerView { name: "worker".into(), shell: None, ready: self.up, run }],
            ..PodView::default()
        }
    }
}

impl World {
    fn key_of(&self, pod: usize) -> ObjectKey {
        ObjectKey { namespace: self.fleet.deployment.namespace.clone(), name: self.pods[pod].name.clone() }
    }

    /// A kubelet has said how the containers of a Pod are, or that it is gone with its containers.
    pub fn tell_pod(&mut self, pod: usize) {
        let (key, view, now) = (self.key_of(pod), self.pods[pod].view(), at(self.now));
        let known = Arc::make_mut(&mut self.known_pods);
        if self.pods[pod].gone {
            known.delete(&key, view, now);
        } else {
            known.apply(key, view);
        }
    }

    /// A Pod is deleted, and no kubelet has said that its container ended: it may run on for a moment.
    pub fn tell_deleted_by_force(&mut self, pod: usize) {
        let (key, view, now) = (self.key_of(pod), self.pods[pod].view(), at(self.now));
        Arc::make_mut(&mut self.known_pods).delete(&key, view, now);
        self.pods_expire();
    }

    /// What was deleted by force so long ago that it must have stopped is gone.
    pub fn pods_expire(&mut self) {
        let namespace = self.fleet.deployment.namespace.clone();
        let (expired, next) = Arc::make_mut(&mut self.known_pods).drop_expired(&namespace, at(self.now));
        if let Some(next) = next {
            self.at(millis(next) - self.now, Event::PodsExpire);
        }
        if !expired.is_empty() {
            self.count("deleted by force");
            self.wake_operators();
        }
    }
}
