use super::super::super::evidence::Report;
use super::fixtures::{at, fleet, key, pod, pods, run, team};
use super::*;

/// That Pod after a change.
fn changed(change: impl FnOnce(&mut PodView)) -> PodView {
    let mut pod = pod();
    change(&mut pod);
    pod
}

/// The worker of `pod()`, seen at 200.
fn seen() -> Sighting {
    let container = Container { pod: "w".into(), pod_uid: "uid-1".into(), id: "c-1".into(), started_at: at(100) };
    let holder = Holder { node: "crew@w".into(), container: Some(container) };
    let report = Report {
        holder: Some(holder),
        said_at: at(200),
        behind: 0,
        started_at: None,
        celery_retries: 0,
        progress: None,
        account: None,
    };
    Sighting { generation: 0, report }
}

/// The same worker, of which it was not known that it is a Pod.
fn seen_by_name() -> Sighting {
    let mut seen = seen();
    seen.report.holder = Some(Holder { node: "crew@w".into(), container: None });
    seen
}

fn judged(pods: &Pods, seen: &Sighting) -> Liveness {
    pods.judge(Some(&fleet()), &team(), seen).1
}

#[test]
fn a_worker_is_dead_only_where_its_pod_says_so_and_unreachable_where_its_node_does_not_answer() {
    let run_again = |pod: &mut PodView| pod.containers[0].run = Some(run("c-2", 300, None));
    let table = [
        ("its container runs", pod(), Liveness::Alive),
        (
            "its container has ended",
            changed(|it| it.containers[0].run = Some(run("c-1", 100, Some(300)))),
            Liveness::Dead,
        ),
        ("another container runs in its place", changed(run_again), Liveness::Dead),
        ("another Pod has its name", changed(|it| it.uid = "uid-2".into()), Liveness::Dead),
        ("its Pod has ended", changed(|it| it.over = true), Liveness::Dead),
        ("its Node does not answer", changed(|it| it.unreachable = true), Liveness::Unreachable),
        (
            "its Node does not answer, and its container had ended before",
            changed(|it| {
                run_again(it);
                it.unreachable = true;
            }),
            Liveness::Dead,
        ),
        (
            "its container has never started, as far as is known",
            changed(|it| it.containers[0].run = None),
            Liveness::Alive,
        ),
        ("its Pod is told to go", changed(|it| it.leaving_since = Some(at(150))), Liveness::Alive),
    ];
    for (case, pod, expected) in table {
        assert_eq!(judged(&pods(&[pod]), &seen()), expected, "{case}");
    }
}

#[test]
fn a_worker_whose_pod_is_not_listed_is_dead_and_before_the_first_list_nothing_is_known() {
    assert_eq!(judged(&pods(&[]), &seen()), Liveness::Dead);
    assert_eq!(judged(&Pods::default(), &seen()), Liveness::Alive);
    let mut forgotten = pods(&[]);
    forgotten.forget_namespace("team");
    assert_eq!(judged(&forgotten, &seen()), Liveness::Alive);
}

#[test]
fn a_worker_whose_container_is_unknown_is_judged_by_the_pod_of_its_name_and_without_one_it_is_alive() {
    assert_eq!(judged(&pods(&[]), &seen_by_name()), Liveness::Alive, "it may run on another host");
    assert_eq!(judged(&pods(&[pod()]), &seen_by_name()), Liveness::Alive);
    let later = changed(|it| it.containers[0].run = Some(run("c-2", 201, None)));
    assert_eq!(judged(&pods(&[later]), &seen_by_name()), Liveness::Dead, "another container has spoken");
    let of_another = changed(|it| it.replica_set = Some("redis-5f6d".into()));
    assert_eq!(judged(&pods(&[of_another]), &seen_by_name()), Liveness::Alive, "its Pod is none of the pool's");
}

#[test]
fn the_holder_behind_a_name_is_the_container_that_runs_in_the_pod_of_the_pool_or_none() {
    let holder = |pods: &Pods, fleet: Option<&Fleet>| pods.holder(fleet, &"crew@w".into()).container;
    assert_eq!(holder(&pods(&[pod()]), Some(&fleet())), seen().report.holder.unwrap().container);
    assert_eq!(holder(&pods(&[pod()]), None), None, "the pool names no Deployment");
    let ended = changed(|it| it.containers[0].run = Some(run("c-1", 100, Some(150))));
    assert_eq!(holder(&pods(&[ended]), Some(&fleet())), None);
    assert_eq!(holder(&pods(&[changed(|it| it.labels.clear())]), Some(&fleet())), None, "the selector does not match");
}

#[test]
fn a_deleted_pod_counts_as_alive_and_not_ready_until_its_container_must_have_stopped() {
    let mut pods = pods(&[pod()]);
    pods.delete(&key("w"), pod(), at(300));
    assert_eq!(judged(&pods, &seen()), Liveness::Alive);
    let [worker] = <[WorkerPod; 1]>::try_from(pods.workers_of(&fleet())).unwrap();
    assert_eq!((worker.is_ready, worker.leaving_since), (false, Some(at(300))));
    assert_eq!(pods.drop_expired(&team(), at(303)), (vec![], Some(at(304))));
    assert_eq!(judged(&pods, &seen()), Liveness::Alive);
    assert_eq!(pods.drop_expired(&team(), at(304)), (vec![key("w")], None));
    assert_eq!(judged(&pods, &seen()), Liveness::Dead);
    assert_eq!(pods.drop_expired(&team(), at(304)), (vec![], None));
}

#[test]
fn a_deleted_pod_whose_container_was_seen_to_stop_is_gone_at_once() {
    for last in [changed(|it| it.containers[0].run = Some(run("c-1", 100, Some(299)))), changed(|it| it.over = true)] {
        let mut pods = pods(&[pod()]);
        pods.delete(&key("w"), last, at(300));
        assert_eq!(pods.drop_expired(&team(), at(300)), (vec![], None));
        assert_eq!(judged(&pods, &seen()), Liveness::Dead);
    }
}

#[test]
fn a_pod_that_a_new_list_does_not_have_is_deleted_and_those_of_other_namespaces_stay() {
    let mut pods = pods(&[pod()]);
    pods.apply(ObjectKey::new("others", "w"), pod());
    pods.list(&team(), [(key("new"), pod())].into(), at(300));
    assert_eq!(pods.drop_expired(&"others".into(), at(900)), (vec![], None));
    assert_eq!(pods.drop_expired(&team(), at(303)), (vec![], Some(at(304))));
    assert_eq!(pods.drop_expired(&team(), at(304)), (vec![key("w")], None));
}

#[test]
fn a_clock_that_is_set_back_keeps_a_deleted_pod_for_one_more_grace_period_and_no_longer() {
    let mut pods = pods(&[pod()]);
    pods.delete(&key("w"), pod(), at(9000));
    assert_eq!(pods.drop_expired(&team(), at(300)), (vec![], Some(at(304))));
    assert_eq!(pods.drop_expired(&team(), at(304)), (vec![key("w")], None));
}

#[test]
fn a_pod_that_is_as_it_was_is_no_news() {
    let mut pods = pods(&[pod()]);
    assert!(!pods.apply(key("w"), pod()));
    assert!(pods.apply(key("w"), changed(|it| it.marked_busy = true)));
    assert!(pods.apply(key("new"), pod()));
}

#[test]
fn deployments_are_forgotten_at_the_end_of_a_list() {
    let mut pods = Pods::default();
    let list = |pods: &mut Pods, namespace: &str, names: &[&str]| {
        let keys = names.iter().map(|name| ObjectKey::new(namespace, *name));
        pods.list_deployments(&namespace.into(), keys.map(|key| (key, DeploymentView::default())).collect());
    };
    list(&mut pods, "team", &["one", "other"]);
    list(&mut pods, "others", &["one"]);
    list(&mut pods, "team", &["other"]);
    let there = |pods: &Pods, namespace, name| pods.deployment(&ObjectKey::new(namespace, name)).is_some();
    assert!(there(&pods, "team", "other") && !there(&pods, "team", "one") && there(&pods, "others", "one"));
    pods.forget_namespace("team");
    assert!(!there(&pods, "team", "other"));
}

#[test]
fn that_something_is_not_there_is_known_once_both_deployments_and_pods_are_listed() {
    for deployments_first in [false, true] {
        let mut pods = Pods::default();
        for deployments in [deployments_first, !deployments_first] {
            assert!(!pods.has_listed("team"));
            if deployments {
                pods.list_deployments(&team(), HashMap::new());
            } else {
                pods.list(&team(), HashMap::new(), at(0));
            }
        }
        assert!(pods.has_listed("team") && !pods.has_listed("others"));
        pods.forget_namespace("team");
        assert!(!pods.has_listed("team"));
    }
}

#[test]
fn what_a_worker_has_said_counts_as_said_by_its_pod_for_ten_minutes_after_that_is_gone() {
    let mut pods = pods(&[pod()]);
    let ended = changed(|pod| pod.containers[0].run = Some(run("c-1", 100, Some(250))));
    pods.delete(&key("w"), ended, at(250));
    assert_eq!(judged(&pods, &seen_by_name()), Liveness::Dead);
    let holder = pods.holder(Some(&fleet()), &"crew@w".into());
    assert_eq!(holder.container.as_ref().map(|container| &*container.id), Some("c-1"));
    assert_eq!(pods.holder(None, &"crew@w".into()).container, None);
    let another = Fleet { deployment: key("another"), container: None };
    assert_eq!(pods.holder(Some(&another), &"crew@w".into()).container, None, "it was not of that pool");
    let mut replaced = pods.clone();
    replaced.apply(key("w"), changed(|pod| pod.uid = "uid-2".into()));
    assert_eq!(judged(&replaced, &seen_by_name()), Liveness::Alive, "another Pod has its name");
    for (number, at_last) in [(1, 840), (2, 860)] {
        pods.delete(&key(&format!("v-{number}")), changed(|pod| pod.over = true), at(at_last));
        assert_eq!(judged(&pods, &seen_by_name()) == Liveness::Dead, number == 1);
    }
    for number in 0..300 {
        pods.delete(&key(&format!("x-{number}")), changed(|pod| pod.over = true), at(870));
    }
    let is_known = |number: usize| {
        let node = format!("crew@x-{number}").into();
        pods.holder(Some(&fleet()), &node).container.is_some()
    };
    assert_eq!((0..300).filter(|number| is_known(*number)).count(), 256, "and of no more than these");
}
