use std::collections::HashSet;

use expect_test::expect;

use super::super::account::{Account, Count};
use super::super::id::TaskId;
use super::super::index::fixtures::job;
use super::super::status::{End, TaskError, Why};
use super::*;

const UID: u128 = 0x0f8f_ad5b_d9cb_469f_a165_7086_7728_950e;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn past(job: &Job, number: u32, outcome: AttemptOutcome) -> PastAttempt {
    let from = i64::from(number) * 10;
    PastAttempt {
        number,
        task: TaskId::derive(job.uid, number),
        outcome,
        worker: Some("crew@pod".into()),
        enqueued_at: Some(at(from)),
        started_at: Some(at(from + 2)),
        finished_at: at(from + 5),
        error: (outcome == AttemptOutcome::Failed).then(|| TaskError::new("ValueError", "of secret inputs", None)),
        account: None,
    }
}

/// A job after its first attempt failed, and the status with which it ends.
fn twice() -> (Job, Status) {
    let mut job = job("team", "report", UID);
    job.status.queued_at = Some(at(10));
    job.status.history = vec![past(&job, 1, AttemptOutcome::Failed)];
    let mut end = Status { phase: Phase::Succeeded, why: Why::Succeeded, attempts: 2, ..job.status.clone() };
    end.end = Some(Box::new(End::new(at(26))));
    end.remember(past(&job, 2, AttemptOutcome::Succeeded));
    (job, end)
}

fn shown(spans: &[Span]) -> String {
    let line = |span: &Span| {
        let parent = span.parent.map_or("none".to_owned(), |parent| format!("{parent:016x}"));
        let said: Vec<String> = span.attributes[4..].iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let (from, to) = (span.start.as_second(), span.end.as_second());
        format!("{:016x} < {parent} {:?} {from}..{to} {}\n", span.id, span.name, said.join(" "))
    };
    spans.iter().map(line).collect()
}

#[test]
fn the_trace_id_is_the_uid_without_dashes_and_span_ids_are_pinned_because_workers_have_them() {
    let context = Sampler::new(1.0, false).context(&job("team", "report", UID), 1).unwrap();
    assert_eq!(format!("{:032x}", context.trace), "0f8fad5bd9cb469fa165708677 28950e".replace(' ', ""));
    expect!["15d31616ca6257c5"].assert_eq(&format!("{:016x}", context.span));
    assert_eq!(Sampler::new(1.0, false).context(&job("team", "report", 0), 1), None, "zeros are no trace id");
}

#[test]
fn an_attempt_is_told_when_it_has_ended_and_the_job_with_its_last_attempt() {
    let (mut job, end) = twice();
    let recorded = std::mem::take(&mut job.status);
    let first = spans(&job, &recorded);
    job.status = recorded;
    let last = spans(&job, &end);
    expect![[r#"
        15d31616ca6257c5 < 923b196e10a4587b "attempt 1" 10..15 crewjob.attempt=Number(1) crewjob.outcome=Text("Failed") crewjob.task_id=Text("091dfe84-58d4-5447-bd38-a4f9f6b63490") crewjob.worker=Text("crew@pod") error.type=Text("ValueError")

        566dc63e9ff35b8d < 923b196e10a4587b "attempt 2" 20..25 crewjob.attempt=Number(2) crewjob.outcome=Text("Succeeded") crewjob.task_id=Text("1946e2ca-686f-54fa-8413-383aade21ed2") crewjob.worker=Text("crew@pod")
        f94902d9053755df < 923b196e10a4587b "enqueue" 0..10 
        923b196e10a4587b < none "crewjob run" 0..26 crewjob.phase=Text("Succeeded") crewjob.reason=Text("Succeeded") crewjob.attempts=Number(2)
    "#]].assert_eq(&(shown(&first) + "\n" + &shown(&last)));
    assert_eq!(spans(&job, &job.status), [], "what is recorded is not told again");
}

#[test]
fn the_span_that_a_message_names_is_that_of_its_attempt_whichever_operator_tells_it() {
    let (job, end) = twice();
    let told = spans(&job, &end);
    let named = Sampler::new(1.0, false).context(&job, 2).unwrap();
    let span = told.iter().find(|span| span.name == "attempt 2").unwrap();
    assert_eq!((span.trace, span.id, span.kind), (named.trace, named.span, Kind::Producer));
    assert_eq!(told, spans(&job.clone(), &end), "a second operator tells the same");
    assert_eq!(told.iter().map(|span| span.id).collect::<HashSet<_>>().len(), told.len());
}

#[test]
fn a_job_that_never_reached_redis_has_one_span_and_a_failure_is_an_error() {
    let job = job("team", "report", UID);
    let mut end = Status { phase: Phase::Failed, ..Status::default() };
    end.end = Some(Box::new(End::new(at(3))));
    let told = spans(&job, &end);
    assert_eq!((told.len(), told[0].is_error, &*told[0].name), (1, true, "crewjob run"));
    end.phase = Phase::Cancelled;
    assert!(!spans(&job, &end)[0].is_error, "what was asked for is no error");
}

#[test]
fn no_span_ends_before_it_begins_although_clocks_differ() {
    let (mut job, end) = twice();
    job.created_at = at(1_000);
    assert!(spans(&job, &end).iter().all(|span| span.start <= span.end));
}

#[test]
fn nothing_is_said_of_a_span_that_a_user_or_a_task_wrote_but_names() {
    let (mut job, end) = twice();
    let recorded = std::mem::take(&mut job.status);
    let told = format!("{:?}{:?}", spans(&job, &recorded), spans(&job, &end));
    assert!(told.contains("ValueError") && !told.contains("secret"), "{told}");
}

#[test]
fn the_trace_is_linked_to_the_span_that_the_object_names() {
    let (mut job, end) = twice();
    let cause = SpanContext { trace: 7, span: 8, is_sampled: true };
    job.cause = Some(Box::new(cause));
    let links: Vec<_> = spans(&job, &end).into_iter().filter_map(|span| span.link).collect();
    assert_eq!(links, [cause]);
}

#[test]
fn a_part_of_the_jobs_is_traced_which_follows_from_the_uid() {
    let random = |number: u32| Uuid::new_v5(&Uuid::NAMESPACE_OID, &number.to_be_bytes()).as_u128();
    for (ratio, expected) in [(0.0, 0..=0), (0.25, 200..=300), (1.0, 1000..=1000)] {
        let sampler = Sampler::new(ratio, false);
        let traced: Vec<u128> = (0..1000).map(random).filter(|uid| sampler.samples(&job("t", "j", *uid))).collect();
        assert!(expected.contains(&traced.len()), "{ratio}: {}", traced.len());
        let more = Sampler::new(ratio + 0.1, false);
        assert!(traced.iter().all(|uid| more.samples(&job("t", "j", *uid))), "a higher ratio traces these, too");
    }
}

#[test]
fn the_cause_decides_where_the_sampler_asks_it() {
    let mut job = job("team", "report", UID);
    for (is_sampled, ratio) in [(true, 0.0), (false, 1.0)] {
        job.cause = Some(Box::new(SpanContext { trace: 7, span: 8, is_sampled }));
        assert_eq!(Sampler::new(ratio, true).samples(&job), is_sampled);
        assert_eq!(Sampler::new(ratio, false).samples(&job), !is_sampled);
        assert_eq!(Sampler::new(ratio, true).context(&job, 1).unwrap().is_sampled, is_sampled);
    }
}

#[test]
fn a_span_of_an_attempt_says_what_it_consumed_in_the_words_of_opentelemetry() {
    let (job, _) = twice();
    let consumed = |models: &[&str]| {
        let mut usage = Usage::default();
        for model in models {
            let one = Consumed {
                input: 5_000_000_000,
                output: 2,
                requests: 1,
                cost: "0.5".parse().ok(),
                ..Consumed::default()
            };
            usage.count(model, &one);
        }
        let account = Account { count: Count { usage, ..Count::default() }, ..Account::default() };
        let past = PastAttempt { account: Some(Box::new(account)), ..past(&job, 1, AttemptOutcome::Succeeded) };
        let span = attempt(&job, &past);
        let of = |name: &str| span.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        (of("gen_ai.usage.input_tokens"), of("gen_ai.request.model"), of("crewjob.cost_usd"))
    };
    let text = |text: &str| Some(Value::Text(text.to_owned()));
    assert_eq!(consumed(&["m"]), (Some(Value::Number(5_000_000_000)), text("m"), text("0.5")));
    assert_eq!(consumed(&["a", "b"]), (Some(Value::Number(10_000_000_000)), None, text("1")));
    assert_eq!(consumed(&[]), (None, None, None));
}
