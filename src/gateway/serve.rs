//! One request, from where it leads to its answer.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use http::request::Parts;
use http::{Method, Request, StatusCode, header};
use tokio::time::Instant;

use super::answer::{self, Answer};
use super::caller::Caller;
use super::config::Mcp;
use super::context::Gateway;
use super::metrics::For;
use super::{events, jobs, mcp, page, pass, submit};
use crate::core::gateway::headers::{Site, is_media_type, is_refused};
use crate::core::gateway::page::Page;
use crate::core::gateway::problem::{Kind, Problem};
use crate::core::gateway::route::{Nowhere, Route, route};

/// Answers a request from this address.
pub async fn serve(gateway: Arc<Gateway>, peer: SocketAddr, request: Request<Body>) -> Answer {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let found = route(parts.method.as_str(), parts.uri.path(), &gateway.prefix, &gateway.home);
    let path = For::of(found.as_ref().ok());
    let answered = match found {
        Ok(Route::Mcp) if gateway.mcp == Mcp::Off => Err(leads_nowhere(&Nowhere::Unknown)),
        Ok(route) if route.needs_caller() => for_caller(&gateway, peer, &route, &parts, body).await,
        Ok(Route::Page(Page::File(name))) if gateway.desk.is_some() => page::file(&name, &parts.headers),
        Ok(Route::Page(_)) => Err(leads_nowhere(&Nowhere::Unknown)),
        Ok(route) => Ok(open(&gateway, &route)),
        Err(nowhere) => Err(leads_nowhere(&nowhere)),
    };
    let answer = answered.unwrap_or_else(|problem| answer::problem(&problem));
    let (status, after) = (answer.status().as_u16(), began.elapsed());
    gateway.metrics.answered(path, status, after);
    tracing::debug!(method = %parts.method, ?path, status, ?after, "answered");
    answer
}

/// What needs no caller.
fn open(gateway: &Gateway, route: &Route) -> Answer {
    match route {
        Route::OpenApi => answer::text(StatusCode::OK, "application/json", gateway.openapi.clone()),
        Route::Ready if gateway.stop.is_cancelled() => {
            answer::text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "stopping\n")
        }
        Route::Health
        | Route::Ready
        | Route::Submit
        | Route::Status(_)
        | Route::Result(_)
        | Route::Cancel(_)
        | Route::Events(_)
        | Route::Page(_)
        | Route::Mcp
        | Route::Kubernetes(_) => answer::text(StatusCode::OK, "text/plain", "ok\n"),
    }
}

async fn for_caller(
    gateway: &Arc<Gateway>,
    peer: SocketAddr,
    route: &Route,
    parts: &Parts,
    body: Body,
) -> Result<Answer, Problem> {
    check(parts, route)?;
    let caller = gateway.callers.identify(peer.ip(), &parts.headers)?;
    let limited = gateway.limiter.take(&caller.key).await;
    if let Some((count, taken, is_without_redis)) = limited {
        if is_without_redis {
            gateway.metrics.counted_alone.inc();
        }
        let answered = if taken.is_allowed {
            dispatch(gateway, &caller, route, parts, body).await
        } else {
            let detail = format!("this caller may make {count} of them in the time of the limit, and has made them");
            Err(Problem::new(Kind::RateLimited, detail).again_after(taken.retry_after))
        };
        let answer = answered.unwrap_or_else(|problem| answer::problem(&problem));
        return Ok(answer::with_rate(answer, count, &taken));
    }
    dispatch(gateway, &caller, route, parts, body).await
}

async fn dispatch(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    route: &Route,
    parts: &Parts,
    body: Body,
) -> Result<Answer, Problem> {
    let body = gateway.room.read(&parts.headers, body).await?;
    match route {
        Route::Submit => submit::submit(gateway, caller, &parts.headers, &body.bytes).await,
        Route::Status(id) => jobs::status(gateway, caller, id).await,
        Route::Result(id) => jobs::result(gateway, caller, id).await,
        Route::Cancel(id) => jobs::cancel(gateway, caller, id).await,
        Route::Events(id) => events::events(gateway, caller, id, &parts.headers).await,
        Route::Kubernetes(path) => {
            let sent = if parts.method == Method::GET { Bytes::new() } else { body.bytes.clone() };
            pass::pass(gateway, caller, parts, path, sent).await
        }
        Route::Mcp => Ok(mcp::answer(gateway, caller, parts, body.bytes.clone()).await),
        Route::Page(page) => page::answer(gateway, caller, page, parts.uri.query(), &body.bytes).await,
        Route::OpenApi | Route::Health | Route::Ready => Ok(open(gateway, route)),
    }
}

/// Refuses what is never passed on, and what a page of another site could have sent in a user's name.
fn check(parts: &Parts, route: &Route) -> Result<(), Problem> {
    if let Some(name) = parts.headers.keys().find(|name| is_refused(name.as_str())) {
        let detail = format!("it has {name}: the API server would do it with the rights of another user");
        return Err(Problem::new(Kind::RefusedHeader, detail));
    }
    if parts.method == Method::GET {
        return Ok(());
    }
    let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let site = Site { fetch_site: text("sec-fetch-site"), origin: text("origin"), host: text("host") };
    if site.is_other() {
        return Err(Problem::new(Kind::CrossSite, "a page of another site has sent it"));
    }
    let kind = text(header::CONTENT_TYPE.as_str());
    let is_json = route.is_short() || matches!(route, Route::Page(_) | Route::Mcp);
    if !is_media_type(kind, parts.method.as_str(), is_json) {
        let wanted = if is_json { "application/json" } else { "a type that Kubernetes takes for this method" };
        return Err(Problem::new(Kind::MediaType, format!("send Content-Type: {wanted}")));
    }
    Ok(())
}

fn leads_nowhere(nowhere: &Nowhere) -> Problem {
    match *nowhere {
        Nowhere::Unknown => Problem::new(Kind::NotFound, "openapi.json lists what there is"),
        Nowhere::Unusable(why) => Problem::new(Kind::BadPath, why),
        Nowhere::Method(allowed) => {
            let detail = format!("it takes {}", allowed.join(", "));
            Problem { allowed, ..Problem::new(Kind::MethodNotAllowed, detail) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(method: &str, headers: &[(&str, &str)]) -> Result<(), Kind> {
        let mut request = Request::builder().method(method).uri("/api/submit");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        check(&parts, &Route::Submit).map_err(|problem| problem.kind)
    }

    #[test]
    fn what_asks_to_be_another_user_or_comes_from_another_site_is_refused_before_anything_is_read() {
        let json = ("content-type", "application/json");
        assert_eq!(checked("POST", &[json]), Ok(()));
        assert_eq!(checked("POST", &[json, ("Impersonate-User", "admin")]), Err(Kind::RefusedHeader));
        assert_eq!(checked("GET", &[("X-Remote-User", "admin")]), Err(Kind::RefusedHeader));
        assert_eq!(checked("POST", &[json, ("Sec-Fetch-Site", "cross-site")]), Err(Kind::CrossSite));
        assert_eq!(checked("POST", &[json, ("Origin", "https://evil"), ("Host", "jobs")]), Err(Kind::CrossSite));
        assert_eq!(checked("POST", &[("content-type", "text/plain")]), Err(Kind::MediaType));
        assert_eq!(checked("POST", &[]), Err(Kind::MediaType));
        assert_eq!(checked("GET", &[]), Ok(()));
    }
}
