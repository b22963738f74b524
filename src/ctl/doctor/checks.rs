//! What is wrong with what was read, one function for each kind of object.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::Value;

use super::super::view;
use crate::store::Vitals;

/// An operator that works has looked at a pool or a job within this time.
const SEEN_WITHIN: Duration = Duration::from_mins(1);
/// Jobs that are named of those that wait for the same reason.
const NAMED: usize = 3;
/// What a pool says of itself when all is well; each other condition of a pool is a finding when it is true.
const GOOD: [&str; 2] = ["Ready", "BrokerReachable"];
/// Reasons of jobs that are no fault of their pool, which has findings of its own.
const OF_THE_JOB: [&str; 9] = [
    "PoolNotFound",
    "QueueNotInPool",
    "TaskNotAllowed",
    "BrokerRefused",
    "ResultRefused",
    "ConfigMapTaken",
    "StatusRefused",
    "PodDeletionRefused",
    "RunOnceRefused",
];
/// Shells that do not pass a signal on to what they have started.
const SHELLS: [&str; 4] = ["sh", "bash", "ash", "dash"];

/// Something that is wrong, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Kind, namespace and name.
    pub object: String,
    /// One word for it: the reason of a condition, or one of `NoOperator`, `NoLeader`, `OperatorNotAvailable`, `NotSeen`,
    /// `VersionsDiffer`, `RightsMissing`, `CheckFailed`, `RedisNearlyFull`, `MessagesQuarantined`, `ReplyListsOrphaned`.
    pub reason: String,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Finding {
    /// One about an object.
    pub fn new(object: impl Into<String>, reason: &str, what: impl Into<String>) -> Self {
        Self { object: object.into(), reason: reason.to_owned(), what: what.into() }
    }
}

/// Parts of a hundred of its memory from which on a server is nearly full.
const NEARLY_FULL: u64 = 80;
/// Orphaned lists that are no finding: a client may have gone just now.
const FEW_LISTS: u64 = 100;

/// The server of a pool.
pub fn server(pool: &str, vitals: &Vitals, quarantine: &str) -> Vec<Finding> {
    let Vitals { used, maxmemory, quarantined, reply_lists } = *vitals;
    let mut found = Vec::new();
    if let Some(percent) = used.saturating_mul(100).checked_div(maxmemory).filter(|percent| *percent >= NEARLY_FULL) {
        let what = format!(
            "its Redis uses {percent} % of its maxmemory, {used} of {maxmemory} bytes; when it is full nothing is enqueued. Raise \
             maxmemory, or let results expire sooner (celery.resultExpires)"
        );
        found.push(Finding::new(pool, "RedisNearlyFull", what));
    }
    if quarantined > 0 {
        let what = format!(
            "{quarantined} elements of its queues were no messages, and were moved away; look at them with XRANGE {quarantine} - + \
             COUNT 10, find out which client writes them, and delete the stream"
        );
        found.push(Finding::new(pool, "MessagesQuarantined", what));
    }
    if reply_lists > FEW_LISTS {
        let what = format!(
            "{reply_lists} lists of replies to remote control do not expire: of clients such as Flower or `celery inspect` that have \
             gone. Delete the keys *.reply.celery.pidbox that no client waits for"
        );
        found.push(Finding::new(pool, "ReplyListsOrphaned", what));
    }
    found
}

/// What names an object in a finding.
pub fn named(kind: &str, object: &impl kube::Resource) -> String {
    let name = object.meta().name.clone().unwrap_or_default();
    match &object.meta().namespace {
        Some(namespace) => format!("{kind}/{namespace}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

/// A pool: what its conditions say. Those of types that this version does not know are told, too.
pub fn pool(pool: &DynamicObject, now: Timestamp) -> Vec<Finding> {
    let object = named("crewworkerpool", pool);
    let conditions = pool.data.pointer("/status/conditions").and_then(Value::as_array);
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let mut found: Vec<Finding> = Vec::new();
    for condition in conditions.into_iter().flatten() {
        let (type_, status) = (text(condition, "type"), text(condition, "status"));
        let is_wrong = if GOOD.contains(&type_.as_str()) { status == "False" } else { status == "True" };
        // Where Redis is the problem, two conditions say so.
        if is_wrong && !found.iter().any(|known| known.reason == text(condition, "reason")) {
            let what = format!("{type_}: {}", text(condition, "message"));
            found.push(Finding::new(object.as_str(), &text(condition, "reason"), what));
        }
    }
    if is_unseen(pool, now) {
        found.push(not_seen(object, "the pool"));
    }
    found
}

/// Whether jobs can be enqueued in a pool. Where they cannot, there is a finding that says why.
pub fn is_ready(pool: &DynamicObject) -> bool {
    let conditions = pool.data.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn not_seen(object: String, what: &str) -> Finding {
    let what = format!(
        "no operator has looked at {what}: see that one runs, leads, and watches this namespace \
         (operator.poolNamespaces of the chart)"
    );
    Finding::new(object, "NotSeen", what)
}

fn is_unseen(object: &DynamicObject, now: Timestamp) -> bool {
    let seen = object.data.pointer("/status/observedGeneration").and_then(Value::as_i64).unwrap_or_default();
    seen == 0 && view::age(object, now).is_some_and(|age| age > SEEN_WITHIN)
}

/// Unfinished jobs that wait for something, counted by reason while they are listed.
#[derive(Debug, Default)]
pub struct Waiting {
    by_reason: BTreeMap<String, (usize, Vec<String>, String)>,
    unseen: (usize, Option<String>),
}

impl Waiting {
    /// Adds a job.
    pub fn add(&mut self, job: &DynamicObject, now: Timestamp) {
        if view::end(job).is_some() {
            return;
        }
        let name = format!("{}/{}", job.namespace().unwrap_or_default(), job.name_any());
        if is_unseen(job, now) {
            self.unseen.0 += 1;
            self.unseen.1.get_or_insert(name);
        } else if OF_THE_JOB.contains(&view::reason(job)) {
            let (count, names, message) = self.by_reason.entry(view::reason(job).to_owned()).or_default();
            *count += 1;
            if names.len() < NAMED {
                names.push(name);
            }
            if message.is_empty() {
                view::message(job).clone_into(message);
            }
        }
    }

    /// What is to be said of them.
    pub fn findings(self) -> Vec<Finding> {
        let mut found: Vec<Finding> = Vec::new();
        for (reason, (count, names, message)) in self.by_reason {
            let more = if count > names.len() { format!(" and {} more", count - names.len()) } else { String::new() };
            let what = format!("{count} jobs wait, {}{more}: {message}", names.join(", "));
            found.push(Finding::new("crewjobs", &reason, what));
        }
        if let (count, Some(first)) = self.unseen {
            found.push(not_seen("crewjobs".to_owned(), &format!("{count} jobs, such as {first}")));
        }
        found
    }
}

/// An operator, and the Lease by which it leads.
pub fn operator(deployment: &Deployment, lease: Option<&Lease>, now: Timestamp) -> Vec<Finding> {
    let object = named("deployment", deployment);
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let available = deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    let mut found = Vec::new();
    if wanted == 0 {
        found.push(Finding::new(
            object.as_str(),
            "OperatorNotAvailable",
            "it is scaled to 0: kubectl scale it to 1 or more",
        ));
    } else if available < wanted {
        let what = format!("{available} of {wanted} replicas are available; see: kubectl describe {object}");
        found.push(Finding::new(object.as_str(), "OperatorNotAvailable", what));
    }
    let held = lease.and_then(|lease| lease.spec.as_ref()).and_then(|spec| {
        spec.holder_identity.as_ref().filter(|holder| !holder.is_empty())?;
        let renewed = spec.renew_time.as_ref()?.0;
        let lasts = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
        Some(Duration::try_from(now.duration_since(renewed)).unwrap_or_default() <= Duration::from_secs(lasts) * 2)
    });
    if held != Some(true) {
        let what = "no replica holds the Lease: nothing is enqueued or followed; see the log of the operator";
        found.push(Finding::new(object, "NoLeader", what));
    }
    found
}

/// The Deployment of workers.
pub fn workers(deployment: &Deployment) -> Vec<Finding> {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let mut found = Vec::new();
    for container in pod.iter().flat_map(|pod| &pod.containers) {
        let command: Vec<&str> =
            container.command.iter().flatten().chain(container.args.iter().flatten()).map(String::as_str).collect();
        let Some((program, arguments)) = command.split_first() else { continue };
        let program = program.rsplit('/').next().unwrap_or_default();
        let script = arguments.iter().find(|argument| !argument.starts_with('-')).copied().unwrap_or_default();
        let last = script.rsplit([';', '&', '\n']).map(str::trim).find(|part| !part.is_empty()).unwrap_or_default();
        if SHELLS.contains(&program)
            && arguments.iter().any(|it| it.starts_with('-') && it.contains('c'))
            && !last.starts_with("exec ")
        {
            let what = format!(
                "the first process of the container {} is {program}, which passes no signal on: workers are killed in the \
                 middle of their tasks. Write `exec` before the last command",
                container.name
            );
            found.push(Finding::new(named("deployment", deployment), "ShellTakesSignals", what));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn object<T: DeserializeOwned>(name: &str, more: &Value) -> T {
        let mut all = json!({
            "metadata": { "namespace": "team", "name": name, "creationTimestamp": at(0).to_string() },
        });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn words(found: &[Finding]) -> Vec<&str> {
        found.iter().map(|it| it.reason.as_str()).collect()
    }

    fn said(found: &[(&str, &str, &str)]) -> Value {
        let conditions: Vec<Value> = found
            .iter()
            .map(
                |(type_, status, reason)| json!({ "type": type_, "status": status, "reason": reason, "message": "so" }),
            )
            .collect();
        json!({ "status": { "observedGeneration": 1, "conditions": conditions } })
    }

    #[test]
    fn a_pool_that_is_well_gives_no_finding_and_each_bad_condition_one() {
        let fine = said(&[("Ready", "True", "AsExpected"), ("QueuesShared", "False", "AsExpected")]);
        assert_eq!(pool(&object("default", &fine), at(0)), []);
        let down = said(&[("BrokerReachable", "False", "BrokerUnreachable"), ("Ready", "False", "BrokerUnreachable")]);
        let found = pool(&object("default", &down), at(0));
        assert_eq!(words(&found), ["BrokerUnreachable"], "once");
        assert_eq!(
            (found[0].object.as_str(), found[0].what.as_str()),
            ("crewworkerpool/team/default", "BrokerReachable: so")
        );
        let many = said(&[
            ("BrokerEvictsKeys", "True", "KeysMayBeEvicted"),
            ("QueuesShared", "True", "QueuesShared"),
            ("WorkersMisconfigured", "True", "EventsOff"),
            ("WorkersStalled", "True", "NoWorkerTakes"),
            ("SomethingNewer", "True", "OfANewerVersion"),
            ("WorkersUnattributed", "Unknown", "Unknown"),
        ]);
        let expected = ["KeysMayBeEvicted", "QueuesShared", "EventsOff", "NoWorkerTakes", "OfANewerVersion"];
        assert_eq!(words(&pool(&object("default", &many), at(0))), expected);
    }

    #[test]
    fn a_pool_that_no_operator_looks_at_is_found_after_a_minute() {
        let new: DynamicObject = object("default", &json!({}));
        assert_eq!(words(&pool(&new, at(59))), Vec::<&str>::new());
        assert_eq!(words(&pool(&new, at(61))), ["NotSeen"]);
    }

    #[test]
    fn jobs_are_counted_by_what_they_wait_for() {
        let waits = |reason: &str| {
            let condition = json!({ "type": "Reconciling", "status": "True", "reason": reason, "message": "so" });
            json!({ "status": { "phase": "Pending", "observedGeneration": 1, "conditions": [condition] } })
        };
        let mut waiting = Waiting::default();
        for n in 0..5 {
            waiting.add(&object(&format!("lost-{n}"), &waits("PoolNotFound")), at(0));
        }
        waiting.add(&object("fine", &waits("Enqueued")), at(0));
        waiting.add(&object("held", &waits("Suspended")), at(0));
        waiting.add(&object("of-the-pool", &waits("BrokerUnreachable")), at(0));
        waiting.add(&object("over", &json!({ "status": { "phase": "Failed" } })), at(100));
        waiting.add(&object("unseen", &json!({})), at(100));
        let found = waiting.findings();
        assert_eq!(words(&found), ["PoolNotFound", "NotSeen"]);
        assert_eq!(found[0].what, "5 jobs wait, team/lost-0, team/lost-1, team/lost-2 and 2 more: so");
        assert!(found[1].what.contains("1 jobs, such as team/unseen"), "{}", found[1].what);
    }

    #[test]
    fn an_operator_has_to_be_available_and_to_lead() {
        let deployment = |replicas: i32, available: i32| {
            let spec = json!({ "replicas": replicas, "selector": {}, "template": {} });
            object::<Deployment>("operator", &json!({ "spec": spec, "status": { "availableReplicas": available } }))
        };
        let lease = |holder: &str, renewed: i64| {
            let renewed = format!("{:.6}", at(renewed));
            let spec = json!({ "holderIdentity": holder, "leaseDurationSeconds": 7, "renewTime": renewed });
            object::<Lease>("operator", &json!({ "spec": spec }))
        };
        let of = |deployment: &Deployment, lease: Option<&Lease>| {
            operator(deployment, lease, at(100)).into_iter().map(|it| it.reason).collect::<Vec<_>>()
        };
        assert_eq!(of(&deployment(2, 2), Some(&lease("one", 95))), Vec::<String>::new());
        assert_eq!(of(&deployment(2, 1), Some(&lease("one", 95))), ["OperatorNotAvailable"]);
        assert_eq!(of(&deployment(0, 0), None), ["OperatorNotAvailable", "NoLeader"]);
        assert_eq!(of(&deployment(2, 2), Some(&lease("one", 80))), ["NoLeader"]);
        assert_eq!(of(&deployment(2, 2), Some(&lease("", 99))), ["NoLeader"]);
    }

    #[test]
    fn a_shell_as_first_process_is_found_unless_it_gives_its_place_away() {
        let of = |command: &[&str], args: &[&str]| {
            let container = json!({ "name": "worker", "command": command, "args": args });
            let template = json!({ "spec": { "containers": [container] } });
            let deployment: Deployment = object("worker", &json!({ "spec": { "selector": {}, "template": template } }));
            words(&workers(&deployment)).len()
        };
        assert_eq!(of(&["sh", "-c"], &["celery -A app worker"]), 1);
        assert_eq!(of(&["/bin/bash", "-ec", "migrate && celery -A app worker"], &[]), 1);
        assert_eq!(of(&["sh", "-c", "exec celery -A app worker"], &[]), 0);
        assert_eq!(of(&["sh", "-c", "migrate; exec celery -A app worker\n"], &[]), 0);
        assert_eq!(of(&["celery"], &["-A", "app", "worker"]), 0);
        assert_eq!(of(&["sh", "/entrypoint.sh"], &[]), 0, "what it does is not known");
        assert_eq!(of(&[], &[]), 0);
    }

    #[test]
    fn a_server_is_a_finding_when_it_is_nearly_full_or_has_what_does_not_belong_there() {
        let reasons = |vitals: Vitals| {
            let found = server("crewworkerpool/team/default", &vitals, "crewjob-quarantine");
            found.into_iter().map(|finding| finding.reason).collect::<Vec<_>>()
        };
        let fine = Vitals { used: 79, maxmemory: 100, quarantined: 0, reply_lists: 100 };
        assert!(reasons(fine.clone()).is_empty());
        assert!(reasons(Vitals { used: u64::MAX, maxmemory: 0, ..fine.clone() }).is_empty(), "there is no limit");
        assert_eq!(reasons(Vitals { used: 80, ..fine.clone() }), ["RedisNearlyFull"]);
        assert_eq!(reasons(Vitals { quarantined: 1, ..fine.clone() }), ["MessagesQuarantined"]);
        assert_eq!(reasons(Vitals { reply_lists: 101, ..fine }), ["ReplyListsOrphaned"]);
    }
}
