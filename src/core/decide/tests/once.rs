//! Of all jobs with the same run-once key one runs.

use expect_test::expect;

use super::*;
use crate::core::once::{Claim, Ran};

const FIRST: Uuid = Uuid::from_u128(1);

/// A job with the key `k`, and what is known of that.
fn keyed(claim: Claim) -> Scene {
    let mut scene = scene().with(|job| job.spec.run_once = Some("k".into()));
    scene.seen.claim = claim;
    scene
}

fn held(read_at: i64) -> Claim {
    Claim::Held { by: "other".into(), read_at: at(read_at) }
}

fn ran(succeeded: bool) -> Claim {
    Claim::Ran(Ran { job: "other".into(), uid: FIRST, succeeded, at: at(-60_000) })
}

#[test]
fn the_key_is_claimed_before_the_first_message_and_published_once_it_is_the_jobs_own() {
    check(
        keyed(Claim::Unread),
        expect![[r#"claim the run-once key "k"; Pending (Pending), attempts 0; look again at 2026-01-01T00:00:30Z"#]],
    );
    let published = keyed(Claim::Ours).plan();
    assert!(publishes(&published), "{published}");
}

#[test]
fn a_job_that_is_suspended_or_that_no_pool_takes_claims_nothing() {
    let claims = |scene: Scene| scene.plan().effects.iter().any(|effect| matches!(effect, Effect::ClaimKey(_)));
    assert!(!claims(keyed(Claim::Unread).suspend()));
    assert!(!claims(keyed(Claim::Unread).with(|job| job.spec.task = "os.system".into())));
    assert!(!claims(keyed(Claim::Unread).cancel()));
}

#[test]
fn while_another_job_has_the_key_the_job_waits_and_asks_again() {
    let held = keyed(held(0)).at(1_000);
    check(held.clone(), expect!["Pending (RunOnceHeld), attempts 0; look again at 2026-01-01T00:00:30Z"]);
    check_message(
        held.clone(),
        expect![[
            r#"CrewJob "other" has the run-once key "k" and has not ended; this job ends as that one does, and runs only if that one is cancelled or deleted"#
        ]],
    );
    check(
        held.recorded().at(30_000),
        expect![[
            r#"claim the run-once key "k"; Pending (RunOnceHeld), attempts 0; look again at 2026-01-01T00:01:00Z"#
        ]],
    );
}

#[test]
fn a_job_whose_key_has_run_ends_as_that_job_did_without_a_run() {
    check(keyed(ran(true)), expect!["Succeeded (AlreadyRan), attempts 0; then forget"]);
    check(keyed(ran(false)), expect!["Failed (AlreadyRan), attempts 0; then forget; warn AlreadyRan"]);
    check_message(
        keyed(ran(true)),
        expect![[
            r#"not run: CrewJob "other" (UID 00000000-0000-0000-0000-000000000001) has run under the run-once key "k" and succeeded at 2025-12-31T23:59:00Z. To run it again, create a job with another key"#
        ]],
    );
}

#[test]
fn a_run_is_remembered_before_its_end_is_recorded_and_a_cancelled_one_leaves_the_key() {
    let remembered = |scene: Scene| {
        let effects = scene.plan().effects;
        effects.into_iter().find_map(|effect| {
            if let Effect::RememberRun { key, succeeded, until, .. } = effect {
                Some((key, succeeded, until))
            } else {
                None
            }
        })
    };
    let month = 30 * 24 * 3_600_000;
    let end = keyed(Claim::Unread).running().at(2_000);
    let expected = |succeeded| Some(("k".into(), succeeded, at(2_000 + month)));
    assert_eq!(remembered(end.clone().sees(succeeded("1"))), expected(true));
    let fails = end.clone().policy(|policy| policy.max_retries = Some(0)).sees(failed("ValueError"));
    assert_eq!(remembered(fails.clone()), expected(false));
    assert_eq!(remembered(fails.cancel()), None);
    assert_eq!(remembered(end.sees(failed("ValueError"))), None, "it is tried again");
    let waited = keyed(Claim::Ours).queued().policy(|policy| policy.queue = Some(Duration::from_secs(1)));
    let given_up = waited.sees(Task::Withdrawn { generation: 0 }).at(2_000);
    assert_eq!(given_up.plan().status.phase, Phase::Failed);
    assert_eq!(remembered(given_up), None, "no worker has begun it");
}
