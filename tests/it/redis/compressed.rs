//! Results that Celery has compressed (`result_compression`).

use crewjob::core::plan::InPlaceOf;
use crewjob::store::{Document, Requeued};

use super::*;
use crate::support::compressed::{METHODS, result, set};

fn document(task: TaskId, status: &str, value: &str) -> String {
    format!(r#"{{"status": "{status}", "result": {value}, "traceback": null, "children": [], "task_id": "{task}"}}"#)
}

#[tokio::test]
async fn a_compressed_result_of_any_length_is_read_like_a_plain_one() {
    let server = RedisServer::start();
    let (store, task) = (store(&server).await, attempt(1).task);
    let mut noise = 1_u64;
    let mut random = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((noise >> 33) % 26).unwrap())
    };
    for size in [10, 100_000, 1_000_000] {
        let text = format!("\"{}\"", (0..size).map(|_| random()).collect::<String>());
        let plain = document(task, "SUCCESS", &text);
        set(server.connection(), &result_key(task), plain.as_bytes());
        let expected = store.outcome(task).await.unwrap().unwrap();
        for method in METHODS {
            set(server.connection(), &result_key(task), &result(method, plain.as_bytes()));
            let read = store.outcome(task).await.unwrap().unwrap();
            assert_eq!(read, expected, "{method} {size}");
            let Document::Read { output: Some(output), .. } = read else { panic!() };
            assert_eq!(store.result_text(task, &output).await, Ok(Some(text.clone())), "{method} {size}");
        }
    }
}

#[tokio::test]
async fn a_compressed_result_that_stands_for_too_much_is_unreadable_and_says_why() {
    let server = RedisServer::start();
    let (store, task) = (store(&server).await, attempt(1).task);
    let bomb = document(task, "SUCCESS", &format!("\"{}\"", "x".repeat(65 << 20)));
    for (stored, why) in [
        (result("application/x-gzip", bomb.as_bytes()), "it stands for more than 67108864 bytes"),
        (result("application/x-gzip", b"{}")[..30].to_vec(), "cannot be read"),
        (b"\0celery-compressed\0application/x-lzma\0x".to_vec(), "\"application/x-lzma\""),
        ([b"\0celery-compressed\0zlib\0".as_slice(), &vec![7; 5 << 20]].concat(), "at most 4194304 are read"),
    ] {
        set(server.connection(), &result_key(task), &stored);
        let Some(Document::Unreadable(said)) = store.outcome(task).await.unwrap() else { panic!("{why}") };
        assert!(said.contains(why), "{said}");
    }
}

#[tokio::test]
async fn a_lost_run_that_left_a_compressed_state_is_published_again_and_one_that_ended_is_not() {
    for database in [0, 3] {
        let server = RedisServer::start();
        let settings = changed(settings(&server), |access| access.result_url = Some(Secret::new(server.url(database))));
        let store = Store::connect(&settings).await.unwrap();
        for (job, status, ends) in [(1, "STARTED", false), (2, "SUCCESS", true), (3, "FAILURE", true)] {
            let message = message(job);
            store.enqueue(FIRST, &message).await.unwrap();
            take(&server, HIGH, &message.id.tag());
            let mut connection = server.connection();
            ::redis::cmd("SELECT").arg(database).exec(&mut connection).unwrap();
            let plain = document(message.id.task, status, "1");
            set(connection, &result_key(message.id.task), &result("application/x-gzip", plain.as_bytes()));
            let requeued = store.requeue(FIRST, InPlaceOf::InFlight(0), &again(&message, job), false).await;
            let expected = if ends { Requeued::Ended } else { Requeued::Published };
            assert_eq!(requeued, Ok(expected), "{status} {database}");
        }
    }
}
