//! The list of jobs, and word of its changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::stream;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::answer::{self, Answer};
use super::super::caller::Caller;
use super::super::context::{Gateway, Seat};
use super::Desk;
use super::rows;
use crate::core::gateway::problem::{Kind, Problem};
use crate::core::listing::{Facet, Filter, Query, Scope};

/// A follower hears of changes at most so often.
const PACE: Duration = Duration::from_secs(1);
/// After so long without an event a line shows that the stream stands.
const BEAT: Duration = Duration::from_secs(15);

/// Reads what is asked for.
pub fn query(text: Option<&str>) -> Result<Query, Problem> {
    let pairs: Vec<(String, String)> = decoded(text.unwrap_or_default());
    let read = Query::read(pairs.iter().map(|(word, value)| (word.as_str(), value.as_str())));
    read.map_err(|detail| Problem::new(Kind::BadPath, detail))
}

/// The words of a query string and their values.
pub fn decoded(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(word, value)| (plain(word), plain(value)))
        .collect()
}

fn plain(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, more @ ..] = rest {
        rest = more;
        let hex = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (first, more) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                bytes.push(hex(high).unwrap_or_default() << 4 | hex(low).unwrap_or_default());
                rest = after;
            }
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// In which namespaces this filter may be answered.
pub async fn scope(gateway: &Gateway, desk: &Desk, caller: &Caller, filter: &Filter) -> Result<Scope, Problem> {
    let known = desk.board.look(|table| table.namespaces(filter));
    desk.access.scope(&gateway.upstream, caller, &filter.namespaces, known).await
}

/// A page of the jobs that are meant.
pub async fn list(gateway: &Gateway, desk: &Desk, caller: &Caller, asked: Option<&str>) -> Result<Answer, Problem> {
    let query = query(asked)?;
    let scope = scope(gateway, desk, caller, &query.filter).await?;
    let (page, omitted) = desk.board.look(|table| (table.page(&query, &scope), table.omitted()));
    let facets = page.facets.iter().map(|(facet, values)| {
        let values = values.iter().map(|(value, count)| json!({ "value": &**value, "count": count }));
        (word(*facet).to_owned(), values.collect())
    });
    let facets: Map<String, Value> = facets.collect();
    let value = json!({
        "ready": desk.board.is_ready(), "total": page.total, "before": page.before,
        "next": page.next.map(|cursor| cursor.text()), "omitted": omitted, "facets": facets,
        "jobs": page.rows.iter().map(|row| rows::value(row)).collect::<Value>(),
    });
    Ok(answer::json(StatusCode::OK, &value))
}

fn word(facet: Facet) -> &'static str {
    match facet {
        Facet::Namespace => "namespace",
        Facet::Pool => "pool",
        Facet::Phase => "phase",
        Facet::Reason => "reason",
    }
}

/// One follower of the changes.
struct Follower {
    gateway: Arc<Gateway>,
    caller: Caller,
    filter: Filter,
    changes: watch::Receiver<u64>,
    seen: u64,
    /// The last event.
    told: Option<Instant>,
    _seat: Seat,
}

/// Word of each change of a job that is meant, at most one a second, for as long as it is listened to.
pub async fn changes(
    gateway: &Arc<Gateway>,
    desk: &Desk,
    caller: &Caller,
    asked: Option<&str>,
) -> Result<Answer, Problem> {
    let filter = query(asked)?.filter;
    // A caller that may not see them is told so at once.
    scope(gateway, desk, caller, &filter).await?;
    let seat = gateway.seat(&gateway.callers.accepted(caller))?;
    let mut changes = desk.board.changes();
    let seen = *changes.borrow_and_update();
    let follower =
        Follower { gateway: gateway.clone(), caller: caller.clone(), filter, changes, seen, told: None, _seat: seat };
    let events = stream::unfold(follower, async |mut follower| {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from_static(event.as_bytes())), follower))
    });
    let mut answer = answer::text(StatusCode::OK, "text/event-stream", Body::from_stream(events));
    // nginx would hold events back until it has a page of them.
    answer.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(answer)
}

impl Follower {
    async fn next(&mut self) -> Option<&'static str> {
        if self.told.is_none() {
            self.told = Some(Instant::now());
            return Some("event: ready\ndata: {}\n\n");
        }
        let stop = self.gateway.stop.clone();
        tokio::select! {
            () = stop.cancelled() => None,
            event = self.event() => event,
        }
    }

    async fn event(&mut self) -> Option<&'static str> {
        loop {
            match timeout(BEAT, self.changes.changed()).await {
                Err(_) => return Some(":\n\n"),
                Ok(Err(_)) => return None,
                Ok(Ok(())) => {}
            }
            if let Some(told) = self.told {
                sleep_until(told + PACE).await;
            }
            let gateway = self.gateway.clone();
            let desk = gateway.desk.as_ref()?;
            // A caller whose rights or whose token are gone hears nothing further.
            let scope = scope(&gateway, desk, &self.caller, &self.filter).await.ok()?;
            let now = *self.changes.borrow_and_update();
            let is_news = desk.board.has_changed(self.seen, &self.filter, &scope);
            self.seen = now;
            if is_news {
                self.told = Some(Instant::now());
                return Some("event: changed\ndata: {}\n\n");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_string_is_decoded_whatever_it_contains() {
        let pair = |word: &str, value: &str| (word.to_owned(), value.to_owned());
        assert_eq!(
            decoded("label=team%3Da&text=a+b%26&x"),
            [pair("label", "team=a"), pair("text", "a b&"), pair("x", "")]
        );
        assert_eq!(
            decoded("a=%&b=%z1&c=%ff&&d=%C3%B6"),
            [pair("a", "%"), pair("b", "%z1"), pair("c", "\u{fffd}"), pair("d", "ö")]
        );
        assert_eq!(query(Some("limit=0")).unwrap_err().kind, Kind::BadPath);
    }
}
