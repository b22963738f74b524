//! An end for connecting, TLS included: a peer that accepts and then says nothing is given up.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper::Uri;
use tower::{BoxError, Service};

/// A connector that gives up in time.
#[derive(Clone)]
pub struct Hurry<C> {
    inner: C,
    patience: Duration,
}

impl<C> Hurry<C> {
    /// `patience` is how long connecting may take.
    pub fn new(inner: C, patience: Duration) -> Self {
        Self { inner, patience }
    }
}

impl<C: Service<Uri>> Service<Uri> for Hurry<C>
where
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connected = tokio::time::timeout(self.patience, self.inner.call(to));
        async move { connected.await?.map_err(Into::into) }.boxed()
    }
}
