//! Messages as producers write them: which are taken, and what of them is looked at.

use super::*;

const BODY: &str = r#""body": "W1tdLCB7fSwge31d", "content-encoding": "utf-8", "content-type": "application/json""#;
const HEADERS: &str = r#""headers": {"id": "1", "task": "a.task"}"#;
const PROPERTIES: &str =
    r#""properties": {"delivery_info": {"exchange": "ex", "routing_key": "key"}, "delivery_tag": "t1"}"#;

/// Takes an element from a queue, and says what is in flight after that.
async fn taken(element: &[u8]) -> (Delivery, Vec<u8>) {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    redis::cmd("LPUSH").arg("crew_jobs").arg(element).exec(&mut server.connection()).unwrap();
    let (delivery, refused) = take(&channel, &["crew_jobs"]).await;
    assert_eq!(refused, 0, "{}", String::from_utf8_lossy(element));
    let delivery = delivery.unwrap();
    let noted = server.run(&["HGET", "unacked", &delivery.tag]);
    (delivery, noted)
}

#[tokio::test]
async fn a_message_is_taken_in_whatever_order_and_with_whatever_spaces_its_fields_are_written() {
    let pad = "x".repeat(40_000);
    let nested = r#""delivery_tag": "no", "delivery_info": {"exchange": "no", "routing_key": "no"}"#;
    let elements = [
        format!("{{{BODY}, {HEADERS}, {PROPERTIES}}}"),
        format!("{{{PROPERTIES}, {HEADERS}, {BODY}}}"),
        format!("{{{PROPERTIES}, {HEADERS}, {BODY}, \"pad\": \"{pad}\"}}"),
        format!(" {{{BODY}, {PROPERTIES}, {HEADERS}, \"content-encoding\": \"utf-8\"}}\n"),
        format!("{{{BODY}, {HEADERS}, {PROPERTIES}}}").replace(", ", ",").replace(": ", ":"),
        format!("{{{BODY}, {HEADERS}, {PROPERTIES}}}").replace(", ", "\n ,\n").replace(": ", " : "),
        // The names also occur elsewhere, as names and in texts with quotes and brackets.
        format!(r#"{{{BODY}, {PROPERTIES}, "headers": {{"id": "1", "properties": {{{nested}}}}}}}"#),
        format!(r#"{{{BODY}, {HEADERS}, {}, "properties": {{{nested}}}}}}}"#, PROPERTIES.trim_end_matches('}'))
            .replace(r#""t1", "properties""#, r#""t1", "inner""#),
        format!(r#"{{"body": "\\\"properties\": {{\"delivery_tag\": \"no\"}}}}]\\", {HEADERS}, {PROPERTIES}}}"#),
        format!(
            "{{{BODY}, {HEADERS}, {}}}",
            PROPERTIES.replace("\"delivery_info\"", r#""reply_to": "{\"[", "delivery_info""#)
        ),
    ];
    for element in elements {
        let (delivery, noted) = taken(element.as_bytes()).await;
        assert_eq!((delivery.tag.as_str(), &*delivery.envelope), ("t1", element.as_bytes()), "{element}");
        assert_eq!(String::from_utf8(noted).unwrap(), format!(r#"[{element}, "ex", "key"]"#));
    }
}

#[tokio::test]
async fn a_message_without_an_exchange_or_a_way_at_all_is_taken() {
    for (info, rest) in [
        (r#""delivery_info": {"exchange": null, "routing_key": "key"}, "#, r#", "", "key"]"#),
        (r#""delivery_info": null, "#, r#", "", ""]"#),
        (r#""delivery_info": {}, "#, r#", "", ""]"#),
        ("", r#", "", ""]"#),
    ] {
        let element = format!(r#"{{{BODY}, {HEADERS}, "properties": {{{info}"delivery_tag": "t1"}}}}"#);
        let (_, noted) = taken(element.as_bytes()).await;
        assert_eq!(String::from_utf8(noted).unwrap(), format!("[{element}{rest}"));
    }
}

#[tokio::test]
async fn no_message_is_decoded_in_redis_beyond_its_properties() {
    // What a decoder within Redis refuses: lone surrogates, bytes that are not UTF-8, and deep nesting.
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    for before in
        [r#""shadow": "caf\udce9.pdf""#.as_bytes(), b"\"shadow\": \"caf\xe9.pdf\"", format!("\"x\": {deep}").as_bytes()]
    {
        let element = [b"{", before, b", ", format!("{BODY}, {HEADERS}, {PROPERTIES}}}").as_bytes()].concat();
        let (delivery, noted) = taken(&element).await;
        assert_eq!((delivery.tag.as_str(), delivery.envelope), ("t1", element.clone()));
        assert_eq!(noted, [b"[", &*element, br#", "ex", "key"]"#].concat());
    }
    let odd = PROPERTIES
        .replace("\"delivery_info\"", "\"reply_to\": \"caf\\udce9\", \"delivery_info\"")
        .replace("key\"}", "k\\udce9\"}");
    let element = format!("{{{BODY}, {HEADERS}, {odd}}}");
    let (_, noted) = taken(element.as_bytes()).await;
    assert_eq!(String::from_utf8(noted).unwrap(), format!(r#"[{element}, "ex", "k\udce9"]"#), "nor in them");
}

#[tokio::test]
async fn a_message_whose_correlation_id_is_not_utf8_is_taken_and_one_whose_delivery_tag_is_not_is_none() {
    let with = |name: &str, value: &[u8]| {
        let properties = PROPERTIES.replace("\"delivery_info\"", &format!("\"{name}\": \"VALUE\", \"delivery_info\""));
        let element = format!("{{{BODY}, \"headers\": {{\"id\": \"1\", \"eta\": null}}, {properties}}}");
        let parts: Vec<&[u8]> = element.split("VALUE").map(str::as_bytes).collect();
        parts.join(value)
    };
    for value in [b"caf\xe9".as_slice(), "caf\u{e9}\u{20ac}\u{1f600}".as_bytes()] {
        let element = with("correlation_id", value);
        assert_eq!(taken(&element).await.0.envelope, element);
    }
    let server = RedisServer::start();
    let channel = channel(&server).await;
    let tagged = String::from_utf8(with("x", b"y")).unwrap().replace("\"t1\"", "\"TAG\"");
    let parts: Vec<&[u8]> = tagged.split("TAG").map(str::as_bytes).collect();
    for (tag, refused) in [(b"\xe9\xe9".as_slice(), 1), ("\u{e9}".as_bytes(), 0)] {
        redis::cmd("LPUSH").arg("crew_jobs").arg(parts.join(tag)).exec(&mut server.connection()).unwrap();
        assert_eq!(take(&channel, &["crew_jobs"]).await.1, refused);
    }
}

#[tokio::test]
async fn a_message_that_another_worker_has_taken_since_is_not_given_again() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    send(&server, "crew_jobs", "1", 0);
    let first = channel.reserve(&["crew_jobs"], "me", "").await.unwrap().0.unwrap();
    // The answer is lost, and the visibility timeout runs out. A worker puts the message back and takes it: twice, so
    // that it is the same to the byte.
    let mut bytes = first.envelope;
    for _ in 0..2 {
        assert_eq!(channel.restore("t1", "1", "", &queues()).await, Ok(true));
        let (other, _) = take(&channel, &["crew_jobs"]).await;
        bytes = other.unwrap().envelope;
        assert_eq!(channel.reserve(&["crew_jobs"], "me", "").await, Ok((None, 0)), "another worker has it");
    }
    assert_eq!(channel.restore("t1", "1", "", &queues()).await, Ok(true));
    let again = channel.reserve(&["crew_jobs"], "me", "").await.unwrap().0;
    assert_eq!(again.map(|again| again.envelope), Some(bytes.clone()), "now this one has it");
    let again = channel.reserve(&["crew_jobs"], "me", "").await.unwrap().0;
    assert_eq!(again.map(|again| again.envelope), Some(bytes), "and is given it again");
}
