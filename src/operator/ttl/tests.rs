use std::convert::Infallible;
use std::sync::Mutex;

use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::archive;

/// What was asked of the API server.
type Asked = Arc<Mutex<Vec<(Method, String)>>>;

/// An API server that answers in this way, and what it was asked.
fn api_server(answer: impl Fn(&Method, &str) -> (u16, Value) + Clone + Send + 'static) -> (Client, Asked) {
    let asked = Asked::default();
    let noted = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (method, uri) = (request.method().clone(), request.uri().to_string());
        let (code, body) = answer(&method, &uri);
        noted.lock().unwrap().push((method, uri));
        async move {
            Ok::<_, Infallible>(
                Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap(),
            )
        }
    });
    (Client::new(service, "default"), asked)
}

fn count(asked: &Asked, method: &Method) -> usize {
    asked.lock().unwrap().iter().filter(|(of, _)| of == method).count()
}

fn job(name: &str, generation: i64, is_being_deleted: bool) -> Value {
    let deleted_at = is_being_deleted.then_some("2026-11-22T16:00:00Z");
    json!({ "metadata": {
        "name": name, "namespace": "team", "uid": name, "resourceVersion": "7", "generation": generation,
        "deletionTimestamp": deleted_at,
    } })
}

/// Pages of jobs that expired in an hour; a deletion is answered with this code.
fn hour_of(pages: Vec<Vec<Value>>, deletion: u16) -> (Client, Asked) {
    api_server(move |method, uri| {
        if method == Method::DELETE {
            return (deletion, json!({ "kind": "Status", "status": "Failure", "code": deletion, "message": "" }));
        }
        let page: usize = uri.split("continue=").nth(1).map_or(0, |text| text.parse().unwrap());
        let more = if page + 1 < pages.len() { (page + 1).to_string() } else { String::new() };
        let list = json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
            "metadata": { "resourceVersion": "9", "continue": more }, "items": pages[page],
        });
        (200, list)
    })
}

/// Clears an hour without an archive.
async fn cleared<F>(client: &Client, followed: impl Fn(ObjectKey) -> F) -> Cleared
where
    F: Future<Output = kube::Result<bool>>,
{
    let mut cleared = Cleared::default();
    clear(client, "2026-11-22T15", followed, None, &mut cleared).await.unwrap();
    cleared
}

#[tokio::test]
async fn a_look_finds_the_hours_of_all_jobs_however_long_ago_they_expired() {
    let (client, asked) = api_server(|_, uri| {
        let columns = json!([{ "name": "Name" }, { "name": EXPIRES }]);
        let (hour, more) = if uri.contains("continue=") { ("2031-01-01T00", "") } else { ("2020-02-29T23", "1") };
        let rows = json!([{ "cells": ["a", hour], "object": null }, { "cells": ["b", null] }]);
        (200, json!({ "metadata": { "continue": more }, "columnDefinitions": columns, "rows": rows }))
    });
    let hours = Hours::default();
    look(&client, &hours).await.unwrap();
    let found = hours.take_over("2040-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(found, ["2020-02-29T23".to_owned(), "2031-01-01T00".to_owned()].into());
    for (_, uri) in asked.lock().unwrap().iter() {
        assert!(uri.contains("includeObject=None") && uri.contains("limit=100"), "{uri}");
    }
}

#[tokio::test]
async fn an_older_definition_of_the_resource_is_named_with_the_command_that_mends_it() {
    let (client, _) = api_server(|_, _| (200, json!({ "columnDefinitions": [{ "name": "Name" }], "rows": [] })));
    let error = look(&client, &Hours::default()).await.unwrap_err().to_string();
    assert!(error.contains("crewjob crds apply"), "{error}");
}

#[tokio::test]
async fn jobs_held_by_finalizers_are_listed_once_and_not_deleted_again() {
    let held: Vec<Value> = (0..10).map(|number| job(&format!("held-{number}"), 1, true)).collect();
    let pages = vec![held.clone(), held, vec![job("free", 1, false)]];
    let (client, asked) = hour_of(pages, 200);
    let done = cleared(&client, |_| async { Ok(true) }).await;
    assert_eq!(done, Cleared { deleted: 1, kept: 0, left: false });
    assert_eq!((count(&asked, &Method::GET), count(&asked, &Method::DELETE)), (3, 1));
}

#[tokio::test]
async fn a_job_whose_spec_was_changed_is_deleted_only_after_its_status_follows() {
    for (followed, deleted) in [(true, 1), (false, 0)] {
        let (client, asked) = hour_of(vec![vec![job("touched", 2, false)]], 200);
        let done = cleared(&client, |_| async move { Ok(followed) }).await;
        assert_eq!(done, Cleared { deleted, kept: 0, left: !followed });
        assert_eq!(count(&asked, &Method::DELETE) as u64, deleted);
    }
}

#[tokio::test]
async fn a_job_that_changes_while_its_hour_is_cleared_is_looked_at_again() {
    let (client, _) = hour_of(vec![vec![job("a", 1, false)]], 409);
    let done = cleared(&client, |_| async { Ok(true) }).await;
    assert_eq!(done, Cleared { deleted: 0, kept: 0, left: true });
    let (client, _) = hour_of(vec![vec![job("gone", 1, false)]], 404);
    assert!(!cleared(&client, |_| async { Ok(true) }).await.left);
}

#[tokio::test]
async fn a_job_that_cannot_be_deleted_keeps_no_other_of_its_hour_from_being_deleted() {
    let (client, asked) = hour_of(vec![vec![job("changing", 2, false), job("other", 1, false)]], 200);
    let conflict =
        |_| async { Err(kube::Error::Api(Box::new(kube::core::Status::failure("", "Conflict").with_code(409)))) };
    let done = cleared(&client, conflict).await;
    assert_eq!(done, Cleared { deleted: 1, kept: 0, left: true });
    let (client, refused) = hour_of(vec![vec![job("guarded", 1, false), job("guarded-too", 1, false)]], 403);
    assert!(cleared(&client, |_| async { Ok(true) }).await.left);
    assert_eq!((count(&asked, &Method::DELETE), count(&refused, &Method::DELETE)), (1, 2));
}

/// An archive in this folder.
fn shelf(folder: &std::path::Path) -> Shelf {
    let settings = archive::Settings { dir: Some(folder.to_owned()), dir_mib: 1, ..archive::Settings::default() };
    Shelf::new(Arc::new(archive::Archive::open(&settings, "operator").unwrap().unwrap()), false)
}

fn lines(folder: &std::path::Path) -> Vec<Value> {
    let files = archive::files(folder).unwrap();
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An API server with one expired job, of which a deletion is answered with this code.
fn one_job(deletion: u16) -> (Client, Asked) {
    api_server(move |method, uri| {
        let whole = json!({
            "apiVersion": "crewjob.dev/v1alpha1", "kind": "CrewJob", "metadata": job("tea", 1, false)["metadata"],
            "spec": { "topic": "Tea", "inputs": { "password": "hunter2" } }, "status": { "expiryBucket": "2026-11-22T15" },
        });
        match *method {
            Method::DELETE => {
                (deletion, json!({ "kind": "Status", "status": "Failure", "code": deletion, "message": "" }))
            }
            _ if uri.contains("/tea") => (200, whole),
            _ => {
                let list = json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": { "resourceVersion": "9" }, "items": [job("tea", 1, false)],
                });
                (200, list)
            }
        }
    })
}

async fn archived(client: &Client, shelf: &mut Shelf) -> (Result<(), Failure>, Cleared) {
    let mut cleared = Cleared::default();
    let end = clear(client, "2026-11-22T15", |_| async { Ok(true) }, Some(shelf), &mut cleared).await;
    (end, cleared)
}

#[tokio::test]
async fn a_job_is_archived_without_its_inputs_before_it_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (client, asked) = one_job(200);
    let (end, cleared) = archived(&client, &mut shelf(folder.path())).await;
    assert!(end.is_ok());
    assert_eq!(cleared, Cleared { deleted: 1, kept: 1, left: false });
    let lines = lines(folder.path());
    assert_eq!(
        (lines.len(), &lines[0]["metadata"]["name"], &lines[0]["spec"]),
        (1, &json!("tea"), &json!({ "topic": "Tea" }))
    );
    assert_eq!(asked.lock().unwrap().last().unwrap().0, Method::DELETE);
}

#[tokio::test]
async fn a_job_that_cannot_be_archived_is_not_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("a-file");
    std::fs::write(&blocked, "").unwrap();
    let (client, asked) = one_job(200);
    let (end, cleared) = archived(&client, &mut shelf(&blocked)).await;
    assert!(matches!(end, Err(Failure::Archive(unkept)) if unkept.job.name == "tea"));
    assert_eq!((cleared, count(&asked, &Method::DELETE)), (Cleared::default(), 0));
}

#[tokio::test]
async fn a_job_that_cannot_be_deleted_is_archived_once_by_each_leader() {
    let folder = tempfile::tempdir().unwrap();
    let (client, asked) = one_job(403);
    let mut first = shelf(folder.path());
    for _ in 0..3 {
        assert!(archived(&client, &mut first).await.1.left);
    }
    assert_eq!((lines(folder.path()).len(), count(&asked, &Method::DELETE)), (1, 3));
    archived(&client, &mut shelf(folder.path())).await.0.unwrap();
    assert_eq!(lines(folder.path()).len(), 2, "it is kept at least once");
}
