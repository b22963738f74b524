//! What must hold for any bytes, shared by the fuzz target and the ordinary tests.

#![allow(clippy::unwrap_used, reason = "whatever does not hold must be seen")]

use crewjob::core::claims::fence::{Fence, Term};
use crewjob::core::{claims, id};
use crewjob::store::Marker;
use crewjob::wire::envelope::peek;
use crewjob::wire::pidbox::{self, Reply, Request, TaskInfo, WorkerConf, WorkerStats};
use crewjob::wire::result::{Abridger, Piece, state_of_prefix};
use crewjob::wire::{
    Envelope, Event, Headers, Limits, Message, Number, Object, Properties, RawJson, ResultDocument, Signature, Unacked,
    Value, python, time,
};

/// How many decoders [`decoder`] knows.
pub const DECODERS: u8 = 13;

/// Small enough to be reached by a fuzzer.
const LIMITS: Limits = Limits { bytes: 1 << 16, depth: 40, values: 10_000 };

/// Hands `bytes` to a decoder. Panics when something does not hold.
pub fn decoder(number: u8, bytes: &[u8]) {
    match number % DECODERS {
        0 => value(bytes),
        1 => envelope(bytes),
        2 => unacked(bytes),
        3 => result(bytes),
        4 => events(bytes),
        5 => request(bytes),
        6 => reply(bytes),
        7 => text(bytes),
        // The same again without having to guess base64.
        8 => wrapped(bytes, envelope),
        9 => wrapped(bytes, events),
        10 => {
            wrapped(bytes, request);
            wrapped(bytes, reply);
        }
        11 => fence(bytes),
        _ => marker(bytes),
    }
}

/// The fields of a hash, as lines.
fn lines(bytes: &[u8]) -> impl Iterator<Item = Option<Vec<u8>>> {
    bytes.split(|byte| *byte == b'\n').map(|line| (!line.is_empty()).then(|| line.to_vec()))
}

fn fence(bytes: &[u8]) {
    let ours = Term { created: 1_764_150_000, transitions: 7 };
    let fields: Vec<Option<String>> =
        lines(bytes).map(|line| line.map(|line| String::from_utf8_lossy(&line).into_owned())).collect();
    let field = |n: usize| fields.get(n).and_then(Option::as_deref);
    match claims::fence::judge(field(0), field(1), ours) {
        Fence::Missing => assert_eq!(field(1), None),
        Fence::Open => {
            let held = |n, otherwise: &str| field(n).unwrap_or(otherwise).parse::<u64>().unwrap();
            assert!((held(0, "0"), held(1, "")) <= (ours.created, ours.transitions.into()));
        }
        Fence::Closed(says) => assert!(says.len() < 256 && !says.chars().any(char::is_control)),
    }
    for text in fields.iter().flatten() {
        assert!(claims::node_name(text).is_none_or(|name| name.len() <= claims::NODE_NAME));
        let exception = claims::exception_name(text);
        assert!(!exception.is_empty() && exception.len() <= 128 && !exception.chars().any(char::is_control));
        let number = text.parse::<i64>().ok();
        assert!(claims::celery_retries(1, number) <= claims::RETRIES);
        assert!(text.parse().map_or(true, |percent: f64| claims::percent(percent) <= 100));
    }
}

fn marker(bytes: &[u8]) {
    let Some(marker) = Marker::of(&lines(bytes).collect::<Vec<_>>()) else { return };
    assert!(marker.generation <= id::GENERATIONS && (1..=claims::RUNS + 1).contains(&marker.attempt));
    assert!(marker.priority.get() <= 10);
}

fn wrapped(body: &[u8], exercise: fn(&[u8])) {
    if let Ok(body) = std::str::from_utf8(body) {
        let headers = Object::new().with("task", "t").with("id", "i");
        exercise(&Envelope::new(headers, body, Properties::default()).encode());
    }
}

fn value(bytes: &[u8]) {
    let parsed = Value::parse_within(bytes, &LIMITS);
    if let Ok(text) = std::str::from_utf8(bytes) {
        // Only depth and length tell them apart.
        assert!(RawJson::new(text).is_ok() || parsed.is_err());
    }
    let Ok(value) = parsed else { return };
    assert!(value.depth() <= LIMITS.depth);
    assert_eq!(Value::parse_within(value.to_json().as_bytes(), &LIMITS.bytes(usize::MAX)).as_ref(), Ok(&value));
    let _ = value.has_exact_json_numbers();
    assert!(python::repr(&value).chars().count() <= python::MAX_CHARS + 3);
    assert!(python::safe_repr(&value).chars().count() <= 2 * python::MAX_CHARS);
    answers(&value);
    let _ = Event::from_value(value.clone());
    let _ = Signature::decode(&value).map(|signature| {
        assert_eq!(Signature::decode(&signature.to_value()), Ok(signature));
    });
    if let Value::Object(fields) = value {
        let _ = Headers::from_object(fields).map(|headers| {
            assert_eq!(Headers::from_object(headers.to_object()).unwrap().to_object(), headers.to_object());
        });
    }
}

fn answers(value: &Value) {
    let _ = (TaskInfo::list(value), TaskInfo::query(value), pidbox::error_of(value));
    let _ = (WorkerStats::decode(value), WorkerConf::decode(value));
}

fn envelope(bytes: &[u8]) {
    let seen = peek(bytes);
    let Ok(envelope) = Envelope::decode_within(bytes, &LIMITS) else { return };
    assert_eq!(Envelope::decode(&envelope.encode()).as_ref(), Ok(&envelope));

    let seen = seen.unwrap();
    let header = |key| envelope.headers.get(key).and_then(Value::as_str);
    assert_eq!(seen.task_id.as_deref(), header("id"));
    assert_eq!(seen.task_name.as_deref(), header("task"));
    assert_eq!(seen.eta.as_deref(), header("eta"));
    assert_eq!(seen.delivery_tag.as_deref(), Some(&*envelope.properties.delivery_tag));
    assert_eq!(seen.priority, envelope.properties.priority);
    assert_eq!(seen.exchange, envelope.properties.delivery_info.exchange);
    assert_eq!(seen.routing_key, envelope.properties.delivery_info.routing_key);

    let _ = envelope.body_bytes();
    if let Ok(message) = Message::decode_within(&envelope, &LIMITS) {
        let _ = (message.headers.eta_at(), message.headers.expires_at());
        let again = message.to_envelope(envelope.properties.clone());
        assert_eq!(Message::decode(&again).unwrap().body(), message.body());
    }
    let back = envelope.redelivered();
    assert!(peek(&back.encode()).unwrap().redelivered);
}

fn unacked(bytes: &[u8]) {
    let seen = peek(bytes);
    let Ok(entry) = Unacked::decode_within(bytes, &LIMITS) else { return };
    assert_eq!(Unacked::decode(&entry.encode()).as_ref(), Ok(&entry));
    let seen = seen.unwrap();
    assert_eq!((&*seen.exchange, &*seen.routing_key), (entry.exchange.as_str(), entry.routing_key.as_str()));
}

/// What is read of a result document in chunks is what is read of the whole.
fn in_chunks(bytes: &[u8]) {
    let (mut abridger, mut handed) = (Abridger::default(), None::<String>);
    for chunk in bytes.chunks(7) {
        let take = |piece: Piece<'_>| match piece {
            Piece::Begins => handed = Some(String::new()),
            Piece::Text(text) => handed.get_or_insert_default().push_str(text),
        };
        if abridger.take(chunk, take).is_err() {
            return;
        }
    }
    let Ok(short) = abridger.end() else { return };
    if bytes.len() <= LIMITS.bytes {
        let whole = ResultDocument::decode(bytes);
        assert_eq!(ResultDocument::decode(&short).is_ok(), whole.is_ok());
        if let Ok(whole) = whole {
            assert_eq!(handed.as_deref().unwrap_or("null"), whole.result.as_str());
        }
    }
}

fn result(bytes: &[u8]) {
    in_chunks(bytes);
    let _ = state_of_prefix(bytes);
    let Ok(document) = ResultDocument::decode_within(bytes, &LIMITS) else { return };
    assert_eq!(ResultDocument::decode(&document.encode()).as_ref(), Ok(&document));
    let _ = (document.done_at(), document.is_full_form());
    if let Some(exception) = document.exception() {
        assert!(exception.message().chars().count() <= python::MAX_CHARS + 32);
    }
}

fn events(bytes: &[u8]) {
    for event in Event::decode_within(bytes, &LIMITS).unwrap_or_default() {
        assert_eq!(Event::from_value(event.to_value()).as_ref(), Ok(&event));
        assert_eq!(Event::decode(&event.envelope("t").encode()), Ok(vec![event]));
    }
}

fn request(bytes: &[u8]) {
    if let Ok(request) = Request::decode_within(bytes, &LIMITS) {
        assert_eq!(Request::decode(&request.envelope(1, None, "t").encode()).as_ref(), Ok(&request));
    }
}

fn reply(bytes: &[u8]) {
    if let Ok(reply) = Reply::decode_within(bytes, &LIMITS) {
        assert_eq!(Reply::decode(&reply.envelope("o", 1, "t").encode()).as_ref(), Ok(&reply));
        reply.nodes.iter().for_each(|(_, answer)| answers(answer));
    }
}

fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(at) = time::parse(text) {
        let written = time::format(at);
        assert!(time::parse(&written).is_none_or(|again| time::format(again) == written));
    }
    if let Some(number) = Number::parse(text) {
        assert_eq!(Number::parse(&number.to_string()).as_ref(), Some(&number));
        assert!(!number.to_python().is_empty());
        let _ = (number.is_exact(), number.truncated());
    }
    assert!(python::str(&Value::from(text)).chars().count() <= python::MAX_CHARS + 3);
}
