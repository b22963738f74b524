use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::{ConditionType, ModelUsage, Reason, Verdict, set_condition};
use crate::core::usage;

#[track_caller]
fn read(status: &str) -> CrewJobStatus {
    serde_saphyr::from_str(status).unwrap()
}

#[test]
fn a_status_without_anything_in_it_is_that_of_a_new_job() {
    assert_eq!(read("{}"), CrewJobStatus::default());
    assert_eq!(CrewJobStatus::default().phase, Phase::Pending);
    assert_eq!(serde_json::to_value(CrewJobStatus::default()).unwrap(), json!({ "phase": "Pending", "attempts": 0 }));
}

#[test]
fn fields_of_another_version_are_passed_over_and_missing_ones_filled_in() {
    let status = read(
        "{ phase: Running, shards: 7, worker: { podName: w-1, zone: a }, result: {}, error: {}, attemptHistory: [{}], progress: {} }",
    );
    assert_eq!(status.phase, Phase::Running);
    assert_eq!(status.worker.unwrap().pod_name.as_deref(), Some("w-1"));
    assert_eq!(status.attempt_history, [Attempt::default()]);
}

#[test]
fn a_status_that_is_written_reads_back() {
    let status = worst("ä\"\n<\0", 5);
    let written = serde_json::to_value(&status).unwrap();
    assert_eq!(serde_json::from_value::<CrewJobStatus>(written).unwrap(), status);
}

/// A status with everything in it but a result, every text being `text` many times over.
fn worst(text: &str, attempts: usize) -> CrewJobStatus {
    let long = text.repeat(2_000 / text.len().max(1));
    let now = || Some(Time(k8s_openapi::jiff::Timestamp::from_second(1_795_000_000).unwrap()));
    let id = || Some("0b7d1a3e-6f4e-5c1b-9d35-1f2d3c4b5a69".to_owned());
    let node = format!("crew@{}", "a".repeat(63));
    let consumption = Consumption {
        input_tokens: i64::MAX,
        cached_tokens: i64::MAX,
        output_tokens: i64::MAX,
        requests: i64::MAX,
        cost_usd: Some("18446744073.709551615".to_owned()),
    };
    let model = ModelUsage { model: "m".repeat(64), consumption: consumption.clone() };
    let models = vec![model; usage::MODELS];
    let attempt = Attempt {
        number: 1_000,
        task_id: id(),
        outcome: Some(Outcome::ResultExpired),
        worker: Some(node.clone()),
        enqueued_at: now(),
        started_at: now(),
        finished_at: now(),
        resumed: true,
        usage: Some(consumption.clone()),
        ..Attempt::default()
    }
    .because(Some(&long), &long);
    let mut conditions = Vec::new();
    for (type_, message) in [
        (ConditionType::Failed, long.as_str()),
        (ConditionType::Complete, ""),
        (ConditionType::Stalled, ""),
        (ConditionType::Reconciling, ""),
    ] {
        let verdict = Verdict {
            type_,
            holds: Some(true),
            reason: Reason::BrokerAuthenticationFailed,
            message: message.to_owned(),
        };
        set_condition(&mut conditions, verdict, Some(1_000), now().unwrap());
    }
    CrewJobStatus {
        phase: Phase::Succeeded,
        observed_generation: Some(1_000),
        spec_hash: Some("0".repeat(32)),
        task_id: id(),
        attempts: 1_000,
        delivery_generation: 1_000,
        worker_losses: 1_000,
        message_losses: 1_000,
        queue: Some("q".repeat(64)),
        queued_at: now(),
        first_queued_at: now(),
        started_at: now(),
        finished_at: now(),
        next_retry_at: None, // it has ended
        released_at: now().map(|time| MicroTime(time.0)),
        release_minute: Some("2026-11-22T15:04".to_owned()),
        dedup_uid: Some("u".repeat(36)),
        expiry_bucket: Some("2026-11-22T15".to_owned()),
        worker: Some(Worker {
            name: node,
            pod_name: Some("a".repeat(63)),
            pod_uid: id(),
            container_id: Some(format!("containerd://{}", "0".repeat(64))),
            started_at: now(),
        }),
        progress: None,
        usage: Some(Usage { total: consumption.clone(), models }),
        usage_count: None, // it has ended
        state: Some(JobState::new(now(), u64::MAX, true, Some(&long))),
        result: None,
        error: Some(JobError::new(&long, &long, Some(&long))),
        trace_id: Some("0".repeat(32)),
        attempt_history: vec![attempt; attempts],
        conditions,
    }
}

proptest! {
    #[test]
    fn without_its_result_a_status_takes_at_most_6_kib_and_10_with_what_its_runs_say_of_themselves(text in any::<String>()) {
        let size = |status: &CrewJobStatus| serde_json::to_string(status).unwrap().len();
        let told = worst(&text, ATTEMPT_HISTORY_LIMIT);
        prop_assert!(size(&told) <= 10 << 10, "{} bytes", size(&told));
        let mut plain = CrewJobStatus { usage: None, state: None, ..told };
        for attempt in &mut plain.attempt_history {
            attempt.usage = None;
        }
        prop_assert!(size(&plain) <= 6 << 10, "{} bytes", size(&plain));
    }
}
