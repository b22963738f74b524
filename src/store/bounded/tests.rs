use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::*;

/// What comes through when the bytes arrive in pieces of this size.
fn through(limit: usize, piece: usize, sent: &[u8]) -> io::Result<Vec<u8>> {
    let mut filter = Filter::new(limit);
    let mut kept = Vec::new();
    for piece in sent.chunks(piece) {
        let mut bytes = [filter.held.clone(), piece.to_vec()].concat();
        let length = filter.pass(&mut bytes)?;
        kept.extend_from_slice(&bytes[..length]);
    }
    Ok(kept)
}

#[track_caller]
fn check(sent: &str, kept: &str) {
    for piece in 1..=sent.len() {
        let read = through(10, piece, sent.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), kept, "in pieces of {piece}");
    }
}

#[test]
fn a_value_that_is_too_long_reads_as_an_error_that_tells_its_size() {
    check("$11\r\n12345678901\r\n+OK\r\n", "-11\r\n+OK\r\n");
    check("$10\r\n1234567890\r\n:7\r\n", "$10\r\n1234567890\r\n:7\r\n");
    check("=12\r\ntxt:45678901\r\n_\r\n", "-12\r\n_\r\n");
    check("!12\r\nERR 45678901\r\n_\r\n", "-12\r\n_\r\n");
    check("*2\r\n$-1\r\n$0\r\n\r\n", "*2\r\n$-1\r\n$0\r\n\r\n");
}

#[test]
fn all_values_of_one_answer_count_together_and_the_next_answer_begins_anew() {
    check("*3\r\n$6\r\n123456\r\n$6\r\n123456\r\n$2\r\nab\r\n", "*3\r\n$6\r\n123456\r\n-6\r\n$2\r\nab\r\n");
    check("$6\r\n123456\r\n$6\r\n123456\r\n", "$6\r\n123456\r\n$6\r\n123456\r\n");
    check(
        "%1\r\n+k\r\n*1\r\n$9\r\n123456789\r\n$9\r\n123456789\r\n",
        "%1\r\n+k\r\n*1\r\n$9\r\n123456789\r\n$9\r\n123456789\r\n",
    );
    check(">2\r\n$7\r\nmessage\r\n$9\r\n123456789\r\n:1\r\n", ">2\r\n$7\r\nmessage\r\n-9\r\n:1\r\n");
}

#[test]
fn bytes_that_look_like_an_announcement_inside_a_value_are_part_of_it() {
    check("$10\r\n$999\r\n*9\r\n\r\n:1\r\n", "$10\r\n$999\r\n*9\r\n\r\n:1\r\n");
    check("$20\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n\r\n:1\r\n", "-20\r\n:1\r\n");
}

#[test]
fn answers_that_no_redis_gives_end_the_connection() {
    let deep = "*1\r\n".repeat(40);
    let many = format!("*70000\r\n{}", ":1\r\n".repeat(70_000));
    let line = format!("+{}\r\n", "x".repeat(200));
    for sent in ["$x\r\n", "*99999999999\r\n", "%9223372036854775807\r\n", &deep, &many, &line] {
        assert!(through(10, 64, sent.as_bytes()).is_err(), "{}", &sent[..sent.len().min(40)]);
    }
}

#[tokio::test]
async fn a_reader_with_any_buffer_gets_the_same() {
    let sent = format!("*2\r\n$30\r\n{0}\r\n$7\r\nabcdefg\r\n${1}\r\n{2}\r\n", "x".repeat(30), 5000, "y".repeat(5000));
    let kept = "*2\r\n$30\r\n{0}\r\n$7\r\nabcdefg\r\n-5000\r\n".replace("{0}", &"x".repeat(30));
    for size in [1, 2, 31, 32, 33, 64, 8192] {
        let mut stream = Bounded::new(sent.as_bytes(), 40);
        let (mut read, mut buffer) = (Vec::new(), vec![0; size]);
        loop {
            let length = stream.read(&mut buffer).await.unwrap();
            if length == 0 {
                break;
            }
            read.extend_from_slice(&buffer[..length]);
        }
        assert_eq!(String::from_utf8(read).unwrap(), kept, "with a buffer of {size}");
    }
}

fn any_answer() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[a-z\r\n$*]{0,30}".prop_map(|text| format!("${}\r\n{text}\r\n", text.len())),
        "[a-z ]{0,9}".prop_map(|text| format!("+{text}\r\n")),
        any::<i32>().prop_map(|number| format!(":{number}\r\n")),
        Just("$-1\r\n".to_owned()),
        Just("*-1\r\n".to_owned()),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(|all| format!("*{}\r\n{}", all.len(), all.concat()))
    })
}

proptest! {
    #[test]
    fn an_answer_within_the_limit_comes_as_it_was_sent(answer in any_answer(), piece in 1_usize..40) {
        let again = answer.repeat(2);
        prop_assert_eq!(through(again.len(), piece, again.as_bytes()).unwrap(), again.into_bytes());
    }

    #[test]
    fn whatever_is_passed_over_the_next_answer_is_found(answer in any_answer(), piece in 1_usize..40) {
        let sent = format!("{answer}+the next one\r\n");
        let read = String::from_utf8(through(20, piece, sent.as_bytes()).unwrap()).unwrap();
        prop_assert!(read.ends_with("\r\n+the next one\r\n"), "{read:?}");
    }

    #[test]
    fn no_bytes_make_it_panic_or_hold_more_than_a_line(sent in prop::collection::vec(any::<u8>(), 0..300), piece in 1_usize..40) {
        let mut filter = Filter::new(20);
        for piece in sent.chunks(piece) {
            let mut bytes = [filter.held.clone(), piece.to_vec()].concat();
            if filter.pass(&mut bytes).is_err() {
                break;
            }
            prop_assert!(filter.held.len() < ANNOUNCEMENT && filter.open.len() <= DEPTH);
        }
    }
}
