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
