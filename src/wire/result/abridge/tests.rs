use proptest::prelude::*;

use super::super::ResultDocument;
use super::*;

/// The short document and the text of `result`, from chunks of this size.
fn read(document: &[u8], chunk: usize) -> Result<(Vec<u8>, Option<String>), Error> {
    let (mut abridger, mut result) = (Abridger::default(), None);
    for chunk in document.chunks(chunk) {
        abridger.take(chunk, |piece| match piece {
            Piece::Begins => result = Some(String::new()),
            Piece::Text(text) => result.as_mut().unwrap().push_str(text),
        })?;
    }
    Ok((abridger.end()?, result))
}

/// What is read from chunks is what is read from the whole.
#[track_caller]
fn check(document: &[u8], chunk: usize) {
    let whole = ResultDocument::decode(document);
    match read(document, chunk) {
        Ok((short, result)) => {
            assert_eq!(ResultDocument::decode(&short), whole, "in chunks of {chunk}");
            if let Ok(whole) = &whole {
                assert_eq!(result.as_deref().unwrap_or("null"), whole.result.as_str(), "in chunks of {chunk}");
            }
        }
        // The only thing that is refused in chunks alone.
        Err(Error { reason: Reason::Expected("a name without escapes"), .. }) => {}
        Err(_) => assert!(whole.is_err(), "in chunks of {chunk}: {:?}", String::from_utf8_lossy(document)),
    }
}

const DOCUMENTS: [&str; 9] = [
    r#"{"status": "SUCCESS", "result": {"a": [1, -2.5e+3, {}], "b": "x\n\u00e9\ud83d\ude00"}, "traceback": null, "task_id": "a"}"#,
    r#" { "result" : 12 , "status":"STARTED", "result": NaN,"task_id":"ü€😀", "retries": 3 } "#,
    r#"{"task_id":"a","status":"FAILURE","result":{"exc_type":"E","exc_message":["no"],"exc_module":"m"},"children":[]}"#,
    r#"{"task_id":"a","status":"SUCCESS","result":-Infinity,"other":{"result": 5, "deep": [[["result"]]]}}"#,
    r#"{"task_id":"a","status":"SUCCESS","result":0}"#,
    r#"{"task_id":"a","status":"SUCCESS","result":""}"#,
    r#"{"task_id":"a","status":"SUCCESS"}"#,
    r#"{"task_id":"a","status":"SUCCESS","result":true,"retries":10}"#,
    "{}",
];

#[test]
fn a_document_in_chunks_of_any_size_says_what_the_whole_says() {
    for document in DOCUMENTS {
        for chunk in 1..=document.len() {
            check(document.as_bytes(), chunk);
        }
    }
}

#[test]
fn a_document_that_ends_or_breaks_anywhere_is_refused_as_the_whole_is() {
    for document in DOCUMENTS {
        for at in 0..document.len() {
            check(&document.as_bytes()[..at], 7);
            for byte in *b"\"\\,:]}x0-.\x01\xff {[" {
                let mut broken = document.as_bytes().to_vec();
                broken[at] = byte;
                for chunk in [1, 5, 1000] {
                    check(&broken, chunk);
                }
            }
        }
    }
}

#[test]
fn a_result_of_any_size_is_handed_on_and_not_kept() {
    let long = "x".repeat(3 << 20);
    let nested = format!("[{}\"{long}\"{}]", "[".repeat(1000), "]".repeat(1000));
    for result in [format!("\"{long}\""), format!("[{}1]", "1,".repeat(1 << 20)), nested] {
        let document = format!(r#"{{"status":"SUCCESS","result":{result},"task_id":"a","retries":2,"worker":"w"}}"#);
        let (short, handed) = read(document.as_bytes(), 256 << 10).unwrap();
        assert!(handed.as_deref() == Some(&*result) && short.len() < MEMBER + 1000);
        let read = ResultDocument::decode(&short).unwrap();
        assert_eq!((read.status.as_str(), read.retries, read.worker.as_deref()), ("SUCCESS", Some(2), Some("w")));
    }
}

#[test]
fn of_a_failure_that_is_long_the_type_and_the_beginnings_are_kept() {
    let long = "é".repeat(1 << 20);
    let document = format!(
        r#"{{"status":"FAILURE","result":{{"exc_type":"LimitError","exc_message":["{long}"],"exc_module":"m"}},"traceback":"{long}","task_id":"a"}}"#
    );
    let read = ResultDocument::decode(&read(document.as_bytes(), 100_001).unwrap().0).unwrap();
    let exception = read.exception().unwrap();
    assert_eq!(exception.exc_type, "LimitError");
    assert!(exception.message().starts_with("éé") && read.traceback.unwrap().len() == STRING);
}

#[test]
fn a_document_without_end_of_names_or_levels_takes_no_memory() {
    let many = format!("{{{}", "\"a\":1,".repeat(1 << 20));
    let deep = format!("{{\"result\":{}", "[".repeat(1 << 20));
    assert_eq!(read(many.as_bytes(), 4096).unwrap_err().reason, Reason::TooLarge(DOCUMENT));
    assert_eq!(read(deep.as_bytes(), 4096).unwrap_err().reason, Reason::TooDeep(DEPTH));
}

fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        (-1e30..1e30).prop_map(|value: f64| format!("{value:e}")),
        "[ -~é€]{0,12}".prop_map(|text| crate::wire::Value::from(text).to_json()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(" , "))),
            prop::collection::vec(inner, 0..4).prop_map(|all| {
                let members = all.iter().enumerate().map(|(index, value)| format!("\"result{index}\": {value}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_document_in_chunks_says_what_the_whole_says(
        result in any_json(), other in any_json(), first in any::<bool>(), chunk in 1_usize..50,
    ) {
        let (a, b) = (format!("\"result\":{result}"), format!("\"more\": {other}"));
        let (a, b) = if first { (a, b) } else { (b, a) };
        check(format!("{{\"status\": \"SUCCESS\", {a},{b} ,\"task_id\": \"t\"}}").as_bytes(), chunk);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), chunk in 1_usize..50) {
        let _ = read(&bytes, chunk);
    }
}
