//! What Redis or the API server refuses that a job needs, said in the job's status and as a Warning. It is tried again, but
//! only people can mend it.

use std::time::Duration;

use super::error::Error;
use super::write::write_status;
use crate::api::status_patch;
use crate::core::id::ObjectKey;
use crate::core::job::Job;
use crate::core::observed::Pool;
use crate::core::plan::Notice;
use crate::core::status::{Refusal, RefusalKind, Status};
use crate::operator::context::Context;
use crate::operator::state::jobs::Entry;
use crate::runtime::clock;
use crate::store;

/// How often a job is told another text of the same refusal: a quota's has figures that change with each try.
const DETAILS_EVERY: Duration = Duration::from_mins(1);
/// How much of a server's words is repeated.
const WORDS: usize = 160;

/// What a failure of the operator's own says about what is refused; `None` when it may pass by itself.
pub fn refusal(error: &Error) -> Option<(RefusalKind, String)> {
    match error {
        Error::Store { source, .. } => refusal_of_redis(source).map(|detail| (RefusalKind::Broker, detail)),
        Error::KeepResult { config_map, source, .. } => answer(source).map(|why| {
            let detail = format!(
                "ConfigMap {config_map:?}, which the result needs, is refused: {why}; raise the quota, or mend the policy or the \
                 operator's role. The result is kept on Redis meanwhile"
            );
            (RefusalKind::Result, detail)
        }),
        Error::ConfigMapTaken { config_map, .. } => Some((
            RefusalKind::ConfigMapTaken,
            format!(
                "ConfigMap {config_map:?}, which the result needs, exists and belongs to something else: kubectl delete configmap \
                 {config_map}. The result is kept on Redis meanwhile"
            ),
        )),
        Error::WriteStatus { source, .. } => answer(source).map(|why| {
            let detail = format!("the API server refuses details of the status, which are left out: {why}; mend the policy");
            (RefusalKind::Status, detail)
        }),
        Error::DeletePod { pod, source, .. } => answer(source).map(|why| {
            let detail = format!(
                "the deletion of Pod {pod:?}, whose worker does not stop the task, is refused: {why}; kubectl delete pod {pod}, \
                 or allow it to the operator"
            );
            (RefusalKind::PodDeletion, detail)
        }),
        Error::RunOnce { config_map, source, .. } => answer(source).map(|why| {
            let detail = format!(
                "ConfigMap {config_map:?}, which remembers spec.runOnce, is refused: {why}; raise the quota, or mend the policy or \
                 the operator's role"
            );
            (RefusalKind::RunOnce, detail)
        }),
        Error::RunOnceTaken { config_map, .. } => Some((
            RefusalKind::RunOnce,
            format!(
                "ConfigMap {config_map:?}, which is to remember spec.runOnce, exists and is no record of this key: kubectl delete \
                 configmap {config_map}"
            ),
        )),
        Error::Read { .. } | Error::Twins { .. } | Error::RunOnceFenced { .. } | Error::NotConnected { .. } => None,
    }
}

/// What Redis refuses, and what mends it.
pub fn refusal_of_redis(error: &store::Error) -> Option<String> {
    match error {
        store::Error::Refused { act, detail } => {
            // Where in a script it happened is of no use to people.
            let said = detail.split(" script: ").next().unwrap_or(detail);
            Some(format!("{act}: Redis refuses: {}; {}", words(said), remedy(detail)))
        }
        store::Error::Unavailable { .. }
        | store::Error::AuthenticationFailed { .. }
        | store::Error::Fenced { .. }
        | store::Error::Unexpected { .. } => None,
    }
}

fn remedy(detail: &str) -> &'static str {
    let detail = detail.to_ascii_lowercase();
    if detail.contains("noperm") || detail.contains("no permissions") {
        "grant the user of REDIS_URL what docs/redis.md lists"
    } else if detail.contains("oom") {
        "raise its maxmemory, or remove what fills it"
    } else if detail.contains("readonly") {
        "let REDIS_URL name the primary"
    } else {
        "its log tells more"
    }
}

/// What the API server has answered, when it understood and said no.
fn answer(error: &kube::Error) -> Option<String> {
    let kube::Error::Api(answer) = error else { return None };
    is_refusal(answer.code).then(|| words(&answer.message))
}

fn is_refusal(code: u16) -> bool {
    (400..500).contains(&code) && !matches!(code, 401 | 404 | 408 | 409 | 429)
}

/// A server's words on one line, as far as there is room for them.
fn words(said: &str) -> String {
    let line: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS).collect();
    line.trim_end_matches(['.', ' ']).to_owned()
}

/// Whether the result must outlive its usual time on Redis because it cannot be recorded now.
fn holds_up_the_result(kind: RefusalKind) -> bool {
    match kind {
        RefusalKind::Result | RefusalKind::ConfigMapTaken | RefusalKind::Status | RefusalKind::RunOnce => true,
        RefusalKind::Broker | RefusalKind::PodDeletion => false,
    }
}

/// Whether a job whose status says this much is to be told: once for each kind, and then only other words, rarely.
fn is_news(known: Option<&Refusal>, refused: &Refusal) -> bool {
    known.is_none_or(|known| {
        let is_old = clock::since(known.told_at, refused.told_at) >= DETAILS_EVERY;
        known.kind != refused.kind || known.detail != refused.detail && is_old
    })
}

/// Says what is refused, where that is news, and sees to it that nothing is lost meanwhile.
pub async fn tell(ctx: &Context, key: &ObjectKey, kind: RefusalKind, detail: &str) {
    let Some(entry) = ctx.jobs.lock().get(key).cloned() else { return };
    if key.is_deleted() || entry.job.status.phase.is_terminal() {
        return;
    }
    if holds_up_the_result(kind) {
        extend_result(ctx, &entry).await;
    }
    let refused = Refusal { kind, detail: detail.into(), told_at: clock::now() };
    let recorded = &entry.job.status;
    if !is_news(recorded.refused.as_deref(), &refused) {
        return;
    }
    if kind != RefusalKind::Status {
        let generation = entry.job.spec.generation;
        let status = Status { refused: Some(Box::new(refused)), observed_generation: generation, ..recorded.clone() };
        if let Some(patch) = status_patch(&entry.job, &status, &entry.version)
            && let Err(error) = write_status(ctx, &entry, &status, &patch).await
        {
            tracing::warn!(job = %key, %error, "what is refused could not be said in the job's status; trying again");
        }
    }
    warn(ctx, &entry.job, kind, detail);
}

/// Says it as a Warning; the same one is not repeated for a while.
pub fn warn(ctx: &Context, job: &Job, kind: RefusalKind, detail: &str) {
    let notice = Notice { warning: true, reason: kind.reason().into(), message: detail.into() };
    ctx.events.announce(job, vec![notice]);
}

/// Says what Redis refuses on these jobs.
pub async fn tell_all(ctx: &Context, keys: Vec<ObjectKey>, error: &store::Error) {
    let Some(detail) = refusal_of_redis(error) else { return };
    for key in keys {
        tell(ctx, &key, RefusalKind::Broker, &detail).await;
    }
}

async fn extend_result(ctx: &Context, entry: &Entry) {
    let (namespace, pool) = (&entry.job.key.namespace, &entry.job.spec.pool);
    let (Some(store), Pool::Ready(facts)) = (ctx.pools.store(namespace, pool), ctx.pools.view(namespace, pool)) else {
        return;
    };
    let keep = facts.keep_large_results.max(facts.result_expires);
    if let Err(error) = store.extend_result(entry.job.attempt_in_hand().task, keep).await {
        tracing::warn!(job = %entry.job.key, %error, "a result that cannot be recorded could not be kept longer on Redis");
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn said(code: u16, message: &str) -> kube::Error {
        let answer = kube::core::Status { code, message: message.to_owned(), ..kube::core::Status::default() };
        kube::Error::Api(Box::new(answer))
    }

    fn config_map(code: u16) -> Error {
        let source = Box::new(said(code, "exceeded quota: results, requested: configmaps=1"));
        Error::KeepResult { job: ObjectKey::new("team", "a"), config_map: "a-result-1".to_owned(), source }
    }

    fn redis(detail: &str) -> Error {
        let source = store::Error::Refused { act: "enqueueing a task", detail: detail.to_owned() };
        Error::Store { job: ObjectKey::new("team", "a"), source }
    }

    #[test]
    fn an_error_that_passes_by_itself_is_no_refusal() {
        for code in [401, 404, 408, 409, 429, 500, 503] {
            assert_eq!(refusal(&config_map(code)), None, "{code}");
        }
        let source = store::Error::Unavailable { act: "enqueueing a task", detail: "reset".to_owned() };
        assert_eq!(refusal(&Error::Store { job: ObjectKey::new("team", "a"), source }), None);
    }

    #[test]
    fn a_refusal_names_the_object_the_servers_words_and_the_remedy() {
        let job = ObjectKey::new("team", "a");
        let taken = Error::ConfigMapTaken { job: job.clone(), config_map: "a-result-1".to_owned() };
        let pod = Error::DeletePod {
            job: job.clone(),
            pod: "worker-1".into(),
            source: Box::new(said(403, "forbidden by policy")),
        };
        let status = Error::WriteStatus { job, source: Box::new(said(422, "denied by policy \"names\"")) };
        let oom = "OOM: command not allowed when used memory > 'maxmemory'. script: 1f0e, on @user_script:66.";
        let permission = "NOPERM: User operator has no permissions to run the 'lpush' command";
        for (error, kind, says) in [
            (config_map(403), RefusalKind::Result, ["a-result-1", "exceeded quota: results", "raise the quota"]),
            (config_map(422), RefusalKind::Result, ["a-result-1", "exceeded quota", "kept on Redis"]),
            (
                taken,
                RefusalKind::ConfigMapTaken,
                ["a-result-1", "something else", "kubectl delete configmap a-result-1"],
            ),
            (pod, RefusalKind::PodDeletion, ["worker-1", "forbidden by policy", "kubectl delete pod worker-1"]),
            (status, RefusalKind::Status, ["status", "denied by policy \"names\"", "mend the policy"]),
            (
                redis(oom),
                RefusalKind::Broker,
                ["enqueueing a task", "used memory > 'maxmemory';", "raise its maxmemory"],
            ),
            (redis(permission), RefusalKind::Broker, ["enqueueing a task", "'lpush'", "grant the user of REDIS_URL"]),
        ] {
            let (found, detail) = refusal(&error).unwrap();
            assert_eq!(found, kind);
            for text in says {
                assert!(detail.contains(text), "{text:?} is missing: {detail}");
            }
            assert!(!detail.contains("@user_script"), "{detail}");
        }
    }

    #[test]
    fn the_words_of_a_server_are_bounded_and_on_one_line() {
        let (_, detail) = refusal(&redis(&"a\n".repeat(10_000))).unwrap();
        assert!(detail.len() < 384 && !detail.contains('\n'), "{detail}");
    }

    #[test]
    fn a_job_is_told_once_of_each_kind_and_rarely_other_words_of_it() {
        let refused = |kind, detail: &str, second| Refusal {
            kind,
            detail: detail.into(),
            told_at: Timestamp::from_second(second).unwrap(),
        };
        let known = refused(RefusalKind::Broker, "a", 100);
        assert!(is_news(None, &known));
        for (kind, detail, second, news) in [
            (RefusalKind::Broker, "a", 101, false),
            (RefusalKind::Broker, "a", 9_999, false),
            (RefusalKind::Broker, "b", 101, false),
            (RefusalKind::Broker, "b", 160, true),
            (RefusalKind::Result, "a", 101, true),
        ] {
            assert_eq!(is_news(Some(&known), &refused(kind, detail, second)), news, "{kind:?} {detail} {second}");
        }
    }
}
