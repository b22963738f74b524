//! Sending again what the API server has not looked at.
//!
//! An API server ends an HTTP/2 connection when it refuses a token on it (`UnauthenticatedHTTP2DOSMitigation`), when it stops, and
//! with `--goaway-chance` now and then. Others' requests that were about to go over the same connection then fail with `GOAWAY` and
//! `NO_ERROR`. It has not processed them (RFC 9113, 6.8), so all of them, also those that change something, can be sent again.

use std::error::Error;
use std::future::{Ready, ready};

use h2::Reason;
use hyper::{Request, Response};
use kube::client::Body;
use tower::BoxError;
use tower::retry::Policy;

/// How often one request is sent again. Each time it meets a connection that others have had ended, which only many refused
/// tokens at a time can bring about.
const TRIES: u8 = 8;

/// Sends a request again that was not processed, at once: the next connection is another one.
#[derive(Debug, Clone, Copy)]
pub struct Unprocessed {
    left: u8,
}

impl Unprocessed {
    /// For a request that was not sent yet.
    pub const fn new() -> Self {
        Self { left: TRIES }
    }
}

impl<B> Policy<Request<Body>, Response<B>, BoxError> for Unprocessed {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        request: &mut Request<Body>,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Self::Future> {
        let error = result.as_ref().err().filter(|error| is_unprocessed(error.as_ref()))?;
        self.left = self.left.checked_sub(1)?;
        tracing::debug!(uri = %request.uri(), %error, "the connection ended before the request; sending it again");
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        copy(request)
    }
}

/// The same request once more; `None` for a body that can be read only once.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// Whether the peer has ended the connection without having processed this request. A stream that it has begun with fails
/// with an error of its own, or with one of the socket.
fn is_unprocessed(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Streamed;

    #[test]
    fn a_request_that_is_sent_again_is_the_same_and_goes_the_same_way() {
        let mut first = Request::post("https://a/b?c=d").header("x", "y").body(Body::from(b"{}".to_vec())).unwrap();
        first.extensions_mut().insert(Streamed);
        let again = copy(&first).unwrap();
        assert_eq!((again.method(), again.uri(), again.headers()), (first.method(), first.uri(), first.headers()));
        assert!(again.extensions().get::<Streamed>().is_some());
    }

    #[test]
    fn only_what_the_peer_says_it_has_not_processed_is_sent_again() {
        let mut request = Request::new(Body::empty());
        for error in [
            BoxError::from(std::io::Error::other("connection reset")),
            h2::Error::from(Reason::NO_ERROR).into(),
            h2::Error::from(Reason::REFUSED_STREAM).into(),
        ] {
            let mut failed: Result<Response<()>, BoxError> = Err(error);
            assert!(Unprocessed::new().retry(&mut request, &mut failed).is_none(), "{failed:?}");
        }
    }
}
