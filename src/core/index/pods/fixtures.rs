//! A Deployment and a Pod of it, for tests.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::super::evidence::LastRun;
use super::super::super::id::ObjectKey;
use super::{ContainerView, DeploymentView, Fleet, PodView, Pods, Requirement, Run, Selector, Wants};

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub fn team() -> Arc<str> {
    "team".into()
}

pub fn fleet() -> Fleet {
    Fleet { deployment: ObjectKey::new("team", "crew"), container: None }
}

pub fn key(name: &str) -> ObjectKey {
    ObjectKey::new("team", name)
}

pub fn run(id: &str, started: i64, finished: Option<i64>) -> Run {
    Run { id: Some(id.into()), times: LastRun { started_at: at(started), finished_at: finished.map(at) } }
}

/// A Pod of the Deployment `crew`, whose worker started at 100.
pub fn pod() -> PodView {
    let labels = [("app", "crew"), ("pod-template-hash", "5f6d")];
    let worker = ContainerView { name: "crew".into(), shell: None, ready: true, run: Some(run("c-1", 100, None)) };
    PodView {
        uid: "uid-1".into(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        replica_set: Some("crew-5f6d".into()),
        containers: vec![worker],
        ..PodView::default()
    }
}

/// A namespace with the Deployment `crew` and these Pods, called `w`.
pub fn pods(listed: &[PodView]) -> Pods {
    let mut pods = Pods::default();
    let wants = Requirement { key: "app".to_owned(), wants: Wants::In(vec!["crew".to_owned()]) };
    let crew = DeploymentView { selector: Selector(vec![wants]), ..DeploymentView::default() };
    pods.list_deployments(&team(), [(key("crew"), crew)].into());
    pods.list(&team(), listed.iter().map(|pod| (key("w"), pod.clone())).collect(), at(100));
    pods
}
