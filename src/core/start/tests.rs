use super::*;

const NOW: i64 = 10_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn deployment(pods: &[(Arc<str>, Arc<Trouble>)]) -> Deployment<'_> {
    Deployment { replicas: 2, ready: 0, contested_by: None, failure: None, stuck: None, pods }
}

fn of(deployment: Deployment<'_>) -> Workers<'_> {
    Workers {
        deployment: Some(("worker", Some(deployment))),
        max_replicas: 4,
        queued: 3,
        waiting_since: Some(at(NOW - 300)),
        heard_at: None,
    }
}

fn pod(name: &str, trouble: Trouble) -> (Arc<str>, Arc<Trouble>) {
    (name.into(), Arc::new(trouble))
}

#[track_caller]
fn check(workers: &Workers<'_>, kind: BlockedKind, says: &[&str]) {
    let found = blocked(workers, at(NOW)).expect("nothing is said");
    assert_eq!(found.kind, kind, "{}", found.detail);
    for part in says {
        assert!(found.detail.contains(part), "{part:?} is not in {:?}", found.detail);
    }
}

fn crashed(ran: u64, running_since: Option<i64>) -> Trouble {
    Trouble::Crashed {
        container: "worker".into(),
        how: "exit code 1".into(),
        ran: Duration::from_secs(ran),
        running_since: running_since.map(at),
    }
}

#[test]
fn an_image_that_cannot_be_pulled_is_named_with_its_pod_and_the_way_out() {
    let trouble = Trouble::Image { image: "crew:1".into(), message: "not found".into() };
    let pods = [pod("worker-a", trouble)];
    let says = ["\"worker-a\"", "\"crew:1\"", "not found", "imagePullSecrets"];
    check(&of(deployment(&pods)), BlockedKind::ImageNotPulled, &says);
}

#[test]
fn a_quota_that_forbids_the_pods_is_said_in_the_words_of_the_api_server() {
    let failure = Some("pods \"worker-a\" is forbidden: exceeded quota: small");
    let blocked = Deployment { failure, ..deployment(&[]) };
    check(&of(blocked), BlockedKind::PodsNotCreated, &["exceeded quota: small", "\"worker\""]);
}

#[test]
fn pods_that_no_node_can_take_are_said() {
    let pods = [pod("worker-a", Trouble::Unschedulable { message: "0/3 nodes: Insufficient memory".into() })];
    check(&of(deployment(&pods)), BlockedKind::PodsUnschedulable, &["Insufficient memory", "requests"]);
}

#[test]
fn a_container_that_keeps_ending_is_said_with_its_exit_code_and_where_its_log_is() {
    for running_since in [None, Some(NOW - 5)] {
        let pods = [pod("worker-a", crashed(2, running_since))];
        let says = ["exit code 1", "kubectl logs worker-a -c worker --previous"];
        check(&of(deployment(&pods)), BlockedKind::CrashLoop, &says);
    }
}

#[test]
fn a_worker_that_had_run_for_long_or_does_so_again_keeps_nothing_from_starting() {
    for trouble in [crashed(3600, None), crashed(2, Some(NOW - 60))] {
        let pods = [pod("worker-a", trouble)];
        assert_eq!(blocked(&of(deployment(&pods)), at(NOW)), None);
    }
}

#[test]
fn a_missing_secret_or_volume_is_said() {
    let trouble = Trouble::Container { container: "worker".into(), message: "secret \"keys\" not found".into() };
    let pods = [pod("worker-a", trouble)];
    check(&of(deployment(&pods)), BlockedKind::ContainerNotCreated, &["secret \"keys\" not found", "\"worker\""]);
    let pods = [pod("worker-a", Trouble::Creating { since: at(NOW - 180) })];
    check(&of(deployment(&pods)), BlockedKind::ContainerNotCreated, &["kubectl describe pod"]);
    let pods = [pod("worker-a", Trouble::Creating { since: at(NOW - 60) })];
    assert_eq!(blocked(&of(deployment(&pods)), at(NOW)), None, "its image may be large");
}

#[test]
fn pods_that_never_become_ready_are_said_when_the_deployment_gives_up() {
    let stuck = Some("ReplicaSet \"worker-7\" has timed out progressing.");
    check(&of(Deployment { stuck, ..deployment(&[]) }), BlockedKind::PodsNotReady, &["timed out"]);
    assert_eq!(blocked(&of(Deployment { stuck, ready: 1, ..deployment(&[]) }), at(NOW)), None);
}

#[test]
fn of_several_pods_the_plainest_trouble_is_said_and_always_the_same_one() {
    let image = || Trouble::Image { image: "crew:1".into(), message: "not found".into() };
    let unschedulable = Trouble::Unschedulable { message: "0/3 nodes".into() };
    let pods = [pod("worker-a", unschedulable), pod("worker-c", image()), pod("worker-b", image())];
    check(&of(deployment(&pods)), BlockedKind::ImageNotPulled, &["\"worker-b\""]);
}

#[test]
fn a_pool_that_may_have_no_workers_says_so_when_messages_wait() {
    let zero = Workers { max_replicas: 0, ..of(Deployment { replicas: 0, ..deployment(&[]) }) };
    check(&zero, BlockedKind::NoReplicasAllowed, &["spec.maxReplicas"]);
    assert_eq!(blocked(&Workers { queued: 0, ..zero.clone() }, at(NOW)), None, "nothing waits");
    let still = Workers { max_replicas: 0, ..of(Deployment { replicas: 0, ready: 1, ..deployment(&[]) }) };
    assert_eq!(blocked(&still, at(NOW)), None, "a worker is there yet");
}

#[test]
fn replicas_that_were_set_to_zero_by_hand_are_said_when_messages_wait() {
    let by_hand = Deployment { replicas: 0, contested_by: Some("kubectl"), ..deployment(&[]) };
    check(&of(by_hand), BlockedKind::ReplicasContested, &["kubectl", "\"worker\""]);
    assert_eq!(blocked(&of(Deployment { replicas: 0, ..deployment(&[]) }), at(NOW)), None, "the operator scales it up");
}

#[test]
fn a_pool_without_deployment_and_without_a_worker_that_answers_says_so() {
    let without = Workers { deployment: None, ..of(deployment(&[])) };
    check(&without, BlockedKind::NoWorkerAnswers, &["spec.deploymentRef"]);
    assert_eq!(blocked(&Workers { heard_at: Some(at(NOW - 10)), ..without.clone() }, at(NOW)), None);
    assert_eq!(blocked(&Workers { waiting_since: Some(at(NOW - 10)), ..without.clone() }, at(NOW)), None);
    assert_eq!(blocked(&Workers { queued: 0, ..without }, at(NOW)), None);
    let missing = Workers { deployment: Some(("worker", None)), ..of(deployment(&[])) };
    check(&missing, BlockedKind::DeploymentNotFound, &["\"worker\"", "spec.deploymentRef.name"]);
}

#[test]
fn a_problem_that_lasts_keeps_its_first_text_and_one_that_passes_is_not_said() {
    let found = |kind, detail: &str| Blocked { kind, detail: detail.into() };
    let first = found(BlockedKind::PodsUnschedulable, "0/3 nodes");
    let later = found(BlockedKind::PodsUnschedulable, "0/4 nodes");
    let other = found(BlockedKind::CrashLoop, "exit code 1");
    let mut lasting = Lasting::default();
    assert_eq!(lasting.note(Some(&first), at(0)), None);
    assert_eq!(lasting.note(Some(&later), at(9)), None);
    assert_eq!(lasting.note(Some(&later), at(10)), Some(&first));
    assert_eq!(lasting.note(Some(&other), at(11)), None);
    assert_eq!(lasting.note(Some(&other), at(21)), Some(&other));
    assert_eq!(lasting.note(None, at(22)), None);
    assert_eq!(lasting.note(Some(&other), at(23)), None);
}

#[test]
fn a_problem_from_before_a_restart_is_said_as_long_as_it_is_found() {
    let found = |detail: &str| Blocked { kind: BlockedKind::CrashLoop, detail: detail.into() };
    let mut lasting = Lasting::since_before(Some(found("exit code 1")));
    assert_eq!(lasting.note(Some(&found("exit code 2")), at(0)), Some(&found("exit code 1")));
    assert_eq!(Lasting::since_before(Some(found("exit code 1"))).note(None, at(0)), None);
}
