use super::*;

fn good(name: &str) -> NodeSettings {
    NodeSettings {
        name: name.into(),
        concurrency: Some(4),
        prefetch_count: Some(4),
        prefetch_multiplier: Some(1),
        acks_late: Some(true),
        visibility_timeout: Some(3600),
        pid: Some(1),
    }
}

fn all(nodes: &[NodeSettings], shell: Option<&Shell>) -> Option<Complaint> {
    let declared = Declared { visibility_timeout: Duration::from_hours(1), concurrency: 4 };
    complaint(&nodes.iter().collect::<Vec<_>>(), &declared, |_| shell.cloned())
}

fn said(nodes: &[NodeSettings]) -> Option<String> {
    all(nodes, None).map(|complaint| complaint.message)
}

#[test]
fn workers_that_are_set_up_as_they_should_are_not_complained_about() {
    assert_eq!(said(&[good("a"), NodeSettings { visibility_timeout: None, ..good("b") }]), None);
    assert_eq!(said(&[NodeSettings { prefetch_count: Some(7), ..good("a") }]), None, "some wait for their time");
}

#[test]
fn worker_settings_that_endanger_jobs_are_said_with_the_setting_that_mends_them() {
    let celerys_default = NodeSettings {
        acks_late: Some(false),
        prefetch_multiplier: Some(4),
        prefetch_count: Some(16),
        visibility_timeout: Some(600),
        ..good("crew@a")
    };
    let nodes = [good("crew@b"), celerys_default];
    assert_eq!(all(&nodes, None).unwrap().reason, Reason::AcknowledgesEarly);
    let said = said(&nodes).unwrap();
    assert!(said.starts_with("crew@a: ") && !said.contains("crew@b"), "{said}");
    for setting in ["task_acks_late=True", "worker_prefetch_multiplier=1", "600 s", "3600 s"] {
        assert!(said.contains(setting), "{setting} is not in {said}");
    }
}

#[test]
fn of_many_workers_some_are_named() {
    let wrong: Vec<_> = (0..9).map(|n| NodeSettings { acks_late: None, ..good(&format!("crew@{n}")) }).collect();
    let said = said(&wrong).unwrap();
    assert!(said.contains("crew@2") && !said.contains("crew@3") && said.ends_with("and 6 more"), "{said}");
}

#[test]
fn a_worker_that_runs_more_tasks_at_once_than_the_pool_says_is_named_with_the_field_to_set() {
    let nodes =
        [good("crew@a"), NodeSettings { concurrency: Some(8), prefetch_count: Some(8), ..good("crew@threads") }];
    assert_eq!(all(&nodes, None).unwrap().reason, Reason::ConcurrencyDiffers);
    let said = said(&nodes).unwrap();
    assert!(said.starts_with("crew@threads: ") && !said.contains("crew@a"), "{said}");
    assert!(said.contains("--concurrency 4") && said.contains("spec.concurrency to 8"), "{said}");
    assert_eq!(self::said(&[NodeSettings { concurrency: None, ..good("crew@a") }]), None, "it does not tell");
}

#[test]
fn a_shell_that_is_process_1_instead_of_the_worker_is_complained_about_and_an_init_is_not() {
    let shell: Shell = ("sh".into(), "crew".into());
    let under = |pid| [NodeSettings { pid, ..good("crew@a") }];
    let complaint = all(&under(Some(7)), Some(&shell)).unwrap();
    assert_eq!(complaint.reason, Reason::ShellTakesSignals);
    for said in ["crew@a", "\"crew\"", "\"sh\"", "exec celery"] {
        assert!(complaint.message.contains(said), "{said} is not in {}", complaint.message);
    }
    assert_eq!(all(&under(Some(1)), Some(&shell)), None, "the shell has given its place to the worker");
    assert_eq!(all(&under(None), Some(&shell)), None, "it does not tell");
    assert_eq!(all(&under(Some(7)), None), None, "an init, or a shared process namespace");
}

#[test]
fn the_condition_is_not_changed_while_no_worker_answers() {
    let mut conditions = Vec::new();
    let before = verdict(&Setup::Unknown, &conditions).unwrap();
    assert_eq!((before.holds, before.reason), (None, Reason::Unknown));
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(crate::runtime::clock::now());
    let wrong = Setup::Wrong(Complaint { reason: Reason::PrefetchTooHigh, message: "crew@a".to_owned() });
    crate::api::set_condition(&mut conditions, verdict(&wrong, &[]).unwrap(), None, now);
    assert_eq!(verdict(&Setup::Unknown, &conditions), None);
    assert_eq!(verdict(&Setup::Fine, &conditions).unwrap().holds, Some(false));
}
