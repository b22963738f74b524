//! What a native worker, or the package `crewjob`, says in a result document beside the fields of Celery, which hands on
//! what it does not know.
//!
//! | field | what it says |
//! |---|---|
//! | `usage` | `{"count": "5f0c…", "models": {"gpt-5": {"input_tokens": 1200, "output_tokens": 80, "requests": 1, "cost_usd": "0.0021"}}}` |
//! | `state` | `{"saved_at": "…", "bytes": 4096, "resumed": true, "problem": "…"}` |

use crate::core::account::{Count, SavedState};
use crate::core::status::head;
use crate::core::usage::{Consumed, Usage, Usd};
use crate::wire::{Number, Object, Value, time};

/// The field of what a run has consumed.
pub const USAGE: &str = "usage";
/// The field of the state of a job.
pub const STATE: &str = "state";

/// Bytes of a problem with a state that are kept.
const PROBLEM: usize = 256;
/// Bytes of the name of a count that are kept.
const ID: usize = 64;

/// Reads what a program reports: the members of one model's consumption, and its name. Says what is wrong with it.
pub fn reported(report: &Object) -> Result<Usage, String> {
    const KNOWN: [&str; 6] = ["model", "input_tokens", "cached_tokens", "output_tokens", "requests", "cost_usd"];
    if let Some((unknown, _)) = report.iter().find(|(name, _)| !KNOWN.contains(&&**name)) {
        return Err(format!("{unknown:?} is none of {}", KNOWN.join(", ")));
    }
    let model = match report.get("model") {
        None | Some(Value::Null) => "",
        Some(value) => value.as_str().ok_or("model must be a string")?,
    };
    Ok(Usage::of(if model.is_empty() { "unknown" } else { model }, consumed(report)?))
}

/// The field [`USAGE`] of a document, read as far as it can be: it is a claim.
pub fn usage(other: &Object) -> Count {
    let mut usage = Usage::default();
    let field = |name: &str| other.get(USAGE).and_then(|usage| usage.get(name));
    for (model, value) in field("models").and_then(Value::as_object).into_iter().flat_map(Object::iter) {
        if let Some(Ok(consumed)) = value.as_object().map(consumed) {
            usage.count(model, &consumed);
        }
    }
    let id = field("count").and_then(Value::as_str).unwrap_or_default();
    Count { id: head(id, ID).into(), usage }
}

/// The field [`STATE`] of a document, read as far as it can be: it is a claim.
pub fn state(other: &Object) -> Option<SavedState> {
    let state = other.get(STATE)?;
    let problem = state.get("problem").and_then(Value::as_str).filter(|text| !text.is_empty());
    Some(SavedState {
        saved_at: state.get("saved_at").and_then(Value::as_str).and_then(time::parse),
        bytes: state.get("bytes").and_then(Value::as_i64).and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
        is_resumed: state.get("resumed").and_then(Value::as_bool).unwrap_or(false),
        problem: problem.map(|text| head(text, PROBLEM).into()),
    })
}

/// A document's other fields with what was consumed, if that is known.
#[must_use]
pub fn with_usage(other: Object, Count { id, usage }: &Count) -> Object {
    if usage.is_empty() {
        return other;
    }
    let models: Object = usage.models().map(|(model, it)| (model.to_owned(), Value::from(members(it)))).collect();
    other.with(USAGE, Object::new().with("count", &**id).with("models", models))
}

/// A document's other fields with what is known of the job's state.
#[must_use]
pub fn with_state(other: Object, state: &SavedState) -> Object {
    let mut fields = Object::new();
    if let Some(at) = state.saved_at {
        fields = fields.with("saved_at", time::format(at)).with("bytes", number(state.bytes));
    }
    let fields = fields.with("resumed", state.is_resumed);
    let fields = match &state.problem {
        Some(problem) => fields.with("problem", head(problem, PROBLEM)),
        None => fields,
    };
    other.with(STATE, fields)
}

fn members(consumed: &Consumed) -> Object {
    let counts = [
        ("input_tokens", consumed.input),
        ("cached_tokens", consumed.cached),
        ("output_tokens", consumed.output),
        ("requests", consumed.requests),
    ];
    let counts = counts.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name, number(count)));
    let cost = consumed.cost.map(|cost| ("cost_usd", Value::from(cost.to_string())));
    counts.chain(cost).collect()
}

fn consumed(members: &Object) -> Result<Consumed, String> {
    let count = |name: &str| match members.get(name) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => counted(value).ok_or_else(|| format!("{name} must be a whole number of 0 or more")),
    };
    let cost = match members.get("cost_usd") {
        None | Some(Value::Null) => None,
        Some(value) => {
            // Most programs have it as a number of floating point.
            let text = match (value.as_str(), value.as_number().map(Number::as_f64)) {
                (Some(text), _) => text.to_owned(),
                (None, Some(number)) => format!("{number:.12}"),
                (None, None) => String::new(),
            };
            Some(text.parse::<Usd>().map_err(|error| format!("cost_usd {error}"))?)
        }
    };
    Ok(Consumed {
        input: count("input_tokens")?,
        cached: count("cached_tokens")?,
        output: count("output_tokens")?,
        requests: count("requests")?,
        cost,
    })
}

/// A count, which some programs have as a number of floating point.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole, and within the bounds")]
fn counted(value: &Value) -> Option<u64> {
    if let Some(whole) = value.as_i64() {
        return u64::try_from(whole).ok();
    }
    let number = value.as_f64()?;
    ((0.0..9e15).contains(&number) && number.fract() == 0.0).then_some(number as u64)
}

fn number(count: u64) -> Value {
    i64::try_from(count).unwrap_or(i64::MAX).into()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn object(text: &str) -> Object {
        Value::parse(text.as_bytes()).unwrap().as_object().unwrap().clone()
    }

    #[test]
    fn a_report_of_usage_is_read_and_what_is_wrong_with_one_is_said() {
        let usage = reported(&object(
            r#"{"model": "gpt-5", "input_tokens": 12, "cached_tokens": 2.0, "output_tokens": null, "requests": 1, "cost_usd": 0.00025}"#,
        ));
        let cost = Some("0.00025".parse().unwrap());
        let consumed = Consumed { input: 12, cached: 2, output: 0, requests: 1, cost };
        assert_eq!(usage, Ok(Usage::of("gpt-5", consumed)));
        assert_eq!(reported(&object(r#"{"input_tokens": 1}"#)).unwrap().models().next().unwrap().0, "unknown");
        for (text, expected) in [
            (r#"{"tokens": 1}"#, "\"tokens\" is none of model, input_tokens"),
            (r#"{"input_tokens": -1}"#, "input_tokens must be a whole number"),
            (r#"{"output_tokens": 1.5}"#, "output_tokens must be a whole number"),
            (r#"{"requests": "1"}"#, "requests must be a whole number"),
            (r#"{"cost_usd": "a lot"}"#, "cost_usd must be a decimal number"),
            (r#"{"cost_usd": -0.5}"#, "cost_usd must be a decimal number"),
            (r#"{"model": 5}"#, "model must be a string"),
        ] {
            let said = reported(&object(text)).unwrap_err();
            assert!(said.starts_with(expected), "{text}: {said}");
        }
    }

    #[test]
    fn what_a_document_says_is_read_as_it_was_written() {
        let mut usage = Usage::of("a", Consumed { input: 5, requests: 1, ..Consumed::default() });
        usage.count("b", &Consumed { output: 7, cost: Some(Usd::billionths(1)), ..Consumed::default() });
        let usage = Count { id: "one".into(), usage };
        let saved = SavedState {
            saved_at: Some(Timestamp::constant(1_700_000_000, 0)),
            bytes: 4096,
            is_resumed: true,
            problem: Some("too large".into()),
        };
        let other = with_state(with_usage(Object::new(), &usage), &saved);
        assert_eq!(super::usage(&other), usage);
        assert_eq!(state(&other), Some(saved));
        assert_eq!(with_usage(Object::new(), &Count::default()), Object::new());
        assert_eq!(state(&Object::new()), None);
    }

    #[test]
    fn of_a_document_that_another_program_wrote_what_can_be_read_is_read() {
        for text in
            [r#"{"usage": 1}"#, r#"{"usage": {"models": []}}"#, r#"{"usage": {"models": {"a": {"input_tokens": -1}}}}"#]
        {
            assert_eq!(usage(&object(text)), Count::default(), "{text}");
        }
        let nothing = SavedState { saved_at: None, bytes: 0, is_resumed: false, problem: None };
        for text in [r#"{"state": 1}"#, r#"{"state": {"bytes": -1, "saved_at": "yesterday", "problem": ""}}"#] {
            assert_eq!(state(&object(text)), Some(nothing.clone()), "{text}");
        }
        let long = object(&format!(r#"{{"state": {{"problem": "{}"}}}}"#, "x".repeat(1000)));
        assert_eq!(state(&long).unwrap().problem.unwrap().len(), PROBLEM);
    }
}
