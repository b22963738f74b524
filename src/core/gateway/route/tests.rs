use super::*;

fn at(line: &str) -> Result<Route, Nowhere> {
    let (method, path) = line.split_once(' ').unwrap();
    route(method, path, "", "home")
}

fn id(namespace: &str, name: &str) -> JobId {
    JobId { namespace: namespace.into(), name: name.into() }
}

#[test]
fn the_short_form_names_jobs_by_their_ids() {
    assert_eq!(at("POST /api/submit"), Ok(Route::Submit));
    assert_eq!(at("GET /api/status/a.b"), Ok(Route::Status(id("a", "b"))));
    assert_eq!(at("GET /api/result/a.b.c"), Ok(Route::Result(id("a", "b.c"))));
    assert_eq!(at("POST /api/cancel/b"), Ok(Route::Cancel(id("home", "b"))));
    assert_eq!(at("GET /api/events/a.b"), Ok(Route::Events(id("a", "b"))));
    assert_eq!(at("GET /api/submit"), Err(Nowhere::Method(WRITE)));
    assert_eq!(at("DELETE /api/status/a.b"), Err(Nowhere::Method(READ)));
    assert!(matches!(at("GET /api/status/A"), Err(Nowhere::Unusable(_))));
    assert_eq!(at("GET /"), Ok(Route::Page(Page::File("index.html".into()))));
    assert_eq!(at("GET /api/explain/b"), Ok(Route::Page(Page::Explain(id("home", "b")))));
    assert_eq!(at("GET /api/jobs/actions"), Err(Nowhere::Method(WRITE)));
    assert!(matches!(at("GET /api/log/A"), Err(Nowhere::Unusable(_))));
    for unknown in
        ["GET /index.html", "GET /api", "GET /api/status", "GET /api/status/", "GET /api/status/a.b/c", "GET /x"]
    {
        assert!(at(unknown).is_err(), "{unknown}");
    }
}

#[test]
fn of_kubernetes_only_the_paths_of_jobs_pools_and_schedules_are_passed_on() {
    const BASE: &str = "/apis/crewjob.dev/v1alpha1";
    for (method, rest) in [
        ("GET", ""),
        ("GET", "/crewjobs"),
        ("GET", "/namespaces/a/crewjobs"),
        ("POST", "/namespaces/a/crewjobs"),
        ("GET", "/namespaces/a/crewschedules/b.c"),
        ("PUT", "/namespaces/a/crewworkerpools/b"),
        ("PATCH", "/namespaces/a/crewjobs/b"),
        ("DELETE", "/namespaces/a/crewjobs/b"),
        ("PATCH", "/namespaces/a/crewjobs/b/status"),
    ] {
        assert_eq!(
            at(&format!("{method} {BASE}{rest}")),
            Ok(Route::Kubernetes(format!("{BASE}{rest}"))),
            "{method} {rest}"
        );
    }
    for (method, path) in [
        ("GET", "/api/v1/namespaces/a/secrets"),
        ("GET", "/api/v1/namespaces/a/pods/b/exec"),
        ("GET", "/apis"),
        ("GET", "/apis/apps/v1/namespaces/a/deployments"),
        ("GET", "/apis/crewjob.dev/v2/crewjobs"),
        ("GET", "/apis/crewjob.dev/v1alpha1/namespaces"),
        ("GET", "/apis/crewjob.dev/v1alpha1/namespaces/a"),
        ("GET", "/apis/crewjob.dev/v1alpha1/namespaces/a/secrets"),
        ("GET", "/apis/crewjob.dev/v1alpha1/namespaces/A/crewjobs"),
        ("GET", "/apis/crewjob.dev/v1alpha1/namespaces/a/crewjobs/b/exec"),
        ("GET", "/apis/crewjob.dev/v1alpha1/watch/crewjobs"),
        ("POST", "/apis/crewjob.dev/v1alpha1/crewjobs"),
        ("DELETE", "/apis/crewjob.dev/v1alpha1/namespaces/a/crewjobs"),
        ("DELETE", "/apis/crewjob.dev/v1alpha1/namespaces/a/crewjobs/b/status"),
        ("CONNECT", "/apis/crewjob.dev/v1alpha1/crewjobs"),
    ] {
        assert!(at(&format!("{method} {path}")).is_err(), "{method} {path}");
    }
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_refused() {
    const BASE: &str = "/apis/crewjob.dev/v1alpha1/namespaces";
    for path in [
        "/../api/v1/secrets",
        "/a/crewjobs/../../../../../../api/v1/secrets",
        "/a/crewjobs/.",
        "/a/crewjobs/%2e%2e/secrets",
        "/a/crewjobs/..%2fsecrets",
        "/a%2fb/crewjobs",
        "/a//crewjobs",
        "/a/crewjobs/",
        "/a/crewjobs/b;v=1",
        "/a/crewjobs/b\\c",
        "/a/crewjobs/b\0",
    ] {
        assert!(at(&format!("GET {BASE}{path}")).is_err(), "{path}");
    }
    assert!(at(&format!("GET {BASE}/a/crewjobs/{}", "b".repeat(2000))).is_err());
}

#[test]
fn a_prefix_is_of_every_path_and_ends_at_a_slash() {
    let below = |path| route("GET", path, "/crew", "home");
    assert_eq!(below("/crew/healthz"), Ok(Route::Health));
    assert_eq!(below("/crew/apis/crewjob.dev"), Ok(Route::Kubernetes("/apis/crewjob.dev".into())));
    for outside in ["/healthz", "/crewhealthz", "/crew", "healthz", "", "*"] {
        assert!(below(outside).is_err(), "{outside}");
    }
}
