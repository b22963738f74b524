//! Results that a Python worker has compressed (`result_compression`).

use crewjob::store::channel::{Begun, Settled, Settlement};

use super::settling::{FAILURE, TAKEN, begun, end, next, settle};
use super::*;
use crate::support::compressed::{METHODS, result, set};

const KEY: &str = "celery-task-meta-1";

fn stored(server: &RedisServer, method: &str, status: &str) -> Vec<u8> {
    let plain = format!(r#"{{"status": "{status}", "result": 1, "task_id": "1", "retries": 0}}"#);
    let document = result(method, plain.as_bytes());
    set(server.connection(), KEY, &document);
    document
}

#[tokio::test]
async fn a_run_that_begins_sees_how_the_run_before_ended_though_its_result_is_compressed() {
    let server = RedisServer::start();
    let channel = begun(&server).await;
    for method in METHODS {
        stored(&server, method, "SUCCESS");
        let Ok(Begun::Taken(head)) = channel.begin("1", "t1", "me", LEASE).await else { panic!("{method}") };
        assert!(head.starts_with(br#"{"status": "SUCCESS""#), "{method}: {}", String::from_utf8_lossy(&head));
        // A first block that is longer than what is looked at.
        let mut noise = 7_u32;
        let random = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            format!("{noise:x}")
        });
        let plain = format!(r#"{{"status": "SUCCESS", "result": "{}"}}"#, random.take(30_000).collect::<String>());
        set(server.connection(), KEY, &result(method, plain.as_bytes()));
        let Ok(Begun::Taken(head)) = channel.begin("1", "t1", "me", LEASE).await else { panic!("{method}") };
        assert!(head.starts_with(br#"{"status": "SUCCESS""#) && head.len() <= 64 << 10, "{method}: {}", head.len());
    }
}

#[tokio::test]
async fn a_compressed_success_is_final_and_a_compressed_state_is_not() {
    for results in [0, 3] {
        for (status, is_final) in [("SUCCESS", true), ("STARTED", false), ("FAILURE", false)] {
            let server = RedisServer::start();
            begun(&server).await;
            let mut access = Access::new(Secret::new(server.url(0)));
            access.result_url = Some(Secret::new(server.url(results)));
            let channel = Channel::connect(&access).await.unwrap();
            let before = result(METHODS[0], format!(r#"{{"status": "{status}", "task_id": "1"}}"#).as_bytes());
            let mut connection = server.connection();
            redis::cmd("SELECT").arg(results).exec(&mut connection).unwrap();
            set(connection, KEY, &before);
            let failure = Settlement { publish: &next(), ..end(FAILURE) };
            let expected = if is_final { Settled { taken: false, acknowledged: true } } else { TAKEN };
            assert_eq!(settle(&channel, &failure).await, Ok(expected), "{status} {results}");
            let mut connection = server.connection();
            redis::cmd("SELECT").arg(results).exec(&mut connection).unwrap();
            let after: Vec<u8> = redis::cmd("GET").arg(KEY).query(&mut connection).unwrap();
            assert_eq!(after, if is_final { before } else { FAILURE.to_vec() });
        }
    }
}

#[tokio::test]
async fn neither_progress_nor_a_revocation_hides_a_compressed_end() {
    let server = RedisServer::start();
    let channel = channel(&server).await;
    for (status, is_end) in [("SUCCESS", true), ("FAILURE", true), ("REVOKED", true), ("STARTED", false)] {
        let before = stored(&server, METHODS[2], status);
        assert_eq!(channel.store_state("1", br#"{"status": "PROGRESS"}"#, None).await, Ok(!is_end), "{status}");
        set(server.connection(), KEY, &before);
        assert_eq!(channel.revoke_unseen("1", br#"{"status": "REVOKED"}"#, None).await, Ok(false), "{status}");
        let after: Vec<u8> = server.run(&["GET", KEY]);
        assert_eq!(after, before);
    }
}
