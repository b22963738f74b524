//! OTLP's JSON (opentelemetry-proto, `trace/v1/trace.proto`): ids in hex, numbers of 64 bits as texts.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::core::trace::{self, Kind, Span, SpanContext};

/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK` and `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`: the span of a link is not ours.
const REMOTE: u32 = 0x300;

/// The body of a request.
pub fn request(resource: &[(String, String)], spans: &[Span]) -> Vec<u8> {
    let resource: Vec<Value> =
        resource.iter().map(|(name, value)| attribute(name, &json!({ "stringValue": value }))).collect();
    let spans: Vec<Value> = spans.iter().map(span).collect();
    let scope = json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") });
    let scope = json!({ "scope": scope, "spans": spans });
    let request = json!({ "resourceSpans": [{ "resource": { "attributes": resource }, "scopeSpans": [scope] }] });
    request.to_string().into_bytes()
}

fn span(span: &Span) -> Value {
    let kind = match span.kind {
        Kind::Internal => 1,
        Kind::Producer => 4,
    };
    let attributes: Vec<Value> = span.attributes.iter().map(|(name, value)| attribute(name, &any(value))).collect();
    let started = |at: Timestamp| json!({ "timeUnixNano": nanos(at), "name": "started" });
    let link = |SpanContext { trace, span, is_sampled }: SpanContext| json!({ "traceId": trace_id(trace), "spanId": span_id(span), "flags": REMOTE | u32::from(is_sampled) });
    json!({
        "traceId": trace_id(span.trace),
        "spanId": span_id(span.id),
        "parentSpanId": span.parent.map(span_id).unwrap_or_default(),
        "flags": 1,
        "name": span.name,
        "kind": kind,
        "startTimeUnixNano": nanos(span.start),
        "endTimeUnixNano": nanos(span.end),
        "attributes": attributes,
        "events": span.started.map(started).into_iter().collect::<Vec<_>>(),
        "links": span.link.map(link).into_iter().collect::<Vec<_>>(),
        "status": { "code": if span.is_error { 2 } else { 0 } },
    })
}

fn any(value: &trace::Value) -> Value {
    match value {
        trace::Value::Text(text) => json!({ "stringValue": text }),
        trace::Value::Number(number) => json!({ "intValue": number.to_string() }),
    }
}

fn attribute(name: &str, value: &Value) -> Value {
    json!({ "key": name, "value": value })
}

fn trace_id(id: u128) -> String {
    format!("{id:032x}")
}

fn span_id(id: u64) -> String {
    format!("{id:016x}")
}

fn nanos(at: Timestamp) -> String {
    at.as_nanosecond().max(0).to_string()
}

/// How many spans of a request a collector has refused that has taken the others.
pub fn refused(answer: &[u8]) -> u64 {
    let answer: Option<Value> = serde_json::from_slice(answer).ok();
    let refused = answer.as_ref().and_then(|answer| answer.get("partialSuccess")?.get("rejectedSpans"));
    refused.and_then(|refused| refused.as_u64().or_else(|| refused.as_str()?.parse().ok())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_as_the_protocol_says() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let sent = Span {
            trace: 0xab,
            id: 0xcd,
            parent: Some(0xef),
            name: "attempt 1".into(),
            kind: Kind::Producer,
            start: at(1),
            end: at(3),
            attributes: vec![
                ("crewjob.attempt", trace::Value::Number(1)),
                ("crewjob.pool", trace::Value::Text("default".into())),
            ],
            started: Some(at(2)),
            is_error: true,
            link: Some(SpanContext { trace: 1, span: 2, is_sampled: true }),
        };
        let written: Value = serde_json::from_slice(&request(&[("service.name".into(), "s".into())], &[sent])).unwrap();
        let whole = &written["resourceSpans"][0];
        assert_eq!(
            whole["resource"],
            json!({ "attributes": [{ "key": "service.name", "value": { "stringValue": "s" } }] })
        );
        let expected = json!({
            "traceId": "000000000000000000000000000000ab",
            "spanId": "00000000000000cd",
            "parentSpanId": "00000000000000ef",
            "flags": 1,
            "name": "attempt 1",
            "kind": 4,
            "startTimeUnixNano": "1000000000",
            "endTimeUnixNano": "3000000000",
            "attributes": [
                { "key": "crewjob.attempt", "value": { "intValue": "1" } },
                { "key": "crewjob.pool", "value": { "stringValue": "default" } },
            ],
            "events": [{ "timeUnixNano": "2000000000", "name": "started" }],
            "links": [{
                "traceId": "00000000000000000000000000000001", "spanId": "0000000000000002", "flags": 0x301,
            }],
            "status": { "code": 2 },
        });
        assert_eq!(whole["scopeSpans"][0]["spans"], json!([expected]));
    }

    #[test]
    fn what_a_collector_refuses_of_a_request_is_read_whatever_it_answers() {
        assert_eq!(refused(br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"x"}}"#), 3);
        assert_eq!(refused(br#"{"partialSuccess":{"rejectedSpans":2}}"#), 2);
        for none in
            ["", "{}", "null", r#"{"partialSuccess":{}}"#, r#"{"partialSuccess":{"rejectedSpans":-1}}"#, "\u{1}"]
        {
            assert_eq!(refused(none.as_bytes()), 0, "{none}");
        }
    }
}
