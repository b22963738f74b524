use serde_json::json;

use super::*;

#[test]
fn a_pod_is_leaving_since_it_was_told_to_and_not_since_it_must_be_gone() {
    let metadata = json!({ "deletionTimestamp": "2026-11-22T16:01:00Z", "deletionGracePeriodSeconds": 3660 });
    let pod: Pod = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
    assert_eq!(leaving_since(&pod), Some("2026-11-22T15:00:00Z".parse().unwrap()));
    assert_eq!(leaving_since(&Pod::default()), None);
}

#[test]
fn a_pod_is_unreachable_when_the_node_controller_and_not_its_kubelet_says_that_it_is_not_ready() {
    let pod = |ready: &str, containers: &str, gates: serde_json::Value| -> Pod {
        let conditions = json!([
            { "type": "Ready", "status": ready },
            { "type": "ContainersReady", "status": containers },
        ]);
        let spec = json!({ "containers": [], "readinessGates": gates });
        serde_json::from_value(json!({ "spec": spec, "status": { "conditions": conditions } })).unwrap()
    };
    assert!(is_unreachable(&pod("False", "True", json!([]))));
    assert!(!is_unreachable(&pod("True", "True", json!([]))));
    assert!(!is_unreachable(&pod("False", "False", json!([]))), "its probe fails");
    assert!(!is_unreachable(&pod("False", "True", json!([{ "conditionType": "load-balancer" }]))));
}

/// A Pod of a worker that runs, or has stopped.
fn view(running: bool) -> PodView {
    let times = json!({ "startedAt": "2026-11-22T15:00:00Z", "finishedAt": "2026-11-22T16:00:00Z" });
    let state = if running { json!({ "running": times }) } else { json!({ "terminated": times }) };
    let status = json!({ "containerStatuses": [{
        "name": "worker", "image": "", "imageID": "", "ready": running, "restartCount": 0, "state": state,
    }] });
    let spec = json!({ "containers": [{ "name": "worker" }] });
    PodView::of(&serde_json::from_value(json!({ "spec": spec, "status": status })).unwrap())
}

#[test]
fn who_is_deleted_by_force_may_run_on_for_a_moment() {
    let (team, key, now) = (Arc::from("team"), ObjectKey::new("team", "w"), Instant::now());
    let mut known = Known::default();
    known.pods.insert(key.clone(), view(true));
    known.vanish(&key, now);
    assert_eq!(known.bury(&team, now), (vec![], Some(now + AFTERLIFE)));
    assert!(known.pods.get(&key).unwrap().1.as_worker(&key.name, None).is_some_and(|worker| !worker.is_ready));
    assert_eq!(known.bury(&team, now + AFTERLIFE), (vec![key.clone()], None));
    assert!(known.pods.get(&key).is_none());
}

#[test]
fn who_was_seen_to_stop_is_gone_at_once() {
    let (key, now) = (ObjectKey::new("team", "w"), Instant::now());
    let mut known = Known::default();
    known.pods.insert(key.clone(), view(false));
    known.vanish(&key, now);
    assert!(known.pods.get(&key).is_none());
}

#[test]
fn who_vanished_while_nobody_watched_may_run_on_too() {
    let (team, now) = (Arc::from("team"), Instant::now());
    let mut known = Known::default();
    for (namespace, name) in [("team", "here"), ("team", "gone"), ("others", "w")] {
        known.pods.insert(ObjectKey::new(namespace, name), view(true));
    }
    known.list(&team, HashMap::from([(ObjectKey::new("team", "here"), view(true))]), now);
    assert_eq!(known.bury(&team, now), (vec![], Some(now + AFTERLIFE)));
    assert_eq!(known.bury(&team, now + AFTERLIFE), (vec![ObjectKey::new("team", "gone")], None));
    assert!(
        known.pods.get(&ObjectKey::new("team", "here")).is_some()
            && known.pods.get(&ObjectKey::new("others", "w")).is_some()
    );
}
