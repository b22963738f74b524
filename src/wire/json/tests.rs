use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Value {
    Value::parse(text.as_bytes()).unwrap()
}

#[track_caller]
fn check(text: &str, printed: &str) {
    assert_eq!(parse(text).to_json(), printed);
}

#[track_caller]
fn refused(bytes: &[u8], error: &str) {
    assert_eq!(Value::parse(bytes).unwrap_err().to_string(), error);
    assert!(std::str::from_utf8(bytes).is_err() || RawJson::new(std::str::from_utf8(bytes).unwrap()).is_err());
}

#[test]
fn json_as_python_writes_it_is_read_and_printed_compactly() {
    check(
        r#" {"a": [1, 2.50, -0, 1e+22], "b": null, "c": true,"d":false , "e": {}, "f": [ ] } "#,
        r#"{"a":[1,2.50,-0,1e+22],"b":null,"c":true,"d":false,"e":{},"f":[]}"#,
    );
}

#[test]
fn numbers_of_any_size_and_python_constants_keep_their_text() {
    check(
        "[1180591620717411303424, NaN, -Infinity, Infinity, 1.0, 1E5]",
        "[1180591620717411303424,NaN,-Infinity,Infinity,1.0,1E5]",
    );
}

#[test]
fn integers_are_told_from_floats() {
    for (text, integer, value) in [
        ("7", true, Some(7)),
        ("-0", true, Some(0)),
        ("9223372036854775808", true, None),
        ("7.0", false, None),
        ("7e0", false, None),
        ("NaN", false, None),
    ] {
        let number = Number::parse(text).unwrap();
        assert_eq!((number.is_integer(), number.as_i64()), (integer, value), "{text}");
    }
    assert_eq!(Number::parse("12.9").unwrap().truncated(), Some(12));
    assert_eq!(Number::parse("1e99").unwrap().truncated(), Some(i64::MAX));
    assert_eq!(Number::parse("NaN").unwrap().truncated(), None);
}

#[test]
fn floats_are_printed_as_python_prints_them() {
    for (value, text) in [(1.0, "1.0"), (1e16, "1e+16"), (1.5e-5, "1.5e-05"), (0.0001, "0.0001"), (1e300, "1e+300")] {
        assert_eq!(Value::from(value).to_json(), text);
    }
    assert_eq!(Value::from(f64::NAN).to_json(), "NaN");
    assert_eq!(Value::from(f64::NEG_INFINITY).to_json(), "-Infinity");
}

#[test]
fn the_last_of_equal_keys_wins_in_the_place_of_the_first() {
    check(r#"{"a": 1, "b": 2, "a": 3, "c": 4, "a": 5, "b": 6}"#, r#"{"a":5,"b":6,"c":4}"#);
}

#[test]
fn a_hundred_thousand_equal_keys_are_read_in_no_time() {
    let members: Vec<String> = (0..100_000).map(|i| format!("\"{}\":{i}", i % 50_000)).collect();
    let value = parse(&format!("{{{}}}", members.join(",")));
    assert_eq!(value.as_object().unwrap().len(), 50_000);
    assert_eq!(value, value.clone());
}

#[test]
fn objects_are_equal_in_any_order() {
    assert_eq!(parse(r#"{"a":1,"b":{"c":2,"d":3}}"#), parse(r#"{"b":{"d":3,"c":2},"a":1}"#));
    assert_ne!(parse(r#"{"a":1}"#), parse(r#"{"a":1.0}"#));
}

#[test]
fn strings_are_unescaped_and_escaped() {
    assert_eq!(parse(r#""\u00e9\ud83d\ude00 \"\\\/\b\f\n\r\t""#).as_str(), Some("é😀 \"\\/\u{8}\u{c}\n\r\t"));
    check(r#""é\u0000\u001f\u007f\n\u2028""#, "\"é\\u0000\\u001f\u{7f}\\n\u{2028}\"");
}

#[test]
fn a_lone_surrogate_becomes_the_replacement_character() {
    assert_eq!(parse(r#""\ud800x""#).as_str(), Some("\u{fffd}x"));
    assert_eq!(parse(r#""\udc00""#).as_str(), Some("\u{fffd}"));
    assert_eq!(parse(r#""\ud83d\u0041""#).as_str(), Some("\u{fffd}A"));
    assert_eq!(parse(r#""\ud83d\ud83d\ude00""#).as_str(), Some("\u{fffd}😀"));
}

#[test]
fn text_that_is_not_json_is_refused_with_its_place() {
    refused(b"", "unexpected end at byte 0");
    refused(b"  ", "unexpected end at byte 2");
    refused(b"[1,]", "expected a value at byte 3");
    refused(b"{\"a\":1,}", "expected a string at byte 7");
    refused(b"{\"a\" 1}", "expected ':' at byte 5");
    refused(b"{1:1}", "expected a string at byte 1");
    refused(b"[1 2]", "expected ',' or ']' at byte 3");
    refused(b"{\"a\":1 \"b\"}", "expected ',' or '}' at byte 7");
    refused(b"01", "data after the end of the value at byte 1");
    refused(b"1.", "data after the end of the value at byte 1");
    refused(b"-", "expected a value at byte 0");
    refused(b"+1", "expected a value at byte 0");
    refused(b"-NaN", "expected a value at byte 0");
    refused(b"nul", "expected a value at byte 0");
    refused(b"'a'", "expected a value at byte 0");
    refused(b"\"a", "unexpected end at byte 2");
    refused(b"\"\n\"", "control character in a string at byte 1");
    refused(b"\"\\x\"", "invalid escape in a string at byte 2");
    refused(b"\"\\u12g4\"", "invalid escape in a string at byte 2");
    refused(b"\"\\u123", "invalid escape in a string at byte 2");
    refused(b"\xef\xbb\xbf1", "expected a value at byte 0");
    refused(b"\"\xff\"", "invalid UTF-8 at byte 1");
    refused(b"{} {}", "data after the end of the value at byte 3");
    refused("\u{a0}1".as_bytes(), "expected a value at byte 0");
}

#[test]
fn depth_and_length_are_limited() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(parse(&nested(128)).depth(), 128);
    refused_deep(&nested(129), &Limits::default(), "nested deeper than 128 levels at byte 128");
    refused_deep("[[]]", &Limits::default().depth(1), "nested deeper than 1 levels at byte 1");
    refused_deep("[]", &Limits::default().depth(0), "nested deeper than 0 levels at byte 0");
    refused_deep("[1,2]", &Limits::default().bytes(4), "the document is longer than 4 bytes at byte 4");
    refused_deep("[0,{}]", &Limits::default().values(2), "more than 2 values at byte 3");
    assert!(Value::parse_within(b"[0,{}]", &Limits::default().values(3)).is_ok());
    assert!(size_of::<Value>() <= 32, "see the limit of values");
    let huge = nested(1_000_000);
    refused_deep(&huge, &Limits::default().depth(usize::MAX), "nested deeper than 256 levels at byte 256");
    assert_eq!(RawJson::new(&huge).unwrap().as_str(), huge);
}

#[track_caller]
fn refused_deep(text: &str, limits: &Limits, error: &str) {
    assert_eq!(Value::parse_within(text.as_bytes(), limits).unwrap_err().to_string(), error);
}

#[test]
fn the_deepest_value_fits_a_small_stack() {
    let nested = format!("{}{}", "[{\"a\":".repeat(128), "}]".repeat(128)).replace(":}", ":1}");
    let check = move || {
        let value = Value::parse_within(nested.as_bytes(), &Limits::default().depth(256)).unwrap();
        assert_eq!(value, Value::parse_within(value.to_json().as_bytes(), &Limits::default().depth(256)).unwrap());
        assert_eq!(value.depth(), 256);
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(check).unwrap().join().unwrap();
}

#[test]
fn depth_counts_containers() {
    for (text, depth) in [("1", 0), ("[]", 1), ("{\"a\":[]}", 2), ("[[],[[]],1]", 3)] {
        assert_eq!(parse(text).depth(), depth, "{text}");
    }
}

#[test]
fn numbers_that_kubernetes_would_change_are_found() {
    for text in [
        "1",
        "-9223372036854775808",
        "9223372036854775807",
        "-0",
        "0.1",
        "1e22",
        "1.50",
        "-0.0",
        "5e-324",
        "100e-2",
        "0e9",
    ] {
        assert!(parse(text).has_exact_json_numbers(), "{text}");
    }
    for text in [
        "NaN",
        "-Infinity",
        "9223372036854775808",
        "1e400",
        "1e-400",
        "0.10000000000000000001",
        "1e99999999999999999999",
    ] {
        assert!(!parse(&format!("{{\"a\":[{text}]}}")).has_exact_json_numbers(), "{text}");
    }
}

#[test]
fn raw_text_is_kept_verbatim() {
    assert_eq!(RawJson::new(" [1,  NaN] ").unwrap().as_str(), "[1,  NaN]");
    assert!(RawJson::new("[1] 2").is_err());
}

/// Any value, with numbers in every shape that Python writes.
pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "-?[1-9][0-9]{0,40}(\\.[0-9]{1,5})?(e[+-]?[0-9]{1,3})?".prop_map(|text| Number::parse(&text).unwrap().into()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        any::<String>().prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_value_survives_a_round_trip(value in any_value()) {
        let text = value.to_json();
        prop_assert_eq!(&Value::parse(text.as_bytes()).unwrap(), &value);
        let raw = RawJson::new(&text).unwrap();
        prop_assert_eq!(raw.as_str(), &text);
    }

    #[test]
    fn parsing_and_skipping_accept_the_same_json(text in "[\\[\\]{}\",:0-9.eE+\\-\\\\ntrufalsNI u]{0,24}") {
        prop_assert_eq!(Value::parse(text.as_bytes()).is_ok(), RawJson::new(&text).is_ok());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Value::parse(&bytes);
    }
}
