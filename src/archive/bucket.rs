//! An S3-compatible object store, one object for each batch of lines: `PREFIX2026/11/28/150405-ID.jsonl`.

use std::fmt::Display;
use std::future::poll_fn;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use http::{Method, Request};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Credentials, S3Action, UrlStyle};
use tokio::time::timeout;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use uuid::Uuid;

use super::error::Error;
use super::settings::Store;

/// How long a call may take, its body included.
const CALL: Duration = Duration::from_secs(30);
/// Bytes of a listing, or of an object that is read: those that are written have 6 MiB at most.
const ANSWER: usize = 64 << 20;
/// What the names of objects of lines end with.
const END: &str = ".jsonl";
/// Characters of a refusal that are told.
const TOLD: usize = 200;

/// A bucket, and what it takes to call it.
#[derive(Debug)]
pub struct Bucket {
    place: rusty_s3::Bucket,
    credentials: Credentials,
    prefix: String,
    client: Client<HttpsConnector<HttpConnector>, String>,
}

impl Bucket {
    /// The bucket that is named, if any. Nothing is called yet.
    pub fn open(store: &Store) -> Result<Option<Self>, Error> {
        let named = store.bucket.as_deref().filter(|name| !name.is_empty());
        named.map(|name| Self::new(name, store)).transpose()
    }

    fn new(name: &str, store: &Store) -> Result<Self, Error> {
        let given = store.endpoint.clone().filter(|endpoint| !endpoint.is_empty());
        let endpoint = given.unwrap_or_else(|| format!("https://s3.{}.amazonaws.com", store.region));
        let wrong = |why: &dyn Display| Error::Settings(format!("--archive-s3-endpoint {endpoint:?}: {why}"));
        let url = parsed(&endpoint).map_err(|why| wrong(&why))?;
        let place = rusty_s3::Bucket::new(url, UrlStyle::Path, name.to_owned(), store.region.clone())
            .map_err(|why| wrong(&why))?;
        let credentials = Credentials::from_env().ok_or_else(|| {
            Error::Settings(
                "--archive-s3-bucket needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment".into(),
            )
        })?;
        Ok(Self {
            place,
            credentials,
            prefix: store.prefix.clone(),
            client: Client::builder(TokioExecutor::new()).build(connector()),
        })
    }

    /// Keeps these lines as an object of their own.
    pub async fn put(&self, lines: &str, now: Timestamp) -> Result<(), Error> {
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, lines.as_bytes()).simple();
        let key = format!("{}{}-{id}{END}", self.prefix, now.strftime("%Y/%m/%d/%H%M%S"));
        let url = self.place.put_object(Some(&self.credentials), &key).sign(CALL);
        self.call(Method::PUT, url.as_str(), lines.to_owned()).await.map_err(|why| self.failed("writing to", why))?;
        Ok(())
    }

    /// The names of all objects of lines, the oldest first, a page at a time: also what the next page begins after.
    pub async fn page(&self, after: Option<String>) -> Result<(Vec<String>, Option<String>), Error> {
        let failed = |why: String| self.failed("listing", why);
        let mut list = self.place.list_objects_v2(Some(&self.credentials));
        list.with_prefix(self.prefix.as_str());
        if let Some(after) = after {
            list.with_continuation_token(after);
        }
        let answer = self.call(Method::GET, list.sign(CALL).as_str(), String::new()).await.map_err(failed)?;
        let page = ListObjectsV2::parse_response(&String::from_utf8_lossy(&answer))
            .map_err(|error| failed(error.to_string()))?;
        let names = page.contents.into_iter().map(|object| object.key).filter(|key| key.ends_with(END));
        Ok((names.collect(), page.next_continuation_token))
    }

    /// The lines of an object.
    pub async fn get(&self, key: &str) -> Result<Vec<u8>, Error> {
        let url = self.place.get_object(Some(&self.credentials), key).sign(CALL);
        let read = self.call(Method::GET, url.as_str(), String::new()).await;
        read.map_err(|why| self.failed("reading from", why))
    }

    fn failed(&self, act: &'static str, why: String) -> Error {
        Error::Store { act, bucket: self.place.name().to_owned(), why }
    }

    /// Calls a URL that is signed. It is a secret for as long as that is valid, so it is in no message.
    async fn call(&self, method: Method, url: &str, body: String) -> Result<Vec<u8>, String> {
        let length = body.len();
        let mut request = Request::builder().method(method).uri(url);
        if length > 0 {
            request = request.header("content-type", "application/x-ndjson");
        }
        let request = request.body(body).map_err(|_| "its name makes no URL".to_owned())?;
        let call = async {
            let answer = self.client.request(request).await.map_err(|error| reason(&error))?;
            let status = answer.status();
            let read = read(answer.into_body()).await;
            match read {
                Ok(bytes) if status.is_success() => Ok(bytes),
                Ok(bytes) => Err(format!("{status}: {}", told(&bytes))),
                Err(why) => Err(why),
            }
        };
        timeout(CALL, call).await.unwrap_or_else(|_| Err(format!("no answer within {} s", CALL.as_secs())))
    }
}

/// What a text stands for, or why it does not.
fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// Certificates are checked against the system's, or those of the file that `SSL_CERT_FILE` names.
fn connector() -> HttpsConnector<HttpConnector> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build()
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| reason(&error))?;
        let data = frame.into_data().unwrap_or_else(|_| Bytes::new());
        if bytes.len().saturating_add(data.len()) > ANSWER {
            return Err(format!("an answer of more than {} MiB", ANSWER >> 20));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The innermost cause: what the others say is that a call failed.
fn reason(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What the store says of a refusal: the message in its XML, if that is what it is.
fn told(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let message = text.split_once("<Message>").and_then(|(_, rest)| rest.split_once("</Message>")).map(|(it, _)| it);
    let shown = message.unwrap_or(&text).chars().map(|it| if it.is_control() { ' ' } else { it });
    shown.take(TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_refuses_with_is_told_in_its_words_and_bounded() {
        let xml = b"<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>no such\nbucket</Message></Error>";
        assert_eq!(told(xml), "no such bucket");
        assert_eq!(told(&[b'x'; 10_000]).len(), TOLD);
    }

    #[test]
    fn an_endpoint_that_is_no_url_is_named() {
        let store = Store { endpoint: Some("minio:9000".into()), ..Store::default() };
        let error = Bucket::new("jobs", &store).unwrap_err().to_string();
        assert!(error.starts_with("--archive-s3-endpoint \"minio:9000\": "), "{error}");
    }
}
