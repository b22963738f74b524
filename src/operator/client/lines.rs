//! Which connection carries which request: calls share one, watches fill others.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::{Request, Response};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use kube::client::Body;
use parking_lot::Mutex;
use tower::Service;

use super::deadline::is_watch;
use super::hurry::Hurry;

/// What connects to the API server.
pub type Connector = Hurry<HttpsConnector<HttpConnector>>;

/// A client with connections of its own.
pub type Http = legacy::Client<Connector, Body>;

/// Connections to the API server. Cloning shares them.
#[derive(Clone)]
pub struct Lines {
    calls: Http,
    watches: Arc<Mutex<Vec<Line>>>,
    open: Arc<dyn Fn() -> Http + Send + Sync>,
    /// Watches that one connection carries.
    room: usize,
}

/// A connection, and a count of what uses it.
struct Line {
    http: Http,
    users: Arc<()>,
}

impl Lines {
    /// `open` makes a client that has connections of its own, each for `room` watches.
    pub fn new(open: impl Fn() -> Http + Send + Sync + 'static, room: usize) -> Self {
        Self { calls: open(), watches: Arc::default(), open: Arc::new(open), room }
    }

    /// A connection with room for one more watch, and what to keep for as long as the watch goes on.
    fn line(&self) -> (Http, Arc<()>) {
        let mut lines = self.watches.lock();
        lines.retain(|line| Arc::strong_count(&line.users) > 1);
        if let Some(line) = lines.iter().find(|line| Arc::strong_count(&line.users) <= self.room) {
            return (line.http.clone(), line.users.clone());
        }
        let (http, users) = ((self.open)(), Arc::new(()));
        lines.push(Line { http: http.clone(), users: users.clone() });
        (http, users)
    }
}

impl Service<Request<Body>> for Lines {
    type Response = Response<Used>;
    type Error = legacy::Error;
    type Future = BoxFuture<'static, Result<Self::Response, legacy::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), legacy::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (http, line) = if is_watch(request.uri()) {
            let (http, line) = self.line();
            (http, Some(line))
        } else {
            (self.calls.clone(), None)
        };
        let answered = http.request(request);
        async move { Ok(answered.await?.map(|body| Used { body, _line: line })) }.boxed()
    }
}

/// The body of an answer, which uses its connection.
pub struct Used {
    body: Incoming,
    _line: Option<Arc<()>>,
}

impl HttpBody for Used {
    type Data = <Incoming as HttpBody>::Data;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
