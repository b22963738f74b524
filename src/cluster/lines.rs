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

/// An extension of a request whose answer is passed on as it is read: a slow reader must not hold up the calls of others,
/// with which it would share the window of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Streamed;

/// Connections to the API server. Cloning shares them.
#[derive(Clone)]
pub struct Lines {
    calls: Http,
    watches: Arc<Mutex<Vec<Line>>>,
    streams: Arc<Mutex<Vec<Line>>>,
    open: Arc<dyn Fn() -> Http + Send + Sync>,
    /// Watches, or streamed answers, that one connection carries.
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
        Self { calls: open(), watches: Arc::default(), streams: Arc::default(), open: Arc::new(open), room }
    }

    /// A connection of these with room for one more, and what to keep for as long as that goes on. Of those without users
    /// so many are kept: a watch that failed begins anew on another connection, while streamed answers follow each other.
    fn line(&self, lines: &Mutex<Vec<Line>>, mut spare: usize) -> (Http, Arc<()>) {
        let mut lines = lines.lock();
        lines.retain(|line| {
            let is_used = Arc::strong_count(&line.users) > 1;
            let is_spare = !is_used && spare > 0;
            spare -= usize::from(is_spare);
            is_used || is_spare
        });
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
        let line = if is_watch(request.uri()) {
            Some(self.line(&self.watches, 0))
        } else if request.extensions().get::<Streamed>().is_some() {
            Some(self.line(&self.streams, 1))
        } else {
            None
        };
        let (http, line) = line.map_or_else(|| (self.calls.clone(), None), |(http, users)| (http, Some(users)));
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
