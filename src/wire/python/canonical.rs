use std::fmt::Write;

use crate::wire::json::{Object, Value};

/// What Python's `json.dumps(value, sort_keys=True, separators=(",", ":"))` gives: one text for equal values, so that
/// digests of it agree between Python and us.
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Null | Value::Bool(_) => out.push_str(&value.to_json()),
        Value::Number(number) => out.push_str(match number.to_python().as_str() {
            "nan" => "NaN",
            "inf" => "Infinity",
            "-inf" => "-Infinity",
            plain => plain,
        }),
        Value::String(text) => string(out, text),
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(out, element);
            }
            out.push(']');
        }
        Value::Object(members) => object(out, members),
        Value::Verbatim(text) => out.push_str(text.as_str()),
    }
}

fn object(out: &mut String, members: &Object) {
    // By code points, which is also the order of the bytes.
    let mut members: Vec<_> = members.iter().collect();
    members.sort_unstable_by_key(|(key, _)| *key);
    out.push('{');
    for (index, (key, member)) in members.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        string(out, key);
        out.push(':');
        write(out, member);
    }
    out.push('}');
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_give_the_text_that_python_gives() {
        // json.dumps(json.loads(...), sort_keys=True, separators=(",", ":"))
        let cases = [
            (r#"{"b": 1, "a": [1.0, 1e2, 1E22, true, null]}"#, r#"{"a":[1.0,100.0,1e+22,true,null],"b":1}"#),
            ("{\"\u{e9}\u{1f600}\": \"\u{7f}\\u0007\\b\"}", r#"{"\u00e9\ud83d\ude00":"\u007f\u0007\b"}"#),
            (r#"{"z": {"y": 2, "x": NaN}, "Z": "\"\\/"}"#, r#"{"Z":"\"\\/","z":{"x":NaN,"y":2}}"#),
            ("1180591620717411303424", "1180591620717411303424"),
        ];
        for (text, canonical) in cases {
            assert_eq!(canonical_json(&Value::parse(text.as_bytes()).unwrap()), canonical);
        }
    }
}
