//! What a line of output says. Text in, meaning out.

use std::borrow::Cow;

use crate::core::usage::Usage;
use crate::store::told;
use crate::wire::json::{self, Limits, Reason, Scanner};
use crate::wire::{Object, RawJson, Value};
use crate::worker::outcome::limits;

/// An error that a command describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// The name of the exception.
    pub kind: String,
    /// Its message.
    pub message: String,
    /// Whether another run may succeed, if the command says so.
    pub retry: Option<bool>,
}

/// How a command ends a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// `{"result": …}`, and what is wrong with it if anything is.
    Result(Result<RawJson, json::Error>),
    /// `{"error": {…}, "retry": …}`.
    Error(Described),
}

/// What a command says of its run that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Interim {
    /// `{"progress": …}`, and what is wrong with it if anything is.
    Progress(Result<RawJson, json::Error>),
    /// `{"checkpoint": true}`: its state is whole, and is to be saved.
    Checkpoint,
    /// `{"usage": {…}}`, what it has consumed since the last such report, and what is wrong with it if anything is.
    Usage(Result<Usage, String>),
}

/// What a line of standard output says. The same for commands that run once and for commands that stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Something about the run that goes on.
    Interim(Interim),
    /// What ends the call.
    Answer(Answer),
    /// An object of these keys that is neither, such as `{"error": "no type"}`.
    Malformed,
    /// Anything else.
    Other,
}

/// What a line says.
pub(super) fn read(line: &[u8]) -> Said {
    let Some(members) = std::str::from_utf8(line).ok().and_then(members) else { return Said::Other };
    let is_known = |key: &str| matches!(key, "progress" | "checkpoint" | "usage" | "result" | "error" | "retry");
    match members.as_slice() {
        [(key, value)] if key == "progress" => Said::Interim(Interim::Progress(value_of(value))),
        [(key, "true")] if key == "checkpoint" => Said::Interim(Interim::Checkpoint),
        [(key, value)] if key == "usage" && value.starts_with('{') => Said::Interim(Interim::Usage(used(value))),
        [(key, value)] if key == "result" => Said::Answer(Answer::Result(value_of(value))),
        [(key, value)] if key == "error" => failed(value, None),
        [(one, value), (other, retry)] if one == "error" && other == "retry" => failed(value, Some(retry)),
        [(one, retry), (other, value)] if one == "retry" && other == "error" => failed(value, Some(retry)),
        [_, ..] if members.iter().all(|(key, _)| is_known(key)) => Said::Malformed,
        _ => Said::Other,
    }
}

/// What ends a call. Nothing if the text is something else.
pub(super) fn answer(text: &[u8]) -> Option<Answer> {
    match read(text) {
        Said::Answer(answer) => Some(answer),
        Said::Interim(_) | Said::Malformed | Said::Other => None,
    }
}

fn used(value: &str) -> Result<Usage, String> {
    let value = Value::parse(value.as_bytes()).map_err(|error| error.to_string())?;
    told::reported(value.as_object().unwrap_or(&Object::new()))
}

/// Checks that `text` is one JSON value that every client of Celery can read, and keeps it verbatim.
///
/// Numbers must be finite, because only Python reads others. An object of exactly `__type__` and `__value__` is what
/// kombu writes for a Python type, and a client that does not know the type fails.
pub(super) fn value_of(text: &str) -> Result<RawJson, json::Error> {
    let mut scanner = Scanner::over(text);
    check(&mut scanner, limits(text).depth)?;
    scanner.end()?;
    RawJson::new(text)
}

fn failed(value: &str, retry: Option<&str>) -> Said {
    let retry = match retry {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Said::Malformed,
    };
    match described(value) {
        Some((kind, message)) => Said::Answer(Answer::Error(Described { kind, message, retry })),
        None => Said::Malformed,
    }
}

/// Type and message. A name that is none in Python would make a client fail that builds an exception of it.
fn described(value: &str) -> Option<(String, String)> {
    let value = Value::parse(value.as_bytes()).ok()?;
    let kind = value.get("type")?.as_str()?;
    let name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let message = value.get("message").and_then(Value::as_str).unwrap_or_default();
    kind.split('.').all(name).then(|| (kind.to_owned(), message.to_owned()))
}

/// The members of an object that has at most four, one more than there are known keys in an answer.
fn members(line: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    let line = line.trim_ascii();
    if !line.starts_with('{') {
        return None;
    }
    let mut scanner = Scanner::over(line);
    let mut members = Vec::new();
    scanner
        .object(|scanner, key| {
            if members.len() == 4 {
                return Err(scanner.error(Reason::Expected("at most four members")));
            }
            members.push((key, scanner.skip()?));
            Ok(())
        })
        .ok()?;
    scanner.end().ok()?;
    Some(members)
}

/// Whether the text is JSON, be it that no result may be so.
pub(super) fn is_json(text: &str) -> bool {
    match value_of(text) {
        Ok(_) => true,
        // These two are refused where JSON, or Python's dialect of it, has a value.
        Err(json::Error { reason: Reason::Expected(what), .. }) => what == FINITE || what == ALLOWED,
        Err(json::Error { reason, .. }) => matches!(reason, Reason::TooDeep(_)),
    }
}

const FINITE: &str = "a finite number";
const ALLOWED: &str = "anything but an object of the reserved keys __type__ and __value__";

fn check(scanner: &mut Scanner<'_>, depth: usize) -> Result<(), json::Error> {
    let deeper =
        |scanner: &Scanner<'_>| depth.checked_sub(1).ok_or_else(|| scanner.error(Reason::TooDeep(Limits::MAX_DEPTH)));
    match scanner.next()? {
        b'{' => {
            let (mut kind, mut value, mut others) = (false, false, false);
            let depth = deeper(scanner)?;
            scanner.object(|scanner, key| {
                match &*key {
                    "__type__" => kind = true,
                    "__value__" => value = true,
                    _ => others = true,
                }
                check(scanner, depth)
            })?;
            if kind && value && !others {
                return Err(scanner.error(Reason::Expected(ALLOWED)));
            }
            Ok(())
        }
        b'[' => {
            let depth = deeper(scanner)?;
            scanner.array(|scanner, _| check(scanner, depth))
        }
        b'"' | b't' | b'f' | b'n' => scanner.skip().map(|_| ()),
        _ => {
            let number = scanner.number()?;
            let integer = number.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
            if integer || number.parse().is_ok_and(f64::is_finite) {
                Ok(())
            } else {
                Err(scanner.error(Reason::Expected(FINITE)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flaw(text: &str) -> String {
        value_of(text).unwrap_err().to_string()
    }

    #[test]
    fn a_value_keeps_its_text() {
        for text in ["null", "1", "[1.50, {\"b\": 1,  \"a\": 2}]", "123456789012345678901234567890", "\"\\u00e9\""] {
            assert_eq!(value_of(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_result_that_some_client_cannot_read_is_refused() {
        assert_eq!(flaw("done"), "expected a value at byte 0");
        assert_eq!(flaw("1 2"), "data after the end of the value at byte 2");
        for text in ["[NaN]", "[-Infinity]", "[1e999]"] {
            assert!(flaw(text).starts_with("expected a finite number"), "{text}");
        }
        for text in [
            r#"[{"a":{"__type__":"uuid","__value__":1}}]"#,
            r#"{"__value__":1,"__type__":2,"__type__":3}"#,
            r#"{"\u005f_type__":2,"__value__":3}"#,
        ] {
            assert!(flaw(text).starts_with("expected anything but an object of the reserved keys"), "{text}");
        }
        value_of(r#"{"__type__":1,"__value__":2,"more":3}"#).unwrap();
        assert!(flaw(&"[".repeat(100_000)).starts_with("nested deeper than 256 levels"));
    }

    #[test]
    fn a_result_that_is_accepted_can_be_parsed_later() {
        let deep = |levels| "[".repeat(levels) + &"]".repeat(levels);
        for text in [deep(Limits::MAX_DEPTH), format!("[{}1]", "1,".repeat(1 << 20)), "7".to_owned()] {
            let value = value_of(&text).unwrap();
            value.parse(&limits(value.as_str())).unwrap();
        }
        value_of(&deep(Limits::MAX_DEPTH + 1)).unwrap_err();
    }

    #[test]
    fn a_progress_report_has_no_other_key() {
        let progress = |line: &str| match read(line.as_bytes()) {
            Said::Interim(Interim::Progress(value)) => Some(value),
            Said::Interim(_) | Said::Answer(_) | Said::Malformed | Said::Other => None,
        };
        assert_eq!(progress(r#" {"progress": {"done": 3}} "#).unwrap().unwrap().as_str(), r#"{"done": 3}"#);
        assert!(progress(r#"{"progress": NaN}"#).unwrap().is_err());
        for line in
            ["3", "{}", r#"{"progress":1,"of":2}"#, r#"{"progress":1,"progress":2}"#, r#"{"progress":1} x"#, "{"]
        {
            assert_eq!(progress(line), None, "{line}");
        }
    }

    fn error(kind: &str, message: &str, retry: Option<bool>) -> Said {
        Said::Answer(Answer::Error(Described { kind: kind.into(), message: message.into(), retry }))
    }

    #[test]
    fn an_error_needs_a_type_that_python_takes_for_a_name() {
        let read = |line: &str| read(line.as_bytes());
        assert_eq!(read(r#"{"error":{"type":"NoQuota","message":"try later"}}"#), error("NoQuota", "try later", None));
        assert_eq!(read(r#"{"error":{"type":"shop.Empty"}}"#), error("shop.Empty", "", None));
        for line in [
            r#"{"error":{"type":"no name","message":""}}"#,
            r#"{"error":{"type":"","message":""}}"#,
            r#"{"error":{"type":"3D","message":""}}"#,
            r#"{"error":{"message":""}}"#,
            r#"{"error":"x"}"#,
        ] {
            assert_eq!(read(line), Said::Malformed, "{line}");
        }
    }

    #[test]
    fn a_line_is_an_answer_or_a_malformed_one_or_foreign() {
        let read = |line: &str| read(line.as_bytes());
        assert_eq!(read(r#"{"result": [1]}"#), Said::Answer(Answer::Result(value_of("[1]"))));
        assert_eq!(read(r#"{"error":{"type":"E","message":"m"}}"#), error("E", "m", None));
        assert_eq!(read(r#"{"error":{"type":"E","message":"m"},"retry":true}"#), error("E", "m", Some(true)));
        assert_eq!(read(r#"{"retry":false,"error":{"type":"E","message":"m"}}"#), error("E", "m", Some(false)));
        for line in [
            r#"{"result":1,"retry":true}"#,
            r#"{"error":{"type":"E"},"retry":1}"#,
            r#"{"retry":true}"#,
            r#"{"progress":1,"result":2}"#,
            r#"{"result":1,"error":{"type":"E"},"retry":true}"#,
        ] {
            assert_eq!(read(line), Said::Malformed, "{line}");
        }
        for line in ["1", "ready", "{}", r#"{"level":"info","error":null}"#, r#"sent {"result": 1}"#] {
            assert_eq!(read(line), Said::Other, "{line}");
        }
    }

    #[test]
    fn json_that_no_result_may_be_is_json_nevertheless() {
        let deep = "[".repeat(300) + &"]".repeat(300);
        for text in ["[NaN]", r#"{"__type__":1,"__value__":2}"#, "[1e999]", "{}", &deep] {
            assert!(is_json(text), "{text}");
        }
        for text in ["done", "[1", "[info] done", "{a: 1}", "1 2", "[1,]"] {
            assert!(!is_json(text), "{text}");
        }
    }
}
