//! An end for every call, and for the beginning of every watch.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::{Request, Response, Uri};
use kube::client::Body;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tower::{BoxError, Service};

use crate::operator::state::watches::{self, Watches};

/// How long the answer of a call may take to arrive whole, after it has begun.
const REST: Duration = Duration::from_secs(20);

/// The API server was too slow.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not answer within {} s", .0.as_secs())]
struct TooSlow(Duration);

/// Gives up a call that is not answered in time, or whose answer does not arrive whole in time.
pub struct Deadline<S> {
    inner: S,
    answer: Duration,
    watches: Option<Watches>,
}

impl<S> Deadline<S> {
    /// `answer` is how long an answer may take to begin; `watches` hears which watches are accepted.
    pub fn new(inner: S, answer: Duration, watches: Option<Watches>) -> Self {
        Self { inner, answer, watches }
    }
}

/// Whether a request is a watch, which has no end.
pub fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|part| matches!(part, "watch=true" | "watch=1")))
}

impl<S, B> Service<Request<Body>> for Deadline<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + 'static,
{
    type Response = Response<Bounded<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (is_watch, answer) = (is_watch(request.uri()), self.answer);
        let accepted = self.watches.clone().filter(|_| is_watch).map(|it| (it, watches::key(request.uri())));
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let asked_at = Instant::now();
        let answered = timeout(answer, self.inner.call(request).map_err(Into::into));
        async move {
            let response = answered.await.map_err(|_| TooSlow(answer))??;
            tracing::debug!(%method, %uri, status = response.status().as_u16(), after = ?asked_at.elapsed(), "answered");
            if let Some((watches, key)) = accepted.filter(|_| response.status().is_success()) {
                watches.accepted(&key);
            }
            let ends = (!is_watch).then(|| Box::pin(sleep_until(Instant::now() + REST)));
            Ok(response.map(|body| Bounded { body, ends }))
        }
        .boxed()
    }
}

/// The body of an answer, which must have arrived by a certain time.
pub struct Bounded<B> {
    body: B,
    ends: Option<Pin<Box<Sleep>>>,
}

impl<B: HttpBody + Unpin> HttpBody for Bounded<B>
where
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match &mut self.ends {
            Some(ends) => ends.as_mut().poll(cx).map(|()| Some(Err(TooSlow(REST).into()))),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
