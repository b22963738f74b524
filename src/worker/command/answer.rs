//! What a line of output says. Text in, meaning out.

use std::borrow::Cow;

use crate::wire::json::{self, Limits, Reason, Scanner};
use crate::wire::{RawJson, Value};
use crate::worker::outcome::limits;

/// An error that a command describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// The name of the exception.
    pub kind: String,
    /// Its message.
    pub message: String,
}

/// How a server ends a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// `{"result": …}`, and what is wrong with it if anything is.
    Result(Result<RawJson, json::Error>),
    /// `{"error": {…}, "retry": …}`.
    Error { described: Described, retry: bool },
}

/// The value of a progress report, and what is wrong with it if anything is. Nothing if the line is something else.
pub(super) fn progress(line: &str) -> Option<Result<RawJson, json::Error>> {
    match members(line)?.as_slice() {
        [(key, value)] if key == "progress" => Some(value_of(value)),
        _ => None,
    }
}

/// The error of a line `{"error": {"type": …, "message": …}}`.
pub(super) fn error(line: &str) -> Option<Described> {
    match members(line)?.as_slice() {
        [(key, value)] if key == "error" => described(value),
        _ => None,
    }
}

/// What ends a call of a server. Nothing if the line is something else.
pub(super) fn answer(line: &str) -> Option<Answer> {
    match members(line)?.as_slice() {
        [(key, value)] if key == "result" => Some(Answer::Result(value_of(value))),
        [(key, value)] if key == "error" => Some(Answer::Error { described: described(value)?, retry: false }),
        [(one, value), (other, retry)] if one == "error" && other == "retry" => failed(value, retry),
        [(one, retry), (other, value)] if one == "retry" && other == "error" => failed(value, retry),
        _ => None,
    }
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

fn failed(value: &str, retry: &str) -> Option<Answer> {
    let retry = match retry {
        "true" => true,
        "false" => false,
        _ => return None,
    };
    Some(Answer::Error { described: described(value)?, retry })
}

/// A name that is none in Python would make a client fail that builds an exception of it.
fn described(value: &str) -> Option<Described> {
    let value = Value::parse(value.as_bytes()).ok()?;
    let kind = value.get("type")?.as_str()?;
    let name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let message = value.get("message").and_then(Value::as_str).unwrap_or_default();
    kind.split('.').all(name).then(|| Described { kind: kind.to_owned(), message: message.to_owned() })
}

/// The members of an object that has at most two.
fn members(line: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    let line = line.trim_ascii();
    if !line.starts_with('{') {
        return None;
    }
    let mut scanner = Scanner::over(line);
    let mut members = Vec::new();
    scanner
        .object(|scanner, key| {
            if members.len() == 2 {
                return Err(scanner.error(Reason::Expected("at most two members")));
            }
            members.push((key, scanner.skip()?));
            Ok(())
        })
        .ok()?;
    scanner.end().ok()?;
    Some(members)
}

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
                let allowed = "anything but an object of the reserved keys __type__ and __value__";
                return Err(scanner.error(Reason::Expected(allowed)));
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
                Err(scanner.error(Reason::Expected("a finite number")))
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
        assert_eq!(progress(r#" {"progress": {"done": 3}} "#).unwrap().unwrap().as_str(), r#"{"done": 3}"#);
        assert!(progress(r#"{"progress": NaN}"#).unwrap().is_err());
        for line in
            ["3", "{}", r#"{"progress":1,"of":2}"#, r#"{"progress":1,"progress":2}"#, r#"{"progress":1} x"#, "{"]
        {
            assert_eq!(progress(line), None, "{line}");
        }
    }

    #[test]
    fn an_error_needs_a_type_that_python_takes_for_a_name() {
        let described = |kind: &str, message: &str| Some(Described { kind: kind.into(), message: message.into() });
        assert_eq!(error(r#"{"error":{"type":"NoQuota","message":"try later"}}"#), described("NoQuota", "try later"));
        assert_eq!(error(r#"{"error":{"type":"shop.Empty"}}"#), described("shop.Empty", ""));
        for line in [
            r#"{"error":{"type":"no name","message":""}}"#,
            r#"{"error":{"type":"","message":""}}"#,
            r#"{"error":{"type":"3D","message":""}}"#,
            r#"{"error":{"message":""}}"#,
            r#"{"error":"x"}"#,
        ] {
            assert_eq!(error(line), None, "{line}");
        }
    }

    #[test]
    fn a_server_says_result_or_error() {
        let described = Described { kind: "E".into(), message: "m".into() };
        let error = |retry| Some(Answer::Error { described: described.clone(), retry });
        assert_eq!(answer(r#"{"result": [1]}"#), Some(Answer::Result(value_of("[1]"))));
        assert_eq!(answer(r#"{"error":{"type":"E","message":"m"}}"#), error(false));
        assert_eq!(answer(r#"{"error":{"type":"E","message":"m"},"retry":true}"#), error(true));
        assert_eq!(answer(r#"{"retry":false,"error":{"type":"E","message":"m"}}"#), error(false));
        for line in ["1", r#"{"result":1,"retry":true}"#, r#"{"error":{"type":"E"},"retry":1}"#, "ready"] {
            assert_eq!(answer(line), None, "{line}");
        }
    }
}
