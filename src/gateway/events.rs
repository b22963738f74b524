//! `GET /api/events/ID`: what happens to a job, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::StreamExt as _;
use futures::stream::poll_fn;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::answer::{self, Answer};
use super::caller::Caller;
use super::context::{Gateway, Seat};
use super::jobs;
use super::lines::Lines;
use super::view::{self, Links};
use crate::core::gateway::events::{News, Resume, Seen, event_id, news, resume};
use crate::core::gateway::id::JobId;
use crate::core::gateway::problem::{Kind, Problem};
use crate::core::gateway::route::{GROUP, VERSION};
use crate::runtime::backoff::{Backoff, Bounds};

/// What a browser sends of the last event that it had.
const LAST: HeaderName = HeaderName::from_static("last-event-id");
/// How often a line is sent that means nothing, so that proxies and clients see that the stream lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a watch may last, in seconds. Then the job is read again, with which an expired token is noticed.
const WATCH: u32 = 240;
/// How long a stream may last; then the client connects again, perhaps to another replica.
const LONGEST: Duration = Duration::from_hours(1);
/// The pauses between tries while the API server does not answer, and for how long it is tried.
const PAUSE: Bounds = (Duration::from_millis(500), Duration::from_secs(10));
const PATIENCE: Duration = Duration::from_mins(1);
/// Events that wait for a client that does not read.
const WAITING: usize = 4;

/// Begins a stream. What is wrong from the start is an answer of its own.
pub async fn events(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    id: &JobId,
    headers: &HeaderMap,
) -> Result<Answer, Problem> {
    // Before the API server is asked: what is refused costs it nothing.
    let mut seat = gateway.seat(&caller.key)?;
    let job = jobs::read(gateway, caller, id).await?;
    let own = gateway.callers.accepted(caller);
    if own != caller.key {
        drop(seat);
        seat = gateway.seat(&own)?;
    }
    let now = view::seen(&job);
    let last = headers.get(&LAST).and_then(|value| value.to_str().ok());
    let told = match resume(last, &now) {
        // A browser that hears this does not connect again.
        Resume::Over => return Ok(answer::text(StatusCode::NO_CONTENT, "text/event-stream", Body::empty())),
        Resume::Known => Some(now),
        Resume::Tell => None,
    };
    let (events, mut waiting) = mpsc::channel(WAITING);
    let stream = Stream { gateway: gateway.clone(), caller: caller.clone(), id: id.clone(), told, events };
    tokio::spawn(stream.run(job, seat));
    let lines = poll_fn(move |cx| waiting.poll_recv(cx)).map(Ok::<Bytes, Infallible>);
    let mut answer = Response::new(Body::from_stream(lines));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would hold events back until it has a page of them.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(answer)
}

/// A stream of events.
struct Stream {
    gateway: Arc<Gateway>,
    caller: Caller,
    id: JobId,
    told: Option<Seen>,
    events: mpsc::Sender<Bytes>,
}

/// Why a stream ends before the job does: the client is gone, or something that it is told.
enum Ended {
    Gone,
    Told(Problem),
}

/// Why a watch ends.
enum Watched {
    /// It is to be begun again.
    Again,
    /// The job is over, and was told.
    Over,
}

impl Stream {
    async fn run(mut self, job: Value, seat: Seat) {
        let (stop, events) = (self.gateway.stop.clone(), self.events.clone());
        let ended = tokio::select! {
            ended = timeout(LONGEST, self.follow(job)) => ended.unwrap_or(Ok(())),
            () = heartbeats(events.clone()) => Err(Ended::Gone),
            () = stop.cancelled() => Ok(()),
        };
        if let Err(Ended::Told(problem)) = ended {
            let _ = events.send(event("error", None, &answer::members(&problem))).await;
        }
        drop(seat);
    }

    /// Tells what is new of the job until it is over, or the stream is.
    async fn follow(&mut self, mut job: Value) -> Result<(), Ended> {
        self.send("retry: 2000\n\n".into()).await?;
        let (mut backoff, mut failing_since) = (Backoff::new(PAUSE), None::<Instant>);
        loop {
            if self.tell(&job).await? {
                return Ok(());
            }
            let failed = match self.watch(&job).await {
                Ok(Watched::Over) => return Ok(()),
                Ok(Watched::Again) => None,
                Err(Ended::Told(problem)) => Some(problem),
                Err(gone) => return Err(gone),
            };
            // A watch that was accepted is no failure; it may have ended by itself, or its version may be too old.
            let read = jobs::read(&self.gateway, &self.caller, &self.id).await;
            match (read, failed) {
                (Ok(again), None) => {
                    (job, failing_since) = (again, None);
                    backoff.reset();
                }
                (Err(problem), _) if problem.kind == Kind::NoSuchJob => return self.tell_deleted().await,
                (Ok(_), Some(problem)) | (Err(problem), _) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    let is_passing = matches!(problem.kind.status(), 429 | 500..);
                    if !is_passing || since.elapsed() >= PATIENCE {
                        return Err(Ended::Told(problem));
                    }
                    sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Watches the job from this version on.
    async fn watch(&mut self, job: &Value) -> Result<Watched, Ended> {
        let JobId { namespace, name } = &self.id;
        let version = view::text(job, "/metadata/resourceVersion");
        let path = format!(
            "/apis/{GROUP}/{VERSION}/namespaces/{namespace}/crewjobs?watch=true&fieldSelector=metadata.name%3D{name}\
             &resourceVersion={version}&timeoutSeconds={WATCH}"
        );
        let answer = self.gateway.upstream.watch(&self.caller, &path).await.map_err(Ended::Told)?;
        if !answer.status().is_success() {
            let detail = format!("it refused to follow the job, with status {}", answer.status().as_u16());
            let kind = match answer.status().as_u16() {
                410 => return Ok(Watched::Again),
                401 => Kind::Unauthenticated,
                403 => Kind::Forbidden,
                429 | 500.. => Kind::ApiServerBusy,
                _ => Kind::ApiServerFailed,
            };
            return Err(Ended::Told(Problem::new(kind, detail)));
        }
        let mut lines = Lines::new(answer.into_body());
        while let Some(line) = lines.next().await {
            let Ok(change) = serde_json::from_slice::<Value>(&line) else { break };
            let object = &change["object"];
            match change["type"].as_str() {
                Some("ADDED" | "MODIFIED") => {
                    if self.tell(object).await? {
                        return Ok(Watched::Over);
                    }
                }
                Some("DELETED") => {
                    self.tell_deleted().await?;
                    return Ok(Watched::Over);
                }
                Some("BOOKMARK") => {}
                Some(_) | None => break,
            }
        }
        Ok(Watched::Again)
    }

    /// Tells what is new; whether the job is over.
    async fn tell(&mut self, job: &Value) -> Result<bool, Ended> {
        let now = view::seen(job);
        for news in news(self.told.as_ref(), &now) {
            let told = self.data(news, &now);
            self.send(event(news.name(), Some(&event_id(news, &now)), &told)).await?;
        }
        let is_over = now.is_over;
        self.told = Some(now);
        Ok(is_over)
    }

    async fn tell_deleted(&self) -> Result<(), Ended> {
        let uid = self.told.as_ref().map(|told| told.uid.clone()).unwrap_or_default();
        let end = Seen { uid, is_over: true, reason: "Deleted".into(), ..Seen::default() };
        self.send(event(News::End.name(), Some(&event_id(News::End, &end)), &self.data(News::End, &end))).await
    }

    fn data(&self, news: News, now: &Seen) -> Value {
        match news {
            News::Phase => {
                json!({ "id": self.id.to_string(), "phase": now.phase, "reason": now.reason, "message": now.message })
            }
            News::Progress => {
                let (percent, message) = now.progress.clone().unwrap_or_default();
                json!({ "id": self.id.to_string(), "percent": percent, "message": message })
            }
            News::End => {
                let links = Links::of(&self.id, &self.gateway.prefix);
                json!({
                    "id": self.id.to_string(), "phase": now.phase, "reason": now.reason, "message": now.message,
                    "links": { "status": links.status, "result": links.result },
                })
            }
        }
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Ended> {
        self.events.send(bytes).await.map_err(|_| Ended::Gone)
    }
}

/// Sends lines that mean nothing, until the client is gone.
async fn heartbeats(events: mpsc::Sender<Bytes>) {
    let mut ticks = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = events.closed() => return,
            _ = ticks.tick() => if events.send(Bytes::from_static(b":\n\n")).await.is_err() { return },
        }
    }
}

/// One event. Its data is JSON without line breaks.
fn event(name: &str, id: Option<&str>, data: &Value) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {name}\n{id}data: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_data_whatever_a_message_has_in_it() {
        let told = event("phase", Some("7"), &json!({ "message": "two\nlines\r\nand: more" }));
        let told = std::str::from_utf8(&told).unwrap();
        assert_eq!(told, "event: phase\nid: 7\ndata: {\"message\":\"two\\nlines\\r\\nand: more\"}\n\n");
    }
}
