use super::FaultKind::{
    AcknowledgesEarly, ConcurrencyDiffers, PrefetchTooHigh, PrioritiesDiffer, ResultBackendDiffers,
    ResultCompressionUnknown, ResultKeysDiffer, ResultSerializerNotJson, ResultsIgnored, ResultsNotRetried,
    UnackedKeyDiffers, VisibilityTimeoutDiffers,
};
use super::*;

/// A worker that is set up as it should be.
fn good(name: &str) -> NodeSettings {
    NodeSettings {
        name: name.into(),
        celery: Some((5, 7)),
        concurrency: Some(4),
        prefetch_count: Some(4),
        prefetch_multiplier: Some(1),
        acks_late: Some(true),
        visibility_timeout: Some(3600),
        pid: Some(1),
        queues: Some(vec!["crew_jobs".into(), "default".into()]),
        tasks: vec![task("run", Some(false), Some(true))],
        results: Backend::parse("redis://user:**@redis:6379/1"),
        broker: Some(("redis".into(), 6379)),
        result_serializer: Some("json".into()),
        result_compression: None,
        has_result_prefix: Some(false),
        is_quiet: false,
        priority_steps: None,
        separator: None,
        unacked_key: None,
        always_retry: Some(true),
    }
}

fn task(name: &str, ignores_result: Option<bool>, acks_late: Option<bool>) -> KnownTask {
    KnownTask { name: name.into(), ignores_result, acks_late }
}

fn declared() -> Declared {
    Declared {
        visibility_timeout: Duration::from_hours(1),
        concurrency: 4,
        queues: vec!["crew_jobs".into()],
        broker: ("redis.crews.svc".into(), 6379),
        results: ("redis.crews.svc".into(), 6379, 1),
        result_prefix: "".into(),
        names_prefix: false,
        has_underscore: false,
        priority_steps: vec![0, 3, 6, 9],
        separator: "\u{6}\u{16}".into(),
        unacked_key: "unacked".into(),
    }
}

fn judged(nodes: &[NodeSettings], declared: &Declared, shell: Option<&Shell>) -> Finding {
    judge(&nodes.iter().collect::<Vec<_>>(), declared, |_| shell.cloned()).unwrap()
}

fn found(node: NodeSettings) -> Finding {
    judged(&[node], &declared(), None)
}

fn compressed(method: &str, is_read: bool) -> Compression {
    Compression { method: method.into(), is_read }
}

#[test]
fn workers_that_are_set_up_as_they_should_are_not_complained_about() {
    for node in [
        good("a"),
        NodeSettings { visibility_timeout: None, ..good("without") },
        NodeSettings { prefetch_count: Some(7), ..good("some wait for their time") },
        NodeSettings { concurrency: None, ..good("it does not tell") },
        NodeSettings { results: Backend::parse("sentinel://redis:26379/1"), ..good("where that leads is not told") },
        NodeSettings { results: Backend::parse("rediss://:**@redis:6379/1?ssl_cert_reqs=none"), ..good("tls") },
        NodeSettings { result_compression: Some(compressed("gzip", true)), ..good("read") },
        NodeSettings {
            result_compression: Some(compressed("lzma", false)),
            celery: Some((5, 6)),
            ..good("no effect yet")
        },
        NodeSettings { acks_late: Some(false), ..good("the task says it for itself") },
        NodeSettings { tasks: vec![], ..good("it knows none of the pool's tasks") },
        NodeSettings { queues: None, ..good("it does not say what it consumes") },
        NodeSettings { name: "it says nothing at all".into(), acks_late: Some(true), ..NodeSettings::default() },
    ] {
        let finding = found(node.clone());
        assert_eq!((finding.worst, &*finding.message, finding.futile), (None, "", None), "{}", node.name);
    }
}

/// What a worker's setting comes to, what the message has to name, and whether jobs wait for it to be mended.
#[test]
fn each_setting_that_endangers_jobs_is_said_with_its_value_and_what_to_set_and_jobs_wait_where_results_would_be_lost() {
    let odd = good("crew@a");
    let prefixed = Declared { result_prefix: "app:".into(), names_prefix: true, ..declared() };
    let steps = Declared { priority_steps: vec![0, 1, 2, 3, 4], ..declared() };
    let colon = Declared { separator: ":".into(), ..declared() };
    let unacked = Declared { unacked_key: "mine".into(), ..declared() };
    let on = |url| NodeSettings { results: Backend::parse(url), ..odd.clone() };
    let written = |name: &str| NodeSettings { result_serializer: Some(name.into()), ..odd.clone() };
    let cases: [(NodeSettings, &Declared, FaultKind, &[&str], bool); 21] = [
        (on("disabled"), &declared(), ResultBackendDiffers, &["no result_backend", "Redis of the pool's Secret"], true),
        (on("rpc://"), &declared(), ResultBackendDiffers, &["\"rpc\""], true),
        (on("db+postgresql://db/x"), &declared(), ResultBackendDiffers, &["\"db\""], true),
        (on("redis://redis:6379/2"), &declared(), ResultBackendDiffers, &["database 2", "database 1"], true),
        (on("redis://other:6379/1"), &declared(), ResultBackendDiffers, &["other:6379", "redis.crews.svc:6379"], false),
        (odd.clone(), &prefixed, ResultKeysDiffer, &["no global_keyprefix", "\"app:\"", "resultKeyPrefix"], true),
        (
            NodeSettings { has_result_prefix: Some(true), celery: Some((5, 4)), ..odd.clone() },
            &prefixed,
            ResultKeysDiffer,
            &["Celery 5.4", "\"app:_\""],
            true,
        ),
        (written("pickle"), &declared(), ResultSerializerNotJson, &["\"pickle\"", "\"json\""], true),
        (written("application/x-yaml"), &declared(), ResultSerializerNotJson, &["yaml"], true),
        (written("orjson"), &declared(), ResultSerializerNotJson, &["\"orjson\"", "\"json\""], false),
        (
            NodeSettings { result_compression: Some(compressed("lzma", false)), ..odd.clone() },
            &declared(),
            ResultCompressionUnknown,
            &["\"lzma\"", "\"gzip\""],
            true,
        ),
        (
            NodeSettings { tasks: vec![task("run", Some(true), Some(true))], ..odd.clone() },
            &declared(),
            ResultsIgnored,
            &["of run", "task_ignore_result=False"],
            true,
        ),
        (
            NodeSettings { tasks: vec![task("run", None, Some(false))], ..odd.clone() },
            &declared(),
            AcknowledgesEarly,
            &["run before", "acks_late=True"],
            false,
        ),
        (
            NodeSettings { tasks: vec![], acks_late: None, ..odd.clone() },
            &declared(),
            AcknowledgesEarly,
            &["task_acks_late=True"],
            false,
        ),
        (odd.clone(), &unacked, UnackedKeyDiffers, &["\"unacked\"", "\"mine\""], false),
        (odd.clone(), &steps, PrioritiesDiffer, &["[0, 3, 6, 9]", "[0, 1, 2, 3, 4]", "prioritySteps"], false),
        (odd.clone(), &colon, PrioritiesDiffer, &["sep", "\":\""], false),
        (
            NodeSettings { visibility_timeout: Some(600), ..odd.clone() },
            &declared(),
            VisibilityTimeoutDiffers,
            &["600 s", "3600 s"],
            false,
        ),
        (
            NodeSettings { concurrency: Some(8), prefetch_count: Some(8), ..odd.clone() },
            &declared(),
            ConcurrencyDiffers,
            &["--concurrency 4", "spec.concurrency to 8"],
            false,
        ),
        (
            NodeSettings { prefetch_multiplier: Some(4), prefetch_count: Some(16), ..odd.clone() },
            &declared(),
            PrefetchTooHigh,
            &["worker_prefetch_multiplier=1"],
            false,
        ),
        (
            NodeSettings { always_retry: None, ..odd.clone() },
            &declared(),
            ResultsNotRetried,
            &["ConnectionError", "result_backend_always_retry=True"],
            false,
        ),
    ];
    for (node, declared, kind, named, holds_jobs) in cases {
        let finding = judged(&[node], declared, None);
        assert_eq!(finding.worst, Some(kind), "{}", finding.message);
        for text in [&["crew@a: "][..], named].concat() {
            assert!(finding.message.contains(text), "{text} is not in {}", finding.message);
        }
        assert_eq!(finding.futile.is_some(), holds_jobs, "{}", finding.message);
        if let Some(Futile { kind: why, detail, .. }) = finding.futile {
            assert_eq!((why, &*detail), (kind, &*finding.message));
        }
    }
}

#[test]
fn of_several_faults_the_worst_is_said_first_and_jobs_hear_only_of_those_for_which_they_wait() {
    let early = NodeSettings { acks_late: None, tasks: vec![], ..good("crew@a") };
    let worse = NodeSettings { result_serializer: Some("pickle".into()), concurrency: Some(1), ..good("crew@b") };
    let finding = judged(&[early, good("crew@c"), worse], &declared(), None);
    assert_eq!(finding.worst, Some(FaultKind::ResultSerializerNotJson));
    let at = |text: &str| finding.message.find(text).unwrap();
    assert!(at("crew@b") < at("pickle") && at("pickle") < at("concurrency") && at("concurrency") < at("crew@a"));
    assert!(!finding.message.contains("crew@c"), "{}", finding.message);
    let detail = finding.futile.unwrap().detail;
    assert!(detail.contains("pickle") && !detail.contains("crew@a") && !detail.contains("concurrency"), "{detail}");
}

#[test]
fn one_worker_that_would_waste_a_run_is_enough_unless_it_consumes_none_of_the_pools_queues() {
    let odd = |queues: &[&str]| NodeSettings {
        result_serializer: Some("pickle".into()),
        queues: Some(queues.iter().map(|queue| Arc::from(*queue)).collect()),
        ..good("crew@odd")
    };
    assert!(judged(&[good("a"), odd(&["crew_jobs"])], &declared(), None).futile.is_some());
    assert_eq!(judged(&[good("a"), odd(&["reports"])], &declared(), None).worst, None);
    assert_eq!(judge(&[&odd(&["reports"])], &declared(), |_| None), None, "nothing is known of the pool's workers");
}

#[test]
fn where_results_of_some_tasks_are_not_stored_only_jobs_with_those_tasks_wait() {
    let tasks = |ignored: &[&str]| {
        let tasks = ["run", "check"].map(|name| task(name, Some(ignored.contains(&name)), Some(true)));
        NodeSettings { tasks: tasks.into(), ..good("a") }
    };
    let of_one = found(tasks(&["run"])).futile.unwrap();
    assert!(of_one.concerns("run") && !of_one.concerns("check"));
    let both = judged(&[tasks(&["run"]), tasks(&["check"])], &declared(), None).futile.unwrap();
    assert!(both.concerns("run") && both.concerns("check") && !both.concerns("another"));
    let odd = NodeSettings { result_serializer: Some("pickle".into()), ..tasks(&["run"]) };
    assert!(found(odd).futile.unwrap().concerns("another"), "its results are unreadable, too");
}

#[test]
fn what_cannot_be_told_for_certain_is_a_hint_and_no_fault() {
    let masked = NodeSettings { has_result_prefix: Some(true), ..good("crew@a") };
    let finding = found(masked.clone());
    assert_eq!((finding.worst, finding.futile), (None, None));
    assert!(finding.message.contains("resultKeyPrefix"), "{}", finding.message);
    let says_none = Declared { names_prefix: true, ..declared() };
    assert_eq!(judged(&[masked], &says_none, None).message, "", "the pool says that there is none");
    let quiet = found(NodeSettings { is_quiet: true, ..good("crew@a") });
    assert!(quiet.worst.is_none() && quiet.message.contains("task_track_started"), "{}", quiet.message);
}

#[test]
fn of_many_workers_some_are_named_and_what_jobs_hear_is_bounded() {
    let odd =
        |n: u32| NodeSettings { result_serializer: Some("pickle".repeat(99).into()), ..good(&format!("crew@{n}")) };
    let wrong: Vec<_> = (0..9).map(odd).collect();
    let said = judged(&wrong, &declared(), None).message;
    assert!(said.contains("crew@2") && !said.contains("crew@3") && said.ends_with("and 6 more"), "{said}");
    assert!(said.len() < 600, "{said}");
    let pickled = NodeSettings { result_serializer: Some("pickle".into()), ..good(&"n".repeat(500)) };
    let several: Vec<_> = (0..3).map(|_| pickled.clone()).collect();
    assert!(judged(&several, &declared(), None).futile.unwrap().detail.len() <= 320);
}

#[test]
fn a_shell_that_is_process_1_instead_of_the_worker_is_complained_about_and_an_init_is_not() {
    let shell: Shell = ("sh".into(), "crew".into());
    let under = |pid, shell| judged(&[NodeSettings { pid, ..good("crew@a") }], &declared(), shell);
    let finding = under(Some(7), Some(&shell));
    assert_eq!(finding.worst, Some(FaultKind::ShellTakesSignals));
    for said in ["crew@a", "\"crew\"", "\"sh\"", "exec celery"] {
        assert!(finding.message.contains(said), "{said} is not in {}", finding.message);
    }
    assert_eq!(under(Some(1), Some(&shell)).worst, None, "the shell has given its place to the worker");
    assert_eq!(under(None, Some(&shell)).worst, None, "it does not tell");
    assert_eq!(under(Some(7), None).worst, None, "an init, or a shared process namespace");
}

#[test]
fn what_a_condition_recorded_holds_jobs_of_every_task_until_a_worker_answers() {
    for kind in FaultKind::ALL {
        assert_eq!(FaultKind::named(kind.reason()), Some(kind));
    }
    let recorded = Futile::recorded("ResultsIgnored", &"crew@a: text ".repeat(50)).unwrap();
    assert!(recorded.concerns("any") && recorded.detail.len() <= 320);
    for other in ["PrefetchTooHigh", "AsExpected", "Unknown"] {
        assert_eq!(Futile::recorded(other, "text"), None, "{other}");
    }
}

#[test]
fn a_result_backend_is_read_as_a_workers_report_shows_it() {
    let redis = |host: &str, port, database| Some(Backend::Redis { host: host.into(), port, database });
    for (text, expected) in [
        ("disabled", Some(Backend::Disabled)),
        ("rpc", Some(Backend::Other("rpc".into()))),
        ("cache+memcached://127.0.0.1:11211/", Some(Backend::Other("cache".into()))),
        ("redis://redis", redis("redis", 6379, 0)),
        ("redis://:**@127.0.0.1:6380/3", redis("127.0.0.1", 6380, 3)),
        ("rediss://user:**@redis:6379//2?ssl_cert_reqs=none", redis("redis", 6379, 2)),
        ("redis", None),
        ("redis://redis/0?db=4", None),
        ("redis://redis/x", None),
        ("redis+socket:///tmp/redis.sock", None),
        ("sentinel://a:26379;sentinel://b:26379/1", None),
        ("my.module:Backend+redis://redis/1", None),
    ] {
        assert_eq!(Backend::parse(text), expected, "{text}");
    }
}
