use std::convert::Infallible;

use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

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

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn an_hour_is_over_when_the_next_one_has_begun() {
    let hours = Hours::default();
    hours.note("2026-11-22T15".to_owned(), at("2026-11-22T15:00:00Z"));
    assert!(hours.take_over(at("2026-11-22T15:59:59Z")).is_empty());
    assert_eq!(hours.take_over(at("2026-11-22T16:00:00Z")), ["2026-11-22T15".to_owned()].into());
    assert!(hours.take_over(at("2026-11-23T00:00:00Z")).is_empty(), "it is looked at once");
}

#[test]
fn no_hour_is_listed_when_no_job_expires() {
    assert!(Hours::default().take_over(at("2026-11-22T16:00:00Z")).is_empty());
}

#[tokio::test]
async fn a_job_that_is_recorded_in_an_hour_that_is_over_is_deleted_at_once() {
    let hours = Hours::default();
    hours.note("2026-11-22T15".to_owned(), at("2026-11-22T15:30:00Z"));
    assert!(timeout(Duration::ZERO, hours.due.notified()).await.is_err(), "there is time");
    hours.note("2026-11-01T15".to_owned(), at("2026-11-22T15:30:00Z"));
    assert!(timeout(Duration::ZERO, hours.due.notified()).await.is_ok());
}

#[test]
fn the_hours_that_are_kept_are_bounded_and_are_hours() {
    let hours = Hours::default();
    for number in 0..=KEPT {
        hours.add(format!("{:04}-11-22T{:02}", 1000 + number / 24, number % 24));
    }
    hours.add("2026-11-22T15,a=b".to_owned());
    assert_eq!(hours.known().len(), KEPT);
    assert_eq!(hours.known().first().map(String::as_str), Some("1000-11-22T00"));
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
    let found: Vec<String> = hours.known().iter().cloned().collect();
    assert_eq!(found, ["2020-02-29T23", "2031-01-01T00"]);
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
    let cleared = clear(&client, "2026-11-22T15", |_| async { Ok(true) }).await.unwrap();
    assert_eq!(cleared, Cleared { deleted: 1, left: false });
    assert_eq!((count(&asked, &Method::GET), count(&asked, &Method::DELETE)), (3, 1));
}

#[tokio::test]
async fn a_job_whose_spec_was_changed_is_deleted_only_after_its_status_follows() {
    for (followed, deleted) in [(true, 1), (false, 0)] {
        let (client, asked) = hour_of(vec![vec![job("touched", 2, false)]], 200);
        let cleared = clear(&client, "2026-11-22T15", |_| async move { Ok(followed) }).await.unwrap();
        assert_eq!(cleared, Cleared { deleted, left: !followed });
        assert_eq!(count(&asked, &Method::DELETE) as u64, deleted);
    }
}

#[tokio::test]
async fn a_job_that_changes_while_its_hour_is_cleared_is_looked_at_again() {
    let (client, _) = hour_of(vec![vec![job("a", 1, false)]], 409);
    let cleared = clear(&client, "2026-11-22T15", |_| async { Ok(true) }).await.unwrap();
    assert_eq!(cleared, Cleared { deleted: 0, left: true });
    let (client, _) = hour_of(vec![vec![job("gone", 1, false)]], 404);
    assert!(!clear(&client, "2026-11-22T15", |_| async { Ok(true) }).await.unwrap().left);
}

#[tokio::test]
async fn a_job_that_cannot_be_deleted_keeps_no_other_of_its_hour_from_being_deleted() {
    let (client, asked) = hour_of(vec![vec![job("changing", 2, false), job("other", 1, false)]], 200);
    let conflict =
        |_| async { Err(kube::Error::Api(Box::new(kube::core::Status::failure("", "Conflict").with_code(409)))) };
    let cleared = clear(&client, "2026-11-22T15", conflict).await.unwrap();
    assert_eq!(cleared, Cleared { deleted: 1, left: true });
    let (client, refused) = hour_of(vec![vec![job("guarded", 1, false), job("guarded-too", 1, false)]], 403);
    assert!(clear(&client, "2026-11-22T15", |_| async { Ok(true) }).await.unwrap().left);
    assert_eq!((count(&asked, &Method::DELETE), count(&refused, &Method::DELETE)), (1, 2));
}
