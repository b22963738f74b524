//! An end for every call, and for the beginning of every watch.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::{Request, Response, Uri};
use kube::client::Body;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tower::{BoxError, Service};

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until its answer begins. A watch counts as begun when it is accepted.
    pub answer: Duration,
    /// From then until the answer is there as a whole. A watch has no end.
    pub rest: Duration,
}

/// Hears of each watch that is accepted.
pub type Accepted = Arc<dyn Fn(&Uri) + Send + Sync>;

/// The API server was too slow.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not answer within {} s", .0.as_secs())]
struct TooSlow(Duration);

/// Whether a call has failed because it took too long.
pub fn is_too_slow(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Gives up a call that is not answered in time, or whose answer does not arrive whole in time.
pub struct Deadline<S> {
    inner: S,
    patience: Patience,
    accepted: Option<Accepted>,
}

impl<S> Deadline<S> {
    /// `accepted` hears which watches are accepted.
    pub fn new(inner: S, patience: Patience, accepted: Option<Accepted>) -> Self {
        Self { inner, patience, accepted }
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
        let is_watch = is_watch(request.uri());
        let Patience { answer, rest } = self.patience;
        let accepted = self.accepted.clone().filter(|_| is_watch);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let asked_at = Instant::now();
        let answered = timeout(answer, self.inner.call(request).map_err(Into::into));
        async move {
            let response = answered.await.map_err(|_| TooSlow(answer))??;
            tracing::debug!(%method, %uri, status = response.status().as_u16(), after = ?asked_at.elapsed(), "answered");
            if let Some(accepted) = accepted.filter(|_| response.status().is_success()) {
                accepted(&uri);
            }
            let ends = (!is_watch).then(|| Box::pin(sleep_until(Instant::now() + rest)));
            Ok(response.map(|body| Bounded { body, ends, rest }))
        }
        .boxed()
    }
}

/// The body of an answer, which must have arrived by a certain time.
pub struct Bounded<B> {
    body: B,
    ends: Option<Pin<Box<Sleep>>>,
    rest: Duration,
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
        let rest = self.rest;
        match &mut self.ends {
            Some(ends) => ends.as_mut().poll(cx).map(|()| Some(Err(TooSlow(rest).into()))),
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
